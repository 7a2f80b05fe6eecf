// Package server is the relay: one HTTP listener and one libp2p host, through
// which the visitors of a site find the site and each other.
//
// The HTTP server is the relay's own. It serves the pages and the node
// (Config.Assets), /ipfs/… by boxo's gateway under the rules of
// shared/gateway, the API below /weft/, /healthz and /metrics, and it hands
// WebSocket upgrades at / to libp2p. The libp2p host listens on that, TCP and
// QUIC, relays circuits, and speaks Bitswap: it serves what is kept
// (relay/store), and looks for what tabs want of it at the peers it is
// connected to.
//
// Only a key that Config.Publishers names makes the relay keep anything
// (relay/auth). [New] returns a relay that is working; [Server.Close] drains it.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/webfabric/weft/relay/auth"
	"github.com/webfabric/weft/relay/store"
	"github.com/webfabric/weft/shared/bcin"
	"github.com/webfabric/weft/shared/owner"
)

// Limits of the HTTP server against slow and greedy clients.
const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute
	bodyTimeout       = 30 * time.Second // for the whole body of a request
	writeTimeout      = time.Minute      // for the client to take what was written, not for the whole response
	maxHeader         = 32 << 10         // bytes
	maxBody           = 64 << 10         // bytes, of the API's requests
	defaultRetrieval  = 30 * time.Second
	defaultCache      = 128 << 20 // bytes
	defaultSwarmPort  = 4001
)

// Config says what a relay is to be. Dir is required, and Assets for a site
// to be there.
type Config struct {
	Dir    string // of the store and the key; made where there is none
	Listen string // host:port of HTTP, "127.0.0.1:8787" if empty; port 0 takes a free one
	// Swarm are the TCP and QUIC addresses. Empty means the host of Listen:
	// port 4001 for others to reach, or any free port on a loopback address.
	Swarm []string
	// PublicURL is what visitors type, where a proxy in front changes it:
	// "https://example.org". Empty means that of each request.
	PublicURL string
	// STUN is the host:port on UDP where STUN is answered, "off" for none.
	// Empty means that of Listen, if it is free.
	STUN string
	// Domain makes the relay get a certificate for it by ACME and speak HTTPS.
	Domain string
	Email  string // for the certificate's issuer
	ACME   ACME   // another issuer than Let's Encrypt

	Publishers   []peer.ID // whose requests to keep content are obeyed
	AllowOrigins []string  // beside the relay's own; "*" is every one
	// Relays are the site's other relays, which visitors are told of: URLs, or
	// WebSocket multiaddrs with a peer ID. This one among them is left out.
	Relays []string

	Assets fs.FS // the pages, by the path they are asked under; see package weft
	Demo   fs.FS // published as a first root; nil for none

	// Retrieval is how long to look for a block: for the gateway, and while a
	// publish makes no progress. 0 means 30 s.
	Retrieval time.Duration
	Cache     int64          // bytes of passing blocks held in memory; 0 means 128 MiB
	Log       *slog.Logger   // nil discards
	Key       crypto.PrivKey // nil means that of Dir

	// writeTimeout is shortened by tests.
	writeTimeout time.Duration
}

// Check tells what of c can never be right: the domain, the public URL, an
// allowed origin. [New] checks it too.
func (c Config) Check() error {
	if c.Domain != "" && (len(c.Domain) > 253 || !dnsName.MatchString(c.Domain)) {
		return fmt.Errorf("server: domain %q: want a name like fabric.example", c.Domain)
	}
	public, err := publicURL(c)
	if err != nil {
		return err
	}
	_, err = newOrigins(c.AllowOrigins, public)
	return err
}

