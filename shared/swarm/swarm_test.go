//go:build !js

package swarm_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dsync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	libp2pswarm "github.com/libp2p/go-libp2p/p2p/net/swarm"
	tptu "github.com/libp2p/go-libp2p/p2p/net/upgrader"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/webfabric/weft/relay/pionrtc"
	"github.com/webfabric/weft/shared/bcin"
	"github.com/webfabric/weft/shared/identity"
	"github.com/webfabric/weft/shared/node"
	"github.com/webfabric/weft/shared/swarm"
	"github.com/webfabric/weft/shared/webrtc"
)

const origin = "https://example.org"

// newRelay starts a relay: circuits without limits, and a rendezvous.
func newRelay(t *testing.T) host.Host {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.Transport(tcp.NewTCPTransport),
		libp2p.DisableRelay(), libp2p.ResourceManager(&network.NullResourceManager{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	rc := circuit.DefaultResources()
	rc.Limit = nil
	rc.MaxReservations, rc.MaxReservationsPerIP, rc.MaxReservationsPerASN, rc.MaxCircuits = 100, 100, 100, 100
	r, err := circuit.New(h, circuit.WithResources(rc), circuit.WithReservationAddressFilter(func(ma.Multiaddr) bool { return true }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	s, err := bcin.Serve(h, bcin.ServerConfig{PerNetwork: 100})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return h
}

// A visitor is a node with all that a tab has, but for the browser.
type visitor struct {
	t      *testing.T
	host   host.Host
	node   *node.Node
	swarm  *swarm.Swarm
	bcin   *bcin.Client
	holds  atomic.Pointer[[]cid.Cid]
	cancel context.CancelFunc
	done   chan struct{}
}

// join makes a visitor, who stays until leave or the test's end.
func join(t *testing.T, relay host.Host, cfg swarm.Config) *visitor {
	t.Helper()
	v := &visitor{t: t, done: make(chan struct{})}
	key, err := identity.New()
	if err != nil {
		t.Fatal(err)
	}
	v.host, err = libp2p.New(libp2p.NoListenAddrs, libp2p.Identity(key), libp2p.Transport(tcp.NewTCPTransport),
		libp2p.DisableRelay(), libp2p.ResourceManager(&network.NullResourceManager{}),
		// As the tab's: a machine that is busy with many takes its time.
		libp2p.SwarmOpts(libp2pswarm.WithDialTimeoutLocal(time.Minute), libp2pswarm.WithDialTimeout(time.Minute)))
	if err != nil {
		t.Fatal(err)
	}
	muxers := []tptu.StreamMuxer{{ID: yamux.ID, Muxer: yamux.DefaultTransport}}
	secure, err := noise.New(noise.ID, key, muxers)
	if err != nil {
		t.Fatal(err)
	}
	up, err := tptu.New([]sec.SecureTransport{secure}, muxers, nil, &network.NullResourceManager{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := webrtc.AddTransport(v.host, up, pionrtc.New(pionrtc.WithLoopback())); err != nil {
		t.Fatal(err)
	}
	v.node, err = node.New(t.Context(), node.Config{
		Host:         v.host,
		Blockstore:   blockstore.NewBlockstore(dsync.MutexWrap(datastore.NewMapDatastore())),
		Relays:       []peer.AddrInfo{{ID: relay.ID(), Addrs: relay.Addrs()}},
		OnRelayAddrs: func() { v.refresh() },
	})
	if err != nil {
		t.Fatal(err)
	}
	v.holds.Store(new([]cid.Cid))
	client := bcin.New(bcin.Config{
		Host: v.host, Key: key, Origin: origin, Addrs: v.node.RelayAddrs,
		Holds: func() []cid.Cid { return *v.holds.Load() },
	})
	cfg.Host, cfg.BCIN, cfg.IsRelay = v.host, client, v.node.IsRelay
	v.swarm = swarm.New(cfg)
	v.bcin = client
	ctx, cancel := context.WithCancel(context.Background())
	v.cancel = cancel
	go func() {
		defer close(v.done)
		met := make(chan struct{})
		go func() { defer close(met); client.Run(ctx, relay.ID()) }()
		v.swarm.Run(ctx)
		<-met
	}()
	t.Cleanup(v.leave)
	return v
}

func (v *visitor) refresh() {
	if v.bcin != nil {
		v.bcin.Refresh()
	}
}

func (v *visitor) leave() {
	v.cancel()
	<-v.done
	v.node.Close()
	v.host.Close()
}

// direct returns whom v has a WebRTC connection to.
func (v *visitor) direct() []peer.ID {
	var out []peer.ID
	for _, c := range v.host.Network().Conns() {
		if _, err := c.RemoteMultiaddr().ValueForProtocol(ma.P_WEBRTC); err == nil && !slices.Contains(out, c.RemotePeer()) {
			out = append(out, c.RemotePeer())
		}
	}
	slices.Sort(out)
	return out
}

func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// TestMesh: everyone has some neighbours, nobody too many, and there are no
// two groups that know nothing of each other.
func TestMesh(t *testing.T) {
	relay := newRelay(t)
	const degree, most = 2, 3
	all := map[peer.ID]*visitor{}
	for range 6 {
		v := join(t, relay, swarm.Config{Policy: swarm.Mesh(degree), MaxPeers: most})
		all[v.host.ID()] = v
	}
	waitFor(t, "a mesh", func() bool {
		var first peer.ID
		for id, v := range all {
			if n := len(v.direct()); n < 1 || n > most {
				return false
			}
			first = id
		}
		reached := map[peer.ID]bool{first: true}
		for queue := []peer.ID{first}; len(queue) > 0; queue = queue[1:] {
			for _, p := range all[queue[0]].direct() {
				if !reached[p] {
					reached[p] = true
					queue = append(queue, p)
				}
			}
		}
		return len(reached) == len(all)
	})
}

func TestChain(t *testing.T) {
	relay := newRelay(t)
	var all []*visitor
	for range 5 {
		all = append(all, join(t, relay, swarm.Config{Policy: swarm.Chain()}))
	}
	slices.SortFunc(all, func(a, b *visitor) int {
		if a.host.ID() < b.host.ID() {
			return -1
		}
		return 1
	})
	waitFor(t, "a ring", func() bool {
		for i, v := range all {
			want := []peer.ID{all[(i+1)%len(all)].host.ID(), all[(i+len(all)-1)%len(all)].host.ID()}
			slices.Sort(want)
			if !slices.Equal(v.direct(), want) {
				return false
			}
		}
		return true
	})
}

// TestStar: a node that wants the relay only dials nobody, and is rid of who
// dials it.
func TestStar(t *testing.T) {
	relay := newRelay(t)
	alone := join(t, relay, swarm.Config{Policy: swarm.Star()})
	var came, went atomic.Int64
	alone.host.Network().Notify(&network.NotifyBundle{
		ConnectedF: func(_ network.Network, c network.Conn) {
			if c.Stat().Direction == network.DirInbound {
				came.Add(1)
			}
		},
		DisconnectedF: func(network.Network, network.Conn) { went.Add(1) },
	})
	join(t, relay, swarm.Config{})
	waitFor(t, "somebody comes", func() bool { return came.Load() > 0 })
	waitFor(t, "and is turned away", func() bool { return went.Load() >= came.Load() && len(alone.direct()) == 0 })
}

// TestHolders: of many, the one that has what is wanted is dialled.
func TestHolders(t *testing.T) {
	relay := newRelay(t)
	root := blocks.NewBlock([]byte("root")).Cid()
	var holder *visitor
	for i := range 6 {
		v := join(t, relay, swarm.Config{Policy: swarm.Mesh(1)})
		if i == 3 {
			v.holds.Store(&[]cid.Cid{root})
			v.bcin.Refresh()
			holder = v
		}
	}
	watcher := join(t, relay, swarm.Config{Policy: swarm.Star()})
	waitFor(t, "the record says so", func() bool {
		return slices.ContainsFunc(watcher.bcin.Peers(), func(r bcin.Record) bool { return r.Serves(root) })
	})
	v := join(t, relay, swarm.Config{Policy: swarm.Mesh(1), Wants: func() []cid.Cid { return []cid.Cid{root} }})
	waitFor(t, "the holder is a neighbour", func() bool { return slices.Contains(v.direct(), holder.host.ID()) })
}

// TestLeft: whoever left is no neighbour, and comes back at once with the same
// key or another.
func TestLeft(t *testing.T) {
	relay := newRelay(t)
	a, b := join(t, relay, swarm.Config{}), join(t, relay, swarm.Config{})
	waitFor(t, "two meet", func() bool { return len(a.direct()) == 1 && len(b.direct()) == 1 })
	b.leave()
	waitFor(t, "one is alone", func() bool { return len(a.direct()) == 0 && len(a.bcin.Peers()) == 0 && len(a.swarm.Neighbours()) == 0 })
	c := join(t, relay, swarm.Config{})
	waitFor(t, "another comes", func() bool { return slices.Equal(a.direct(), []peer.ID{c.host.ID()}) })
}

func TestBlock(t *testing.T) {
	relay := newRelay(t)
	a, b := join(t, relay, swarm.Config{}), join(t, relay, swarm.Config{})
	waitFor(t, "two meet", func() bool { return len(a.direct()) == 1 && len(b.direct()) == 1 })
	a.swarm.Block(b.host.ID())
	a.swarm.Block(relay.ID())
	waitFor(t, "they part", func() bool { return len(a.direct()) == 0 })
	if got := a.swarm.Blocked(); !slices.Equal(got, []peer.ID{b.host.ID()}) {
		t.Errorf("Blocked() = %v, want %v", got, b.host.ID())
	}
	// It tries again and gets nowhere; somebody else does.
	c := join(t, relay, swarm.Config{})
	waitFor(t, "a third meets both", func() bool { return len(c.direct()) == 2 })
	if slices.Contains(a.direct(), b.host.ID()) {
		// It may just have come, and is sent away.
		waitFor(t, "they part again", func() bool { return !slices.Contains(a.direct(), b.host.ID()) })
	}
	if len(a.node.Relays()) != 1 {
		t.Error("the relay was blocked")
	}
}

// TestDataSaver: two neighbours at most, and nobody from outside.
func TestDataSaver(t *testing.T) {
	relay := newRelay(t)
	for range 4 {
		join(t, relay, swarm.Config{})
	}
	saver := join(t, relay, swarm.Config{DataSaver: true})
	outbound := func() (n int) {
		for _, c := range saver.host.Network().Conns() {
			if _, err := c.RemoteMultiaddr().ValueForProtocol(ma.P_WEBRTC); err == nil && c.Stat().Direction == network.DirOutbound {
				n++
			}
		}
		return n
	}
	waitFor(t, "two that it dialled", func() bool { return outbound() == 2 && len(saver.direct()) == 2 })
	saver.swarm.SetDataSaver(false)
	waitFor(t, "all, without saving", func() bool { return len(saver.direct()) == 4 })
}
