//go:build netlab

package netlab_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/boxo/bitswap/message"
	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	chunk "github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	libp2pswarm "github.com/libp2p/go-libp2p/p2p/net/swarm"
	tptu "github.com/libp2p/go-libp2p/p2p/net/upgrader"
	libp2pnoise "github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/websocket"
	"github.com/libp2p/go-msgio"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/webfabric/weft/relay/pionrtc"
	"github.com/webfabric/weft/scripts/netlab"
	"github.com/webfabric/weft/shared/bcin"
	"github.com/webfabric/weft/shared/config"
	"github.com/webfabric/weft/shared/content"
	"github.com/webfabric/weft/shared/identity"
	"github.com/webfabric/weft/shared/node"
	"github.com/webfabric/weft/shared/swarm"
	"github.com/webfabric/weft/shared/webrtc"
)

// visitorEnv has this program be a visitor instead of the tests: a node put
// together as the tab's is in wasm/, with pion in the place of the page and
// go-libp2p's WebSockets in that of the browser's. It reads orders from
// standard input, a line of JSON each, answers each by a line, and ends with
// its input.
const visitorEnv = "WEFT_NETLAB_VISITOR"

func TestMain(m *testing.M) {
	text := os.Getenv(visitorEnv)
	if text == "" {
		os.Exit(m.Run())
	}
	if err := visit(text); err != nil {
		fmt.Fprintln(os.Stderr, "visitor:", err)
		os.Exit(1)
	}
}

// A setup is what a visitor is told at its start.
type setup struct {
	Origin string          // the relay's URL
	Config json.RawMessage // what the relay says of itself
}

// An order is one thing for a visitor to do.
type order struct {
	Do    string  // "add", "lie", "fetch", "fetched" or "status"
	Seed  uint64  // add, lie: what is in the file
	Size  int     // add, lie: how large it is
	Chunk int     // add, lie: in blocks of so many bytes
	Hold  bool    // add: never give the file's last block
	Root  cid.Cid // fetch
}

// An answer is what a visitor says to it.
type answer struct {
	Error string
	Root  cid.Cid
	Sum   string  // fetched: SHA-256 of what came
	Took  float64 // fetched: seconds
	ID    string
	Stats node.Stats
	Peers []peerStatus
	Liars []string
	Swarm int  // how many neighbours the swarm counts
	Held  bool // somebody asked for the block that is held
}

// peerStatus is a neighbour that is no relay.
type peerStatus struct {
	ID        string
	Transport string // "webrtc" or "circuit"
	In        uint64 // bytes of blocks
}

// A visitor is the node.
type visitor struct {
	host  host.Host
	node  *node.Node
	bcin  *bcin.Client
	swarm *swarm.Swarm
	store *holding
	done  chan fetched // has one for each fetch that has ended

	mu    sync.Mutex
	roots []cid.Cid
}

type fetched struct {
	sum  string
	took time.Duration
	err  error
}

func visit(text string) error {
	var s setup
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	v, err := newVisitor(ctx, s)
	if err != nil {
		return err
	}
	in, out := json.NewDecoder(bufio.NewReader(os.Stdin)), json.NewEncoder(os.Stdout)
	for {
		var o order
		if err := in.Decode(&o); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		var a answer
		if err := v.do(ctx, o, &a); err != nil {
			a.Error = err.Error()
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
}

// newVisitor puts the node together and has it join.
func newVisitor(ctx context.Context, s setup) (*visitor, error) {
	c, err := config.Parse(s.Config)
	if err != nil {
		return nil, err
	}
	key, err := identity.New()
	if err != nil {
		return nil, err
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, err
	}
	ps, err := pstoremem.NewPeerstore()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(ps.AddPrivKey(id, key), ps.AddPubKey(id, key.GetPublic())); err != nil {
		return nil, err
	}
	bus, rcmgr := eventbus.NewBus(), &network.NullResourceManager{}
	const dialTimeout = 30 * time.Second
	sw, err := libp2pswarm.NewSwarm(id, ps, bus, libp2pswarm.WithResourceManager(rcmgr),
		libp2pswarm.WithDialTimeout(dialTimeout), libp2pswarm.WithDialTimeoutLocal(dialTimeout))
	if err != nil {
		return nil, err
	}
	muxers := []tptu.StreamMuxer{{ID: yamux.ID, Muxer: node.NewMuxer()}}
	secure, err := libp2pnoise.New(libp2pnoise.ID, key, muxers)
	if err != nil {
		return nil, err
	}
	up, err := tptu.New([]sec.SecureTransport{secure}, muxers, nil, rcmgr, nil)
	if err != nil {
		return nil, err
	}
	ws, err := websocket.New(up, rcmgr, nil)
	if err != nil {
		return nil, err
	}
	if err := sw.AddTransport(ws); err != nil {
		return nil, err
	}
	h, err := basichost.NewHost(sw, &basichost.HostOpts{EventBus: bus, UserAgent: "weft-netlab", EnablePing: true})
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if _, err := webrtc.AddTransport(h, up, pionrtc.New(pionrtc.WithSTUN(c.STUN...)), webrtc.WithLogger(log)); err != nil {
		return nil, err
	}
	h.Start()

	v := &visitor{host: h, done: make(chan fetched, 1), store: &holding{Blockstore: blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))}}
	var joined sync.WaitGroup // until bcin and swarm are there, which the node tells of what happens
	joined.Add(1)
	v.node, err = node.New(ctx, node.Config{
		Host: h, Blockstore: v.store, Relays: c.RelayInfos, Log: log,
		OnRelayAddrs: func() { go func() { joined.Wait(); v.bcin.Refresh() }() },
		OnBadBlock:   func(p peer.ID, _ cid.Cid) { go func() { joined.Wait(); v.swarm.Block(p) }() },
	})
	if err != nil {
		return nil, err
	}
	x := v.node.Exchange()
	v.bcin = bcin.New(bcin.Config{Host: h, Key: key, Origin: s.Origin, Addrs: v.node.RelayAddrs, Holds: v.held, Log: log})
	v.swarm = swarm.New(swarm.Config{
		Host: h, BCIN: v.bcin, IsRelay: v.node.IsRelay, Log: log, Score: x.Score, Wants: v.held,
		Moved: func(p peer.ID) (n uint64) {
			for _, s := range x.Peers() {
				if s.ID == p {
					n = s.BytesIn + s.BytesOut
				}
			}
			return n
		},
	})
	joined.Done()
	go v.swarm.Run(ctx)
	for _, r := range c.RelayInfos {
		go v.bcin.Run(ctx, r.ID)
	}
	return v, nil
}

