//go:build !js

package node_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/boxo/bitswap/message"
	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dsync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-msgio"
	"github.com/multiformats/go-multihash"

	"github.com/webfabric/weft/shared/content"
	"github.com/webfabric/weft/shared/gateway"
	"github.com/webfabric/weft/shared/node"
)

func newHost(t *testing.T) host.Host {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func info(h host.Host) peer.AddrInfo { return peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()} }

func newNode(t *testing.T, cfg node.Config) (*node.Node, blockstore.Blockstore) {
	t.Helper()
	if cfg.Host == nil {
		cfg.Host = newHost(t)
	}
	store := blockstore.NewBlockstore(dsync.MutexWrap(datastore.NewMapDatastore()))
	cfg.Blockstore = store
	n, err := node.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n, store
}

func newBlock(t *testing.T, size int) blocks.Block {
	t.Helper()
	data := make([]byte, size)
	rand.Read(data)
	return blockOf(t, data)
}

func blockOf(t *testing.T, data []byte) blocks.Block {
	t.Helper()
	mh, err := multihash.Sum(data, multihash.SHA2_256, -1)
	if err != nil {
		t.Fatal(err)
	}
	b, err := blocks.NewBlockWithCid(data, cid.NewCidV1(cid.Raw, mh))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func put(t *testing.T, n *node.Node, bs ...blocks.Block) {
	t.Helper()
	if err := n.Blocks().AddBlocks(t.Context(), bs); err != nil {
		t.Fatal(err)
	}
}

func online(t *testing.T, n *node.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := n.Online(ctx); err != nil {
		t.Fatal(err)
	}
}

func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

func TestFetch(t *testing.T) {
	relay, _ := newNode(t, node.Config{})
	other, _ := newNode(t, node.Config{})
	a, b := newBlock(t, 100_000), newBlock(t, 2000)
	put(t, relay, a)
	put(t, other, b)

	n, _ := newNode(t, node.Config{Relays: []peer.AddrInfo{info(relay.Host())}})
	online(t, n)
	if got := n.Relays(); len(got) != 1 || got[0] != relay.Host().ID() {
		t.Errorf("Relays() = %v", got)
	}
	if err := n.Host().Connect(t.Context(), info(other.Host())); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	session := blockservice.NewSession(ctx, n.Blocks())
	for _, want := range []blocks.Block{a, b, a} {
		got, err := session.GetBlock(ctx, want.Cid())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.RawData(), want.RawData()) {
			t.Errorf("%s has other bytes", want.Cid())
		}
	}
	want := node.Stats{FromRelay: 100_000, FromPeers: 2000, FromDisk: 100_000}
	if got := n.Stats(); got != want {
		t.Errorf("Stats() = %+v, want %+v", got, want)
	}
	waitFor(t, "the relay counts what it served", func() bool { return relay.Stats().Served == 100_000 })
}

func TestNoProvider(t *testing.T) {
	relay, _ := newNode(t, node.Config{})
	for _, tt := range []struct {
		name string
		cfg  node.Config
	}{
		{name: "the relay has it not", cfg: node.Config{Relays: []peer.AddrInfo{info(relay.Host())}, ProviderTimeout: time.Second}},
		{name: "no relay is reached", cfg: node.Config{
			Relays:          []peer.AddrInfo{{ID: "nobody", Addrs: nil}},
			ProviderTimeout: time.Hour, OfflineTimeout: time.Second,
		}},
		{name: "no relay at all", cfg: node.Config{ProviderTimeout: time.Second}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n, _ := newNode(t, tt.cfg)
			if len(tt.cfg.Relays) > 0 && tt.cfg.OfflineTimeout == 0 {
				online(t, n)
			}
			_, err := n.Blocks().GetBlock(t.Context(), newBlock(t, 10).Cid())
			if !errors.Is(err, gateway.ErrNoProvider) {
				t.Errorf("GetBlock = %v, want %v", err, gateway.ErrNoProvider)
			}
		})
	}
}

