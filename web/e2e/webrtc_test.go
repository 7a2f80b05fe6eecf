//go:build e2e

package e2e

import (
	"context"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	tptu "github.com/libp2p/go-libp2p/p2p/net/upgrader"
	libp2pnoise "github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/websocket"

	"github.com/webfabric/weft/relay/client"
	"github.com/webfabric/weft/relay/pionrtc"
	"github.com/webfabric/weft/relay/publish"
	"github.com/webfabric/weft/shared/content"
	"github.com/webfabric/weft/shared/identity"
	"github.com/webfabric/weft/shared/node"
	"github.com/webfabric/weft/shared/webrtc"
)

// A native is a peer outside the browser that speaks WebRTC.
type native struct {
	t      *testing.T
	host   host.Host
	node   *node.Node
	blocks blockstore.Blockstore
}

// native starts a peer that is connected to r and can be reached through it.
func (r *relay) native(t *testing.T) *native {
	t.Helper()
	return r.nativeWith(t, blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore())))
}

// holding is a file whose last block its only holder does not give yet.
type holding struct {
	heldBack
	root cid.Cid
	let  func()
}

// nativeHolding starts a peer that has s, of one file, and keeps its last block.
func (r *relay) nativeHolding(t *testing.T, s site) (*native, *holding) {
	t.Helper()
	store := blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
	stat, err := publish.Add(t.Context(), store, s.write(t))
	if err != nil {
		t.Fatal(err)
	}
	dag := merkledag.NewDAGService(blockservice.New(store, offline.Exchange(store)))
	dir, err := dag.Get(t.Context(), stat.Root)
	if err != nil {
		t.Fatal(err)
	}
	file, err := dag.Get(t.Context(), dir.Links()[0].Cid)
	if err != nil {
		t.Fatal(err)
	}
	h := &holding{root: stat.Root, heldBack: heldBack{
		Blockstore: store,
		block:      file.Links()[len(file.Links())-1].Cid,
		asked:      make(chan struct{}),
		free:       make(chan struct{}),
	}}
	h.let = sync.OnceFunc(func() { close(h.free) })
	t.Cleanup(h.let)
	return r.nativeWith(t, &h.heldBack), h
}

