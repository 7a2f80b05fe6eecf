package exchange

import (
	"context"
	"sync"
	"time"

	"github.com/ipfs/boxo/bitswap/message"
	bsnetwork "github.com/ipfs/boxo/bitswap/network"
	"github.com/ipfs/boxo/bitswap/server"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
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
	if err := l.BitSwapNetwork.SendMessage(ctx, p, m); err != nil {
		return err
	}
	l.x.served.Add(uint64(n))
	l.x.limit.sent(p, n)
	return nil
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