// Server is a running relay.
type Server struct {
	cfg     Config
	log     *slog.Logger
	key     crypto.PrivKey
	id      peer.ID
	started time.Time
	public  *url.URL // nil: by request

	store    *store.Store
	blocks   *tiered
	metrics  *metrics
	host     host.Host
	circuit  *circuit.Relay
	bcin     *bcin.Server
	bitswap  *bitswap.Bitswap
	service  blockservice.BlockService
	forward  *forwarder
	verifier auth.Verifier
	allowed  sync.Map // peer.ID → struct{}

	listener net.Listener
	stun     *net.UDPConn // nil for none
	upgrades *upgrades
	tls      *tls.Config
	redirect *http.Server // on port 80, with Domain
	http     *http.Server
	static   *static
	gateway  http.Handler
	origins  origins
	others   *others
	demo     cid.Cid

	list     atomic.Pointer[ownerList]
	listMu   sync.Mutex    // held while the store's roots and list change together
	slots    chan struct{} // publishes at work
	draining atomic.Bool

	stop   context.CancelFunc // ends what runs in the background
	work   sync.WaitGroup
	failed chan error // the HTTP server's end, before Close
	closed sync.Once
	closeE error
}

// ownerList is the list of the owner's roots as it is told.
type ownerList struct {
	roots  owner.Roots
	keys   map[rootKey]bool
	sealed []byte
}

type rootKey struct {
	codec uint64
	hash  string
}

func keyOf(c cid.Cid) rootKey { return rootKey{c.Type(), string(c.Hash())} }

func (l *ownerList) has(c cid.Cid) bool { return l.keys[keyOf(c)] }

// New starts a relay. ctx bounds the start only.
func New(ctx context.Context, cfg Config) (_ *Server, err error) {
	s := &Server{cfg: cfg, log: cfg.Log, started: time.Now(), metrics: newMetrics(), slots: make(chan struct{}, maxPublishes), failed: make(chan error, 2)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.cfg.Retrieval <= 0 {
		s.cfg.Retrieval = defaultRetrieval
	}
	if s.cfg.Cache <= 0 {
		s.cfg.Cache = defaultCache
	}
	if s.cfg.Listen == "" {
		s.cfg.Listen = "127.0.0.1:8787"
	}
	if s.cfg.writeTimeout <= 0 {
		s.cfg.writeTimeout = writeTimeout
	}
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if s.public, err = publicURL(cfg); err != nil {
		return nil, err
	}
	if s.origins, err = newOrigins(cfg.AllowOrigins, s.public); err != nil {
		return nil, err
	}
	if s.static, err = newStatic(cfg.Assets); err != nil {
		return nil, err
	}
	if s.store, err = store.Open(cfg.Dir); err != nil {
		return nil, err
	}
	work, stop := context.WithCancel(context.Background())
	s.stop = stop
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close(context.Background()))
		}
	}()
	if s.key = cfg.Key; s.key == nil {
		if s.key, err = store.Key(cfg.Dir); err != nil {
			return nil, err
		}
	}
	if s.id, err = peer.IDFromPrivateKey(s.key); err != nil {
		return nil, fmt.Errorf("server: peer ID: %w", err)
	}
	if s.others, err = newOthers(cfg.Relays, s.id, s.store, s.log); err != nil {
		return nil, err
	}
	for _, p := range cfg.Publishers {
		s.Allow(p)
	}
	s.verifier = auth.Verifier{Relay: s.id, Allowed: s.allows, NotBefore: s.started}
	if err := s.seal(); err != nil {
		return nil, err
	}
	if err := s.startTLS(work); err != nil {
		return nil, err
	}
	if err := s.startHost(work); err != nil {
		return nil, err
	}
	if err := s.startSTUN(work); err != nil {
		return nil, err
	}
	if s.gateway, err = s.newGateway(); err != nil {
		return nil, err
	}
	if cfg.Demo != nil {
		if err := s.publishDemo(ctx); err != nil {
			return nil, err
		}
	}
	s.work.Go(func() { s.others.run(work) })
	s.startHTTP()
	s.log.Info("relay started", "url", s.URL(), "peer", s.id, "addrs", s.Addrs(), "roots", len(s.store.Roots()))
	return s, nil
}