// held are the roots that the visitor has or is getting.
func (v *visitor) held() []cid.Cid {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.roots)
}

func (v *visitor) holds(root cid.Cid) {
	v.mu.Lock()
	v.roots = append(v.roots, root)
	v.mu.Unlock()
	v.bcin.Refresh()
	v.swarm.Refresh()
}

func (v *visitor) do(ctx context.Context, o order, a *answer) (err error) {
	switch o.Do {
	case "add":
		var last cid.Cid
		if a.Root, last, err = add(v.store, o); err != nil {
			return err
		}
		if o.Hold {
			v.store.hold(last)
		}
		v.holds(a.Root)
	case "lie":
		// It knows what the file is, as a liar would who has seen it.
		if a.Root, _, err = add(blockstore.NewBlockstore(datastore.NewMapDatastore()), o); err != nil {
			return err
		}
		v.lie()
		v.holds(a.Root)
	case "fetch": // in the background
		v.holds(o.Root)
		go func() {
			begun := time.Now()
			sum, err := v.fetch(ctx, o.Root)
			v.done <- fetched{sum, time.Since(begun), err}
		}()
	case "fetched":
		f := <-v.done
		a.Sum, a.Took, err = f.sum, f.took.Seconds(), f.err
	case "status":
		a.ID, a.Stats, a.Held = v.host.ID().String(), v.node.Stats(), v.store.wasAsked()
		a.Swarm = len(v.swarm.Neighbours())
		for _, p := range v.swarm.Blocked() {
			a.Liars = append(a.Liars, p.String())
		}
		for _, s := range v.node.Exchange().Peers() {
			if !s.Relay {
				a.Peers = append(a.Peers, peerStatus{s.ID.String(), v.transport(s.ID), s.BytesIn})
			}
		}
	default:
		err = fmt.Errorf("unknown order %q", o.Do)
	}
	return err
}

// add adds a file of noise.
func add(store blockstore.Blockstore, o order) (root, last cid.Cid, err error) {
	dag := merkledag.NewDAGService(blockservice.New(store, offline.Exchange(store)))
	builder, err := merkledag.PrefixForCidVersion(1)
	if err != nil {
		return root, last, err
	}
	b, err := (&helpers.DagBuilderParams{Dagserv: dag, RawLeaves: true, Maxlinks: 1024, CidBuilder: builder}).New(
		chunk.NewSizeSplitter(bytes.NewReader(noise(o.Seed, o.Size)), int64(o.Chunk)))
	if err != nil {
		return root, last, err
	}
	nd, err := balanced.Layout(b)
	if err != nil {
		return root, last, err
	}
	return nd.Cid(), nd.Links()[len(nd.Links())-1].Cid, nil
}

// noise is what cannot be guessed, and is the same for the same seed.
func noise(seed uint64, size int) []byte {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	b := make([]byte, size)
	rand.NewChaCha8(key).Read(b)
	return b
}

// fetch reads a file to the end, as the gateway does.
func (v *visitor) fetch(ctx context.Context, root cid.Cid) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	get := blockservice.NewSession(ctx, v.node.Blocks())
	target, err := content.Resolve(ctx, get, root, nil)
	if err != nil {
		return "", err
	}
	f, err := content.Open(ctx, get, target)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), err
}