func (r *relay) nativeWith(t *testing.T, store blockstore.Blockstore) *native {
	t.Helper()
	key, err := identity.New()
	if err != nil {
		t.Fatal(err)
	}
	h, err := libp2p.New(libp2p.Identity(key), libp2p.NoListenAddrs, libp2p.DisableRelay(), libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.Transport(tcp.NewTCPTransport), libp2p.Transport(websocket.New))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	muxers := []tptu.StreamMuxer{{ID: yamux.ID, Muxer: yamux.DefaultTransport}}
	secure, err := libp2pnoise.New(libp2pnoise.ID, key, muxers)
	if err != nil {
		t.Fatal(err)
	}
	up, err := tptu.New([]sec.SecureTransport{secure}, muxers, nil, &network.NullResourceManager{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := webrtc.AddTransport(h, up, pionrtc.New(pionrtc.WithLoopback())); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	at, err := client.Find(ctx, r.url, "")
	if err != nil {
		t.Fatal(err)
	}
	n := &native{t: t, host: h, blocks: store}
	n.node, err = node.New(t.Context(), node.Config{Host: h, Blockstore: n.blocks, Relays: []peer.AddrInfo{{ID: at.ID, Addrs: at.Addrs}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.node.Close() })
	n.addr()
	return n
}

// addr is where tabs reach the peer, once they do.
func (n *native) addr() string {
	n.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		for _, a := range n.node.RelayAddrs() {
			return a.String() + "/p2p/" + n.host.ID().String()
		}
		if time.Now().After(end) {
			n.t.Fatal("the native peer has no slot at the relay")
		}
	}
}

// add gives the peer files, which nobody else has.
func (n *native) add(s site) content.Stat {
	n.t.Helper()
	stat, err := publish.Add(n.t.Context(), n.blocks, s.write(n.t))
	if err != nil {
		n.t.Fatal(err)
	}
	return stat
}

// read fetches the file at a path below root.
func (n *native) read(root cid.Cid, path ...string) string {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	get := blockservice.NewSession(ctx, n.node.Blocks())
	target, err := content.Resolve(ctx, get, root, path)
	if err != nil {
		n.t.Fatal(err)
	}
	f, err := content.Open(ctx, get, target)
	if err != nil {
		n.t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		n.t.Fatal(err)
	}
	return string(b)
}

// tabAddr is where others reach a tab through r.
func (r *relay) tabAddr(p *tab) string {
	return r.server.Host().Addrs()[0].String() + "/p2p/" + r.server.ID().String() + "/p2p-circuit/webrtc/p2p/" + p.status().PeerID
}

// get fetches a file in the page and returns the SHA-256 of what came.
const get = `async (root, path) => {
	const response = await node.fetch(root, path);
	if (!response.ok) throw new Error(await response.text());
	const sum = new Uint8Array(await crypto.subtle.digest("SHA-256", await response.arrayBuffer()));
	return Array.from(sum, (b) => b.toString(16).padStart(2, "0")).join("");
}`

// overWebRTC waits until the tab has so many connections by WebRTC.
func overWebRTC(p *tab, n int) {
	p.t.Helper()
	until[bool](p, "the number of WebRTC connections", `async (n) => {
		const { peers } = await node.status();
		return peers.filter((p) => p.transport === "webrtc" || p.addr?.includes("/webrtc")).length === n;
	}`, n)
}

// leaves ends the relay, which would fetch and serve what it is asked for too.
func (r *relay) leaves(tabs ...*tab) {
	for _, p := range tabs {
		p.expects("ERR_CONNECTION_REFUSED", "net::ERR_FAILED", "WebSocket connection")
	}
	r.stop()
}

// TestNativePeer has a native peer and a tab serve each other over WebRTC.
func TestNativePeer(t *testing.T) {
	t.Parallel()
	r := startRelay(t)
	n := r.native(t)
	data := noise(301, 5<<20+321)
	stat := n.add(site{"data.bin": data})
	p := r.joined(newVisitor(t))
	eval[any](p, `(addr) => node.connect(addr)`, n.addr())
	overWebRTC(p, 1)
	r.leaves(p)
	if got := eval[string](p, get, stat.Root.String(), "data.bin"); got != sum(data) {
		t.Errorf("the tab got other bytes")
	}
	if s := p.status(); s.Bytes.FromPeers < int64(len(data)) {
		t.Errorf("%d bytes from peers, want %d", s.Bytes.FromPeers, len(data))
	}
	// And the other way.
	root, err := cid.Decode(eval[string](p, `async () => {
		globalThis.mine = new Uint8Array(3_000_000);
		for (let at = 0; at < mine.length; at += 50_000) crypto.getRandomValues(mine.subarray(at, at + 50_000));
		return (await node.add({ "mine.bin": mine })).cid;
	}`))
	if err != nil {
		t.Fatal(err)
	}
	want := eval[string](p, `async () => Array.from(new Uint8Array(await crypto.subtle.digest("SHA-256", mine)), (b) => b.toString(16).padStart(2, "0")).join("")`)
	if got := sum(n.read(root, "mine.bin")); got != want {
		t.Errorf("the native peer got other bytes")
	}
	if s := n.node.Stats(); s.FromPeers < 3_000_000 {
		t.Errorf("the native peer got %d bytes from peers", s.FromPeers)
	}
}

// TestTabs has two visitors serve each other what no relay has, and one leave.
func TestTabs(t *testing.T) {
	t.Parallel()
	r := startRelay(t)
	a, b := r.joined(newVisitor(t)), r.joined(newVisitor(t))
	eval[any](b, `(addr) => node.connect(addr)`, r.tabAddr(a))
	overWebRTC(a, 1)
	overWebRTC(b, 1)
	r.leaves(a, b)
	for _, from := range []*tab{a, b} {
		to := map[*tab]*tab{a: b, b: a}[from]
		mine := eval[struct{ CID, Sum string }](from, `async () => {
			const mine = new Uint8Array(3_000_000);
			for (let at = 0; at < mine.length; at += 50_000) crypto.getRandomValues(mine.subarray(at, at + 50_000));
			const sum = new Uint8Array(await crypto.subtle.digest("SHA-256", mine));
			return { CID: (await node.add({ "mine.bin": mine })).cid, Sum: Array.from(sum, (b) => b.toString(16).padStart(2, "0")).join("") };
		}`)
		if got := eval[string](to, get, mine.CID, "mine.bin"); got != mine.Sum {
			t.Error("other bytes came than were added")
		}
	}
	for _, p := range []*tab{a, b} {
		if s := p.status(); s.Bytes.FromPeers < 3_000_000 {
			t.Errorf("%d bytes from peers", s.Bytes.FromPeers)
		}
	}
	a.close()
	overWebRTC(b, 0)
}

// hasOther tells whether the peer has a WebRTC connection to p that is not one
// of before.
func (n *native) hasOther(p peer.ID, before []network.Conn) bool {
	return slices.ContainsFunc(n.host.Network().ConnsToPeer(p), func(c network.Conn) bool {
		var w *webrtc.Conn
		return c.As(&w) && !c.IsClosed() && !slices.Contains(before, c)
	})
}

// TestHostPageGoes has the page that hosts the connections go during another
// one's download.
func TestHostPageGoes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		goes func(*tab)
	}{
		{"closes", func(p *tab) { p.close() }},
		{"navigates", func(p *tab) { p.navigate("about:blank") }},
		{"freezes", func(p *tab) {
			ctx, cancel := context.WithTimeout(p.ctx, patience)
			defer cancel()
			if _, err := chromedp.Call(ctx, page.SetWebLifecycleState, page.SetWebLifecycleStateParams{State: page.SetWebLifecycleStateStateFrozen}); err != nil {
				p.t.Fatal(err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := startRelay(t)
			data := noise(302, 4<<20)
			// The second half comes once the page has gone.
			n, held := r.nativeHolding(t, site{"data.bin": data})
			v := newVisitor(t)
			n.meet(r, held.root)
			first, second := r.joined(v), r.joined(v)
			overWebRTC(second, 1)
			eval[bool](second, `(root) => { globalThis.got = (`+get+`)(root, "data.bin"); return true; }`, held.root.String())
			select {
			case <-held.asked:
			case <-time.After(patience):
				t.Fatal("nobody asked for the last block")
			}
			id, err := peer.Decode(second.status().PeerID)
			if err != nil {
				t.Fatal(err)
			}
			before := n.host.Network().ConnsToPeer(id)
			tt.goes(first)
			for end := time.Now().Add(patience); !n.hasOther(id, before); time.Sleep(20 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("no connection in the page that is left")
				}
			}
			// What is missing can only come by the new connection.
			first.expects("ERR_CONNECTION_REFUSED", "net::ERR_FAILED", "WebSocket connection")
			r.leaves(second)
			held.let()
			if got := eval[string](second, `() => got`); got != sum(data) {
				t.Error("other bytes came")
			}
			if s := second.status(); s.Bytes.FromPeers == 0 {
				t.Error("nothing came from peers")
			}
		})
	}
}

// TestWokenWorker stops the worker of a tab that is connected: its connections
// end, and it can be connected to anew.
func TestWokenWorker(t *testing.T) {
	t.Parallel()
	r := startRelay(t)
	n := r.native(t)
	p := r.joined(newVisitor(t))
	for range 2 {
		eval[any](p, `(addr) => node.connect(addr)`, n.addr())
		overWebRTC(p, 1)
		id, err := peer.Decode(p.status().PeerID)
		if err != nil {
			t.Fatal(err)
		}
		conns := n.host.Network().ConnsToPeer(id)
		p.stopWorker()
		for end := time.Now().Add(patience); slices.ContainsFunc(conns, func(c network.Conn) bool { return !c.IsClosed() }); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the page keeps connections of a worker that has gone")
			}
		}
		eval[any](p, `async () => node.online`)
	}
}
