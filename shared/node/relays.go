package node

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
)

// A lost relay is dialed again after a pause that starts at minRetry and
// doubles up to maxRetry, each multiplied by 0.5 to 1.5 so that the visitors of
// a relay that restarts do not come back at the same moment. dialTimeout ends
// one attempt.
const (
	minRetry    = 250 * time.Millisecond
	maxRetry    = 20 * time.Second
	dialTimeout = 15 * time.Second
)

// A relay is one of the node's relays; Node.mu guards all but info.ID and wake.
type relay struct {
	info      peer.AddrInfo
	connected bool
	losses    int           // connections to it that have ended: each may take the reservation along
	held      *reservation  // nil for none
	refusals  int           // of reservations, one after another
	wake      chan struct{} // capacity 1: lost, or worth another try at once
}

// AddRelays adds relays to those the node keeps connected. Addresses of one it
// has already are added to what is known of it.
func (n *Node) AddRelays(infos ...peer.AddrInfo) {
	for _, info := range infos {
		if info.ID == n.cfg.Host.ID() {
			continue
		}
		n.cfg.Host.Peerstore().AddAddrs(info.ID, info.Addrs, peerstore.PermanentAddrTTL)
		n.mu.Lock()
		r, known := n.relays[info.ID]
		if known {
			for _, a := range info.Addrs {
				if !slices.ContainsFunc(r.info.Addrs, a.Equal) {
					r.info.Addrs = append(r.info.Addrs, a)
				}
			}
		}
		if !known && n.ctx.Err() == nil {
			r = &relay{info: info, wake: make(chan struct{}, 1)}
			r.connected = n.cfg.Host.Network().Connectedness(info.ID) == network.Connected
			n.relays[info.ID] = r
			n.wg.Go(func() { n.keep(r) })
		}
		n.mu.Unlock()
		if known {
			r.poke()
		}
	}
}

// Retry dials every lost relay now instead of after its pause, for a caller
// that knows the network is back.
func (n *Node) Retry() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range n.relays {
		r.poke()
	}
}

func (r *relay) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// keep connects to r whenever it is not connected, and holds a circuit
// reservation there while it is, until the node closes.
func (n *Node) keep(r *relay) {
	pause := minRetry
	for n.ctx.Err() == nil {
		if n.cfg.Host.Network().Connectedness(r.info.ID) != network.Connected {
			// The swarm remembers a failed address for longer than we wait.
			if s, ok := n.cfg.Host.Network().(*swarm.Swarm); ok {
				s.Backoff().Clear(r.info.ID)
			}
			ctx, cancel := context.WithTimeout(n.ctx, dialTimeout)
			err := n.cfg.Host.Connect(ctx, peer.AddrInfo{ID: r.info.ID}) // its addresses are in the peerstore
			cancel()
			if n.ctx.Err() != nil {
				return
			}
			if err != nil {
				n.cfg.Log.Debug("relay not reached", "peer", r.info.ID, "err", err, "pause", pause)
				n.watch.unreachable()
				t := time.NewTimer(time.Duration((0.5 + rand.Float64()) * float64(pause)))
				select {
				case <-t.C:
					pause = min(2*pause, maxRetry)
				case <-r.wake:
					pause = minRetry
				case <-n.ctx.Done():
				}
				t.Stop()
				continue
			}
		}
		pause = minRetry
		t := time.NewTimer(n.reserve(r))
		select {
		case <-t.C:
		case <-r.wake:
		case <-n.ctx.Done():
		}
		t.Stop()
	}
}

// notifiee hears of connections for Node.
type notifiee Node

func (*notifiee) Listen(network.Network, ma.Multiaddr)      {}
func (*notifiee) ListenClose(network.Network, ma.Multiaddr) {}

func (n *notifiee) Connected(_ network.Network, c network.Conn) {
	(*Node)(n).peerChanged(c.RemotePeer())
}

func (n *notifiee) Disconnected(_ network.Network, c network.Conn) {
	(*Node)(n).connLost(c.RemotePeer())
	(*Node)(n).peerChanged(c.RemotePeer())
}

// notify wakes who waits for a change. The caller holds mu.
func (n *Node) notify() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// peerChanged looks at p's state itself: the swarm may report the end of one
// connection after the beginning of the next.
func (n *Node) peerChanged(p peer.ID) {
	n.mu.Lock()
	state := n.cfg.Host.Network().Connectedness(p)
	r := n.relays[p]
	if r != nil && r.connected != (state == network.Connected) {
		r.connected = state == network.Connected
		n.notify()
		if r.connected {
			n.cfg.Log.Info("relay connected", "peer", p)
		} else {
			n.cfg.Log.Info("relay lost", "peer", p)
		}
		r.poke()
	}
	n.mu.Unlock()
	if n.cfg.OnPeer != nil {
		n.cfg.OnPeer(p, r != nil, state)
	}
}
