package server

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

// ACME names another issuer of certificates than Let's Encrypt.
type ACME struct {
	Directory string         // URL
	Roots     *x509.CertPool // to trust its server by; nil means the system's
	HTTPPort  int            // where it asks for challenges by HTTP; 0 means 80
}

// startTLS gets a certificate for Domain, or reads the one it has, and keeps
// it renewed until ctx ends.
func (s *Server) startTLS(ctx context.Context) error {
	if s.cfg.Domain == "" {
		return nil
	}
	port := s.cfg.ACME.HTTPPort
	if port == 0 {
		port = certmagic.HTTPChallengePort
	}
	var magic *certmagic.Config
	cache := certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return magic, nil },
		Logger:           zap.NewNop(),
	})
	s.work.Go(func() { <-ctx.Done(); cache.Stop() })
	magic = certmagic.New(cache, certmagic.Config{
		Storage: &certmagic.FileStorage{Path: filepath.Join(s.cfg.Dir, "tls")},
		Logger:  zap.NewNop(),
		OnEvent: func(_ context.Context, event string, data map[string]any) error {
			if event == "cert_failed" {
				s.log.Warn("no certificate", "domain", data["identifier"], "err", data["error"])
			}
			return nil
		},
	})
	template := certmagic.ACMEIssuer{
		CA: certmagic.LetsEncryptProductionCA, Email: s.cfg.Email, Agreed: true, Logger: zap.NewNop(),
		AltHTTPPort: s.cfg.ACME.HTTPPort,
	}
	if s.cfg.ACME.Directory != "" {
		template.CA, template.TestCA, template.TrustedRoots = s.cfg.ACME.Directory, s.cfg.ACME.Directory, s.cfg.ACME.Roots
	}
	issuer := certmagic.NewACMEIssuer(magic, template)
	magic.Issuers = []certmagic.Issuer{issuer}

	// Port 80 answers challenges and sends everyone else to HTTPS. Where it
	// cannot be had, the challenge by TLS on port 443 still works.
	host, _, err := net.SplitHostPort(s.cfg.Listen)
	if err != nil {
		return fmt.Errorf("server: listen address %q: %w", s.cfg.Listen, err)
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(host, fmt.Sprint(port)))
	if err != nil {
		s.log.Warn("no redirect from http", "port", port, "err", err)
	} else {
		s.redirect = &http.Server{
			Handler:           issuer.HTTPChallengeHandler(http.HandlerFunc(s.toHTTPS)),
			ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: bodyTimeout, WriteTimeout: bodyTimeout, IdleTimeout: 5 * time.Second,
			MaxHeaderBytes: maxHeader,
		}
		s.work.Go(func() {
			if err := s.redirect.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
				s.failed <- fmt.Errorf("server: http redirect: %w", err)
			}
		})
	}
	// Not awaited: the relay starts though its issuer is away, and the first
	// certificate comes while it runs.
	if err := magic.ManageAsync(ctx, []string{s.cfg.Domain}); err != nil {
		return fmt.Errorf("server: certificate for %s: %w", s.cfg.Domain, err)
	}
	s.tls = magic.TLSConfig() // with acme-tls/1
	s.tls.NextProtos = append([]string{"h2", "http/1.1"}, s.tls.NextProtos...)
	return nil
}

// toHTTPS redirects to the same path of the public URL. The host comes from
// the configuration: whoever sends another Host is not sent there.
func (s *Server) toHTTPS(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Connection", "close")
	http.Redirect(w, r, s.URL()+r.URL.RequestURI(), http.StatusMovedPermanently)
}
