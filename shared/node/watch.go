package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/boxo/exchange"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/webfabric/weft/shared/content"
	"github.com/webfabric/weft/shared/gateway"
)

// watchInterval is how often waiting fetches are looked at, while there are any.
const watchInterval = 250 * time.Millisecond

// reportInterval is how often the same peer's unwanted blocks are reported: it
// can send hundreds of thousands in one message.
const reportInterval = time.Second

// maxSlow is for how long after the last block bytes alone keep a fetch going:
// the largest block, 2 MiB, at 300 kbit/s.
const maxSlow = time.Minute

// recentFailure is for how long a failed dial says that a relay is away.
const recentFailure = time.Second

// watch gives up fetches that nobody answers: the exchange waits for ever. It
// remembers each peer's blocks that nobody had asked for, as a relay sends that
// flips a bit, and the fetch that then waits in vain is told.
type watch struct {
	n       *Node
	mu      sync.Mutex // never with Node.mu; before the exchange's
	fetches map[*fetch]struct{}
	bad     map[peer.ID]badBlock
	wake    chan struct{} // capacity 1: there is a fetch to watch
	failed  atomic.Int64  // when a relay could not be dialed, Unix nanoseconds
}

// badBlock is the last unwanted block of a peer.
type badBlock struct {
	at   time.Time
	cid  cid.Cid
	told time.Time // when the peer was last reported
}

// A fetch waits for some blocks of one session.
type fetch struct {
	session *session
	begun   time.Time
	giveUp  context.CancelCauseFunc
}

func newWatch(n *Node) *watch {
	return &watch{
		n:       n,
		fetches: map[*fetch]struct{}{},
		bad:     map[peer.ID]badBlock{},
		wake:    make(chan struct{}, 1),
	}
}

// begin registers a fetch. The context it returns is cancelled, with a
// cause, when the fetch is given up; end must be called once.
func (w *watch) begin(ctx context.Context, s *session) (_ context.Context, end func()) {
	ctx, giveUp := context.WithCancelCause(ctx)
	f := &fetch{session: s, begun: time.Now(), giveUp: giveUp}
	w.mu.Lock()
	w.fetches[f] = struct{}{}
	w.mu.Unlock()
	// A fetch while nobody is connected is worth a dial at once, and learns
	// from it whether there is anyone to wait for.
	if len(w.n.cfg.Host.Network().Peers()) == 0 && f.begun.UnixNano()-w.failed.Load() > int64(recentFailure) {
		w.n.Retry()
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
	return ctx, func() {
		giveUp(nil)
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.fetches, f)
	}
}

// unreachable notes that a relay could not be dialed.
func (w *watch) unreachable() { w.failed.Store(time.Now().UnixNano()) }

// unwanted notes that p sent c though nobody had asked for it, and says whether that
// is to be reported now: a lie is.
func (w *watch) unwanted(p peer.ID, c cid.Cid, lie bool) (report bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := badBlock{at: time.Now(), cid: c, told: w.bad[p].told}
	if report = lie && b.at.Sub(b.told) >= reportInterval; report {
		b.told = b.at
	}
	w.bad[p] = b
	return report
}

// run looks at the waiting fetches until ctx ends.
func (w *watch) run(ctx context.Context) {
	for {
		select {
		case <-w.wake:
		case <-ctx.Done():
			return
		}
		t := time.NewTicker(watchInterval)
		for w.look(time.Now()) {
			select {
			case <-t.C:
				continue
			case <-ctx.Done():
			}
			break
		}
		t.Stop()
	}
}

