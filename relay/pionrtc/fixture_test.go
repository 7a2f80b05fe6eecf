package pionrtc_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	tptu "github.com/libp2p/go-libp2p/p2p/net/upgrader"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/webfabric/weft/relay/pionrtc"
	"github.com/webfabric/weft/shared/identity"
	"github.com/webfabric/weft/shared/webrtc"
)

// patience is the cap of every wait; nothing is as slow.
const patience = 60 * time.Second

// newRelay starts a circuit relay that limits nothing.
func newRelay(t testing.TB) peer.AddrInfo {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.Transport(tcp.NewTCPTransport),
		libp2p.DisableRelay(), libp2p.ResourceManager(&network.NullResourceManager{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	rc := relay.DefaultResources()
	rc.Limit = nil
	rc.MaxReservations, rc.MaxReservationsPerIP, rc.MaxReservationsPerASN, rc.MaxCircuits = 1000, 1000, 1000, 1000
	r, err := relay.New(h, relay.WithResources(rc))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}
}

// A node is a peer with the transport.
type node struct {
	host.Host
	tpt *webrtc.Transport
}

func newNode(t testing.TB, key crypto.PrivKey) *node {
	t.Helper()
	n, err := makeNode(key, pionrtc.New(pionrtc.WithLoopback()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

func makeNode(key crypto.PrivKey, e webrtc.Engine) (*node, error) {
	if key == nil {
		var err error
		if key, err = identity.New(); err != nil {
			return nil, err
		}
	}
	h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.Identity(key), libp2p.Transport(tcp.NewTCPTransport),
		libp2p.DisableRelay(), libp2p.ResourceManager(&network.NullResourceManager{}))
	if err != nil {
		return nil, err
	}
	muxers := []tptu.StreamMuxer{{ID: yamux.ID, Muxer: yamux.DefaultTransport}}
	secure, err := noise.New(noise.ID, key, muxers)
	if err != nil {
		return nil, err
	}
	up, err := tptu.New([]sec.SecureTransport{secure}, muxers, nil, &network.NullResourceManager{}, nil)
	if err != nil {
		return nil, err
	}
	tpt, err := webrtc.AddTransport(h, up, e)
	if err != nil {
		return nil, err
	}
	return &node{h, tpt}, nil
}

// reserve gets the node a slot on r and returns its address there.
func (n *node) reserve(ctx context.Context, r peer.AddrInfo) (ma.Multiaddr, error) {
	n.Peerstore().AddAddrs(r.ID, r.Addrs, time.Hour)
	if _, err := client.Reserve(ctx, n, r); err != nil {
		return nil, err
	}
	return ma.StringCast(r.Addrs[0].String() + "/p2p/" + r.ID.String() + "/p2p-circuit/webrtc/p2p/" + n.ID().String()), nil
}

// farm is a transport that makes a peer for every listener, so that connections
// of several come to the one they were dialed at, as with ports.
type farm struct {
	transport.Transport // a peer's that is there already
	relay               peer.AddrInfo
}

func (f *farm) Listen(ma.Multiaddr) (transport.Listener, error) {
	n, err := makeNode(nil, pionrtc.New(pionrtc.WithLoopback()))
	if err != nil {
		return nil, err
	}
	addr, err := n.reserve(context.Background(), f.relay)
	if err != nil {
		n.Close()
		return nil, err
	}
	l, err := n.tpt.Listen(ma.StringCast("/p2p-circuit/webrtc"))
	if err != nil {
		n.Close()
		return nil, err
	}
	return &farmed{Listener: l, node: n, addr: addr}, nil
}

type farmed struct {
	transport.Listener
	node *node
	addr ma.Multiaddr
	once sync.Once
}

func (l *farmed) Multiaddr() ma.Multiaddr { return l.addr }

func (l *farmed) Close() error {
	l.once.Do(func() {
		l.Listener.Close()
		// Connections that were accepted end with the node, and the suite
		// closes its listeners first.
		go l.node.Close()
	})
	return nil
}

// dialer dials whichever peer the address names.
type dialer struct{ transport.Transport }

func (d dialer) Dial(ctx context.Context, a ma.Multiaddr, _ peer.ID) (transport.CapableConn, error) {
	_, p := peer.SplitAddr(a)
	return d.Transport.Dial(ctx, a, p)
}