func (s *Server) startHost(ctx context.Context) error {
	var err error
	if s.listener, err = net.Listen("tcp", s.cfg.Listen); err != nil {
		return fmt.Errorf("server: %w", err)
	}
	addr, err := manet.FromNetAddr(s.listener.Addr())
	if err != nil {
		return fmt.Errorf("server: %w", err)
	}
	s.upgrades = newUpgrades(addr.AppendComponent(wsSuffix(s.tls != nil)...), s.listener.Addr())
	swarm, err := s.swarmAddrs(addr)
	if err != nil {
		return err
	}
	var announce []ma.Multiaddr
	if s.public != nil {
		a, err := relayAddr(s.public.Host, s.public.Scheme == "https", s.upgrades.addr)
		if err != nil {
			return fmt.Errorf("server: public URL: %w", err)
		}
		announce = append(announce, a)
	}
	if s.host, err = newHost(s.key, swarm, s.upgrades, announce); err != nil {
		return err
	}
	if s.circuit, err = newCircuitRelay(newCircuits(s.host, s.upgrades.origin), s.metrics); err != nil {
		return err
	}
	if err := s.startRendezvous(); err != nil {
		return err
	}
	s.blocks = &tiered{kept: s.store.Blockstore(), cache: newCache(s.cfg.Cache), seen: func(where string) { s.metrics.blockReads.WithLabelValues(where).Inc() }}
	s.forward = newForwarder(s.host, s.blocks, s.log)
	s.bitswap = startBitswap(ctx, s.host, s.blocks, s.metrics, s.forward)
	s.service = newBlockService(s.blocks, s.bitswap)
	s.forward.service = s.service
	s.work.Go(func() { s.forward.run(ctx) })
	s.metrics.watch(s.host, func() int { return len(s.store.Roots()) })
	return nil
}

// swarmAddrs are the TCP and QUIC addresses to listen on. http is that of the
// HTTP listener.
func (s *Server) swarmAddrs(http ma.Multiaddr) ([]ma.Multiaddr, error) {
	var out []ma.Multiaddr
	for _, a := range s.cfg.Swarm {
		m, err := ma.NewMultiaddr(a)
		if err != nil {
			return nil, fmt.Errorf("server: swarm address %q: %w", a, err)
		}
		out = append(out, m)
	}
	if len(out) > 0 {
		return out, nil
	}
	host, _ := ma.SplitFirst(http)
	port := defaultSwarmPort
	if manet.IsIPLoopback(http) {
		port = 0
	}
	for _, a := range []string{fmt.Sprintf("%s/tcp/%d", host, port), fmt.Sprintf("%s/udp/%d/quic-v1", host, port)} {
		m, err := ma.NewMultiaddr(a)
		if err != nil {
			return nil, fmt.Errorf("server: swarm address %q: %w", a, err)
		}
		out = append(out, m)
	}
	return out, nil
}

func (s *Server) startHTTP() {
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		TLSConfig:         s.tls,
		// What goes wrong with one client's connection is no matter for an operator.
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	s.work.Go(func() {
		var err error
		if s.tls != nil {
			err = s.http.ServeTLS(s.listener, "", "")
		} else {
			err = s.http.Serve(s.listener)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			s.failed <- fmt.Errorf("server: http: %w", err)
		}
	})
}

