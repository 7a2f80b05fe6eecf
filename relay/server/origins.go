package server

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"

	ma "github.com/multiformats/go-multiaddr"
)

// origins are those whose pages may use the relay from a browser.
type origins struct {
	every bool
	named map[string]bool
}

// newOrigins reads the configured origins: "https://example.org", or "*".
func newOrigins(allow []string, public *url.URL) (origins, error) {
	o := origins{named: make(map[string]bool)}
	if public != nil {
		o.named[originOf(public)] = true
	}
	for _, a := range allow {
		if a == "*" {
			o.every = true
			continue
		}
		u, err := url.Parse(a)
		if err != nil || u.Scheme == "" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
			return o, fmt.Errorf("server: allowed origin %q: want one like https://example.org", a)
		}
		o.named[originOf(u)] = true
	}
	return o, nil
}

// allows tells whether a page of r's origin may use the relay. A request
// without one is no page's of another origin: a native client, or same-origin.
func (o origins) allows(r *http.Request) bool {
	h := r.Header.Get("Origin")
	if h == "" || o.every {
		return true
	}
	u, err := url.Parse(h)
	if err != nil || u.Host == "" {
		return false // "null" is a sandboxed page's
	}
	return o.named[originOf(u)] || strings.EqualFold(u.Host, r.Host)
}

// originOf is u's origin without a default port.
func originOf(u *url.URL) string {
	scheme, host := strings.ToLower(u.Scheme), strings.ToLower(u.Host)
	switch scheme {
	case "http":
		host = strings.TrimSuffix(host, ":80")
	case "https":
		host = strings.TrimSuffix(host, ":443")
	}
	return scheme + "://" + host
}

// cors tells browsers what pages of other origins may do with the response,
// and answers their preflights.
func (s *Server) cors(w http.ResponseWriter, r *http.Request) (answered bool) {
	origin := r.Header.Get("Origin")
	// Also without one: a cache must not give that answer to a page.
	w.Header().Add("Vary", "Origin")
	if origin != "" && s.origins.allows(r) {
		w.Header().Set("Access-Control-Allow-Origin", origin)
		w.Header().Set("Access-Control-Expose-Headers", "Content-Length, Content-Range, ETag, X-Ipfs-Path, X-Ipfs-Roots")
	}
	if r.Method != http.MethodOptions {
		return false
	}
	if origin != "" && s.origins.allows(r) {
		w.Header().Set("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
		w.Header().Set("Access-Control-Allow-Headers", "Accept, Range, If-None-Match, Cache-Control")
		w.Header().Set("Access-Control-Max-Age", "86400")
	}
	w.Header().Set("Allow", "GET, HEAD, OPTIONS")
	w.WriteHeader(http.StatusNoContent)
	return true
}

// publicURL is the URL that Config says visitors use, nil if it says none.
func publicURL(cfg Config) (*url.URL, error) {
	text := cfg.PublicURL
	if text == "" && cfg.Domain != "" {
		text = "https://" + cfg.Domain
		if _, port, err := net.SplitHostPort(cfg.Listen); err == nil && port != "443" && port != "0" {
			text += ":" + port
		}
	}
	if text == "" {
		return nil, nil
	}
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return nil, fmt.Errorf("server: public URL %q: want one like https://example.org", text)
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

// dnsName is what a Host header may be beside an IP address.
var dnsName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$`)

// relayAddr is the WebSocket multiaddr at hostport, or fallback where that
// cannot be one.
func relayAddr(hostport string, secure bool, fallback ma.Multiaddr) (ma.Multiaddr, error) {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		host, port = strings.Trim(hostport, "[]"), "80"
		if secure {
			port = "443"
		}
	}
	suffix := "/ws"
	if secure {
		suffix = "/tls/ws"
	}
	switch ip, err := netip.ParseAddr(host); {
	case err == nil && ip.Zone() != "":
		return fallback, nil
	case err == nil && ip.Is4():
		return ma.NewMultiaddr("/ip4/" + host + "/tcp/" + port + suffix)
	case err == nil:
		return ma.NewMultiaddr("/ip6/" + host + "/tcp/" + port + suffix)
	case len(host) <= 253 && dnsName.MatchString(host):
		return ma.NewMultiaddr("/dns4/" + strings.ToLower(host) + "/tcp/" + port + suffix)
	}
	return fallback, nil
}
