package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/boxo/bitswap/message"
	btracer "github.com/ipfs/boxo/bitswap/tracer"
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

// recentFailure is for how long a failed dial says that a relay is away.
const recentFailure = time.Second

// maxSettled bounds how many CIDs are remembered as wanted a while ago, so that
// a second peer's copy of a block is not taken for a forged one.
const maxSettled = 8192

// watch gives up fetches that nobody answers. Bitswap itself waits for ever,
// and drops what nobody asked for without a word: a relay that flips a bit or
// sends another block leaves the fetch waiting. So the watch remembers each
// peer's unwanted blocks, and the fetch that then waits in vain is told.
type watch struct {
	n  *Node
	mu sync.Mutex // held alone, never with Node.mu
	// wants counts the waiting fetches of each CID.
	wants map[cid.Cid]int
	// settled and order hold the last CIDs that were wanted, oldest first.
	settled map[cid.Cid]struct{}
	order   []cid.Cid
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
		wants:   map[cid.Cid]int{},
		settled: map[cid.Cid]struct{}{},
		fetches: map[*fetch]struct{}{},
		bad:     map[peer.ID]badBlock{},
		wake:    make(chan struct{}, 1),
	}
}

// begin registers a fetch of cs. The context it returns is cancelled, with a
// cause, when the fetch is given up; end must be called once.
func (w *watch) begin(ctx context.Context, s *session, cs []cid.Cid) (_ context.Context, end func()) {
	ctx, giveUp := context.WithCancelCause(ctx)
	f := &fetch{session: s, begun: time.Now(), giveUp: giveUp}
	w.mu.Lock()
	for _, c := range cs {
		w.wants[c]++
	}
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
		for _, c := range cs {
			if w.wants[c]--; w.wants[c] > 0 {
				continue
			}
			delete(w.wants, c)
			if _, ok := w.settled[c]; !ok {
				w.settled[c] = struct{}{}
				w.order = append(w.order, c)
			}
		}
		for len(w.order) > maxSettled {
			delete(w.settled, w.order[0])
			w.order = w.order[1:]
		}
	}
}

// unreachable notes that a relay could not be dialed.
func (w *watch) unreachable() { w.failed.Store(time.Now().UnixNano()) }

// received tells whether a block that came was wanted. It remembers the sender
// of any other, and says whether that is to be reported now.
func (w *watch) received(p peer.ID, c cid.Cid) (wanted, report bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wants[c] > 0 {
		return true, false
	}
	if _, ok := w.settled[c]; ok {
		return false, false
	}
	b := badBlock{at: time.Now(), cid: c, told: w.bad[p].told}
	if report = b.at.Sub(b.told) >= reportInterval; report {
		b.told = b.at
	}
	w.bad[p] = b
	return false, report
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

// tracer counts the blocks of Bitswap's messages for Node.
type tracer Node

var _ btracer.Tracer = (*tracer)(nil)

// MessageReceived is called before Bitswap looks at msg.
func (t *tracer) MessageReceived(p peer.ID, msg message.BitSwapMessage) {
	n := (*Node)(t)
	bs := msg.Blocks()
	if len(bs) == 0 {
		return
	}
	relay := n.IsRelay(p)
	for _, b := range bs {
		size := len(b.RawData())
		switch wanted, report := n.watch.received(p, b.Cid()); {
		case !wanted:
			n.unwanted.Add(uint64(size))
			if report {
				n.cfg.Log.Warn("block that nobody asked for", "peer", p, "cid", b.Cid(), "bytes", size)
				if n.cfg.OnBadBlock != nil {
					n.cfg.OnBadBlock(p, b.Cid())
				}
			}
			continue
		case relay:
			n.fromRelay.Add(uint64(size))
		default:
			n.fromPeers.Add(uint64(size))
		}
		if n.cfg.OnBlock != nil {
			n.cfg.OnBlock(p, relay, b.Cid(), size)
		}
	}
}

// MessageSent is called after a message has gone out.
func (t *tracer) MessageSent(_ peer.ID, msg message.BitSwapMessage) {
	for _, b := range msg.Blocks() {
		t.served.Add(uint64(len(b.RawData())))
	}
}

// exchanger is Bitswap under the watch.
type exchanger Node

var _ exchange.SessionExchange = (*exchanger)(nil)

// NewSession returns a fetcher whose fetches belong together until ctx ends.
func (e *exchanger) NewSession(ctx context.Context) exchange.Fetcher {
	n := (*Node)(e)
	return &session{n: n, inner: Persistent(n.bitswap).NewSession(ctx)}
}

// GetBlock fetches one block outside any session.
func (e *exchanger) GetBlock(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	n := (*Node)(e)
	return (&session{n: n, inner: n.bitswap}).GetBlock(ctx, c)
}

// GetBlocks fetches blocks outside any session.
func (e *exchanger) GetBlocks(ctx context.Context, cs []cid.Cid) (<-chan blocks.Block, error) {
	n := (*Node)(e)
	return (&session{n: n, inner: n.bitswap}).GetBlocks(ctx, cs)
}

// NotifyNewBlocks tells peers that want them of blocks that the store has now.
func (e *exchanger) NotifyNewBlocks(ctx context.Context, bs ...blocks.Block) error {
	return e.bitswap.NotifyNewBlocks(ctx, bs...)
}

// Close does nothing: the node closes Bitswap.
func (e *exchanger) Close() error { return nil }

// A session is a Bitswap session whose fetches are watched together: while one
// of them receives, the others wait on.
type session struct {
	n     *Node
	inner exchange.Fetcher
	last  atomic.Int64 // when a block came, Unix nanoseconds; 0 for never
}

func (s *session) progress() time.Time {
	if at := s.last.Load(); at != 0 {
		return time.Unix(0, at)
	}
	return time.Time{}
}

func (s *session) GetBlock(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	wctx, end := s.n.watch.begin(ctx, s, []cid.Cid{c})
	defer end()
	b, err := s.inner.GetBlock(wctx, c)
	if err != nil {
		// Bitswap returns the bare context error: say what ended it.
		if cause := context.Cause(wctx); cause != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
			err = cause
		}
		return nil, fmt.Errorf("node: get %s: %w", c, err)
	}
	s.last.Store(time.Now().UnixNano())
	return b, nil
}

func (s *session) GetBlocks(ctx context.Context, cs []cid.Cid) (<-chan blocks.Block, error) {
	wctx, end := s.n.watch.begin(ctx, s, cs)
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
