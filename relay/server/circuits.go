package server

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"
)

// What circuits may carry, both ways together. libp2p's own limits are not
// used, see [newCircuitRelay]: so whoever opens a circuit pays for it out of
// a budget, and so does the origin that its page came from. Two visitors need
// some 20 KiB to agree on a WebRTC connection; the rest is for those whose
// networks let nothing else through.
const (
	nodeBudget   = 256 << 20 // bytes that one node may use at once,
	nodeRefill   = 256 << 10 // and bytes a second that it gets back
	originBudget = 4 << 30
	originRefill = 16 << 20
	// handshake is what a stream may carry whatever the budget: to renew a
	// reservation, or to be told that there is no circuit. The circuit relay
	// reads messages of at most 4 KiB.
	handshake = 8 << 10
	// maxBudgets is how many budgets are remembered, of nodes and of origins
	// each. Those that are whole again are forgotten first.
	maxBudgets = 16384
)

// errBudget ends a circuit whose node or origin has used up its budget.
var errBudget = errors.New("server: circuit budget used up")

// budgets are what nodes, or origins, may still use.
type budgets[K comparable] struct {
	most, refill float64
	mu           sync.Mutex
	left         map[K]budget
}

type budget struct {
	bytes float64 // at a time
	at    time.Time
}

func newBudgets[K comparable](most, refill float64) *budgets[K] {
	return &budgets[K]{most: most, refill: refill, left: map[K]budget{}}
}

// spend takes n bytes from k's budget, and tells whether it had as many. With
// 0 it tells whether anything is left.
func (b *budgets[K]) spend(k K, n int, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	has := b.now(k, now)
	if has <= 0 || has < float64(n) {
		return false
	}
	if n == 0 {
		return true
	}
	if _, known := b.left[k]; !known && len(b.left) >= maxBudgets {
		b.forget(now)
	}
	b.left[k] = budget{bytes: has - float64(n), at: now}
	return true
}

// now is what k has. The caller holds mu, as for forget.
func (b *budgets[K]) now(k K, now time.Time) float64 {
	v, known := b.left[k]
	if !known {
		return b.most
	}
	return math.Min(b.most, v.bytes+b.refill*now.Sub(v.at).Seconds())
}

// forget makes room: the budgets that are whole say nothing, and without any
// such the one that is nearest to it goes.
func (b *budgets[K]) forget(now time.Time) {
	var most float64 = math.Inf(-1)
	var nearest K
	for k := range b.left {
		has := b.now(k, now)
		if has >= b.most {
			delete(b.left, k)
		} else if has > most {
			most, nearest = has, k
		}
	}
	if len(b.left) >= maxBudgets {
		delete(b.left, nearest)
	}
}

// circuits is the host as the circuit relay sees it: what its streams carry is
// charged to who opened them.
type circuits struct {
	host.Host
	origin  func(ma.Multiaddr) string // of the page behind a connection's address; "" if there is none
	nodes   *budgets[peer.ID]
	origins *budgets[string]
}

var _ circuit.ACLFilter = (*circuits)(nil)

func newCircuits(h host.Host, origin func(ma.Multiaddr) string) *circuits {
	return &circuits{Host: h, origin: origin, nodes: newBudgets[peer.ID](nodeBudget, nodeRefill), origins: newBudgets[string](originBudget, originRefill)}
}

// SetStreamHandler gives f streams that cost.
func (c *circuits) SetStreamHandler(id protocol.ID, f network.StreamHandler) {
	c.Host.SetStreamHandler(id, func(s network.Stream) {
		f(&paidStream{Stream: s, c: c, node: s.Conn().RemotePeer(), origin: c.origin(s.Conn().RemoteMultiaddr())})
	})
}

// AllowReserve lets every node be reached.
func (*circuits) AllowReserve(peer.ID, ma.Multiaddr) bool { return true }

// AllowConnect refuses circuits that could carry nothing.
func (c *circuits) AllowConnect(src peer.ID, addr ma.Multiaddr, _ peer.ID) bool {
	now := time.Now()
	return c.nodes.spend(src, 0, now) && c.origins.spend(c.origin(addr), 0, now)
}

// paidStream is a stream that a node opened to have a circuit. The circuit
// relay reads and writes it from a goroutine each.
type paidStream struct {
	network.Stream
	c      *circuits
	node   peer.ID
	origin string

	mu    sync.Mutex
	moved int // bytes, up to handshake
}

func (s *paidStream) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b)
	if n > 0 {
		if perr := s.pay(n); perr != nil {
			return 0, perr
		}
	}
	return n, err
}

func (s *paidStream) Write(b []byte) (int, error) {
	if err := s.pay(len(b)); err != nil {
		return 0, err
	}
	return s.Stream.Write(b)
}

func (s *paidStream) pay(n int) error {
	s.mu.Lock()
	free := s.moved+n <= handshake
	if free {
		s.moved += n
	}
	s.mu.Unlock()
	if free {
		return nil
	}
	now := time.Now()
	if !s.c.nodes.spend(s.node, n, now) {
		return fmt.Errorf("%w: node %s", errBudget, s.node)
	}
	if !s.c.origins.spend(s.origin, n, now) {
		return fmt.Errorf("%w: origin %q", errBudget, s.origin)
	}
	return nil
}
