//go:build !js

package bcin

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
	mh "github.com/multiformats/go-multihash"
)

// limit caps every wait: far above what anything takes.
const limit = 60 * time.Second

const site = "https://site.example"

func newHost(t testing.TB, key crypto.PrivKey, listen string) host.Host {
	t.Helper()
	if key == nil {
		var err error
		if key, _, err = crypto.GenerateEd25519Key(rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	opts := []libp2p.Option{
		libp2p.Identity(key), libp2p.DisableMetrics(), libp2p.DisableRelay(),
		libp2p.ResourceManager(&network.NullResourceManager{}), libp2p.NoListenAddrs,
	}
	if listen != "" {
		opts[len(opts)-1] = libp2p.ListenAddrStrings(listen)
	}
	h, err := libp2p.New(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func keyOf(h host.Host) crypto.PrivKey { return h.Peerstore().PrivKey(h.ID()) }

// relay is a host with a server, which can be stopped and started again.
type relay struct {
	t      testing.TB
	cfg    ServerConfig
	key    crypto.PrivKey
	now    func() time.Time
	host   host.Host
	server *Server
	info   peer.AddrInfo
}

func newRelay(t testing.TB, cfg ServerConfig) *relay {
	t.Helper()
	r := &relay{t: t, cfg: cfg, now: time.Now}
	r.start("/ip4/127.0.0.1/tcp/0")
	t.Cleanup(r.stop)
	return r
}

func (r *relay) start(addr string) {
	r.t.Helper()
	r.host = newHost(r.t, r.key, addr)
	if r.key == nil { // else it is where it was, and nodes are reading info
		r.key, r.info = keyOf(r.host), peer.AddrInfo{ID: r.host.ID(), Addrs: r.host.Network().ListenAddresses()}
	}
	var err error
	if r.server, err = serve(r.host, r.cfg, func() time.Time { return r.now() }); err != nil {
		r.t.Fatal(err)
	}
}

func (r *relay) stop() {
	r.host.Close()
	r.server.Close()
}

// node is a client on a host that stays connected to relays, as shared/node is.
type node struct {
	host.Host
	*Client
	t     testing.TB
	mu    sync.Mutex
	holds []cid.Cid
	stop  func()
}

func (n *node) serves(roots ...cid.Cid) {
	n.mu.Lock()
	n.holds = roots
	n.mu.Unlock()
	n.Refresh()
}

func newNode(t testing.TB, key crypto.PrivKey, relays ...*relay) *node {
	t.Helper()
	n := &node{Host: newHost(t, key, ""), t: t}
	n.Client = New(Config{
		Host: n.Host, Key: keyOf(n.Host), Origin: site,
		Addrs: func() []ma.Multiaddr {
			var out []ma.Multiaddr
			for _, r := range relays {
				out = append(out, circuit(r.info))
			}
			return out
		},
		Holds: func() []cid.Cid {
			n.mu.Lock()
			defer n.mu.Unlock()
			return n.holds
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, r := range relays {
		wg.Go(func() { n.keep(ctx, r.info) })
		wg.Go(func() { n.Run(ctx, r.info.ID) })
	}
	n.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		n.Host.Close()
	})
	t.Cleanup(n.stop)
	return n
}

func circuit(relay peer.AddrInfo) ma.Multiaddr {
	return relay.Addrs[0].Encapsulate(ma.StringCast("/p2p/" + relay.ID.String() + "/p2p-circuit/webrtc"))
}

// keep connects to a relay whenever it is not connected.
func (n *node) keep(ctx context.Context, relay peer.AddrInfo) {
	for ctx.Err() == nil {
		n.Host.Network().(*swarm.Swarm).Backoff().Clear(relay.ID)
		_ = n.Host.Connect(ctx, relay) // tried again
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// wait waits for what Peers returns to be good, looking when Changed is poked.
func (n *node) wait(what string, good func([]Record) bool) []Record {
	n.t.Helper()
	end := time.After(limit)
	for {
		if ps := n.Peers(); good(ps) {
			return ps
		}
		select {
		case <-n.Changed():
		case <-end:
			n.t.Fatalf("%s: not within %v; peers: %+v", what, limit, n.Peers())
		}
	}
}

func (n *node) sees(others ...*node) {
	n.t.Helper()
	n.wait(fmt.Sprintf("see %d others and nobody else", len(others)), func(ps []Record) bool {
		return len(ps) == len(others) && !slices.ContainsFunc(others, func(o *node) bool { return find(ps, o.ID()) == nil })
	})
}

func find(rs []Record, p peer.ID) *Record {
	for i := range rs {
		if rs[i].Peer == p {
			return &rs[i]
		}
	}
	return nil
}

func eventually(t testing.TB, what string, good func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !good(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, limit)
		}
	}
}

func rootOf(t testing.TB, text string) cid.Cid {
	t.Helper()
	h, err := mh.Sum([]byte(text), mh.SHA2_256, -1)
	if err != nil {
		t.Fatal(err)
	}
	return cid.NewCidV1(cid.DagProtobuf, h)
}

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

func TestMeet(t *testing.T) {
	r := newRelay(t, ServerConfig{})
	a, b := newNode(t, nil, r), newNode(t, nil, r)
	a.sees(b)
	b.sees(a)
	if got := a.Peers()[0]; got.Origin != site || len(got.Addrs) != 1 || !got.Addrs[0].Equal(circuit(r.info)) {
		t.Errorf("b's record = %+v", got)
	}

	x := rootOf(t, "x")
	b.serves(x)
	a.wait("hear that b serves x", func(ps []Record) bool { return len(ps) == 1 && ps[0].Serves(x) })
	c := newNode(t, nil, r)
	a.sees(b, c)
	found, err := a.Discover(testContext(t), x, 1)
	if err != nil || len(found) != 1 || found[0].Peer != b.ID() {
		t.Errorf("Discover(x, 1) = %v, %v; want b", found, err)
	}
	found, err = a.Discover(testContext(t), cid.Undef, 0)
	if err != nil || len(found) != 2 {
		t.Errorf("Discover = %v, %v; want b and c", found, err)
	}

	// Its record is good for two minutes, but it has gone.
	b.stop()
	a.sees(c)
	if found, err := a.Discover(testContext(t), x, 0); err != nil || len(found) != 1 || found[0].Peer != c.ID() {
		t.Errorf("Discover(x) after b has gone = %v, %v; want c", found, err)
	}
	a.stop()
	c.stop()
	eventually(t, "the server has nothing", func() bool { return r.server.Stats() == Stats{} })
	r.server.mu.Lock()
	defer r.server.mu.Unlock()
	if len(r.server.peers) > 0 || len(r.server.networks) > 0 {
		t.Errorf("left behind: %v, %v", r.server.peers, r.server.networks)
	}
}

// TestRelayRestarts has a relay forget everything.
func TestRelayRestarts(t *testing.T) {
	r := newRelay(t, ServerConfig{})
	a, b := newNode(t, nil, r), newNode(t, nil, r)
	a.sees(b)
	b.sees(a)
	r.stop()
	a.sees()
	if _, err := a.Discover(testContext(t), cid.Undef, 0); !errors.Is(err, ErrNoRelay) {
		t.Errorf("Discover without a relay: %v; want ErrNoRelay", err)
	}
	r.start(r.info.Addrs[0].String())
	a.sees(b)
	b.sees(a)
}

// TestRelays has nodes meet through whichever relay they share.
func TestRelays(t *testing.T) {
	r1, r2 := newRelay(t, ServerConfig{}), newRelay(t, ServerConfig{})
	a, b, c := newNode(t, nil, r1), newNode(t, nil, r1, r2), newNode(t, nil, r2)
	a.sees(b)
	b.sees(a, c)
	c.sees(b)
	r1.stop()
	a.sees()
	b.sees(c)
	r1.start(r1.info.Addrs[0].String())
	a.sees(b)
	b.sees(a, c)
}

// TestRefresh has a node start again under the same key while its first
// connection still stands.
func TestRefresh(t *testing.T) {
	r := newRelay(t, ServerConfig{})
	a, b := newNode(t, nil, r), newNode(t, nil, r)
	a.sees(b)
	first := a.Peers()[0].Epoch
	again := newNode(t, keyOf(b.Host), r)
	a.wait("a later epoch", func(ps []Record) bool { return len(ps) == 1 && ps[0].Epoch > first })
	// The end of the first connection is not the end of the node.
	b.stop()
	again.sees(a)
	c := newNode(t, nil, r)
	c.sees(a, again)
}

// TestClockBack has a node start with an earlier clock than it had before.
func TestClockBack(t *testing.T) {
	r := newRelay(t, ServerConfig{})
	a, b := newNode(t, nil, r), newHost(t, nil, "")
	ahead := uint64(time.Now().Add(time.Hour).UnixNano())
	raw := dial(t, b, r)
	if got := raw.register(signed(t, b, r, func(rec *Record) { rec.Epoch = ahead })); got.kind != kindOK {
		t.Fatalf("register = %+v", got)
	}
	n := newNode(t, keyOf(b), r)
	n.sees(a)
	a.wait("a later epoch", func(ps []Record) bool { return len(ps) == 1 && ps[0].Epoch == ahead+1 })
}

// TestSkew has a relay whose clock is an hour ahead of everyone's.
func TestSkew(t *testing.T) {
	for _, skew := range []time.Duration{time.Hour, -time.Hour} {
		t.Run(skew.String(), func(t *testing.T) {
			r := newRelay(t, ServerConfig{})
			r.stop()
			r.now = func() time.Time { return time.Now().Add(skew) }
			r.start(r.info.Addrs[0].String())
			a, b := newNode(t, nil, r), newNode(t, nil, r)
			a.sees(b)
			b.sees(a)
			if found, err := a.Discover(testContext(t), cid.Undef, 0); err != nil || len(found) != 1 {
				t.Errorf("Discover = %v, %v", found, err)
			}
		})
	}
}

// TestRenew has records outlive their expiry by being renewed, and expire when
// they are not.
func TestRenew(t *testing.T) {
	r := newRelay(t, ServerConfig{})
	var clock atomic.Int64 // ns ahead
	r.stop()
	r.now = func() time.Time { return time.Now().Add(time.Duration(clock.Load())) }
	renewed := make(chan struct{}, 100)
	r.cfg.Observe = func(op, status string) {
		if op == opRenew && status == "ok" {
			poke(renewed)
		}
	}
	r.start(r.info.Addrs[0].String())
	a := newNode(t, nil, r)
	b := newHost(t, nil, "")
	if err := b.Connect(testContext(t), r.info); err != nil {
		t.Fatal(err)
	}
	c := New(Config{Host: b, Key: keyOf(b), Origin: site, TTL: 3 * time.Second, Addrs: func() []ma.Multiaddr { return []ma.Multiaddr{circuit(r.info)} }})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx, r.info.ID) }()
	first := a.wait("see b", func(ps []Record) bool { return len(ps) == 1 })[0]
	select {
	case <-renewed:
	case <-time.After(limit):
		t.Fatal("no renewal")
	}
	eventually(t, "the renewed record is known", func() bool {
		ps := a.Peers()
		return len(ps) == 1 && ps[0].Newer(first) && ps[0].Epoch == first.Epoch
	})
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v", err)
	}
	a.sees() // b is still connected
	clock.Store(int64(time.Hour))
	eventually(t, "all has expired or was signed anew", func() bool { return r.server.Stats().Records <= 1 })
}

// raw speaks the protocol by hand.
type raw struct {
	t  testing.TB
	st network.Stream
	in *bufio.Reader
	id uint64
}

func dial(t testing.TB, h host.Host, r *relay) *raw {
	t.Helper()
	if err := h.Connect(testContext(t), r.info); err != nil {
		t.Fatal(err)
	}
	st, err := h.NewStream(testContext(t), r.info.ID, Protocol)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Reset() })
	st.SetDeadline(time.Now().Add(limit))
	return &raw{t: t, st: st, in: bufio.NewReader(st)}
}

