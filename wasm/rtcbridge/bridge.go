//go:build js && wasm

package rtcbridge

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"syscall/js"
	"time"

	"github.com/webfabric/weft/shared/webrtc"
)

const (
	// maxChannels is how many channels of one connection are open that this
	// side opened: Chromium has 1,024 SCTP streams (kMaxSctpStreams), half of
	// them each side's, and one is the init channel's.
	maxChannels = 510
	// pageWait is how long New waits for a page: another one takes over sooner.
	pageWait = 3 * time.Second
	// eventCost is what an event counts for beside its data, in bytes; web/rtc.js
	// has the same.
	eventCost = 128
	// tookEvery is after how many bytes the page is told that they were taken.
	tookEvery = 1 << 20
)

// A Bridge makes peer connections in whatever page hosts them.
type Bridge struct {
	stun func() []string
	log  *slog.Logger

	mu      sync.Mutex
	page    *page         // nil while there is none
	changed chan struct{} // closed and replaced with page
	conns   int
}

var _ webrtc.Engine = (*Bridge)(nil)

// An Option changes how a Bridge works.
type Option func(*Bridge)

// WithSTUN sets who tells the STUN servers, as URLs; the default is none.
func WithSTUN(servers func() []string) Option { return func(b *Bridge) { b.stun = servers } }

// WithLogger sets the logger; the default is slog.DiscardHandler.
func WithLogger(log *slog.Logger) Option { return func(b *Bridge) { b.log = log } }

// New returns a bridge that leads nowhere until Attach.
func New(opts ...Option) *Bridge {
	b := &Bridge{
		stun:    func() []string { return nil },
		log:     slog.New(slog.DiscardHandler),
		changed: make(chan struct{}),
	}
	for _, o := range opts {
		o(b)
	}
	return b
}

// Attach takes the line to the page that hosts connections from now on, a
// MessagePort; null if there is none any more. The connections of the page
// before end.
func (b *Bridge) Attach(port js.Value) {
	var next *page
	if port.Type() == js.TypeObject {
		next = newPage(port, b.log)
	}
	b.mu.Lock()
	last := b.page
	b.page = next
	close(b.changed)
	b.changed = make(chan struct{})
	b.mu.Unlock()
	if last != nil {
		last.end(ErrPageGone)
	}
}

// Close ends every connection.
func (b *Bridge) Close() error {
	b.Attach(js.Null())
	return nil
}

// New makes a peer connection. Its error wraps [ErrNoPage], [ErrPageGone],
// [ErrTooMany] or [ErrRefused], or is ctx's.
func (b *Bridge) New(ctx context.Context, e webrtc.Events) (webrtc.PeerConnection, error) {
	p, err := b.waitPage(ctx)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	if b.conns >= MaxConns {
		b.mu.Unlock()
		return nil, fmt.Errorf("%w: %d", ErrTooMany, MaxConns)
	}
	b.conns++
	b.mu.Unlock()
	release := sync.OnceFunc(func() {
		b.mu.Lock()
		b.conns--
		b.mu.Unlock()
	})
	c, err := p.newConn(e, release)
	if err != nil {
		release()
		return nil, err
	}
	if _, err := p.ask(ctx, command{op: "new", pc: c.id, stun: b.stun()}); err != nil {
		c.Close()
		return nil, fmt.Errorf("rtcbridge: new connection: %w", err)
	}
	return c, nil
}

// waitPage returns the page, for which it waits a little.
func (b *Bridge) waitPage(ctx context.Context) (*page, error) {
	late := time.NewTimer(pageWait)
	defer late.Stop()
	for {
		b.mu.Lock()
		p, changed := b.page, b.changed
		b.mu.Unlock()
		if p != nil {
			return p, nil
		}
		select {
		case <-changed:
		case <-late.C:
			return nil, ErrNoPage
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ErrNoPage, context.Cause(ctx))
		}
	}
}