func TestCancelled(t *testing.T) {
	n, _ := newNode(t, node.Config{ProviderTimeout: time.Hour})
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the page went away")
	time.AfterFunc(50*time.Millisecond, func() { cancel(why) })
	if _, err := n.Blocks().GetBlock(ctx, newBlock(t, 10).Cid()); !errors.Is(err, why) {
		t.Errorf("GetBlock = %v, want %v", err, why)
	}
}

// newLiar makes a peer that answers every want with bytes that answer makes.
func newLiar(t *testing.T, answer func(cid.Cid) []byte) host.Host {
	t.Helper()
	h := newHost(t)
	h.SetStreamHandler("/ipfs/bitswap/1.2.0", func(s network.Stream) {
		defer s.Close()
		r := msgio.NewVarintReaderSize(s, network.MessageSizeMax)
		for {
			in, _, err := message.FromMsgReader(r)
			if err != nil {
				return
			}
			out := message.New(false)
			for _, e := range in.Wantlist() {
				if !e.Cancel {
					out.AddBlock(blockOf(t, answer(e.Cid)))
				}
			}
			if len(out.Blocks()) == 0 {
				continue
			}
			back, err := h.NewStream(t.Context(), s.Conn().RemotePeer(), "/ipfs/bitswap/1.2.0")
			if err != nil {
				return
			}
			if err := out.ToNetV1(back); err != nil {
				back.Reset()
				return
			}
			back.Close()
		}
	})
	return h
}

func TestForgedBlock(t *testing.T) {
	want := newBlock(t, 5000)
	flipped := bytes.Clone(want.RawData())
	flipped[123] ^= 4
	for _, tt := range []struct {
		name   string
		answer []byte
	}{
		{name: "a flipped bit", answer: flipped},
		{name: "another block", answer: []byte("something else")},
		{name: "a block cut short", answer: want.RawData()[:4999]},
	} {
		t.Run(tt.name, func(t *testing.T) {
			liar := newLiar(t, func(cid.Cid) []byte { return tt.answer })
			reported := make(chan peer.ID, 100)
			n, store := newNode(t, node.Config{
				Relays:          []peer.AddrInfo{info(liar)},
				ProviderTimeout: time.Hour, // what ends the fetch is what came
				OnBadBlock:      func(p peer.ID, _ cid.Cid) { reported <- p },
			})
			online(t, n)
			_, err := n.Blocks().GetBlock(t.Context(), want.Cid())
			var bad *node.BadBlockError
			if !errors.As(err, &bad) || !errors.Is(err, content.ErrBadBlock) || bad.Peer != liar.ID() {
				t.Fatalf("GetBlock = %v, want a BadBlockError naming %s", err, liar.ID())
			}
			if p := <-reported; p != liar.ID() {
				t.Errorf("OnBadBlock named %s", p)
			}
			keys, err := store.AllKeysChan(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for c := range keys {
				t.Errorf("%s was stored", c)
			}
			if got := n.Stats(); got.Unwanted == 0 || got.FromRelay != 0 {
				t.Errorf("Stats() = %+v", got)
			}

			// The node lives on: an honest peer beside the liar is enough.
			honest, _ := newNode(t, node.Config{})
			put(t, honest, want)
			if err := n.Host().Connect(t.Context(), info(honest.Host())); err != nil {
				t.Fatal(err)
			}
			got, err := n.Blocks().GetBlock(t.Context(), want.Cid())
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.RawData(), want.RawData()) {
				t.Error("other bytes")
			}
		})
	}
}