func (r *raw) send(q request) uint64 {
	r.t.Helper()
	r.id++
	q.id = r.id
	if q.origin == "" {
		q.origin = site
	}
	b, err := q.marshal()
	if err := writeFrame(r.st, b, err); err != nil {
		r.t.Fatal(err)
	}
	return r.id
}

func (r *raw) read() reply {
	r.t.Helper()
	m, err := readReply(r.in)
	if err != nil {
		r.t.Fatal(err)
	}
	return m
}

// ask sends q and returns the answer to it.
func (r *raw) ask(q request) reply {
	r.t.Helper()
	id := r.send(q)
	for {
		if m := r.read(); m.id == id {
			return m
		}
	}
}

func (r *raw) register(sealed []byte) reply {
	r.t.Helper()
	return r.ask(request{op: opRegister, record: sealed})
}

// signed is h's, sealed; change makes it another.
func signed(t testing.TB, h host.Host, r *relay, change func(*Record)) []byte {
	t.Helper()
	rec := Record{Origin: site, Peer: h.ID(), Addrs: []ma.Multiaddr{circuit(r.info)}, Epoch: 10, Expires: time.Now().Add(time.Minute)}
	if change != nil {
		change(&rec)
	}
	b, err := Seal(rec, keyOf(h))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestServerRefuses(t *testing.T) {
	r := newRelay(t, ServerConfig{Allow: func(_ network.Conn, origin string) bool { return origin != "https://not-here.example" }})
	h, victim := newHost(t, nil, ""), newHost(t, nil, "")
	c := dial(t, h, r)
	kept := signed(t, h, r, nil)
	if got := c.register(kept); got.kind != kindOK {
		t.Fatalf("register = %+v", got)
	}
	expires := time.Now().Add(2 * time.Minute)
	flipped := slices.Clone(signed(t, h, r, func(r *Record) { r.Epoch++ }))
	flipped[len(flipped)-1] ^= 1
	elsewhere := signed(t, h, r, func(r *Record) { r.Origin = "https://not-here.example" })
	tests := []struct {
		name string
		q    request
		err  error
	}{
		{"forged", request{op: opRegister, record: flipped}, ErrSignature},
		{"another's, replayed", request{op: opRegister, record: signed(t, victim, r, nil)}, ErrSignature},
		{"an earlier epoch", request{op: opRegister, record: signed(t, h, r, func(r *Record) { r.Epoch, r.Expires = 9, expires })}, ErrStale},
		{"signed earlier", request{op: opRegister, record: signed(t, h, r, func(r *Record) { r.Expires = time.Now().Add(time.Second) })}, ErrStale},
		{"expired", request{op: opRegister, record: signed(t, h, r, func(r *Record) { r.Epoch, r.Expires = 11, time.Now() })}, ErrExpired},
		{"for long", request{op: opRegister, record: signed(t, h, r, func(r *Record) { r.Epoch, r.Expires = 11, time.Now().Add(time.Hour) })}, ErrMalformed},
		{"another origin than it says", request{op: opRegister, record: signed(t, h, r, nil), origin: "https://other.example"}, ErrOrigin},
		{"an origin that is not served", request{op: opRegister, record: elsewhere, origin: "https://not-here.example"}, ErrOrigin},
		{"nodes of one", request{op: opDiscover, origin: "https://not-here.example"}, ErrOrigin},
		{"news of one", request{op: opWatch, origin: "https://not-here.example"}, ErrOrigin},
		{"no origin", request{op: opDiscover, origin: "\x00"}, ErrOrigin},
		{"nothing kept", request{op: opRenew, record: signed(t, h, r, func(r *Record) { r.Epoch, r.Expires = 11, expires })}, ErrUnknown},
		{"no operation", request{op: "fetch"}, ErrRequest},
		{"no record", request{op: opRegister}, ErrMalformed},
		{"a large record", request{op: opRegister, record: make([]byte, MaxSize+1)}, ErrTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := c.ask(tt.q)
			if err := codeToError(got.code, got.message); got.kind != kindError || !errors.Is(err, tt.err) {
				t.Errorf("answer = %+v; want %v", got, tt.err)
			}
		})
	}
	if got := c.register(kept); got.kind != kindOK {
		t.Errorf("the same said again: %+v", got)
	}
	if got := c.ask(request{op: opRenew, record: signed(t, h, r, func(r *Record) { r.Expires = expires })}); got.kind != kindOK {
		t.Errorf("renew = %+v", got)
	}
	if got := r.server.Stats(); got.Records != 1 {
		t.Errorf("%+v; want one record", got)
	}
}

