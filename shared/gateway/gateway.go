// Package gateway answers requests for /ipfs/<cid>/… from a node's blocks: the
// tab's half of the one URL space that relay/server answers with boxo's
// gateway. The two are held to the same behaviour by tests.
package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"

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

// A Request is what the gateway needs of one.
type Request struct {
	Method     string
	Path       string // as in the URL, still percent-encoded: /ipfs/<cid>/a%20b
	RawQuery   string // without the question mark
	Header     http.Header
	Navigation bool // mode "navigate", or destination document, iframe, frame, embed or object
}

// A Response answers a Request.
type Response struct {
	Status int
	Header http.Header
	Body   io.ReadCloser // nil if there is none; Close cancels what is still being fetched
	Size   int64         // of Body, in bytes, as Content-Length says
}

// Gateway answers requests. It is safe for concurrent use.
type Gateway struct {
	src   Source
	owner func(cid.Cid) bool
}

// An Option changes a Gateway.
type Option func(*Gateway)

// WithOwner tells which roots the origin's owner has published; the default is
// none. owner must be quick and safe for concurrent use.
func WithOwner(owner func(root cid.Cid) bool) Option {
	return func(g *Gateway) { g.owner = owner }
}

// New returns a gateway over src; Close it.
func New(src Source, opts ...Option) *Gateway {
	g := &Gateway{src: src, owner: func(cid.Cid) bool { return false }}
	for _, o := range opts {
		o(g)
	}
	return g
}

// Close ends what runs in the background and waits for it.
func (g *Gateway) Close() error { return nil }

// Serve answers r. It never returns nil and never panics; an error is a
// response too. The work ends with ctx or when the body is closed.
func (g *Gateway) Serve(ctx context.Context, r Request) *Response {
	return &Response{Status: http.StatusNotImplemented, Header: http.Header{}}
}
