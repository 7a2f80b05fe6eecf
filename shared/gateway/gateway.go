// Package gateway answers requests for /ipfs/<cid>/… from a node's blocks: the
// tab's half of the one URL space that relay/server answers with boxo's
// gateway. The two are held to the same behaviour by tests.
//
// What a caller may rely on: status 200 is given when the first block has
// arrived and decoded; a body that ends without error has every byte; nothing
// of a block that fails verification is delivered; a document under a root
// that the origin's owner has not published never runs on the origin. A
// response holds at most 8 MiB of blocks that have not been read.
//
// The neighbours: shared/content resolves and reads, wasm/swfetch makes
// requests of fetch events, relay/server uses the pages and types here.
package gateway

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/go-cid"

	"github.com/webfabric/weft/shared/content"
)

// JoinLine is appended to an owner's HTML on navigations: it makes the page
// join the fabric.
const JoinLine = "\n<script type=\"module\" src=\"/join.js\"></script>\n"

// ErrNoProvider means that nobody who could be reached gave a block in time.
// Getters wrap it; the gateway answers 504.
var ErrNoProvider = errors.New("gateway: no provider answered in time")

// Source is where blocks come from.
type Source interface {
	// Session returns a getter whose fetches belong together until ctx ends.
	Session(ctx context.Context) content.Getter
	// Has tells whether a block is held here, so that it need not be fetched.
	Has(ctx context.Context, c cid.Cid) (bool, error)
}

// FromBlockService makes a Source of boxo's block service.
func FromBlockService(bs blockservice.BlockService) Source { return serviceSource{bs} }

type serviceSource struct{ bs blockservice.BlockService }

func (s serviceSource) Session(ctx context.Context) content.Getter {
	return blockservice.NewSession(ctx, s.bs)
}

func (s serviceSource) Has(ctx context.Context, c cid.Cid) (bool, error) {
	return s.bs.Blockstore().Has(ctx, c)
}

// A Request is what the gateway needs of one. The zero Method is GET.
type Request struct {
	Method     string
	Path       string      // as in the URL, still percent-encoded: /ipfs/<cid>/a%20b
	RawQuery   string      // without the question mark
	Header     http.Header // keys in canonical form
	Navigation bool        // mode "navigate", or destination document, iframe, frame, embed or object
	Host       string      // of the URL, for pages to mention; may be empty
}

// A Response answers a [Request].
type Response struct {
	Status int
	Header http.Header
	// Body is nil if there is none. A read that fails means that the rest could
	// not be had or did not verify; what was read until then is right. Close
	// cancels what is still being fetched and waits until that has ended; it may
	// run beside a read. The body is an io.WriterTo, which saves a copy.
	Body io.ReadCloser
	Size int64 // of the body, in bytes, as Content-Length says; for HEAD, of what GET would have
}

// Gateway answers requests. It is safe for concurrent use.
type Gateway struct {
	src      Source
	owner    func(cid.Cid) bool
	log      *slog.Logger
	patience time.Duration
	idle     time.Duration
	cache    *content.Cache

	// background is what sessions live under, until Close.
	background func() context.Context
	cancel     context.CancelFunc
	tasks      sync.WaitGroup

	mu       sync.Mutex // guards what follows, and sessions' users, used and expiry
	sessions map[string]*session
	closed   bool
}

// An Option changes a [Gateway].
type Option func(*Gateway)

// WithOwner tells which roots the origin's owner has published; the default is
// none. owner must be quick and safe for concurrent use.
func WithOwner(owner func(root cid.Cid) bool) Option {
	return func(g *Gateway) { g.owner = owner }
}

// WithPatience sets how long a block may be awaited while no other block of
// the same root arrives either; then it is given up with [ErrNoProvider]. The
// default is 30 seconds; 0 is for ever, for a source that gives up by itself
// and knows better when, as shared/node's does.
func WithPatience(d time.Duration) Option { return func(g *Gateway) { g.patience = d } }

// WithLogger sets where the gateway logs; the default is nowhere.
func WithLogger(log *slog.Logger) Option { return func(g *Gateway) { g.log = log } }

// New returns a gateway over src; Close it.
func New(src Source, opts ...Option) *Gateway {
	ctx, cancel := context.WithCancel(context.Background())
	g := &Gateway{
		src:        src,
		owner:      func(cid.Cid) bool { return false },
		log:        slog.New(slog.DiscardHandler),
		patience:   30 * time.Second,
		idle:       30 * time.Second,
		cache:      content.NewCache(cacheBytes),
		background: func() context.Context { return ctx },
		cancel:     cancel,
		sessions:   make(map[string]*session),
	}
	for _, o := range opts {
		o(g)
	}
	return g
}

// Close ends every session and what runs in the background, and waits for it.
// Bodies that are still being read fail.
func (g *Gateway) Close() error {
	g.mu.Lock()
	g.closed = true
	for _, s := range g.sessions {
		g.forget(s)
	}
	g.mu.Unlock()
	g.cancel()
	g.tasks.Wait()
	return nil
}