// TestGarbage has what no client sends end its stream, and nothing else.
func TestGarbage(t *testing.T) {
	r := newRelay(t, ServerConfig{})
	a, b := newNode(t, nil, r), newNode(t, nil, r)
	a.sees(b)
	h := newHost(t, nil, "")
	good := dial(t, h, r)
	if got := good.ask(request{op: opDiscover}); got.kind != kindRecords {
		t.Errorf("discover = %+v", got)
	}
	for _, in := range [][]byte{
		[]byte("GET / HTTP/1.1\r\nHost: relay.example\r\nUser-Agent: none that speaks this\r\nAccept: */*\r\n\r\n"),
		{0xff, 0xff, 0xff, 0xff, 0x0f},
		{3, 0x81, 0x81, 0x81},
		{1, 0xa0, 0x05, 1, 2, 3, 4, 5},
		append([]byte{0x80, 0x10}, make([]byte, 2048)...),
	} {
		bad := dial(t, h, r)
		if _, err := bad.st.Write(in); err != nil {
			t.Fatal(err)
		}
		var err error
		for err == nil {
			_, err = readReply(bad.in)
		}
		if errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%q: the stream stood", in)
		}
	}
	if got := good.register(signed(t, h, r, nil)); got.kind != kindOK {
		t.Errorf("on the good stream: %+v", got)
	}
	a.wait("see three nodes", func(ps []Record) bool { return len(ps) == 2 })
}