// transport names the best connection to p.
func (v *visitor) transport(p peer.ID) (best string) {
	for _, c := range v.host.Network().ConnsToPeer(p) {
		is := func(code int) bool {
			return slices.ContainsFunc(c.RemoteMultiaddr(), func(c ma.Component) bool { return c.Protocol().Code == code })
		}
		switch {
		case is(ma.P_WEBRTC):
			return "webrtc"
		case is(ma.P_CIRCUIT):
			best = "circuit"
		}
	}
	return best
}

// holding is a store that does not give one block.
type holding struct {
	blockstore.Blockstore
	mu    sync.Mutex
	block cid.Cid
	asked bool
}

func (s *holding) hold(c cid.Cid) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.block = c
}

func (s *holding) wasAsked() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// Get waits for ever for the block that is held.
func (s *holding) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	s.mu.Lock()
	held := s.block.Defined() && c.Equals(s.block)
	s.asked = s.asked || held
	s.mu.Unlock()
	if held {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.Blockstore.Get(ctx, c)
}

// lie has the visitor say that it has whatever it is asked for, and send
// something else.
func (v *visitor) lie() {
	const bitswap = "/ipfs/bitswap/1.2.0"
	v.host.SetStreamHandler(bitswap, func(s network.Stream) {
		defer s.Close()
		r := msgio.NewVarintReaderSize(s, network.MessageSizeMax)
		for {
			in, _, err := message.FromMsgReader(r)
			if err != nil {
				return
			}
			out := message.New(false)
			for _, e := range in.Wantlist() {
				switch {
				case e.Cancel:
				case e.WantType == 1: // WANT_HAVE
					out.AddHave(e.Cid)
				default:
					out.AddBlock(blocks.NewBlock([]byte("not " + e.Cid.String())))
				}
			}
			if out.Empty() {
				continue
			}
			reply, err := v.host.NewStream(context.Background(), s.Conn().RemotePeer(), bitswap)
			if err != nil {
				return
			}
			if err := out.ToNetV1(reply); err != nil {
				reply.Reset()
				return
			}
			reply.Close()
		}
	})
}

// A guest is a visitor's process, as the tests see it.
type guest struct {
	t   *testing.T
	mu  sync.Mutex // one order at a time
	in  *json.Encoder
	out *json.Decoder
}

// guest starts a visitor on n.
func (r *relay) guest(n *netlab.Node) *guest {
	r.t.Helper()
	text, err := json.Marshal(setup{r.url, r.config()})
	if err != nil {
		r.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), visitorEnv+"="+string(text))
	log := &tail{}
	cmd.Stderr = log
	in, err := cmd.StdinPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := n.Start(cmd); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		in.Close()
		// It may be in the middle of an order.
		time.AfterFunc(5*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		if r.t.Failed() {
			r.t.Logf("visitor at %s:\n%s", n.Addr, log)
		}
	})
	return &guest{t: r.t, in: json.NewEncoder(in), out: json.NewDecoder(out)}
}

// do has the visitor do o.
func (g *guest) do(o order) (answer, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.in.Encode(o); err != nil {
		return answer{}, fmt.Errorf("order: %w", err)
	}
	var a answer
	if err := g.out.Decode(&a); err != nil {
		return answer{}, fmt.Errorf("answer: %w", err)
	}
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}

// must is do where failing ends the test.
func (g *guest) must(o order) answer {
	g.t.Helper()
	a, err := g.do(o)
	if err != nil {
		g.t.Fatalf("%s: %v", o.Do, err)
	}
	return a
}

// fetch fetches a file of noise, and fails the test if anything else comes.
func (g *guest) fetch(root cid.Cid, seed uint64, size int) answer {
	g.t.Helper()
	g.must(order{Do: "fetch", Root: root})
	return g.fetched(seed, size)
}

// fetched waits for the end of a fetch.
func (g *guest) fetched(seed uint64, size int) answer {
	g.t.Helper()
	a := g.must(order{Do: "fetched"})
	if want := sha256.Sum256(noise(seed, size)); a.Sum != hex.EncodeToString(want[:]) {
		g.t.Fatal("other bytes came")
	}
	return a
}

func (g *guest) status() answer {
	g.t.Helper()
	return g.must(order{Do: "status"})
}

// until waits until the visitor's status is as done says.
func (g *guest) until(what string, done func(answer) bool) answer {
	g.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		a := g.status()
		if done(a) {
			return a
		}
		if time.Now().After(end) {
			g.t.Fatalf("still not: %s: %+v", what, a)
		}
	}
}

// over tells whether the visitor has a neighbour by transport.
func over(transport string) func(answer) bool {
	return func(a answer) bool {
		return slices.ContainsFunc(a.Peers, func(p peerStatus) bool { return p.Transport == transport })
	}
}

// tail keeps the end of a log.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (l *tail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	const most = 16 << 10
	if l.b = append(l.b, p...); len(l.b) > 2*most {
		l.b = append([]byte(nil), l.b[len(l.b)-most:]...)
	}
	return len(p), nil
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.b)
}