// URL is where a browser on this machine finds the relay, or the public one
// where it is known: no slash at the end.
func (s *Server) URL() string {
	if s.public != nil {
		return strings.TrimSuffix(s.public.String(), "/")
	}
	scheme := "http"
	if s.tls != nil {
		scheme = "https"
	}
	host, port, err := net.SplitHostPort(s.listener.Addr().String())
	if err != nil {
		return scheme + "://" + s.listener.Addr().String()
	}
	// Browsers have a secure context at localhost whatever the address is.
	if ip := net.ParseIP(host); ip != nil && (ip.IsUnspecified() || ip.Equal(net.IPv4(127, 0, 0, 1))) {
		host = "localhost"
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

// Addrs are the multiaddrs of the relay, each with its peer ID.
func (s *Server) Addrs() []ma.Multiaddr {
	addrs, err := peer.AddrInfoToP2pAddrs(&peer.AddrInfo{ID: s.id, Addrs: s.host.Addrs()})
	if err != nil {
		return nil // no ID; it has one
	}
	return addrs
}

// ID is the relay's peer ID.
func (s *Server) ID() peer.ID { return s.id }

// Host is the relay's libp2p host.
func (s *Server) Host() host.Host { return s.host }

// Demo is the root of Config.Demo, undefined without one.
func (s *Server) Demo() cid.Cid { return s.demo }

// Allow makes the relay obey p's requests to keep content.
func (s *Server) Allow(p peer.ID) { s.allowed.Store(p, struct{}{}) }

func (s *Server) allows(p peer.ID) bool {
	_, ok := s.allowed.Load(p)
	return ok
}

// Serve waits until ctx ends or the relay fails, and then closes it, giving
// requests drainTime to end.
func (s *Server) Serve(ctx context.Context) error {
	var err error
	select {
	case <-ctx.Done():
	case err = <-s.failed:
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	return errors.Join(err, s.Close(drain))
}

// drainTime is how long requests at work may go on after [Server.Serve] was
// told to end.
const drainTime = 10 * time.Second

// Close drains the relay: it takes no more requests, waits until ctx ends for
// those at work, then disconnects everyone. It may be called again.
func (s *Server) Close(ctx context.Context) error {
	s.closed.Do(func() { s.closeE = s.close(ctx) })
	return s.closeE
}

func (s *Server) close(ctx context.Context) error {
	s.draining.Store(true)
	var errs []error
	for _, h := range []*http.Server{s.redirect, s.http} {
		if h == nil {
			continue
		}
		if err := h.Shutdown(ctx); err != nil {
			s.log.Warn("requests cut off", "err", err)
			errs = append(errs, h.Close())
		}
	}
	if s.http == nil && s.listener != nil {
		errs = append(errs, s.listener.Close())
	}
	s.stop()
	if s.bitswap != nil {
		errs = append(errs, s.bitswap.Close())
	}
	if s.bcin != nil {
		errs = append(errs, s.bcin.Close())
	}
	if s.circuit != nil {
		errs = append(errs, s.circuit.Close())
	}
	if s.host != nil {
		errs = append(errs, s.host.Close())
	}
	s.work.Wait()
	errs = append(errs, s.store.Close())
	return errors.Join(errs...)
}

// seal makes the signed list anew from the store's roots.
func (s *Server) seal() error {
	roots := s.store.Roots()
	seq, changed := s.store.Seq()
	l := &ownerList{keys: make(map[rootKey]bool, len(roots))}
	l.roots = owner.Roots{Seq: seq, Issued: changed, Roots: make([]cid.Cid, len(roots))}
	if changed.IsZero() {
		l.roots.Issued = s.started
	}
	for i, r := range roots {
		l.roots.Roots[i] = r.Cid
		l.keys[keyOf(r.Cid)] = true
	}
	var err error
	if l.sealed, err = owner.Seal(l.roots, s.key); err != nil {
		return err
	}
	s.list.Store(l)
	return nil
}

// keep adds r to the owner's roots.
func (s *Server) keep(ctx context.Context, r store.Root) error {
	s.listMu.Lock()
	defer s.listMu.Unlock()
	if err := s.store.Keep(ctx, r); err != nil {
		return err
	}
	return s.seal()
}

// drop takes c off the owner's roots.
func (s *Server) drop(ctx context.Context, c cid.Cid) error {
	s.listMu.Lock()
	defer s.listMu.Unlock()
	if err := s.store.Drop(ctx, c); err != nil {
		return err
	}
	return s.seal()
}
