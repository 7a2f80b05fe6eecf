package swarm

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	libp2pswarm "github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/webfabric/weft/shared/webrtc"
)

// later puts the next dial off, for twice as long as the last time.
func (k *known) later(now time.Time, most time.Duration) {
	k.pause = min(max(2*k.pause, firstPause), most)
	k.next = now.Add(time.Duration((0.75 + rand.Float64()/2) * float64(k.pause)))
}

// dial connects to p in the background. The caller holds mu.
func (s *Swarm) dial(ctx context.Context, p peer.ID, k *known) {
	k.dialling = true
	s.dialling++
	addrs, circuit := k.record.Addrs, k.circuit
	s.dials.Go(func() {
		err := s.connect(ctx, p, addrs, circuit)
		now := time.Now()
		s.mu.Lock()
		k.dialling = false
		s.dialling--
		switch {
		case err == nil:
		case errors.Is(err, webrtc.ErrNotConnected):
			// The next attempt is by a circuit: Bitswap works there as well,
			// at the relay's cost.
			k.circuit = !circuit
			k.later(now, lastPause)
		case circuit:
			k.circuit = false
			k.later(now, lastPause)
		default:
			k.later(now, softPause)
		}
		s.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			s.cfg.Log.Debug("peer not reached", "peer", p, "err", err)
		}
		s.Refresh()
	})
}

func (s *Swarm) connect(ctx context.Context, p peer.ID, addrs []ma.Multiaddr, circuit bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, dialTimeout, fmt.Errorf("swarm: no connection within %v", dialTimeout))
	defer cancel()
	nw := s.cfg.Host.Network()
	if sw, ok := nw.(*libp2pswarm.Swarm); ok {
		// It remembers failures for minutes, and a visitor who could not be
		// reached has perhaps just opened a page.
		sw.Backoff().Clear(p)
	}
	if circuit {
		plain := make([]ma.Multiaddr, len(addrs))
		for i, a := range addrs {
			plain[i] = withoutWebRTC(a)
		}
		addrs = plain
	} else {
		// A circuit that p has opened to us does not do.
		ctx = network.WithForceDirectDial(ctx, "swarm")
	}
	// Only what the record says: old addresses cost time.
	s.cfg.Host.Peerstore().ClearAddrs(p)
	s.cfg.Host.Peerstore().AddAddrs(p, addrs, peerstore.TempAddrTTL)
	_, err := nw.DialPeer(ctx, p)
	return err
}

// withoutWebRTC is the address of the circuit itself.
func withoutWebRTC(a ma.Multiaddr) ma.Multiaddr {
	var out ma.Multiaddr
	for _, c := range a {
		if c.Protocol().Code != ma.P_WEBRTC {
			out = append(out, c)
		}
	}
	return out
}
