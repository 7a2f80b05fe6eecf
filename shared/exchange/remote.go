package exchange

import (
	"context"
	"errors"
	"math"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/ipfs/boxo/bitswap/message"
	pb "github.com/ipfs/boxo/bitswap/message/pb"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"
)

const (
	// maxEntries is how many wants go into one message: 50 KiB.
	maxEntries = 1024
	// maxTheirs bounds what is remembered of a peer's own wants.
	maxTheirs = 4096
	// sendTimeout ends an attempt to send a message of wants.
	sendTimeout = 20 * time.Second
	// What could not be sent is sent again after a pause that starts at
	// minPause and doubles up to maxPause.
	minPause = 250 * time.Millisecond
	maxPause = 5 * time.Second

	// A peer is asked for as many bytes at once as it delivers within its
	// round trip and half a second, at least and at most so many; and at most
	// maxOut blocks. The least is four blocks of the profile we publish with.
	minWindow = 4 << 20
	maxWindow = 16 << 20
	maxOut    = 512

	// minHeard is how many bytes are a sign that a block is on its way: more
	// than what is said about blocks otherwise.
	minHeard = 16 << 10
	// maxBlock is the largest block, in bytes
	// (https://specs.ipfs.tech/bitswap-protocol/#block-sizes).
	maxBlock = 2 << 20

	// What is thought of a peer before anything is known.
	firstRTT  = 50 * time.Millisecond
	firstRate = 4 << 20 // bytes per second
)

// A kind says what stands at a peer.
type kind uint8

const (
	wantHave kind = iota + 1
	wantBlock
	cancelled
)

// An entry is a want, or its end, that is to be sent.
type entry struct {
	kind     kind
	priority int32
	dontHave bool // whether the peer is to answer that it has it not
}

// A claim is a want of a neighbour's.
type claim struct {
	at     time.Time
	coming bool // it has asked somebody for the block, and will have it soon
}

// A remote is a connected peer that can be asked. Exchange.mu guards all but
// the first fields.
type remote struct {
	x     *Exchange
	id    peer.ID
	relay bool
	poke  chan struct{} // capacity 1: there is something to send
	stop  context.CancelFunc
	read  atomic.Uint64 // bytes of its messages
	giver *giver        // what sends it blocks

	mute    bool // it speaks no Bitswap 1.2.0
	dropped bool
	astray  int  // blocks that nobody had asked for, on this connection
	liar    bool // one of them was a lie; a relay is asked last then, others never
	fresh   bool // it does not know what stands, since the stream is new
	stands  map[cid.Cid]kind
	sent    map[cid.Cid]bool // of stands, what has been sent
	pending map[cid.Cid]entry
	order   []cid.Cid
	theirs  map[cid.Cid]claim

	out      map[*want]ask // what it is asked to send
	outBytes int
	rtt      time.Duration // 0 for unknown
	rate     float64       // bytes per second; 0 for unknown
	stalls   int
	silent   int // questions not answered in time, one after the other
	unkept   int // blocks left to it in vain, one after the other

	// progress is when its last byte came, as far as was looked; sample and
	// sampled are when and where the rate was taken last; heard when minHeard
	// bytes had come since the last time, and no more since base than it may
	// have been asked for.
	heard    time.Time
	heardAt  uint64
	base     uint64 // read when it sent a block last, or was asked for the first
	progress time.Time
	lastRead uint64
	sample   time.Time
	sampled  uint64

	blocks, bytes uint64 // waited for, from it
}

// An ask is a block that a peer was asked for.
type ask struct {
	at   time.Time
	size int // as guessed
}