func TestQuotas(t *testing.T) {
	t.Run("of a peer", func(t *testing.T) {
		r := newRelay(t, ServerConfig{PerPeer: 2})
		h := newHost(t, nil, "")
		c := dial(t, h, r)
		register := func(i int) error {
			origin := fmt.Sprintf("https://%d.example", i)
			got := c.ask(request{op: opRegister, origin: origin, record: signed(t, h, r, func(r *Record) { r.Origin = origin })})
			if got.kind == kindOK {
				return nil
			}
			return codeToError(got.code, got.message)
		}
		for i := range 2 {
			if err := register(i); err != nil {
				t.Fatal(err)
			}
		}
		if err := register(2); !errors.Is(err, ErrQuota) {
			t.Errorf("a third origin: %v; want ErrQuota", err)
		}
	})
	t.Run("of a network, and in all", func(t *testing.T) {
		for _, cfg := range []ServerConfig{{PerNetwork: 2}, {MaxRecords: 2}} {
			r := newRelay(t, cfg)
			var hosts []host.Host
			for i := range 3 {
				h := newHost(t, nil, "")
				hosts = append(hosts, h)
				got := dial(t, h, r).register(signed(t, h, r, nil))
				if want := i < 2; want != (got.kind == kindOK) {
					t.Errorf("%+v: node %d: %+v", cfg, i, got)
				}
			}
			// Who leaves makes room.
			hosts[0].Close()
			eventually(t, "one has left", func() bool { return r.server.Stats().Records == 1 })
			if got := dial(t, hosts[2], r).register(signed(t, hosts[2], r, nil)); got.kind != kindOK {
				t.Errorf("%+v: after one has left: %+v", cfg, got)
			}
		}
	})
	t.Run("streams", func(t *testing.T) {
		r := newRelay(t, ServerConfig{})
		h := newHost(t, nil, "")
		for range maxStreams {
			if got := dial(t, h, r).ask(request{op: opDiscover}); got.kind != kindOK {
				t.Fatalf("discover = %+v", got)
			}
		}
		more := dial(t, h, r)
		more.send(request{op: opDiscover})
		if m, err := readReply(more.in); err == nil {
			t.Errorf("one stream more: %+v", m)
		}
	})
	t.Run("watches", func(t *testing.T) {
		r := newRelay(t, ServerConfig{PerPeer: 1})
		h := newHost(t, nil, "")
		c := dial(t, h, r)
		if got := c.ask(request{op: opWatch}); got.kind != kindOK {
			t.Fatalf("watch = %+v", got)
		}
		if got := dial(t, h, r).ask(request{op: opWatch}); got.code != "quota" {
			t.Errorf("one watch more: %+v", got)
		}
		// A stream's end is the end of its watches.
		c.st.Reset()
		eventually(t, "no watch", func() bool { return r.server.Stats().Watchers == 0 })
		if got := dial(t, h, r).ask(request{op: opWatch}); got.kind != kindOK {
			t.Errorf("watch = %+v", got)
		}
	})
}

