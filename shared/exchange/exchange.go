// Package exchange is a peer's Bitswap: it asks for blocks, and has boxo's
// server give them.
//
// What [Exchange.GetBlock] returns hashes to its CID. A want is not lost: it
// stands until nobody waits for it, is sent again over every new connection,
// and goes to another peer when the one asked has it not, leaves, or stalls.
// Each block is asked of one peer at a time, as far as one keeps its pace.
// Neighbours are preferred: a relay is asked for what somebody waits for, or
// what no neighbour has or is about to have (want.go). What is held for a peer
// is bounded, whatever it sends.
//
// On the wire it is Bitswap 1.2.0, so any implementation is a neighbour. The
// blockstore is the caller's, who keeps what he gets: shared/node has a block
// service do so.
package exchange

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/boxo/bitswap/message"
	bsnetwork "github.com/ipfs/boxo/bitswap/network"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/bitswap/server"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/exchange"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/webfabric/weft/shared/content"
)

// ErrClosed means that the exchange was closed.
var ErrClosed = errors.New("exchange: closed")

// A Config says what an Exchange is made of. Host and Blockstore are required.
// The functions are called without any lock held and must return at once.
type Config struct {
	// Host is used, not owned.
	Host host.Host
	// Blockstore is what is served from. Nothing is written to it.
	Blockstore blockstore.Blockstore
	// IsRelay tells the peers to be spared; the default is none.
	IsRelay func(peer.ID) bool
	// OnBlock is told of each block that was waited for, OnBadBlock of each
	// that nobody had asked for, and whether that is a lie: see Forgive.
	OnBlock    func(p peer.ID, c cid.Cid, size int)
	OnBadBlock func(p peer.ID, c cid.Cid, size int, lie bool)
	// Forgive is for how long after New a block that nobody asked for is no
	// lie: it may be an answer to the life before of a node with the same key.
	// Leave it zero for a new key. Otherwise one such block is enough: its hash
	// proves that it is none of those asked for.
	Forgive time.Duration
	// Serving is how much is given to others.
	Serving Serving
	// Log defaults to slog.DiscardHandler.
	Log *slog.Logger
}

// Stats counts bytes of blocks.
type Stats struct {
	FromRelay uint64 // waited for, received from relays
	FromPeers uint64 // waited for, received from others
	Duplicate uint64 // received again, or when nobody waited any more
	Unwanted  uint64 // received though nobody had asked
	Served    uint64 // sent to peers
}

// An Exchange is safe for concurrent use.
type Exchange struct {
	cfg    Config
	net    bsnetwork.BitSwapNetwork
	server *server.Server
	limit  *limiter
	alone  *session // of those who ask outside any
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	wake   chan struct{} // capacity 1: there is a new time to look at the wants

	fromRelay, fromPeers, duplicate, unwanted, served atomic.Uint64

	mu      sync.Mutex // before limiter.mu
	closed  bool
	remotes map[peer.ID]*remote
	wants   map[cid.Cid]*want
	idle    []*want // asked of nobody
	seq     uint64
	next    time.Time // when to look at the wants again; zero for when something happens
	settled ring      // the CIDs that were wanted last
	past    past
	liars   map[peer.ID]struct{}
	begun   time.Time
	recent  recent
	latency time.Duration // from asking for a block to its coming, lately
}

var (
	_ exchange.SessionExchange = (*Exchange)(nil)
	_ bsnetwork.Receiver       = (*Exchange)(nil)
)

// maxSettled bounds how many CIDs are remembered as wanted a while ago, so that
// a second peer's copy of a block is not taken for one that nobody asked for.
const maxSettled = 8192

// maxLiars bounds how many liars are remembered.
const maxLiars = 1024

