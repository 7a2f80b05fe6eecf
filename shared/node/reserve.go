package node

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/transport"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	// reserveTimeout ends one attempt at a reservation.
	reserveTimeout = 15 * time.Second
	// A refused reservation is asked for again after a pause from minReserve
	// on, which doubles up to maxReserve.
	minReserve, maxReserve = time.Second, time.Minute
	// never is a pause that a change ends.
	never = time.Duration(math.MaxInt64)
	// maxRelayAddrs is how many addresses of one relay are told to others, who
	// mostly are connected to it themselves.
	maxRelayAddrs = 4
)

// A reservation lets others reach the node through a relay: circuits need one
// (https://github.com/libp2p/specs/blob/master/relay/circuit-v2.md#reservation).
type reservation struct {
	losses int // relay.losses when it was asked for: another number, and it may be gone
	begun  time.Time
	end    time.Time
	addrs  []ma.Multiaddr // of the relay, as it says
}

// RelayAddrs returns the addresses at which the node can be reached through its
// relays, …/p2p/<relay>/p2p-circuit, with /webrtc after it where the host
// speaks that: those of relays that it has a reservation at.
func (n *Node) RelayAddrs() []ma.Multiaddr {
	suffix := circuitAddr
	if n.hasWebRTC() {
		suffix = webrtcAddr
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var addrs []ma.Multiaddr
	for _, id := range n.connected() {
		r := n.relays[id]
		if !r.reachable(time.Now()) {
			continue
		}
		p2p := ma.StringCast("/p2p/" + id.String())
		for _, a := range r.told() {
			addrs = append(addrs, a.Encapsulate(p2p).Encapsulate(suffix))
		}
	}
	return addrs
}

var (
	circuitAddr = ma.StringCast("/p2p-circuit")
	webrtcAddr  = ma.StringCast("/p2p-circuit/webrtc")
)

// reachable tells whether the reservation holds at a time. The caller holds
// Node.mu, as for told.
func (r *relay) reachable(now time.Time) bool {
	return r.held != nil && r.held.losses == r.losses && now.Before(r.held.end)
}

// told are the relay's addresses worth telling: those the node was given, then
// those among its own that a browser can dial.
func (r *relay) told() []ma.Multiaddr {
	var out []ma.Multiaddr
	for _, a := range slices.Concat(r.info.Addrs, r.held.addrs) {
		if len(out) == maxRelayAddrs {
			break
		}
		if !slices.ContainsFunc(out, a.Equal) {
			out = append(out, a)
		}
	}
	return out
}

// hasWebRTC tells whether the host's transport for circuits takes /webrtc too.
func (n *Node) hasWebRTC() bool {
	nw, ok := n.cfg.Host.Network().(interface {
		TransportForDialing(ma.Multiaddr) transport.Transport
	})
	if !ok {
		return false
	}
	t := nw.TransportForDialing(webrtcAddr)
	return t != nil && slices.Contains(t.Protocols(), ma.P_WEBRTC)
}

// hasProtocol tells whether code occurs in a.
func hasProtocol(a ma.Multiaddr, code int) bool {
	return slices.ContainsFunc(a, func(c ma.Component) bool { return c.Protocol().Code == code })
}

// reserve sees to it that there is a reservation at r, which is connected, and
// returns when it is to be looked at again unless something changes before.
func (n *Node) reserve(r *relay) time.Duration {
	if !slices.ContainsFunc(n.cfg.Host.Network().ListenAddresses(), func(a ma.Multiaddr) bool { return hasProtocol(a, ma.P_CIRCUIT) }) {
		return never
	}
	begun := time.Now()
	n.mu.Lock()
	losses := r.losses
	if r.reachable(begun) {
		// Half of its time is left for a relay that is busy.
		if due := r.held.begun.Add(r.held.end.Sub(r.held.begun) / 2); begun.Before(due) {
			n.mu.Unlock()
			return due.Sub(begun)
		}
	}
	n.mu.Unlock()

	ctx, cancel := context.WithTimeout(network.WithNoDial(n.ctx, "reservation"), reserveTimeout)
	defer cancel()
	got, err := circuit.Reserve(ctx, bounded{n.cfg.Host, ctx}, peer.AddrInfo{ID: r.info.ID})
	told := func() {}
	defer func() { told() }()
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		n.cfg.Log.Debug("reservation refused", "peer", r.info.ID, "err", err)
		pause := min(minReserve<<min(r.refusals, 10), maxReserve)
		r.refusals++
		return time.Duration((0.5 + rand.Float64()) * float64(pause))
	}
	r.refusals = 0
	if r.losses != losses {
		return 0
	}
	renewal := r.reachable(begun)
	r.held = &reservation{losses: losses, begun: begun, end: got.Expiration}
	for _, a := range got.Addrs {
		if id, _ := peer.IDFromP2PAddr(a); id == r.info.ID {
			a, _ = peer.SplitAddr(a)
		}
		if a != nil && hasProtocol(a, ma.P_WS) && !hasProtocol(a, ma.P_CIRCUIT) {
			r.held.addrs = append(r.held.addrs, a)
		}
	}
	if !renewal && n.cfg.OnRelayAddrs != nil {
		told = n.cfg.OnRelayAddrs
	}
	return max(got.Expiration.Sub(begun)/2, minReserve)
}

// connLost notes that a connection to p has ended: if it was the last one, the
// relay has forgotten the reservation, even if another was made at once.
func (n *Node) connLost(p peer.ID) {
	n.mu.Lock()
	r := n.relays[p]
	told := r != nil && r.reachable(time.Now())
	if r != nil {
		r.losses++
		r.poke()
	}
	n.mu.Unlock()
	if told && n.cfg.OnRelayAddrs != nil {
		n.cfg.OnRelayAddrs()
	}
}

// bounded is a host whose streams end with ctx: the circuit client's own bound
// is a minute.
type bounded struct {
	host.Host
	ctx context.Context
}

func (b bounded) NewStream(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	s, err := b.Host.NewStream(ctx, p, ids...)
	if err == nil {
		context.AfterFunc(b.ctx, func() { _ = s.Reset() }) // nothing to be done about it
	}
	return s, err
}