func TestNetworkOf(t *testing.T) {
	for in, want := range map[string]string{
		"/ip4/192.0.2.77/tcp/1/ws":           "192.0.2.0/24",
		"/ip6/2001:db8:1:2::3/udp/1/quic-v1": "2001:db8:1::/48",
		"/ip6/::ffff:192.0.2.77/tcp/1":       "192.0.2.0/24",
		"/dns4/example.org/tcp/1":            "invalid Prefix",
	} {
		if got := networkOf(ma.StringCast(in)).String(); got != want {
			t.Errorf("networkOf(%s) = %s; want %s", in, got, want)
		}
	}
}

// crowd registers n nodes without hosts, as if they were connected.
func crowd(t testing.TB, r *relay, n int, holds ...cid.Cid) []peer.ID {
	t.Helper()
	s := r.server
	s.mu.Lock()
	s.here = func(peer.ID) bool { return true }
	s.mu.Unlock()
	ids := make([]peer.ID, n)
	for i := range ids {
		key, _, err := crypto.GenerateEd25519Key(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if ids[i], err = peer.IDFromPrivateKey(key); err != nil {
			t.Fatal(err)
		}
		rec := Record{Origin: site, Peer: ids[i], Addrs: []ma.Multiaddr{circuit(r.info)}, Epoch: 1, Expires: time.Now().Add(5 * time.Minute), Holds: holds}
		sealed, err := Seal(rec, key)
		if err != nil {
			t.Fatal(err)
		}
		from := ma.StringCast(fmt.Sprintf("/ip4/10.%d.%d.1/tcp/1", i>>8&255, i&255))
		if _, err := s.put(from, rec, sealed, false); err != nil {
			t.Fatal(err)
		}
	}
	return ids
}

// TestThousands has an origin with far more nodes than one watcher is told of.
func TestThousands(t *testing.T) {
	r := newRelay(t, ServerConfig{})
	x := rootOf(t, "x")
	holders := crowd(t, r, 20, x)
	ids := crowd(t, r, 3000)
	if got := r.server.Stats(); got != (Stats{Records: 3020, Origins: 1}) {
		t.Fatalf("%+v", got)
	}
	n := newNode(t, nil, r)
	n.wait("as many as may be", func(ps []Record) bool { return len(ps) == MaxView })

	found, err := n.Discover(testContext(t), x, 32)
	if err != nil || len(found) != 32 {
		t.Fatalf("Discover(x, 32) = %d, %v", len(found), err)
	}
	for i, f := range found {
		if got, want := slices.Contains(holders, f.Peer), i < 20; got != want {
			t.Errorf("Discover(x)[%d] serves x: %v; want %v", i, got, want)
		}
	}
	// Another choice each time: of 3,020, two of 64 hardly have 16 in common.
	one, err1 := n.Discover(testContext(t), cid.Undef, 0)
	two, err2 := n.Discover(testContext(t), cid.Undef, 0)
	if err := errors.Join(err1, err2); err != nil || len(one) != MaxView {
		t.Fatalf("Discover = %d, %v", len(one), err)
	}
	same := 0
	for _, a := range one {
		if find(two, a.Peer) != nil {
			same++
		}
	}
	if same > 16 {
		t.Errorf("two choices have %d of %d in common", same, MaxView)
	}
	// Those it knows leave; others take their places.
	r.server.mu.Lock()
	r.server.here = func(p peer.ID) bool { return p == n.ID() }
	r.server.mu.Unlock()
	before := n.Peers()
	for _, p := range before {
		r.server.left(p.Peer)
	}
	n.wait("others", func(ps []Record) bool {
		return len(ps) == MaxView && !slices.ContainsFunc(before, func(b Record) bool { return find(ps, b.Peer) != nil })
	})
	for _, p := range append(ids, holders...) {
		r.server.left(p)
	}
	n.sees()
}

// TestSlowWatcher has thousands join and leave before a watcher reads: it is
// told of what there is then, and meanwhile costs no more than any other.
func TestSlowWatcher(t *testing.T) {
	r := newRelay(t, ServerConfig{})
	h := newHost(t, nil, "")
	c := dial(t, h, r)
	c.send(request{op: opWatch, limit: 10})
	eventually(t, "a watcher", func() bool { return r.server.Stats().Watchers == 1 })
	r.server.mu.Lock()
	var w *watcher
	for w = range r.server.origins[site].watchers {
	}
	r.server.mu.Unlock()
	most := 0
	for range 30 {
		ids := crowd(t, r, 100)
		r.server.mu.Lock()
		r.server.here = func(peer.ID) bool { return false }
		most = max(most, len(w.told)+len(w.pending))
		r.server.mu.Unlock()
		for _, p := range ids {
			r.server.left(p)
		}
		r.server.mu.Lock()
		most = max(most, len(w.told)+len(w.pending))
		r.server.mu.Unlock()
	}
	if most > 20 {
		t.Errorf("%d peers are kept for a watcher of 10", most)
	}
	last := crowd(t, r, 10)
	told := map[peer.ID]bool{}
	for {
		m := c.read()
		for _, p := range m.left {
			if !told[p] {
				t.Errorf("%s left, who never joined", p)
			}
			delete(told, p)
		}
		for _, b := range m.records {
			rec, err := Open(b, site, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			told[rec.Peer] = true
		}
		if len(told) > 10 {
			t.Fatalf("told of %d, asked for 10", len(told))
		}
		if len(told) == 10 && !slices.ContainsFunc(last, func(p peer.ID) bool { return !told[p] }) {
			return
		}
	}
}

// TestLyingRelay has a relay tell of records that are none; those that are,
// are believed all the same.
func TestLyingRelay(t *testing.T) {
	r := newRelay(t, ServerConfig{})
	honest, gone := newHost(t, nil, ""), newHost(t, nil, "")
	flipped := slices.Clone(signed(t, gone, r, nil))
	flipped[len(flipped)-1] ^= 1
	lies := [][]byte{
		[]byte("garbage"), flipped,
		signed(t, gone, r, func(r *Record) { r.Origin = "https://other.example" }),
		signed(t, gone, r, func(r *Record) { r.Expires = time.Now().Add(-time.Second) }),
	}
	now := signed(t, honest, r, func(r *Record) { r.Epoch = 10 })
	before := signed(t, honest, r, func(r *Record) { r.Epoch, r.Expires = 9, time.Now().Add(5*time.Minute) })
	asked := make(chan struct{}, 1)
	r.server.Close()
	r.host.SetStreamHandler(Protocol, func(st network.Stream) {
		defer st.Reset()
		in := bufio.NewReader(st)
		for {
			b, err := readFrame(in, MaxRequest)
			if err != nil {
				return
			}
			q, err := unmarshalRequest(b)
			if err != nil {
				t.Errorf("a client's request: %v", err)
				return
			}
			var out []reply
			switch q.op {
			case opWatch:
				out = []reply{{id: q.id, kind: kindOK}, {id: q.id, kind: kindEvent, records: append(lies, now)}, {id: q.id, kind: kindEvent, records: [][]byte{before}}}
			case opDiscover:
				out = []reply{{id: q.id, kind: kindRecords, records: append(lies, before)}, {id: q.id, kind: kindRecords, records: [][]byte{now}}, {id: q.id, kind: kindOK}}
			default:
				poke(asked)
				out = []reply{{id: q.id, kind: kindError, code: "stale", epoch: 1<<63 - 1}}
			}
			for _, m := range out {
				m.now = time.Now()
				b, err := m.marshal()
				if err := writeFrame(st, b, err); err != nil {
					return
				}
			}
		}
	})
	n := newNode(t, nil, r)
	n.wait("the honest one", func(ps []Record) bool { return len(ps) == 1 })
	<-asked // after the event with the earlier epoch
	if ps := n.Peers(); len(ps) != 1 || ps[0].Peer != honest.ID() || ps[0].Epoch != 10 {
		t.Errorf("peers = %+v", ps)
	}
	found, err := n.Discover(testContext(t), cid.Undef, 0)
	if err != nil || len(found) != 1 || found[0].Epoch != 10 {
		t.Errorf("Discover = %+v, %v", found, err)
	}
}

// TestFlood has a relay tell of more than was asked for: the client keeps no
// more than that of it.
func TestFlood(t *testing.T) {
	r := newRelay(t, ServerConfig{})
	crowd(t, r, 4*MaxView)
	r.server.mu.Lock()
	var all [][]byte
	for _, e := range r.server.origins[site].entries.list {
		all = append(all, e.sealed)
	}
	r.server.mu.Unlock()
	r.server.Close()
	again := make(chan struct{}, 10)
	r.host.SetStreamHandler(Protocol, func(st network.Stream) {
		defer st.Reset()
		poke(again)
		for part := range slices.Chunk(all, maxBatch) {
			b, err := reply{id: 1, kind: kindEvent, now: time.Now(), records: part}.marshal()
			if err := writeFrame(st, b, err); err != nil {
				return
			}
		}
		st.Read(make([]byte, 1)) // nothing; the client ends it
		for {
			if _, err := st.Read(make([]byte, 1024)); err != nil {
				return
			}
		}
	})
	n := newNode(t, nil, r)
	for range 2 { // it tries once more
		select {
		case <-again:
		case <-time.After(limit):
			t.Fatal("the client stayed")
		}
	}
	if got := len(n.Peers()); got > MaxView {
		t.Errorf("%d peers are known of one relay", got)
	}
}

// TestCrowd has as many real nodes as an office at one relay.
func TestCrowd(t *testing.T) {
	r := newRelay(t, ServerConfig{})
	nodes := make([]*node, 24)
	for i := range nodes {
		nodes[i] = newNode(t, nil, r)
	}
	for _, n := range nodes {
		n.wait("see all", func(ps []Record) bool { return len(ps) == len(nodes)-1 })
	}
	for _, n := range nodes[:12] {
		n.stop()
	}
	for _, n := range nodes[12:] {
		n.wait("see the rest", func(ps []Record) bool { return len(ps) == 11 })
	}
}