// A block that two peers send is no forgery, the second time it comes.
func TestDuplicateBlock(t *testing.T) {
	want := newBlock(t, 100)
	// Neither answers before both were asked, or the second might never be.
	var asked sync.WaitGroup
	answer := func() func(cid.Cid) []byte {
		asked.Add(1)
		first := sync.OnceFunc(asked.Done)
		return func(cid.Cid) []byte {
			first()
			asked.Wait()
			return want.RawData()
		}
	}
	relay, second := newLiar(t, answer()), newLiar(t, answer())
	n, _ := newNode(t, node.Config{
		Relays:     []peer.AddrInfo{info(relay), info(second)},
		OnBadBlock: func(p peer.ID, c cid.Cid) { t.Errorf("%s is said to have forged %s", p, c) },
	})
	waitFor(t, "both are connected", func() bool { return len(n.Relays()) == 2 })
	if _, err := n.Blocks().GetBlock(t.Context(), want.Cid()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "both have answered", func() bool { s := n.Stats(); return s.FromRelay+s.Duplicate >= 200 })
}

func TestReconnect(t *testing.T) {
	relay := newHost(t)
	changes := make(chan network.Connectedness, 100)
	n, _ := newNode(t, node.Config{
		Relays: []peer.AddrInfo{info(relay)},
		OnPeer: func(_ peer.ID, isRelay bool, state network.Connectedness) {
			if isRelay {
				changes <- state
			}
		},
	})
	online(t, n)
	for range 3 {
		// The other side may be a moment behind.
		waitFor(t, "the relay knows the node", func() bool {
			return relay.Network().Connectedness(n.Host().ID()) == network.Connected
		})
		if err := relay.Network().ClosePeer(n.Host().ID()); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the relay is lost", func() bool {
			for len(changes) > 0 {
				if <-changes == network.NotConnected {
					return true
				}
			}
			return false
		})
		online(t, n)
	}
}

func TestAddRelays(t *testing.T) {
	n, _ := newNode(t, node.Config{})
	relay := newHost(t)
	n.AddRelays(info(n.Host()), info(relay), info(relay))
	online(t, n)
	if got := n.Relays(); len(got) != 1 || !n.IsRelay(relay.ID()) || n.IsRelay(n.Host().ID()) {
		t.Errorf("Relays() = %v", got)
	}
}

func TestOnline(t *testing.T) {
	n, _ := newNode(t, node.Config{})
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if err := n.Online(ctx); !errors.Is(err, why) {
		t.Errorf("Online = %v, want %v", err, why)
	}
	go n.Close()
	if err := n.Online(t.Context()); !errors.Is(err, node.ErrClosed) {
		t.Errorf("Online = %v, want %v", err, node.ErrClosed)
	}
}

// Nobody can be asked for the empty block: Kubo does not give it.
func TestEmptyBlock(t *testing.T) {
	other, _ := newNode(t, node.Config{})
	full := newBlock(t, 10)
	put(t, other, full)
	n, store := newNode(t, node.Config{})
	if err := n.Host().Connect(t.Context(), info(other.Host())); err != nil {
		t.Fatal(err)
	}
	empty := blockOf(t, nil).Cid()
	for _, c := range []cid.Cid{empty, cid.NewCidV1(cid.DagProtobuf, empty.Hash()), cid.NewCidV0(empty.Hash())} {
		got, err := n.Blocks().GetBlock(t.Context(), c)
		if err != nil || got.Cid() != c || len(got.RawData()) != 0 {
			t.Errorf("GetBlock(%s) = %v, %v; want no bytes", c, got, err)
		}
	}
	if has, err := store.Has(t.Context(), empty); err != nil || !has {
		t.Errorf("Has = %t, %v: what is pinned must be in the store", has, err)
	}

	fresh, _ := newNode(t, node.Config{})
	if err := fresh.Host().Connect(t.Context(), info(other.Host())); err != nil {
		t.Fatal(err)
	}
	sizes := map[cid.Cid]int{}
	for b := range blockservice.NewSession(t.Context(), fresh.Blocks()).GetBlocks(t.Context(), []cid.Cid{full.Cid(), empty}) {
		sizes[b.Cid()] = len(b.RawData())
	}
	if want := map[cid.Cid]int{full.Cid(): 10, empty: 0}; !maps.Equal(sizes, want) {
		t.Errorf("GetBlocks gave %v, want %v", sizes, want)
	}
}