// connected makes p a peer that can be asked.
func (x *Exchange) connected(p peer.ID) {
	relay := x.cfg.IsRelay(p)
	now := time.Now()
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed || x.remotes[p] != nil {
		return
	}
	ctx, cancel := context.WithCancel(x.ctx)
	r := &remote{
		x: x, id: p, relay: relay, stop: cancel,
		poke:    make(chan struct{}, 1),
		giver:   newGiver(),
		fresh:   true,
		stands:  map[cid.Cid]kind{},
		sent:    map[cid.Cid]bool{},
		pending: map[cid.Cid]entry{},
		theirs:  map[cid.Cid]claim{},
		out:     map[*want]ask{},
	}
	_, r.liar = x.liars[p]
	x.remotes[p] = r
	x.wg.Go(func() { r.run(ctx) })
	if !r.relay && x.neighbours() <= maxAsked {
		for _, w := range x.wants {
			x.search(w, r)
		}
	}
	x.plan(now)
}

// disconnected forgets p; what it was asked for is asked elsewhere.
func (x *Exchange) disconnected(p peer.ID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	r := x.remotes[p]
	if r == nil {
		return
	}
	r.stop()
	r.giver.end()
	delete(x.remotes, p)
	x.limit.forget(p)
	for w := range r.out {
		x.release(w, r)
	}
	for _, w := range x.wants {
		delete(w.said, r)
	}
	x.plan(time.Now())
}

// neighbours counts the peers that are no relays.
func (x *Exchange) neighbours() (n int) {
	for _, r := range x.remotes {
		if !r.relay {
			n++
		}
	}
	return n
}

// queue has e sent for c.
func (r *remote) queue(c cid.Cid, e entry) {
	if _, ok := r.pending[c]; !ok {
		r.order = append(r.order, c)
	}
	r.pending[c] = e
	if e.kind != cancelled {
		r.stands[c] = e.kind
	}
	select {
	case r.poke <- struct{}{}:
	default:
	}
}

// cancel ends what stands of c. A peer that has sent the block knows it.
func (r *remote) cancel(c cid.Cid, delivered bool) {
	k, ok := r.stands[c]
	if !ok {
		return
	}
	sent := r.sent[c]
	delete(r.stands, c)
	delete(r.sent, c)
	if !sent || delivered && k == wantBlock {
		delete(r.pending, c) // order may still have it
		return
	}
	r.queue(c, entry{kind: cancelled})
}

// take returns what is to be sent, nil for nothing.
func (r *remote) take() message.BitSwapMessage {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	m := message.New(r.fresh)
	if r.fresh {
		// The whole list, and what had to be cancelled is not on it.
		clear(r.pending)
		clear(r.sent)
		r.order = r.order[:0]
		for c, k := range r.stands {
			if w := r.x.wants[c]; w != nil {
				r.pending[c] = w.entry(k)
				r.order = append(r.order, c)
			}
		}
		r.fresh = false
	}
	n := 0
	for i, c := range r.order {
		e, ok := r.pending[c]
		if !ok {
			continue
		}
		if n++; n > maxEntries {
			r.order = append(r.order[:0], r.order[i:]...)
			select {
			case r.poke <- struct{}{}:
			default:
			}
			return m
		}
		delete(r.pending, c)
		switch e.kind {
		case cancelled:
			m.Cancel(c)
			continue
		case wantBlock:
			m.AddEntry(c, e.priority, pb.Message_Wantlist_Block, e.dontHave)
		case wantHave:
			m.AddEntry(c, e.priority, pb.Message_Wantlist_Have, e.dontHave)
		}
		r.sent[c] = true
	}
	r.order = r.order[:0]
	if n == 0 {
		return nil
	}
	return m
}