// look gives up the fetches whose time is over and tells whether any is left.
func (w *watch) look(now time.Time) bool {
	nw := w.n.cfg.Host.Network()
	peers := nw.Peers()
	connected := map[peer.ID]bool{}
	for _, p := range peers {
		if nw.Connectedness(p) == network.Connected {
			connected[p] = true
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for p := range w.bad {
		if !connected[p] && now.Sub(w.bad[p].at) > w.n.cfg.ProviderTimeout {
			delete(w.bad, p)
		}
	}
	for f := range w.fetches {
		if err := w.verdict(f, now, connected); err != nil {
			f.giveUp(err)
			delete(w.fetches, f)
		}
	}
	return len(w.fetches) > 0
}

// verdict returns why f is to be given up, if it is.
func (w *watch) verdict(f *fetch, now time.Time, connected map[peer.ID]bool) error {
	last := f.begun
	if t := f.session.progress(); t.After(last) {
		last = t
	}
	quiet := now.Sub(last)
	if h := f.session.inner.Heard(); h.After(last) && quiet < maxSlow {
		quiet = now.Sub(h)
	}
	var liar peer.ID
	var lie badBlock
	honest := len(connected)
	for p, b := range w.bad {
		// A block that came just before may belong to a message of the same
		// answer; one that came before this fetch says nothing of it.
		if b.at.Before(last) {
			continue
		}
		if connected[p] {
			honest--
		}
		if b.at.After(lie.at) {
			liar, lie = p, b
		}
	}
	cfg := w.n.cfg
	limit := cfg.ProviderTimeout
	switch {
	case liar != "" && honest <= 0:
		limit = cfg.BadBlockTimeout
	case len(connected) == 0 && w.failed.Load() >= f.begun.Add(-recentFailure).UnixNano():
		limit = cfg.OfflineTimeout
	}
	switch {
	case quiet < limit:
		return nil
	case liar != "":
		return &BadBlockError{Peer: liar, Got: lie.cid}
	case len(connected) == 0:
		return fmt.Errorf("node: fetch: no peer is connected: %w", gateway.ErrNoProvider)
	default:
		return fmt.Errorf("node: fetch: nothing came for %v: %w", limit, gateway.ErrNoProvider)
	}
}

// A BadBlockError says that a peer answered with bytes that are not the block
// asked for. It wraps [content.ErrBadBlock].
type BadBlockError struct {
	Peer peer.ID
	Got  cid.Cid // of the bytes that came
}

func (e *BadBlockError) Error() string {
	return fmt.Sprintf("node: fetch: %s sent another block, %s: %v", e.Peer, e.Got, content.ErrBadBlock)
}

// Unwrap makes errors.Is find [content.ErrBadBlock].
func (e *BadBlockError) Unwrap() error { return content.ErrBadBlock }

// badBlock notes a block that nobody had asked for.
func (n *Node) badBlock(p peer.ID, c cid.Cid, size int, lie bool) {
	if !n.watch.unwanted(p, c, lie) {
		return
	}
	n.cfg.Log.Warn("block that nobody asked for", "peer", p, "cid", c, "bytes", size)
	if n.cfg.OnBadBlock != nil {
		n.cfg.OnBadBlock(p, c)
	}
}

// exchanger is the exchange under the watch.
type exchanger Node

var _ exchange.SessionExchange = (*exchanger)(nil)

// NewSession returns a fetcher whose fetches belong together until ctx ends.
func (e *exchanger) NewSession(ctx context.Context) exchange.Fetcher {
	n := (*Node)(e)
	return &session{n: n, inner: n.exchange.NewSession(ctx).(fetcher)}
}

// GetBlock fetches one block outside any session.
func (e *exchanger) GetBlock(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	n := (*Node)(e)
	return (&session{n: n, inner: n.exchange}).GetBlock(ctx, c)
}

// GetBlocks fetches blocks outside any session.
func (e *exchanger) GetBlocks(ctx context.Context, cs []cid.Cid) (<-chan blocks.Block, error) {
	n := (*Node)(e)
	return (&session{n: n, inner: n.exchange}).GetBlocks(ctx, cs)
}

// NotifyNewBlocks tells peers that want them of blocks that the store has now.
func (e *exchanger) NotifyNewBlocks(ctx context.Context, bs ...blocks.Block) error {
	return e.exchange.NotifyNewBlocks(ctx, bs...)
}

// Close does nothing: the node closes it.
func (e *exchanger) Close() error { return nil }

// fetcher is a session of the exchange's, or itself.
type fetcher interface {
	exchange.Fetcher
	Heard() time.Time
}

// A session is one of the exchange whose fetches are watched together: while one
// of them receives, the others wait on.
type session struct {
	n     *Node
	inner fetcher
	last  atomic.Int64 // when a block came, Unix nanoseconds; 0 for never
}

func (s *session) progress() time.Time {
	if at := s.last.Load(); at != 0 {
		return time.Unix(0, at)
	}
	return time.Time{}
}

func (s *session) GetBlock(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	wctx, end := s.n.watch.begin(ctx, s)
	defer end()
	b, err := s.inner.GetBlock(wctx, c)
	if err != nil {
		// The exchange returns the bare context error: say what ended it.
		if cause := context.Cause(wctx); cause != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
			err = cause
		}
		return nil, fmt.Errorf("node: get %s: %w", c, err)
	}
	s.last.Store(time.Now().UnixNano())
	return b, nil
}

func (s *session) GetBlocks(ctx context.Context, cs []cid.Cid) (<-chan blocks.Block, error) {
	wctx, end := s.n.watch.begin(ctx, s)
	in, err := s.inner.GetBlocks(wctx, cs)
	if err != nil {
		end()
		return nil, fmt.Errorf("node: get %d blocks: %w", len(cs), err)
	}
	out := make(chan blocks.Block)
	go func() { // the caller's: it ends with ctx, with the node, or when all came
		defer close(out)
		defer end()
		for b := range in {
			s.last.Store(time.Now().UnixNano())
			select {
			case out <- b:
			case <-wctx.Done():
				return
			}
		}
	}()
	return out, nil
}
