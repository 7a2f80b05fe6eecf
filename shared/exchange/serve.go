package exchange

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/boxo/bitswap/message"
	bsnetwork "github.com/ipfs/boxo/bitswap/network"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/bitswap/server"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"

	"github.com/webfabric/weft/shared/webrtc"
)

const (
	// outstanding is how many bytes one peer may have asked for and not yet
	// been sent; serveWorkers how many messages are sent at once. Both are so
	// that peers which do not read what they asked for leave the others some
	// workers: a message has a block of 1 MiB, or more small ones.
	outstanding  = 4 << 20
	serveWorkers = 16
	// storeWorkers read blocks for that.
	storeWorkers = 8
)

// Serving is how much is given to others. The zero value serves all there is.
type Serving struct {
	// Off serves nothing: whoever asks is told that it is not here.
	Off bool
	// Limit is how many bytes of blocks go out in a second; 0 for any number.
	Limit int
}

// SetServing changes how much is given to others. What was asked for before may
// still go out.
func (x *Exchange) SetServing(s Serving) {
	x.limit.set(s)
}

// newServer starts boxo's server over the exchange's network and limits.
func newServer(ctx context.Context, x *Exchange) *server.Server {
	return server.New(ctx, limited{x.net, x}, x.cfg.Blockstore,
		server.EngineBlockstoreWorkerCount(storeWorkers),
		server.EngineTaskWorkerCount(serveWorkers/2),
		server.TaskWorkerCount(serveWorkers),
		server.MaxOutstandingBytesPerPeer(outstanding),
		server.WithPeerBlockRequestFilter(func(peer.ID, cid.Cid) bool { return x.limit.serves() }),
	)
}

// limited is the network as the server sends over it.
type limited struct {
	bsnetwork.BitSwapNetwork
	x *Exchange
}

// SendMessage sends m when the limit allows it.
func (l limited) SendMessage(ctx context.Context, p peer.ID, m message.BitSwapMessage) error {
	n := 0
	for _, b := range m.Blocks() {
		n += len(b.RawData())
	}
	if err := l.x.limit.wait(ctx, n); err != nil {
		return err
	}
	if err := l.x.give(ctx, p, m); err != nil {
		return err
	}
	l.x.served.Add(uint64(n))
	l.x.limit.sent(p, n)
	return nil
}

// give sends m to p.
func (x *Exchange) give(ctx context.Context, p peer.ID, m message.BitSwapMessage) error {
	x.mu.Lock()
	r := x.remotes[p]
	x.mu.Unlock()
	if r == nil || r.giver.old.Load() {
		return x.net.SendMessage(ctx, p, m)
	}
	err := r.giver.send(ctx, m, x.detour, func(ctx context.Context) (network.Stream, error) {
		return x.cfg.Host.NewStream(network.WithNoDial(ctx, "bitswap"), p, bsnet.ProtocolBitswap)
	})
	if errors.Is(err, multistream.ErrNotSupported[protocol.ID]{}) {
		r.giver.old.Store(true) // boxo speaks the older versions
		return x.net.SendMessage(ctx, p, m)
	}
	return err
}

// detour tells whether s goes through a relay though there is a direct connection
// to its peer, too: a stream may have been opened before that was there.
func (x *Exchange) detour(s network.Stream) bool {
	if !webrtc.IsCircuit(s.Conn().RemoteMultiaddr()) {
		return false
	}
	return slices.ContainsFunc(x.cfg.Host.Network().ConnsToPeer(s.Conn().RemotePeer()), func(c network.Conn) bool {
		return !c.IsClosed() && !webrtc.IsCircuit(c.RemoteMultiaddr())
	})
}

const (
	// How long sending a message may take: latency, and its bytes at minRate,
	// within these; boxo's figures.
	giveLatency = 2 * time.Second
	giveRate    = 12_500 // bytes per second
	minGive     = 10 * time.Second
	maxGive     = 2 * time.Minute
	// giveIdle is for how long a stream is kept for the next message: less than
	// the 5 s after which Helia resets one.
	giveIdle = 2 * time.Second
)

// A giver sends messages to one peer, one after another on one stream. boxo
// opens a stream for each: over WebRTC that is a data channel, with its
// negotiation and its end, and blocks sent beside each other all come late.
type giver struct {
	old  atomic.Bool   // the peer speaks no Bitswap 1.2.0
	turn chan struct{} // capacity 1: has a value while somebody sends

	mu     sync.Mutex
	stream network.Stream // nil for none; written to by whoever has the turn
	idle   *time.Timer    // ends it
	stuck  time.Time      // when a message could not be sent in time
	over   bool
}

