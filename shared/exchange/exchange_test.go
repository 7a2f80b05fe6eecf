//go:build !js

package exchange_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/message"
	pb "github.com/ipfs/boxo/bitswap/message/pb"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/ipld/merkledag"
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
	"golang.org/x/sync/errgroup"

	"github.com/webfabric/weft/shared/content"
	"github.com/webfabric/weft/shared/exchange"
	"github.com/webfabric/weft/shared/node"
)

func newHost(t testing.TB) host.Host {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay(),
		libp2p.ResourceManager(&network.NullResourceManager{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func newStore() blockstore.Blockstore {
	return blockstore.NewBlockstore(dsync.MutexWrap(datastore.NewMapDatastore()))
}

// A party is a host with an exchange and a store that keeps what is fetched.
type party struct {
	host.Host
	ex    *exchange.Exchange
	store blockstore.Blockstore
	dag   blockservice.BlockService
	bad   chan peer.ID
}

// newParty makes a peer to which relays are relays.
func newParty(t testing.TB, serving exchange.Serving, relays ...peer.ID) *party {
	t.Helper()
	return newPartyWith(t, exchange.Config{Serving: serving}, relays...)
}

// newPartyWith is newParty with more of its configuration.
func newPartyWith(t testing.TB, cfg exchange.Config, relays ...peer.ID) *party {
	t.Helper()
	p := &party{Host: newHost(t), store: newStore(), bad: make(chan peer.ID, 1000)}
	p.ex = exchange.New(context.Background(), exchange.Config{
		Host: p.Host, Blockstore: p.store, Serving: cfg.Serving, Forgive: cfg.Forgive,
		IsRelay: func(id peer.ID) bool {
			for _, r := range relays {
				if r == id {
					return true
				}
			}
			return false
		},
		OnBadBlock: func(id peer.ID, _ cid.Cid, _ int, lie bool) {
			if !lie {
				return
			}
			select {
			case p.bad <- id:
			default:
			}
		},
	})
	t.Cleanup(func() {
		if err := p.ex.Close(); err != nil {
			t.Error(err)
		}
	})
	p.dag = blockservice.New(p.store, p.ex, blockservice.WriteThrough(true))
	return p
}

func connect(t testing.TB, a, b host.Host) {
	t.Helper()
	if err := a.Connect(t.Context(), peer.AddrInfo{ID: b.ID(), Addrs: b.Addrs()}); err != nil {
		t.Fatal(err)
	}
}

// knows waits until p asks each of others.
func (p *party) knows(t testing.TB, others ...peer.ID) {
	t.Helper()
	waitFor(t, "the peers are known", func() bool {
		known := map[peer.ID]bool{}
		for _, s := range p.ex.Peers() {
			known[s.ID] = true
		}
		for _, id := range others {
			if !known[id] {
				return false
			}
		}
		return true
	})
}

func waitFor(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

func newBlock(t testing.TB, size int) blocks.Block {
	t.Helper()
	data := make([]byte, size)
	rand.Read(data)
	return blockOf(t, data)
}

func blockOf(t testing.TB, data []byte) blocks.Block {
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

func (p *party) put(t testing.TB, bs ...blocks.Block) {
	t.Helper()
	if err := p.dag.AddBlocks(t.Context(), bs); err != nil {
		t.Fatal(err)
	}
}

func limited(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// get fetches b's block and checks it.
func (p *party) get(t testing.TB, ctx context.Context, b blocks.Block) {
	t.Helper()
	got, err := p.dag.GetBlock(ctx, b.Cid())
	if err != nil {
		t.Fatalf("GetBlock(%s): %v", b.Cid(), err)
	}
	if string(got.RawData()) != string(b.RawData()) {
		t.Fatalf("GetBlock(%s): other bytes", b.Cid())
	}
}

// What a neighbour is known to have does not come from the relay, what is read
// ahead and a neighbour has neither, and the rest does.
func TestSources(t *testing.T) {
	relay, friend := newParty(t, exchange.Serving{}), newParty(t, exchange.Serving{})
	p := newParty(t, exchange.Serving{}, relay.ID())
	var all []blocks.Block
	for range 20 {
		all = append(all, newBlock(t, 10_000))
	}
	relay.put(t, all...)
	friend.put(t, all[:10]...)
	connect(t, p, friend)
	ctx, _ := content.Ahead(limited(t))
	got := blockservice.NewSession(ctx, p.dag).GetBlocks(ctx, cids(all))
	for range 10 {
		<-got
	}
	connect(t, p, relay)
	for range got {
	}
	want := exchange.Stats{FromRelay: 100_000, FromPeers: 100_000}
	if got := p.ex.Stats(); got != want { // all that was asked has come, or these would be more
		t.Errorf("Stats() = %+v, want %+v", got, want)
	}
	for _, s := range p.ex.Peers() {
		if s.BytesIn != 100_000 || s.Relay != (s.ID == relay.ID()) || s.Astray != 0 {
			t.Errorf("Peers() has %+v", s)
		}
	}
}

// TestHot has somebody wait for one small block after the other that the relay
// and a neighbour have: after some, the neighbour is asked for them.
func TestHot(t *testing.T) {
	relay, friend := newParty(t, exchange.Serving{}), newParty(t, exchange.Serving{})
	p := newParty(t, exchange.Serving{}, relay.ID())
	var all []blocks.Block
	for range 400 {
		all = append(all, newBlock(t, 2_000))
	}
	relay.put(t, all...)
	friend.put(t, all...)
	connect(t, p, relay)
	connect(t, p, friend)
	p.knows(t, relay.ID(), friend.ID())
	ctx := limited(t)
	session := blockservice.NewSession(ctx, p.dag)
	for _, b := range all {
		if _, err := session.GetBlock(ctx, b.Cid()); err != nil {
			t.Fatal(err)
		}
	}
	if got := p.ex.Stats(); got.FromPeers < got.FromRelay {
		t.Errorf("Stats() = %+v: the relay sent most", got)
	}
}

func cids(bs []blocks.Block) (cs []cid.Cid) {
	for _, b := range bs {
		cs = append(cs, b.Cid())
	}
	return cs
}

// A want is never lost: the block comes to a peer only later, or a peer that
// has it does.
func TestLater(t *testing.T) {
	relay := newParty(t, exchange.Serving{})
	p := newParty(t, exchange.Serving{}, relay.ID())
	connect(t, p, relay)
	for _, tt := range []struct {
		name string
		when func(t *testing.T, b blocks.Block)
	}{
		{name: "the relay gets it", when: func(t *testing.T, b blocks.Block) { relay.put(t, b) }},
		{name: "a neighbour comes", when: func(t *testing.T, b blocks.Block) {
			o := newParty(t, exchange.Serving{})
			o.put(t, b)
			connect(t, p, o)
		}},
		{name: "a neighbour connects, and gets it", when: func(t *testing.T, b blocks.Block) {
			o := newParty(t, exchange.Serving{})
			connect(t, o, p)
			o.put(t, b)
		}},
		{name: "it is put here", when: func(t *testing.T, b blocks.Block) { p.put(t, b) }},
		{name: "the relay comes back with it", when: func(t *testing.T, b blocks.Block) {
			p.Network().ClosePeer(relay.ID())
			relay.put(t, b)
			connect(t, p, relay)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBlock(t, 50_000)
			ctx, cancel := context.WithCancel(t.Context())
			gone := make(chan error, 1)
			go func() { _, err := p.dag.GetBlock(ctx, b.Cid()); gone <- err }()
			done := make(chan error, 1)
			go func() { _, err := p.dag.GetBlock(limited(t), b.Cid()); done <- err }()
			waitFor(t, "the relay was asked", func() bool { return p.asked(relay.ID()) })
			cancel() // takes nobody along
			if err := <-gone; !errors.Is(err, context.Canceled) {
				t.Errorf("the cancelled fetch = %v", err)
			}
			tt.when(t, b)
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// asked tells whether id is connected and was sent something.
func (p *party) asked(id peer.ID) bool {
	for _, c := range p.Network().ConnsToPeer(id) {
		for _, s := range c.GetStreams() {
			if s.Protocol() == bsnet.ProtocolBitswap && s.Stat().Direction == network.DirOutbound {
				return true
			}
		}
	}
	return false
}

// newStaller makes a peer that says it has everything, and sends nothing.
func newStaller(t *testing.T) (h host.Host, wants func() int) {
	h = newHost(t)
	var mu sync.Mutex
	n := 0
	h.SetStreamHandler(bsnet.ProtocolBitswap, func(s network.Stream) {
		r := msgio.NewVarintReaderSize(s, network.MessageSizeMax)
		for {
			in, _, err := message.FromMsgReader(r)
			if err != nil {
				return
			}
			out := message.New(false)
			for _, e := range in.Wantlist() {
				if !e.Cancel {
					out.AddHave(e.Cid)
					mu.Lock()
					n++
					mu.Unlock()
				}
			}
			if len(out.Haves()) == 0 {
				continue
			}
			back, err := h.NewStream(context.Background(), s.Conn().RemotePeer(), bsnet.ProtocolBitswap)
			if err != nil {
				return
			}
			out.ToNetV1(back)
			back.Close()
		}
	})
	return h, func() int { mu.Lock(); defer mu.Unlock(); return n }
}

// A peer that stalls, or leaves, holds nothing up.
func TestStalled(t *testing.T) {
	for _, tt := range []struct {
		name  string
		leave bool
		relay bool // the other one is a relay
	}{
		{name: "stalls, a neighbour has it"},
		{name: "stalls, the relay has it", relay: true},
		{name: "leaves, a neighbour has it", leave: true},
		{name: "leaves, the relay has it", leave: true, relay: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			other := newParty(t, exchange.Serving{})
			var relays []peer.ID
			if tt.relay {
				relays = append(relays, other.ID())
			}
			p := newParty(t, exchange.Serving{}, relays...)
			staller, wants := newStaller(t)
			b := newBlock(t, 50_000)
			other.put(t, b)
			connect(t, p, staller)
			p.knows(t, staller.ID())
			done := make(chan error, 1)
			go func() { _, err := p.dag.GetBlock(limited(t), b.Cid()); done <- err }()
			waitFor(t, "the staller is asked for the block", func() bool { return wants() >= 2 })
			connect(t, p, other)
			if tt.leave {
				staller.Close()
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestInterop fetches from boxo's Bitswap and has boxo's fetch from ours.
func TestInterop(t *testing.T) {
	h, store := newHost(t), newStore()
	boxo := bitswap.New(t.Context(), bsnet.NewFromIpfsHost(h), nil, store)
	t.Cleanup(func() { boxo.Close() })
	theirs := blockservice.New(store, boxo)
	p := newParty(t, exchange.Serving{})
	connect(t, h, p)
	for _, size := range []int{16, 1000, 100_000, 2 << 20} {
		var mine, their []blocks.Block
		for range 4 {
			mine, their = append(mine, newBlock(t, size)), append(their, newBlock(t, size))
		}
		p.put(t, mine...)
		if err := theirs.AddBlocks(t.Context(), their); err != nil {
			t.Fatal(err)
		}
		for name, f := range map[string]struct {
			from blockservice.BlockService
			want []blocks.Block
		}{"from boxo": {p.dag, their}, "by boxo": {theirs, mine}} {
			n := 0
			for b := range blockservice.NewSession(limited(t), f.from).GetBlocks(limited(t), cids(f.want)) {
				if len(b.RawData()) == size {
					n++
				}
			}
			if n != len(f.want) {
				t.Errorf("%s: %d blocks of %d bytes, want %d", name, n, size, len(f.want))
			}
		}
	}
}

// TestServing serves nothing, and no faster than the limit.
func TestServing(t *testing.T) {
	server, p := newParty(t, exchange.Serving{Off: true}), newParty(t, exchange.Serving{})
	connect(t, p, server)
	b := newBlock(t, 100_000)
	server.put(t, b)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := p.dag.GetBlock(ctx, b.Cid()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("GetBlock from a peer that serves nothing = %v", err)
	}
	server.ex.SetServing(exchange.Serving{Limit: 200_000})
	begun := time.Now()
	var all []blocks.Block
	for range 6 {
		all = append(all, newBlock(t, 50_000))
	}
	server.put(t, all...)
	for range p.getAll(t, all) {
	}
	// All but the last message must have been paid for.
	if took := time.Since(begun); took < 500*time.Millisecond {
		t.Errorf("300 kB at 200 kB/s took %v", took)
	}
	if got := server.ex.Stats().Served; got < 300_000 {
		t.Errorf("Served = %d", got)
	}
}

// TestOneStream: blocks for one peer come on one stream, on another if the peer
// ends that, and on a new one after a while.
func TestOneStream(t *testing.T) {
	server, h := newParty(t, exchange.Serving{}), newHost(t)
	got := make(chan network.Stream, 100) // of each block
	ended := make(chan struct{}, 100)
	h.SetStreamHandler(bsnet.ProtocolBitswap, func(s network.Stream) {
		defer func() { ended <- struct{}{} }()
		r := msgio.NewVarintReaderSize(s, network.MessageSizeMax)
		for {
			m, _, err := message.FromMsgReader(r)
			if err != nil {
				return
			}
			for range m.Blocks() {
				got <- s
			}
		}
	})
	connect(t, h, server)
	server.knows(t, h.ID())
	wants, err := h.NewStream(t.Context(), server.ID(), bsnet.ProtocolBitswap)
	if err != nil {
		t.Fatal(err)
	}
	streams := map[network.Stream]int{}
	ask := func(n int) {
		t.Helper()
		m := message.New(false)
		for range n {
			b := newBlock(t, 300_000) // a message each
			server.put(t, b)
			m.AddEntry(b.Cid(), 1, pb.Message_Wantlist_Block, false)
		}
		if err := m.ToNetV1(wants); err != nil {
			t.Fatal(err)
		}
		for range n {
			select {
			case s := <-got:
				streams[s]++
			case <-limited(t).Done():
				t.Fatal("a block did not come")
			}
		}
	}
	ask(8)
	if len(streams) != 1 {
		t.Errorf("8 blocks on %d streams", len(streams))
	}
	for s := range streams {
		s.Reset()
	}
	ask(8)
	if len(streams) != 2 {
		t.Errorf("%d streams, one of which was reset", len(streams))
	}
	for range streams { // nothing is sent any more: the other side closes it
		select {
		case <-ended:
		case <-limited(t).Done():
			t.Fatal("a stream stays though nothing is sent")
		}
	}
	ask(1)
	if len(streams) != 3 {
		t.Errorf("%d streams, want a new one", len(streams))
	}
}

func (p *party) getAll(t *testing.T, bs []blocks.Block) <-chan blocks.Block {
	ctx := limited(t)
	return blockservice.NewSession(ctx, p.dag).GetBlocks(ctx, cids(bs))
}

// TestClosed ends every fetch with the exchange, and with the session.
func TestClosed(t *testing.T) {
	p := newParty(t, exchange.Serving{})
	c := newBlock(t, 10).Cid()
	done := make(chan error, 2)
	ctx, cancel := context.WithCancel(t.Context())
	s := p.ex.NewSession(ctx)
	go func() { _, err := s.GetBlock(t.Context(), c); done <- err }()
	list, err := s.GetBlocks(t.Context(), []cid.Cid{c, c})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("GetBlock in an ended session = %v", err)
	}
	if _, ok := <-list; ok {
		t.Error("GetBlocks in an ended session gave a block")
	}
	go func() { _, err := p.ex.GetBlock(t.Context(), c); done <- err }()
	list, err = p.ex.GetBlocks(t.Context(), []cid.Cid{c})
	if err != nil {
		t.Fatal(err)
	}
	p.ex.Close()
	if err := <-done; !errors.Is(err, exchange.ErrClosed) {
		t.Errorf("GetBlock of a closed exchange = %v", err)
	}
	if _, ok := <-list; ok {
		t.Error("GetBlocks of a closed exchange gave a block")
	}
	if _, err := p.ex.GetBlock(t.Context(), c); !errors.Is(err, exchange.ErrClosed) {
		t.Errorf("GetBlock of a closed exchange = %v", err)
	}
	if _, err := p.ex.GetBlock(t.Context(), cid.Undef); err == nil {
		t.Error("GetBlock(cid.Undef) succeeded")
	}
}

// pattern is endless bytes without repetition.
type pattern struct{}

func (pattern) Read(b []byte) (int, error) { return rand.Read(b) }

// addFile puts a file of size bytes into p's store.
func (p *party) addFile(t testing.TB, size int64) cid.Cid {
	t.Helper()
	stat, err := content.AddFiles(context.Background(), merkledag.NewDAGService(p.dag), []content.NamedReader{{
		Path: "file", Open: func() (io.ReadCloser, error) { return io.NopCloser(io.LimitReader(pattern{}, size)), nil },
	}})
	if err != nil {
		t.Fatal(err)
	}
	return stat.Root
}

// read reads the file in root as the gateway does.
func (p *party) read(ctx context.Context, root cid.Cid) (int64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	get := blockservice.NewSession(ctx, p.dag)
	target, err := content.Resolve(ctx, get, root, []string{"file"})
	if err != nil {
		return 0, err
	}
	r, err := content.Open(ctx, get, target)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	return io.Copy(io.Discard, r)
}

// TestFlashCrowd has eight neighbours read the same file at the same time: the
// relay sends it a few times at most.
func TestFlashCrowd(t *testing.T) {
	const visitors, size = 8, 16 << 20
	relay := newParty(t, exchange.Serving{Limit: 24 << 20})
	root := relay.addFile(t, size)
	var all []*party
	for range visitors {
		p := newParty(t, exchange.Serving{}, relay.ID())
		connect(t, p, relay)
		ids := []peer.ID{relay.ID()}
		for _, o := range all {
			connect(t, p, o)
			ids = append(ids, o.ID())
		}
		p.knows(t, ids...)
		all = append(all, p)
	}
	var readers sync.WaitGroup
	took := make([]time.Duration, visitors)
	begun := time.Now()
	for i, p := range all {
		readers.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			if n, err := p.read(ctx, root); n != size || err != nil {
				t.Errorf("visitor %d read %d bytes: %v", i, n, err)
			}
			took[i] = time.Since(begun)
		})
	}
	readers.Wait()
	var sum exchange.Stats
	for _, p := range all {
		s := p.ex.Stats()
		sum.FromRelay += s.FromRelay
		sum.FromPeers += s.FromPeers
		sum.Duplicate += s.Duplicate
		sum.Unwanted += s.Unwanted
	}
	served := relay.ex.Stats().Served
	t.Logf("the relay sent %.2f × the content; in all %d MiB from it, %d from neighbours, %d twice; visitors took %v",
		float64(served)/size, sum.FromRelay>>20, sum.FromPeers>>20, sum.Duplicate>>20, took)
	if served > 3*size {
		t.Errorf("the relay sent %d bytes of a file of %d", served, size)
	}
	if sum.Unwanted != 0 {
		t.Errorf("%d bytes that nobody had asked for", sum.Unwanted)
	}
}

// TestManyAtOnce fetches 600 small blocks at once, each three times, with one
// of the three cancelled on the way; and again, with nothing kept.
func TestManyAtOnce(t *testing.T) {
	relay, friend := newParty(t, exchange.Serving{}), newParty(t, exchange.Serving{})
	p := newParty(t, exchange.Serving{}, relay.ID())
	var all []blocks.Block
	for i := range 600 {
		all = append(all, blockOf(t, fmt.Append(nil, "module ", i)))
	}
	relay.put(t, all...)
	friend.put(t, all[:300]...)
	connect(t, p, relay)
	connect(t, p, friend)
	session := p.ex.NewSession(t.Context())
	for range 3 {
		var fetches sync.WaitGroup
		for i, b := range all {
			for range 2 {
				fetches.Go(func() {
					if _, err := session.GetBlock(limited(t), b.Cid()); err != nil {
						t.Error(err)
					}
				})
			}
			fetches.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%40)*time.Millisecond)
				defer cancel()
				_, _ = session.GetBlock(ctx, b.Cid()) // it may come or not
			})
		}
		fetches.Wait()
	}
}

// lies makes a peer that answers every want with another block, and counts them.
func lies(t *testing.T) (h host.Host, wants *atomic.Int64) {
	t.Helper()
	h, wants = newHost(t), new(atomic.Int64)
	h.SetStreamHandler(bsnet.ProtocolBitswap, func(s network.Stream) {
		r := msgio.NewVarintReaderSize(s, network.MessageSizeMax)
		for {
			in, _, err := message.FromMsgReader(r)
			if err != nil {
				return
			}
			out := message.New(false)
			for _, e := range in.Wantlist() {
				if !e.Cancel {
					wants.Add(1)
					out.AddBlock(blockOf(t, e.Cid.Bytes()))
				}
			}
			back, err := h.NewStream(context.Background(), s.Conn().RemotePeer(), bsnet.ProtocolBitswap)
			if err != nil {
				return
			}
			out.ToNetV1(back)
			back.Close()
		}
	})
	return h, wants
}

// A peer that flips bits is named after its first lie, disconnected, and asked
// no more when it comes back; what it was asked for comes from another.
func TestLiar(t *testing.T) {
	honest := newParty(t, exchange.Serving{})
	p := newParty(t, exchange.Serving{}, honest.ID())
	h, wants := lies(t)
	connect(t, p, h)
	p.knows(t, h.ID())
	first := newBlock(t, 10_000)
	done := make(chan error, 1)
	go func() { _, err := p.dag.GetBlock(limited(t), first.Cid()); done <- err }()
	if got := <-p.bad; got != h.ID() {
		t.Errorf("OnBadBlock named %s, want %s", got, h.ID())
	}
	waitFor(t, "it is disconnected", func() bool { return p.Network().Connectedness(h.ID()) != network.Connected })
	if p.ex.Score(h.ID()) >= 0 {
		t.Error("the liar's score is not negative")
	}
	honest.put(t, first)
	connect(t, p, honest)
	if err := <-done; err != nil {
		t.Error(err)
	}

	waitFor(t, "it has seen that", func() bool { return h.Network().Connectedness(p.ID()) != network.Connected })
	connect(t, h, p)
	p.knows(t, h.ID())
	before := wants.Load()
	for range 3 {
		b := newBlock(t, 10_000)
		honest.put(t, b)
		p.get(t, limited(t), b)
	}
	if n := wants.Load() - before; n != 0 {
		t.Errorf("the liar was asked %d times more", n)
	}
	for _, s := range p.ex.Peers() {
		if s.Liar != (s.ID == h.ID()) {
			t.Errorf("Peers() has %+v", s)
		}
	}
	if p.ex.Score(honest.ID()) < 0 {
		t.Error("the honest peer's score is negative, too")
	}
}

// What comes astray while a node with an old key is young is no lie: nobody is
// named for it or left out, and what was asked for comes from another.
func TestForgive(t *testing.T) {
	honest := newParty(t, exchange.Serving{})
	p := newPartyWith(t, exchange.Config{Forgive: time.Hour}, honest.ID())
	h, wants := lies(t)
	connect(t, p, h)
	p.knows(t, h.ID())
	connect(t, p, honest)
	for range 3 {
		b := newBlock(t, 10_000)
		honest.put(t, b)
		before := wants.Load()
		p.get(t, limited(t), b)
		waitFor(t, "it is asked as well", func() bool { return wants.Load() > before })
	}
	waitFor(t, "what came is counted", func() bool { return p.ex.Stats().Unwanted > 0 })
	if len(p.bad) > 0 {
		t.Errorf("%s is named", <-p.bad)
	}
	if p.ex.Score(h.ID()) < 0 || p.Network().Connectedness(h.ID()) != network.Connected {
		t.Error("it is taken for a liar")
	}
}

// BenchmarkFetch fetches from one peer: a file of 64 MiB as the gateway reads
// it, and 600 modules of 2 KiB, 64 at a time.
func BenchmarkFetch(b *testing.B) {
	const size, modules, module = 64 << 20, 600, 2 << 10
	relay := newParty(b, exchange.Serving{})
	root := relay.addFile(b, size)
	var small []blocks.Block
	for range modules {
		small = append(small, newBlock(b, module))
	}
	relay.put(b, small...)
	for _, client := range []string{"ours", "boxo"} {
		fresh := func() blockservice.BlockService {
			b.StopTimer()
			defer b.StartTimer()
			if client == "ours" {
				p := newParty(b, exchange.Serving{}, relay.ID())
				connect(b, p, relay)
				p.knows(b, relay.ID())
				return p.dag
			}
			h, store := newHost(b), newStore()
			swap := bitswap.New(context.Background(), bsnet.NewFromIpfsHost(h), nil, store, bitswap.ProviderSearchDelay(time.Second))
			b.Cleanup(func() { swap.Close() })
			connect(b, h, relay)
			return blockservice.New(store, node.Persistent(swap), blockservice.WriteThrough(true))
		}
		b.Run(client+"/file", func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				if n, err := (&party{dag: fresh()}).read(b.Context(), root); n != size || err != nil {
					b.Fatal(n, err)
				}
			}
		})
		b.Run(client+"/modules", func(b *testing.B) {
			b.SetBytes(modules * module)
			for b.Loop() {
				session := blockservice.NewSession(b.Context(), fresh())
				var group errgroup.Group
				group.SetLimit(64)
				for _, m := range small {
					group.Go(func() error {
						_, err := session.GetBlock(b.Context(), m.Cid())
						return err
					})
				}
				if err := group.Wait(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