// run sends what is queued until ctx ends.
func (r *remote) run(ctx context.Context) {
	var s network.Stream
	defer func() {
		if s != nil {
			s.Reset()
		}
	}()
	pause := minPause
	for {
		select {
		case <-r.poke:
		case <-ctx.Done():
			return
		}
		runtime.Gosched() // others may be about to ask for more
		m := r.take()
		if m == nil {
			continue
		}
		err := r.send(ctx, &s, m)
		if err == nil {
			pause = minPause
			continue
		}
		if ctx.Err() != nil {
			return
		}
		if s != nil {
			s.Reset()
			s = nil
		}
		r.x.cfg.Log.Debug("wants not sent", "peer", r.id, "err", err, "pause", pause)
		if errors.Is(err, multistream.ErrNotSupported[protocol.ID]{}) {
			r.x.mu.Lock()
			r.mute = true
			for w := range r.out {
				r.x.release(w, r)
			}
			for _, w := range r.x.wants {
				delete(w.said, r)
			}
			r.x.plan(time.Now())
			r.x.mu.Unlock()
			return
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
		pause = min(2*pause, maxPause)
		r.x.mu.Lock()
		r.fresh = true
		r.x.mu.Unlock()
		select {
		case r.poke <- struct{}{}:
		default:
		}
	}
}

func (r *remote) send(ctx context.Context, s *network.Stream, m message.BitSwapMessage) (err error) {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	if *s != nil && r.x.detour(*s) {
		(*s).Reset() // what it carried is sent again, whole
		*s = nil
	}
	if *s == nil {
		if *s, err = r.x.cfg.Host.NewStream(network.WithNoDial(ctx, "bitswap"), r.id, bsnet.ProtocolBitswap); err != nil {
			return err
		}
		if !m.Full() {
			// The other side may have forgotten what stood.
			r.x.mu.Lock()
			r.fresh = true
			r.x.mu.Unlock()
			if m = r.take(); m == nil {
				return nil
			}
		}
	}
	deadline, _ := ctx.Deadline()
	if err := (*s).SetWriteDeadline(deadline); err != nil {
		return err
	}
	return m.ToNetV1(*s)
}

// hear notes what else is in a message of r's.
func (x *Exchange) hear(r *remote, m message.BitSwapMessage, now time.Time) {
	if m.Full() {
		clear(r.theirs)
	}
	if !r.relay {
		for _, e := range m.Wantlist() {
			if e.Cancel {
				delete(r.theirs, e.Cid)
				continue
			}
			c := claim{at: now, coming: e.Priority == comingPriority}
			if old, ok := r.theirs[e.Cid]; ok && old.coming == c.coming {
				continue
			} else if ok || len(r.theirs) < maxTheirs {
				r.theirs[e.Cid] = c
			}
			if c.coming {
				x.yield(r, e.Cid, now)
			}
		}
	}
	for _, bp := range m.BlockPresences() {
		w := x.wants[bp.Cid]
		open := w != nil
		if !open {
			if w = x.past.has[bp.Cid]; w == nil {
				continue
			}
		}
		before := w.said[r]
		questioned := before == asked || before == overdue
		if !open && !questioned {
			continue
		}
		if a, ok := r.out[w]; ok {
			r.sampleRTT(now.Sub(a.at))
		} else if before == asked {
			r.sampleRTT(now.Sub(w.since))
		}
		r.silent = 0
		if bp.Type == pb.Message_Have {
			w.said[r] = have
			r.unkept = 0
			if questioned && !r.relay {
				w.session.seen[r.id] += 0.3 * (1 - w.session.seen[r.id])
			}
			continue
		}
		w.said[r] = haveNot
		if questioned || r.stands[w.cid] == wantBlock {
			w.session.seen[r.id] *= 0.5
		}
		x.release(w, r)
	}
}

// delivered notes that r sent the block of w.
func (r *remote) delivered(w *want, size int, now time.Time) {
	if !w.begun.IsZero() {
		took := min(now.Sub(w.begun), maxStall)
		if r.x.latency == 0 {
			r.x.latency = took
		}
		r.x.latency += (took - r.x.latency) / 8
	}
	r.blocks++
	if r.stalls > 0 && r.blocks%8 == 0 {
		r.stalls--
	}
	r.bytes += uint64(size)
	if a, ok := r.out[w]; ok && size < 4<<10 {
		r.sampleRTT(now.Sub(a.at))
	}
	r.measure(now)
	r.progress = now
	r.base = r.lastRead
}

// sampleRTT takes a time from a want to its answer: the shortest counts, as
// most have waited behind blocks.
func (r *remote) sampleRTT(d time.Duration) {
	if r.rtt == 0 || d < r.rtt {
		r.rtt = max(d, time.Millisecond)
		return
	}
	r.rtt += (d - r.rtt) / 16
}

// measure takes the rate at which r delivers, while it is asked for anything.
func (r *remote) measure(now time.Time) {
	read := r.read.Load()
	if read != r.lastRead {
		r.lastRead, r.progress = read, now
	}
	if read-r.heardAt >= minHeard {
		r.heardAt = read
		if read-r.base <= uint64(len(r.out))*maxBlock {
			r.heard = now
		}
	}
	if len(r.out) == 0 {
		r.sample = time.Time{}
		return
	}
	if r.sample.IsZero() {
		r.sample, r.sampled = now, read
		return
	}
	d := now.Sub(r.sample)
	if d < 50*time.Millisecond || read == r.sampled {
		return
	}
	rate := float64(read-r.sampled) / d.Seconds()
	if r.rate == 0 {
		r.rate = rate
	} else {
		r.rate += 0.3 * (rate - r.rate)
	}
	r.sample, r.sampled = now, read
}

// eta is how long r would take to send size bytes, behind what it is asked for.
func (r *remote) eta(size int) time.Duration {
	rtt, rate := r.rtt, r.rate
	if rtt == 0 {
		rtt = firstRTT
	}
	if rate == 0 {
		rate = firstRate
	}
	return rtt + time.Duration(float64(r.outBytes+size)/max(rate, 1024)*float64(time.Second))
}

// room tells whether r may be asked for size more bytes.
func (r *remote) room(size int) bool {
	if len(r.out) == 0 {
		return true
	}
	window := r.rate * (r.rtt + 500*time.Millisecond).Seconds()
	window = math.Min(math.Max(window, minWindow), maxWindow)
	return len(r.out) < maxOut && float64(r.outBytes+size) <= window
}

// PeerStats is what is known of a connected peer.
type PeerStats struct {
	ID       peer.ID
	Relay    bool
	BytesIn  uint64 // of blocks that were waited for
	BlocksIn uint64
	BytesOut uint64        // of blocks sent to it
	RTT      time.Duration // 0 for unknown
	Rate     float64       // bytes per second, as last measured; 0 for unknown
	Asked    int           // blocks it is asked for now
	Have     int           // of the blocks wanted now, those it has
	Stalls   int
	Astray   int  // blocks that nobody had asked for, on this connection
	Liar     bool // it has sent one that cannot have been a mistake
}

// Peers returns what is known of each connected peer.
func (x *Exchange) Peers() []PeerStats {
	x.mu.Lock()
	defer x.mu.Unlock()
	list := make([]PeerStats, 0, len(x.remotes))
	for _, r := range x.remotes {
		s := PeerStats{
			ID: r.id, Relay: r.relay, BytesIn: r.bytes, BlocksIn: r.blocks,
			BytesOut: x.limit.sentTo(r.id),
			RTT:      r.rtt, Rate: r.rate, Asked: len(r.out), Stalls: r.stalls, Astray: r.astray, Liar: r.liar,
		}
		for _, w := range x.wants {
			if w.said[r] == have {
				s.Have++
			}
		}
		list = append(list, s)
	}
	return list
}

// Score is how useful p is, higher is better: the rate in bytes per second at
// which it delivers, halved by each stall, until it has delivered eight more blocks; 0 for a peer of which nothing is
// known, negative for a liar.
func (x *Exchange) Score(p peer.ID) float64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, liar := x.liars[p]; liar {
		return -1
	}
	if r := x.remotes[p]; r != nil {
		return r.rate / math.Pow(2, float64(r.stalls))
	}
	return 0
}