func newGiver() *giver { return &giver{turn: make(chan struct{}, 1)} }

// send sends m when it is its turn, on a stream made by open if there is none,
// or only one that is a detour.
func (g *giver) send(ctx context.Context, m message.BitSwapMessage, detour func(network.Stream) bool, open func(context.Context) (network.Stream, error)) error {
	since := time.Now()
	select {
	case g.turn <- struct{}{}:
		defer func() { <-g.turn }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	timeout := min(max(giveLatency+time.Duration(m.Size())*time.Second/giveRate, minGive), maxGive)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	for {
		s, err := g.take(since)
		if err != nil {
			return err
		}
		if s != nil && detour(s) {
			g.leave(s)
			s = nil
		}
		kept := s != nil
		if !kept {
			if s, err = open(ctx); err != nil {
				return err
			}
			if !g.set(s) {
				return ErrClosed
			}
		}
		s.SetWriteDeadline(deadline) // where that fails, so does writing
		if err = m.ToNetV1(s); err == nil {
			g.rest()
			return nil
		}
		late := ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded)
		g.drop(late)
		// The far end may have ended a stream that was kept.
		if late || !kept {
			return err
		}
	}
}

// take returns the stream that is kept, nil for none. It fails where the peer
// was found not to read since then.
func (g *giver) take(since time.Time) (network.Stream, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.over {
		return nil, ErrClosed
	}
	if g.stuck.After(since) {
		return nil, fmt.Errorf("exchange: give: the peer does not read: %w", os.ErrDeadlineExceeded)
	}
	if g.idle != nil && !g.idle.Stop() {
		g.stream, g.idle = nil, nil // it is being closed
	}
	return g.stream, nil
}

// leave has the kept stream s end once what was written has gone.
func (g *giver) leave(s network.Stream) {
	g.mu.Lock()
	g.stream = nil
	g.mu.Unlock()
	s.SetReadDeadline(time.Now().Add(minGive)) // Close reads the end of the negotiation
	go s.Close()
}

// set keeps s, unless the giver is over.
func (g *giver) set(s network.Stream) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.over {
		s.Reset()
		return false
	}
	g.stream, g.idle = s, nil
	return true
}

// rest has the stream closed unless it is used soon.
func (g *giver) rest() {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.stream
	if s == nil || g.over {
		return
	}
	g.idle = time.AfterFunc(giveIdle, func() {
		s.SetReadDeadline(time.Now().Add(minGive)) // Close reads the end of the negotiation
		s.Close()
	})
}

// drop resets the stream.
func (g *giver) drop(late bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if late {
		g.stuck = time.Now()
	}
	if g.stream != nil {
		g.stream.Reset()
		g.stream = nil
	}
}

// end resets the stream for good; whoever is sending fails.
func (g *giver) end() {
	g.mu.Lock()
	g.over = true
	if g.idle != nil {
		g.idle.Stop()
	}
	g.mu.Unlock()
	g.drop(false)
}

// limiter keeps the bytes sent in a second below a limit: each message waits
// until those before it are paid for.
type limiter struct {
	mu      sync.Mutex
	serving Serving
	free    time.Time     // when the next message may go
	changed chan struct{} // closed and replaced when the limit changes
	to      map[peer.ID]uint64
}

func newLimiter(s Serving) *limiter {
	return &limiter{serving: s, changed: make(chan struct{}), to: map[peer.ID]uint64{}}
}

// set changes what is served. Who waits for a limit that is no more waits anew.
func (l *limiter) set(s Serving) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.Limit != l.serving.Limit {
		l.free = time.Time{}
		close(l.changed)
		l.changed = make(chan struct{})
	}
	l.serving = s
}

func (l *limiter) serves() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.serving.Off
}

// wait returns when n bytes may be sent.
func (l *limiter) wait(ctx context.Context, n int) error {
	for {
		l.mu.Lock()
		now, changed := time.Now(), l.changed
		if l.serving.Limit <= 0 || n == 0 {
			l.mu.Unlock()
			return nil
		}
		if l.free.Before(now) {
			l.free = now
		}
		pause := l.free.Sub(now)
		l.free = l.free.Add(time.Duration(float64(n) / float64(l.serving.Limit) * float64(time.Second)))
		l.mu.Unlock()
		if pause <= 0 {
			return nil
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
			return nil
		case <-changed:
			t.Stop()
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		}
	}
}

// sent counts what went to p.
func (l *limiter) sent(p peer.ID, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.to[p] += uint64(n)
}

func (l *limiter) sentTo(p peer.ID) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.to[p]
}

// forget drops the count of a peer that is gone.
func (l *limiter) forget(p peer.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.to, p)
}
