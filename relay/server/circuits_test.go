package server

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"
)

func TestBudgets(t *testing.T) {
	begun := time.Now()
	b := newBudgets[int](1000, 10)
	for _, step := range []struct {
		after time.Duration
		who   int
		bytes int
		want  bool
	}{
		{0, 1, 900, true},
		{0, 1, 200, false},
		{0, 2, 1000, true},
		{0, 2, 0, false},
		{0, 1, 0, true},
		{5 * time.Second, 1, 150, true},
		{5 * time.Second, 1, 1, false},
		{time.Hour, 1, 1000, true},
		{time.Hour, 1, 1, false},
	} {
		if got := b.spend(step.who, step.bytes, begun.Add(step.after)); got != step.want {
			t.Errorf("after %v: spend(%d, %d) = %v", step.after, step.who, step.bytes, got)
		}
	}
	// Whoever makes up names finds the number of budgets bounded, and a budget
	// that was used up is not the first to be forgotten.
	for i := range maxBudgets + 10 {
		b.spend(10+i, 1, begun.Add(time.Hour))
	}
	if len(b.left) > maxBudgets {
		t.Errorf("%d budgets", len(b.left))
	}
	if b.spend(1, 1, begun.Add(time.Hour)) {
		t.Error("a budget that was used up is whole again")
	}
}

// TestCircuitBudget has a node send through a circuit until its budget is gone.
func TestCircuitBudget(t *testing.T) {
	newHost := func(opts ...libp2p.Option) host.Host {
		h, err := libp2p.New(append(opts, libp2p.ResourceManager(&network.NullResourceManager{}))...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Close() })
		return h
	}
	listen := libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0")
	relay := newHost(listen, libp2p.DisableRelay())
	c := newCircuits(relay, func(ma.Multiaddr) string { return "https://example.org" })
	c.nodes = newBudgets[peer.ID](1<<20, 0)
	c.origins = newBudgets[string](3<<19, 0)
	r, err := newCircuitRelay(c, newMetrics())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })

	far := newHost(listen)
	info := peer.AddrInfo{ID: relay.ID(), Addrs: relay.Addrs()}
	if err := far.Connect(t.Context(), info); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Reserve(t.Context(), far, info); err != nil {
		t.Fatal(err)
	}
	far.SetStreamHandler("/test/sink", func(s network.Stream) {
		n, _ := io.Copy(io.Discard, io.LimitReader(s, 256<<10))
		fmt.Fprint(s, n)
		s.Close()
	})
	at := peer.AddrInfo{ID: far.ID(), Addrs: []ma.Multiaddr{ma.StringCast(relay.Addrs()[0].String() + "/p2p/" + relay.ID().String() + "/p2p-circuit")}}
	// send returns how many pieces of 256 KiB got through, at most 8.
	send := func(h host.Host) (pieces int) {
		if err := h.Connect(t.Context(), at); err != nil {
			return 0
		}
		for ; pieces < 8; pieces++ {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			s, err := h.NewStream(ctx, far.ID(), "/test/sink")
			cancel()
			if err != nil {
				return pieces
			}
			data := make([]byte, 256<<10)
			rand.Read(data)
			if _, err := s.Write(data); err != nil {
				return pieces
			}
			s.CloseWrite()
			if got, err := io.ReadAll(s); err != nil || string(got) != fmt.Sprint(256<<10) {
				return pieces
			}
		}
		return pieces
	}
	one, two := newHost(listen), newHost(listen)
	if got := send(one); got != 3 { // of 1 MiB, with what Noise and yamux add
		t.Errorf("%d pieces passed, want 3", got)
	}
	one.Network().ClosePeer(far.ID())
	if got := send(two); got == 0 || got > 2 { // of the origin's 512 KiB that are left
		t.Errorf("%d pieces of another node of the origin passed, want 1 or 2", got)
	}
	two.Network().ClosePeer(far.ID())
	c.nodes.mu.Lock()
	c.nodes.left[one.ID()] = budget{}
	c.nodes.mu.Unlock()
	if c.AllowConnect(one.ID(), one.Addrs()[0], far.ID()) {
		t.Error("a circuit without a budget is allowed")
	}
	// Who has no budget can still be reached.
	if _, err := client.Reserve(t.Context(), one, info); err != nil {
		t.Errorf("no reservation without a budget: %v", err)
	}
}

// TestCircuitLimits: DESIGN 9. Any limit of libp2p's own would keep Bitswap
// from using a circuit.
func TestCircuitLimits(t *testing.T) {
	s, _ := startHere(t, nil)
	h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.EnableRelay())
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	info := peer.AddrInfo{ID: s.host.ID(), Addrs: s.host.Addrs()}
	if err := h.Connect(t.Context(), info); err != nil {
		t.Fatal(err)
	}
	got, err := client.Reserve(t.Context(), h, info)
	if err != nil {
		t.Fatal(err)
	}
	if got.LimitData != 0 || got.LimitDuration != 0 {
		t.Errorf("circuits are limited to %d bytes and %v", got.LimitData, got.LimitDuration)
	}
	defaults := circuit.DefaultResources()
	if maxReservations <= defaults.MaxReservations || maxConnsPerIP <= defaults.MaxReservationsPerIP {
		t.Error("fewer reservations than go-libp2p's few")
	}
}

// TestPageOrigin: a circuit's origin is that of its WebSocket's page.
func TestPageOrigin(t *testing.T) {
	s, addr := startHere(t, nil)
	c, _, err := websocket.Dial(t.Context(), "ws://"+addr+"/", &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {"http://" + addr}}})
	if err != nil {
		t.Fatal(err)
	}
	pages := func() map[string]string {
		s.upgrades.mu.Lock()
		defer s.upgrades.mu.Unlock()
		out := map[string]string{}
		for k, v := range s.upgrades.pages {
			out[k] = v
		}
		return out
	}
	for deadline := time.Now().Add(patience); len(pages()) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no page is known")
		}
	}
	for remote := range pages() {
		if got := s.upgrades.origin(ma.StringCast(remote)); got != "http://"+addr {
			t.Errorf("origin of %s = %q", remote, got)
		}
	}
	c.CloseNow()
	for deadline := time.Now().Add(patience); len(pages()) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the page of a closed connection is remembered")
		}
	}
}
