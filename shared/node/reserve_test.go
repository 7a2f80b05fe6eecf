//go:build !js

package node_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	pbv2 "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/webfabric/weft/shared/node"
)

// asked counts the reservations that a relay was asked for.
type asked struct {
	n atomic.Int64
}

func (a *asked) RelayStatus(bool)                           {}
func (a *asked) ConnectionOpened()                          {}
func (a *asked) ConnectionClosed(time.Duration)             {}
func (a *asked) BytesTransferred(int)                       {}
func (a *asked) ReservationAllowed(bool)                    {}
func (a *asked) ReservationClosed(int)                      {}
func (a *asked) ConnectionRequestHandled(pbv2.Status)       {}
func (a *asked) ReservationRequestHandled(code pbv2.Status) { a.n.Add(1) }

// newCircuitHost makes a host that can be reached through relays.
func newCircuitHost(t *testing.T) host.Host {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.EnableRelay())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// serveCircuits has h relay circuits. A reservation lasts for ttl.
func serveCircuits(t *testing.T, h host.Host, ttl time.Duration) *asked {
	t.Helper()
	a := &asked{}
	r, err := circuit.New(h, circuit.WithResources(circuit.Resources{
		ReservationTTL: ttl, MaxReservations: 8, MaxCircuits: 8, BufferSize: 4096, MaxReservationsPerIP: 8, MaxReservationsPerASN: 8,
	}), circuit.WithReservationAddressFilter(func(ma.Multiaddr) bool { return true }), circuit.WithMetricsTracer(a))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return a
}

// reaches has a stranger dial p at its address through a relay.
func reaches(t *testing.T, p *node.Node) bool {
	t.Helper()
	stranger := newCircuitHost(t)
	defer stranger.Close()
	addrs := p.RelayAddrs()
	if len(addrs) == 0 {
		return false
	}
	if err := stranger.Connect(t.Context(), peer.AddrInfo{ID: p.Host().ID(), Addrs: addrs}); err != nil {
		t.Log(err)
		return false
	}
	c := stranger.Network().ConnsToPeer(p.Host().ID())[0]
	return !c.Stat().Limited && strings.Contains(c.RemoteMultiaddr().String(), "p2p-circuit")
}

func TestReservation(t *testing.T) {
	relay := newHost(t)
	serveCircuits(t, relay, time.Hour)
	var changes atomic.Int64
	n, _ := newNode(t, node.Config{
		Host: newCircuitHost(t), Relays: []peer.AddrInfo{info(relay)}, OnRelayAddrs: func() { changes.Add(1) },
	})
	waitFor(t, "an address through the relay", func() bool { return len(n.RelayAddrs()) > 0 })
	want := relay.Addrs()[0].String() + "/p2p/" + relay.ID().String() + "/p2p-circuit"
	if got := n.RelayAddrs(); len(got) != 1 || got[0].String() != want {
		t.Errorf("RelayAddrs() = %v, want %s", got, want)
	}
	if !reaches(t, n) {
		t.Error("not reached at that address")
	}

	// The relay forgets with the last connection; the next brings it back.
	lost := make(chan struct{})
	var once atomic.Bool
	n.Host().Network().Notify(&network.NotifyBundle{DisconnectedF: func(_ network.Network, c network.Conn) {
		if c.RemotePeer() == relay.ID() && !once.Swap(true) {
			close(lost)
		}
	}})
	if err := relay.Network().ClosePeer(n.Host().ID()); err != nil {
		t.Fatal(err)
	}
	<-lost
	waitFor(t, "reached again", func() bool { return reaches(t, n) })
	waitFor(t, "told of each change", func() bool { return changes.Load() == 3 }) // there, gone, there
}

func TestReservationRenewed(t *testing.T) {
	relay := newHost(t)
	a := serveCircuits(t, relay, 3*time.Second) // the wire has whole seconds
	n, _ := newNode(t, node.Config{Host: newCircuitHost(t), Relays: []peer.AddrInfo{info(relay)}})
	waitFor(t, "two renewals", func() bool { return a.n.Load() >= 3 })
	if len(n.RelayAddrs()) == 0 {
		t.Error("no address after a renewal")
	}
}

// TestReservationRefused: a relay that has no room now may have some later.
func TestReservationRefused(t *testing.T) {
	relay := newHost(t)
	n, _ := newNode(t, node.Config{Host: newCircuitHost(t), Relays: []peer.AddrInfo{info(relay)}})
	online(t, n)
	if got := n.RelayAddrs(); len(got) != 0 {
		t.Errorf("RelayAddrs() = %v without a reservation", got)
	}
	serveCircuits(t, relay, time.Hour)
	waitFor(t, "a reservation", func() bool { return len(n.RelayAddrs()) > 0 })
}

// TestNoReservation: a host that takes no circuits asks for none.
func TestNoReservation(t *testing.T) {
	relay := newHost(t)
	a := serveCircuits(t, relay, time.Hour)
	n, _ := newNode(t, node.Config{Relays: []peer.AddrInfo{info(relay)}})
	other, _ := newNode(t, node.Config{Host: newCircuitHost(t), Relays: []peer.AddrInfo{info(relay)}})
	waitFor(t, "the other's reservation", func() bool { return len(other.RelayAddrs()) > 0 })
	online(t, n)
	if got := a.n.Load(); got != 1 {
		t.Errorf("%d reservations asked for, want the other's", got)
	}
	if got := n.RelayAddrs(); len(got) != 0 {
		t.Errorf("RelayAddrs() = %v", got)
	}
}
