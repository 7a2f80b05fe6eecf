package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/spf13/cobra"

	"github.com/webfabric/weft"
	"github.com/webfabric/weft/relay/server"
	"github.com/webfabric/weft/relay/store"
	"github.com/webfabric/weft/shared/identity"
)

// relayer is the command line of `weft relay`.
type relayer struct {
	listen, data         string
	stun                 string
	publishers, origins  []string
	relays               []string
	swarm                []string
	domain, email        string
	publicURL            string
	withoutDemo, verbose bool
}

func relayCommand() *cobra.Command {
	var r relayer
	cmd := &cobra.Command{
		Use:   "relay",
		Short: "Run a relay: the one server that a site's visitors need",
		Long: `Run a relay. It serves the pages and what was published over HTTP, lets tabs and
native peers connect, and keeps what authorised publishers ask it to. It prints
its URL when it is ready, and ends on SIGINT or SIGTERM, after the requests at
work; a second signal ends it at once.

'weft publish', run by the same user on the same machine, may publish without
being named here.`,
		Example: `  weft relay
  weft relay --listen 0.0.0.0:80 --allow-publisher 12D3KooW…
  weft relay --domain site.example --email me@site.example   # HTTPS on 443
  weft relay --domain r2.example --allow-origin https://site.example   # a second relay of that site,
  weft relay --domain site.example --relay https://r2.example          # which the first one names`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if r.domain != "" && !cmd.Flags().Changed("listen") {
				r.listen = ":443"
			}
			return r.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&r.listen, "listen", "127.0.0.1:8787", "`host:port` of HTTP; port 0 takes a free one (with --domain: \":443\")")
	dataFlag(cmd, &r.data, "relay")
	f.StringArrayVar(&r.publishers, "allow-publisher", nil, "`key`, as 'weft id' prints it, whose content the relay keeps; repeatable")
	f.StringArrayVar(&r.origins, "allow-origin", nil, "`origin` of pages hosted elsewhere that may connect, * for all; repeatable (default: the relay's own)")
	f.StringArrayVar(&r.relays, "relay", nil, "`URL` of another relay of the site, or its WebSocket multiaddr with /p2p/ID, which visitors connect to as well; repeatable")
	f.StringArrayVar(&r.swarm, "swarm", nil, "`multiaddr` for native peers, TCP or QUIC; repeatable (default: port 4001 of the host of --listen, any free port if that is loopback)")
	f.StringVar(&r.stun, "stun", "", "`host:port` on UDP to answer STUN at, by which visitors behind NATs meet, or \"off\" (default: that of --listen, if it is free)")
	f.StringVar(&r.domain, "domain", "", "`name` to get a certificate for, and to serve by HTTPS")
	f.StringVar(&r.email, "email", "", "`address` that the certificate's issuer may write to")
	f.StringVar(&r.publicURL, "public-url", "", "`URL` that visitors type, where a proxy in front changes it (default: that of each request)")
	f.BoolVar(&r.withoutDemo, "no-demo", false, "do not publish the example that the start page imports")
	f.BoolVarP(&r.verbose, "verbose", "v", false, "log every message")
	return cmd
}

// config checks the flags: what cannot be right is a usage error.
func (r *relayer) config() (server.Config, error) {
	dir, err := roleDir(r.data, "relay")
	if err != nil {
		return server.Config{}, err
	}
	cfg := server.Config{
		Dir: dir, Listen: r.listen, Swarm: r.swarm, PublicURL: r.publicURL, STUN: r.stun,
		Domain: r.domain, Email: r.email, AllowOrigins: r.origins, Relays: r.relays, Assets: weft.Assets(),
	}
	if _, port, err := net.SplitHostPort(r.listen); err != nil {
		return cfg, usagef("--listen %q is no host:port", r.listen)
	} else if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return cfg, usagef("--listen %q: %q is no port", r.listen, port)
	}
	if r.stun != "" && r.stun != "off" {
		if _, port, err := net.SplitHostPort(r.stun); err != nil {
			return cfg, usagef("--stun %q is no host:port, nor off", r.stun)
		} else if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return cfg, usagef("--stun %q: %q is no port", r.stun, port)
		}
	}
	for _, s := range r.publishers {
		id, err := peer.Decode(s)
		if err != nil {
			return cfg, usagef("--allow-publisher %q is no key: run `weft id` where you publish from", s)
		}
		cfg.Publishers = append(cfg.Publishers, id)
	}
	for _, s := range r.swarm {
		if _, err := multiaddr.NewMultiaddr(s); err != nil {
			return cfg, usagef("--swarm %q is no multiaddr: want /ip4/0.0.0.0/tcp/4001 or /ip4/0.0.0.0/udp/4001/quic-v1", s)
		}
	}
	for _, s := range r.relays {
		if !strings.HasPrefix(s, "/") {
			if _, err := findRelay(s); err != nil {
				return cfg, err
			}
		} else if _, err := multiaddr.NewMultiaddr(s); err != nil {
			return cfg, usagef("--relay %q is no multiaddr: want /dns4/HOST/tcp/443/tls/ws/p2p/ID", s)
		}
	}
	if r.email != "" && r.domain == "" {
		return cfg, usagef("--email is for the certificate of --domain, which is missing")
	}
	if err := cfg.Check(); err != nil {
		return cfg, &usageError{err}
	}
	if !r.withoutDemo {
		cfg.Demo = weft.Demo()
	}
	return cfg, nil
}

func (r *relayer) run(ctx context.Context, stdout, stderr io.Writer) error {
	cfg, err := r.config()
	if err != nil {
		return err
	}
	level := slog.LevelInfo
	if r.verbose {
		level = slog.LevelDebug
	}
	cfg.Log = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))

	// This user may publish: whoever can read the key could change our flags too.
	own, err := roleDir("", "publisher")
	if err != nil {
		return err
	}
	key, err := store.Key(own)
	if err != nil {
		return err
	}
	id, err := identity.ID(key)
	if err != nil {
		return err
	}
	cfg.Publishers = append(cfg.Publishers, id)

	s, err := server.New(ctx, cfg)
	if errors.Is(err, store.ErrLocked) {
		return fmt.Errorf("another relay is using %s: stop it, or give this one a directory of its own with --data: %w", filepath.Clean(cfg.Dir), err)
	}
	if err != nil {
		return err
	}
	gone, err := announce(running{URL: s.URL(), PeerID: s.ID(), PID: os.Getpid()})
	if err != nil {
		// It works without, but publish will want --relay.
		cfg.Log.Warn("the relay cannot be found without --relay", "err", err)
		gone = func() {}
	}
	fmt.Fprintln(stdout, s.URL())
	err = s.Serve(ctx)
	gone()
	return err
}