// New starts an exchange, which works until ctx ends or [Exchange.Close].
func New(ctx context.Context, cfg Config) *Exchange {
	if cfg.IsRelay == nil {
		cfg.IsRelay = func(peer.ID) bool { return false }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	x := &Exchange{
		cfg:     cfg,
		wake:    make(chan struct{}, 1),
		remotes: map[peer.ID]*remote{},
		wants:   map[cid.Cid]*want{},
		settled: ring{max: maxSettled, has: map[cid.Cid]struct{}{}},
		past:    past{has: map[cid.Cid]*want{}},
		liars:   map[peer.ID]struct{}{},
		begun:   time.Now(),
		recent:  recent{has: map[cid.Cid]blocks.Block{}},
	}
	x.ctx, x.cancel = context.WithCancel(ctx)
	x.net = bsnet.NewFromIpfsHost(newInbound(cfg.Host, x.counter))
	x.alone = &session{x: x, done: x.ctx.Done(), seen: map[peer.ID]float64{}}
	x.limit = newLimiter(cfg.Serving)
	x.server = newServer(x.ctx, x)
	x.net.Start(x)
	x.wg.Go(x.watch)
	// Those connected before are not announced.
	for _, p := range cfg.Host.Network().Peers() {
		if cfg.Host.Network().Connectedness(p) == network.Connected {
			x.connected(p)
		}
	}
	return x
}

// Close ends all fetches and waits for what runs in the background.
func (x *Exchange) Close() error {
	x.mu.Lock()
	x.closed = true
	for _, r := range x.remotes {
		r.giver.end()
	}
	x.mu.Unlock()
	x.cancel()
	x.net.Stop()
	x.server.Close()
	x.wg.Wait()
	return nil
}

// NotifyNewBlocks tells peers that want them of blocks that the store has now.
func (x *Exchange) NotifyNewBlocks(ctx context.Context, bs ...blocks.Block) error {
	x.mu.Lock()
	for _, b := range bs {
		if w := x.wants[b.Cid()]; w != nil {
			x.hand(w, b, nil)
		}
		x.recent.drop(b.Cid())
	}
	x.mu.Unlock()
	return x.server.NotifyNewBlocks(ctx, bs...)
}

// Stats returns the counts as they are now.
func (x *Exchange) Stats() Stats {
	return Stats{
		FromRelay: x.fromRelay.Load(),
		FromPeers: x.fromPeers.Load(),
		Duplicate: x.duplicate.Load(),
		Unwanted:  x.unwanted.Load(),
		Served:    x.served.Load(),
	}
}

// A session is what fetches that belong together share: the knowledge who had
// the last blocks, and how large they were.
type session struct {
	x    *Exchange
	done <-chan struct{}

	// Guarded by Exchange.mu.
	seen map[peer.ID]float64 // how often it had what was asked for, lately: 0 to 1
	size float64             // of raw blocks lately, in bytes; 0 for unknown
}

// NewSession returns a fetcher whose fetches belong together until ctx ends. It
// has the method Heard too.
func (x *Exchange) NewSession(ctx context.Context) exchange.Fetcher {
	return &session{x: x, done: ctx.Done(), seen: map[peer.ID]float64{}}
}

// GetBlock fetches one block outside any session.
func (x *Exchange) GetBlock(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	return x.alone.GetBlock(ctx, c)
}

// GetBlocks fetches blocks outside any session.
func (x *Exchange) GetBlocks(ctx context.Context, cs []cid.Cid) (<-chan blocks.Block, error) {
	return x.alone.GetBlocks(ctx, cs)
}

// Heard tells when something like a piece of a block last came from a peer that
// is asked for one which the session waits for; zero for never. A large block
// may be long on its way.
func (s *session) Heard() (last time.Time) {
	s.x.mu.Lock()
	defer s.x.mu.Unlock()
	for _, w := range s.x.wants {
		if !slices.ContainsFunc(w.waiters, func(o *waiter) bool { return o.session == s }) {
			continue
		}
		for r := range w.from {
			if r.heard.After(last) {
				last = r.heard
			}
		}
	}
	return last
}

// Heard is a session's, of those who fetch outside any.
func (x *Exchange) Heard() time.Time { return x.alone.Heard() }

// GetBlock returns the block of c, or the error of what ended first: ctx, the
// session, or the exchange.
func (s *session) GetBlock(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	due := content.Due(ctx)
	w := &waiter{session: s, got: make(chan blocks.Block, 1)}
	if err := s.x.add(w, []cid.Cid{c}, due == nil); err != nil {
		return nil, err
	}
	for {
		select {
		case b := <-w.got:
			return b, nil
		case <-due:
			due = nil
			s.x.hasten(c)
			continue
		case <-ctx.Done():
			s.x.remove(w)
			return nil, ctx.Err()
		case <-s.done:
			s.x.remove(w)
			if s.x.ctx.Err() != nil {
				return nil, ErrClosed
			}
			return nil, context.Canceled
		case <-s.x.ctx.Done():
			return nil, ErrClosed
		}
	}
}

// GetBlocks returns a channel of the blocks of cs, each once, closed when all
// came, or with ctx, the session, or the exchange.
func (s *session) GetBlocks(ctx context.Context, cs []cid.Cid) (<-chan blocks.Block, error) {
	cs = slices.Clone(cs)
	seen := make(map[cid.Cid]struct{}, len(cs))
	cs = slices.DeleteFunc(cs, func(c cid.Cid) bool {
		_, twice := seen[c]
		seen[c] = struct{}{}
		return twice
	})
	w := &waiter{session: s, got: make(chan blocks.Block, len(cs))}
	if err := s.x.add(w, cs, content.Due(ctx) == nil); err != nil {
		return nil, err
	}
	out := make(chan blocks.Block)
	go func() { // the caller's: it ends with ctx, with the session, or when all came
		defer close(out)
		defer s.x.remove(w)
		for range cs {
			var b blocks.Block
			select {
			case b = <-w.got:
			case <-ctx.Done():
				return
			case <-s.done:
				return
			case <-s.x.ctx.Done():
				return
			}
			select {
			case out <- b:
			case <-ctx.Done():
				return
			case <-s.x.ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

// A waiter waits for some blocks. got has room for all of them.
type waiter struct {
	session *session
	got     chan blocks.Block
	open    []cid.Cid // not yet come; guarded by Exchange.mu
}

// add has w wait for cs. due says that somebody waits for them already.
func (x *Exchange) add(w *waiter, cs []cid.Cid, due bool) error {
	for _, c := range cs {
		if !c.Defined() {
			return ipld.ErrNotFound{Cid: c}
		}
	}
	now := time.Now()
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return ErrClosed
	}
	for _, c := range cs {
		if b, ok := x.recent.has[c]; ok {
			w.got <- b
			continue
		}
		w.open = append(w.open, c)
		wt := x.wants[c]
		if wt == nil {
			wt = x.newWant(c, w.session, now)
		}
		wt.waiters = append(wt.waiters, w)
		if due {
			wt.hasten(now, wt.since == now)
		}
	}
	x.plan(now)
	return nil
}

// hasten notes that somebody waits for c now.
func (x *Exchange) hasten(c cid.Cid) {
	now := time.Now()
	x.mu.Lock()
	defer x.mu.Unlock()
	if w := x.wants[c]; w != nil {
		w.hasten(now, false)
		x.plan(now)
	}
}

// remove has w wait no more. A want without waiters is cancelled.
func (x *Exchange) remove(w *waiter) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, c := range w.open {
		wt := x.wants[c]
		if wt == nil {
			continue
		}
		wt.waiters = slices.DeleteFunc(wt.waiters, func(o *waiter) bool { return o == w })
		if len(wt.waiters) == 0 {
			x.settle(wt, nil)
		}
	}
	w.open = nil
	x.plan(time.Now())
}

// settle ends a want: its block came from a peer, or nobody waits (nil).
func (x *Exchange) settle(w *want, from *remote) {
	w.settled = true
	delete(x.wants, w.cid)
	x.settled.add(w.cid)
	x.past.add(w)
	for _, r := range x.remotes {
		x.release(w, r)
		r.cancel(w.cid, r == from)
	}
}

// hand gives b, which came from r if that is not nil, to all who wait for it.
func (x *Exchange) hand(w *want, b blocks.Block, r *remote) {
	x.settle(w, r)
	for _, wt := range w.waiters {
		wt.open = slices.DeleteFunc(wt.open, func(c cid.Cid) bool { return c == w.cid })
		wt.got <- b // it has room
	}
	w.waiters = nil
}

// ReceiveMessage takes a message of a peer's.
func (x *Exchange) ReceiveMessage(ctx context.Context, p peer.ID, m message.BitSwapMessage) {
	type event struct {
		b        blocks.Block
		bad, lie bool
	}
	var events []event
	var wanted []blocks.Block
	relay := x.cfg.IsRelay(p)
	now := time.Now()
	x.mu.Lock()
	r := x.remotes[p]
	if r != nil {
		r.relay = relay // it may have become one
	}
	for _, b := range m.Blocks() {
		size := uint64(len(b.RawData()))
		w := x.wants[b.Cid()]
		if w == nil {
			if x.settled.holds(b.Cid()) {
				x.duplicate.Add(size)
			} else {
				x.unwanted.Add(size)
				events = append(events, event{b: b, bad: true, lie: x.astray(p, r, now)})
			}
			continue
		}
		if relay {
			x.fromRelay.Add(size)
		} else {
			x.fromPeers.Add(size)
		}
		wanted = append(wanted, b)
		events = append(events, event{b: b})
		if r != nil {
			r.delivered(w, int(size), now)
		}
		w.session.learn(w, p, len(b.RawData()))
		x.recent.add(b)
		x.hand(w, b, r)
	}
	if r != nil {
		x.hear(r, m, now)
	}
	x.plan(now)
	x.mu.Unlock()

	for _, e := range events {
		if e.bad && x.cfg.OnBadBlock != nil {
			x.cfg.OnBadBlock(p, e.b.Cid(), len(e.b.RawData()), e.lie)
		}
		if !e.bad && x.cfg.OnBlock != nil {
			x.cfg.OnBlock(p, e.b.Cid(), len(e.b.RawData()))
		}
	}
	if len(wanted) > 0 {
		x.server.ReceivedBlocks(p, wanted)
	}
	x.server.ReceiveMessage(ctx, p, m)
}

// astray notes that p sent what nobody had asked for. Whatever it is asked for
// is then asked of others too. If that is a lie, p is not asked any more.
func (x *Exchange) astray(p peer.ID, r *remote, now time.Time) (lie bool) {
	if r != nil {
		r.astray++
		for w := range r.out {
			w.deadline = now
		}
	}
	if now.Sub(x.begun) < x.cfg.Forgive {
		return false
	}
	if _, known := x.liars[p]; !known && len(x.liars) >= maxLiars {
		for old := range x.liars { // any
			delete(x.liars, old)
			break
		}
	}
	x.liars[p] = struct{}{}
	if r == nil {
		return true
	}
	if r.liar = true; !r.relay && !r.dropped && !x.closed {
		r.dropped = true
		x.wg.Go(func() { _ = x.net.DisconnectFrom(x.ctx, p) })
	}
	return true
}

// ReceiveError hears of streams that ended badly: their peers are asked again
// when they stall.
func (x *Exchange) ReceiveError(err error) { x.cfg.Log.Debug("message not read", "err", err) }

// PeerConnected hears of a peer that can be asked.
func (x *Exchange) PeerConnected(p peer.ID) {
	x.connected(p)
	x.server.PeerConnected(p)
}

// PeerDisconnected hears that a peer is gone.
func (x *Exchange) PeerDisconnected(p peer.ID) {
	x.disconnected(p)
	x.server.PeerDisconnected(p)
}

// watch looks at the wants when their time has come.
func (x *Exchange) watch() {
	t := time.NewTimer(time.Hour)
	defer t.Stop()
	for {
		x.mu.Lock()
		next := x.next
		x.mu.Unlock()
		if next.IsZero() {
			t.Stop()
		} else {
			t.Reset(time.Until(next))
		}
		select {
		case <-t.C:
			x.mu.Lock()
			again := x.look(time.Now())
			x.mu.Unlock()
			x.here(again)
		case <-x.wake:
		case <-x.ctx.Done():
			return
		}
	}
}

// here hands out those of cs that were stored just before they were asked for.
func (x *Exchange) here(cs []cid.Cid) {
	for _, c := range cs {
		b, err := x.cfg.Blockstore.Get(x.ctx, c)
		if err != nil {
			continue // as a rule it is not there
		}
		x.mu.Lock()
		if w := x.wants[c]; w != nil {
			x.hand(w, b, nil)
		}
		x.mu.Unlock()
	}
}

// at has the wants looked at no later than t; mu is held.
func (x *Exchange) at(t time.Time) {
	if x.next.IsZero() || t.Before(x.next) {
		x.next = t
		select {
		case x.wake <- struct{}{}:
		default:
		}
	}
}

// counter counts the bytes read from p.
func (x *Exchange) counter(p peer.ID) *atomic.Uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	if r := x.remotes[p]; r != nil {
		return &r.read
	}
	return new(atomic.Uint64)
}

// maxRecent bounds the blocks that are held until they are stored, in bytes.
const maxRecent = 8 << 20

// recent holds blocks that came and that nobody has said to have stored yet:
// who asks for one in between gets it from here, not from a peer again.
type recent struct {
	has   map[cid.Cid]blocks.Block
	order []cid.Cid
	bytes int
}

func (r *recent) add(b blocks.Block) {
	if _, ok := r.has[b.Cid()]; ok {
		return
	}
	r.has[b.Cid()] = b
	r.order = append(r.order, b.Cid())
	r.bytes += len(b.RawData())
	for r.bytes > maxRecent {
		r.drop(r.order[0])
	}
}

func (r *recent) drop(c cid.Cid) {
	b, ok := r.has[c]
	if !ok {
		return
	}
	delete(r.has, c)
	r.order = slices.DeleteFunc(r.order, func(o cid.Cid) bool { return o == c })
	r.bytes -= len(b.RawData())
}

// A ring remembers the CIDs that were added last.
type ring struct {
	max   int
	has   map[cid.Cid]struct{}
	order []cid.Cid
}

func (r *ring) add(c cid.Cid) {
	if r.holds(c) {
		return
	}
	r.has[c] = struct{}{}
	r.order = append(r.order, c)
	for len(r.order) > r.max {
		delete(r.has, r.order[0])
		r.order = r.order[1:]
	}
}

func (r *ring) holds(c cid.Cid) bool {
	_, ok := r.has[c]
	return ok
}

// maxPast bounds how many wants are remembered.
const maxPast = 256

// past is the wants that ended last: a neighbour's answer to one of them still
// tells what it is likely to have.
type past struct {
	has   map[cid.Cid]*want
	order []*want
}

func (p *past) add(w *want) {
	p.has[w.cid] = w
	p.order = append(p.order, w)
	if len(p.order) > maxPast {
		if old := p.order[0]; p.has[old.cid] == old {
			delete(p.has, old.cid)
		}
		p.order[0] = nil
		p.order = p.order[1:]
	}
}
