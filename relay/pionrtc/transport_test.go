package pionrtc_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/webfabric/weft/shared/webrtc"
)

const echoProtocol = "/test/echo/1.0.0"

// wait waits until done.
func wait(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
	}
}

// pair is two nodes with slots on one relay.
func pair(t *testing.T) (a, b *node, addrA, addrB ma.Multiaddr) {
	t.Helper()
	r := newRelay(t)
	a, b = newNode(t, nil), newNode(t, nil)
	if a.ID() > b.ID() { // glare is decided by the IDs
		a, b = b, a
	}
	var err error
	if addrA, err = a.reserve(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if addrB, err = b.reserve(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	return a, b, addrA, addrB
}

// connect has a dial b.
func connect(t *testing.T, a, b *node, addrB ma.Multiaddr) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := a.Connect(ctx, peer.AddrInfo{ID: b.ID(), Addrs: []ma.Multiaddr{addrB}}); err != nil {
		t.Fatal(err)
	}
}

// conns returns a's connections to b: direct ones and circuits.
func conns(a, b *node) (direct []network.Conn, circuits int) {
	for _, c := range a.Network().ConnsToPeer(b.ID()) {
		var w *webrtc.Conn
		if c.As(&w) {
			direct = append(direct, c)
		} else {
			circuits++
		}
	}
	return
}

func TestConnect(t *testing.T) {
	a, b, _, addrB := pair(t)
	b.SetStreamHandler(echoProtocol, func(s network.Stream) {
		io.Copy(s, s)
		s.Close()
	})
	connect(t, a, b, addrB)
	direct, _ := conns(a, b)
	if len(direct) != 1 {
		t.Fatalf("%d WebRTC connections", len(direct))
	}
	c := direct[0]
	if c.Stat().Limited || c.ConnState().Transport != "webrtc" || !c.RemotePublicKey().Equals(b.Peerstore().PubKey(b.ID())) {
		t.Errorf("limited %v, transport %s", c.Stat().Limited, c.ConnState().Transport)
	}
	for _, n := range []*node{a, b} {
		other := map[*node]*node{a: b, b: a}[n]
		wait(t, "the circuit that signalled closed, one direct connection left", func() bool {
			direct, circuits := conns(n, other)
			return len(direct) == 1 && circuits == 0
		})
	}

	// Much data through an echo, with half-close.
	want := make([]byte, 8<<20)
	rand.Read(want)
	s, err := a.NewStream(t.Context(), b.ID(), echoProtocol)
	if err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error, 1)
	go func() {
		_, err := s.Write(want)
		if err == nil {
			err = s.CloseWrite()
		}
		wrote <- err
	}()
	got, err := io.ReadAll(s)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("echo: %d bytes, %v", len(got), err)
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
	s.Close()
	c.Close()
	wait(t, "the far end knows that the connection is closed", func() bool {
		direct, _ := conns(b, a)
		return len(direct) == 0
	})
}

// TestGlare has both sides dial at once, several times over.
func TestGlare(t *testing.T) {
	a, b, addrA, addrB := pair(t)
	for range 5 {
		var wg sync.WaitGroup
		for _, d := range []struct {
			from, to *node
			addr     ma.Multiaddr
		}{{a, b, addrB}, {b, a, addrA}} {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				if err := d.from.Connect(ctx, peer.AddrInfo{ID: d.to.ID(), Addrs: []ma.Multiaddr{d.addr}}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			return
		}
		wait(t, "one direct connection on both sides, no circuit", func() bool {
			ab, ca := conns(a, b)
			ba, cb := conns(b, a)
			return len(ab) == 1 && len(ba) == 1 && ca == 0 && cb == 0
		})
		for _, n := range []*node{a, b} {
			n.SetStreamHandler(echoProtocol, func(s network.Stream) { io.Copy(s, s); s.Close() })
		}
		for _, d := range [][2]*node{{a, b}, {b, a}} {
			s, err := d[0].NewStream(t.Context(), d[1].ID(), echoProtocol)
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(s, "hello")
			s.CloseWrite()
			if got, err := io.ReadAll(s); string(got) != "hello" || err != nil {
				t.Errorf("%q, %v", got, err)
			}
			s.Close()
		}
		a.Network().ClosePeer(b.ID())
		wait(t, "both sides are apart", func() bool {
			return len(a.Network().ConnsToPeer(b.ID())) == 0 && len(b.Network().ConnsToPeer(a.ID())) == 0
		})
		a.Peerstore().ClearAddrs(b.ID())
		b.Peerstore().ClearAddrs(a.ID())
	}
}

// TestNoAnswer dials peers that do not answer, and then do.
func TestNoAnswer(t *testing.T) {
	a, b, _, addrB := pair(t)
	var offers int
	var mu sync.Mutex
	b.RemoveStreamHandler(webrtc.SignallingProtocol)
	b.SetStreamHandler(webrtc.SignallingProtocol, func(s network.Stream) {
		mu.Lock()
		defer mu.Unlock()
		offers++
		s.Reset()
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := a.tpt.Dial(ctx, addrB, b.ID())
	if !errors.Is(err, webrtc.ErrNoAnswer) {
		t.Errorf("Dial = %v, want %v", err, webrtc.ErrNoAnswer)
	}
	mu.Lock()
	if offers < 2 {
		t.Errorf("%d offers, want some more", offers)
	}
	mu.Unlock()
	wait(t, "no circuit is left", func() bool { return len(a.Network().ConnsToPeer(b.ID())) == 0 })
}

func TestDialErrors(t *testing.T) {
	a, b, _, addrB := pair(t)
	plain := ma.StringCast("/ip4/127.0.0.1/tcp/1/p2p/" + b.ID().String())
	if _, err := a.tpt.Dial(t.Context(), plain, b.ID()); !errors.Is(err, webrtc.ErrAddress) {
		t.Errorf("no circuit: %v", err)
	}
	circuit, _ := ma.SplitFunc(addrB, func(c ma.Component) bool { return c.Protocol().Code == ma.P_WEBRTC })
	direct := network.WithForceDirectDial(t.Context(), "test")
	if _, err := a.tpt.Dial(direct, circuit, b.ID()); !errors.Is(err, webrtc.ErrAddress) {
		t.Errorf("a plain circuit where a direct connection is asked for: %v", err)
	}
	// With a direct connection asked for, a circuit that is there is not it.
	if err := a.Connect(t.Context(), peer.AddrInfo{ID: b.ID(), Addrs: []ma.Multiaddr{circuit}}); err != nil {
		t.Fatal(err)
	}
	a.Peerstore().AddAddr(b.ID(), addrB, peerstore.PermanentAddrTTL)
	if _, err := a.Network().DialPeer(direct, b.ID()); err != nil {
		t.Fatal(err)
	}
	if d, c := conns(a, b); len(d) != 1 || c != 1 {
		t.Errorf("%d direct connections and %d circuits, want one each: the circuit was not made to signal", len(d), c)
	}
}

// streams connects a and b and opens a stream between them.
func streams(t *testing.T) (*node, network.Conn, network.Stream, network.Stream) {
	t.Helper()
	a, b, _, addrB := pair(t)
	far := make(chan network.Stream, 1)
	b.SetStreamHandler(echoProtocol, func(s network.Stream) { far <- s })
	connect(t, a, b, addrB)
	near, err := a.NewStream(t.Context(), b.ID(), echoProtocol)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := near.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	s := <-far
	if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	direct, _ := conns(a, b)
	return b, direct[0], near, s
}

// TestManyStreams has 1,000 streams at once, half of them from each side, each
// with an echo of its own and both halves closed by hand.
func TestManyStreams(t *testing.T) {
	a, b, _, addrB := pair(t)
	for _, n := range []*node{a, b} {
		n.SetStreamHandler(echoProtocol, func(s network.Stream) {
			io.Copy(s, s)
			s.Close()
		})
	}
	connect(t, a, b, addrB)
	const each = 500
	opened, few := make(chan struct{}), make(chan struct{}, 16)
	var open, done sync.WaitGroup
	for _, d := range [][2]*node{{a, b}, {b, a}} {
		for i := range each {
			open.Add(1)
			done.Go(func() {
				// The host gives each stream 10 s to agree on its protocol.
				few <- struct{}{}
				s, err := d[0].NewStream(t.Context(), d[1].ID(), echoProtocol)
				want := bytes.Repeat([]byte{byte(i)}, 3000)
				if err == nil {
					_, err = s.Write(append([]byte("x"), want...))
				}
				if err == nil {
					_, err = io.ReadFull(s, make([]byte, 1))
				}
				<-few
				open.Done()
				if err != nil {
					t.Error(err)
					return
				}
				<-opened
				if err := s.CloseWrite(); err != nil {
					t.Error(err)
				}
				if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, want) {
					t.Errorf("stream %d: %d bytes, %v", i, len(got), err)
				}
				s.Close()
			})
		}
	}
	open.Wait()
	for _, d := range [][2]*node{{a, b}, {b, a}} {
		direct, _ := conns(d[0], d[1])
		if n := len(direct[0].GetStreams()); !t.Failed() && n < 2*each {
			t.Errorf("%d streams at once, want %d", n, 2*each)
		}
	}
	close(opened)
	done.Wait()
	wait(t, "no stream is left", func() bool {
		ab, _ := conns(a, b)
		ba, _ := conns(b, a)
		return len(ab) == 1 && len(ba) == 1 && len(ab[0].GetStreams())+len(ba[0].GetStreams()) == 0
	})
}

// TestLargeWrites sends 24 MiB by one Write each way at the same time.
func TestLargeWrites(t *testing.T) {
	_, _, near, far := streams(t)
	var want [2][]byte
	for i := range want {
		want[i] = make([]byte, 24<<20)
		rand.Read(want[i])
	}
	var wg sync.WaitGroup
	for i, d := range [][2]network.Stream{{near, far}, {far, near}} {
		wg.Go(func() {
			if n, err := d[0].Write(want[i]); n != len(want[i]) || err != nil {
				t.Errorf("Write = %d, %v", n, err)
			}
			if err := d[0].CloseWrite(); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if got, err := io.ReadAll(d[1]); !bytes.Equal(got, want[i]) || err != nil {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	wg.Wait()
}

func TestReset(t *testing.T) {
	_, conn, near, far := streams(t)
	blocked := make(chan error, 1)
	go func() {
		_, err := io.ReadAll(near)
		blocked <- err
	}()
	far.Reset()
	if err := <-blocked; !errors.Is(err, network.ErrReset) {
		t.Errorf("a read ended with %v, want %v", err, network.ErrReset)
	}
	if _, err := near.Write([]byte("x")); !errors.Is(err, network.ErrReset) {
		t.Errorf("Write = %v, want %v", err, network.ErrReset)
	}
	if _, err := far.Read(make([]byte, 1)); !errors.Is(err, network.ErrReset) {
		t.Errorf("Read on the side that reset = %v, want %v", err, network.ErrReset)
	}
	if conn.IsClosed() {
		t.Error("the connection ended with the stream")
	}
}

// TestSilence dials a peer that takes offers and says nothing.
func TestSilence(t *testing.T) {
	a, b, _, addrB := pair(t)
	silent := make(chan network.Stream, 16)
	b.RemoveStreamHandler(webrtc.SignallingProtocol)
	b.SetStreamHandler(webrtc.SignallingProtocol, func(s network.Stream) { silent <- s })
	ctx, cancel := context.WithCancelCause(t.Context())
	given := errors.New("given up")
	go func() {
		<-silent
		cancel(given)
	}()
	if _, err := a.tpt.Dial(ctx, addrB, b.ID()); !errors.Is(err, given) {
		t.Errorf("Dial = %v, want %v", err, given)
	}
	wait(t, "no circuit is left", func() bool { return len(a.Network().ConnsToPeer(b.ID())) == 0 })
}

// garble is what a peer may send for signalling.
var garble = []struct{ name, bytes string }{
	{"nothing at all", ""},
	{"a length beyond all bounds", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"},
	{"an unknown type", "\x02\x08\x07"},
	{"a candidate first", "\x06\x08\x02\x12\x02{}"},
	{"an offer that is none", "\x07\x08\x00\x12\x03v=0"},
	{"an answer that is none", "\x07\x08\x01\x12\x03v=0"},
	{"an empty answer", "\x02\x08\x01"},
	{"half a message", "\x40\x08\x01\x12"},
	{"HTTP", "GET / HTTP/1.1\r\n\r\n"},
}

// TestGarbageAnswered dials peers that answer an offer with garbage: the dial
// ends with an error, and leaves nothing behind.
func TestGarbageAnswered(t *testing.T) {
	for _, tt := range garble {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a, b, _, addrB := pair(t)
			b.RemoveStreamHandler(webrtc.SignallingProtocol)
			b.SetStreamHandler(webrtc.SignallingProtocol, func(s network.Stream) {
				io.WriteString(s, tt.bytes)
				s.CloseWrite()
			})
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if _, err := a.tpt.Dial(ctx, addrB, b.ID()); err == nil || ctx.Err() != nil {
				t.Errorf("Dial = %v", err)
			}
			wait(t, "no circuit is left", func() bool { return len(a.Network().ConnsToPeer(b.ID())) == 0 })
		})
	}
}

// TestGarbageOffered has a peer offer garbage, also more of it than is worked
// on at once, and then dial as it should.
func TestGarbageOffered(t *testing.T) {
	a, b, _, addrB := pair(t)
	circuit, _ := ma.SplitFunc(addrB, func(c ma.Component) bool { return c.Protocol().Code == ma.P_WEBRTC })
	if err := a.Connect(t.Context(), peer.AddrInfo{ID: b.ID(), Addrs: []ma.Multiaddr{circuit}}); err != nil {
		t.Fatal(err)
	}
	ctx := network.WithAllowLimitedConn(t.Context(), "test")
	for range 8 {
		for _, tt := range garble {
			s, err := a.NewStream(ctx, b.ID(), webrtc.SignallingProtocol)
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(s, tt.bytes)
			if tt.bytes != "" {
				defer s.Reset() // what is half said stays so
			} else {
				s.Close()
			}
		}
	}
	connect2 := func() error {
		ctx, cancel := context.WithTimeout(network.WithForceDirectDial(t.Context(), "test"), patience)
		defer cancel()
		a.Peerstore().AddAddr(b.ID(), addrB, peerstore.PermanentAddrTTL)
		_, err := a.Network().DialPeer(ctx, b.ID())
		return err
	}
	if err := connect2(); err != nil {
		t.Errorf("a dial after garbage: %v", err)
	}
}

func TestStalledReader(t *testing.T) {
	_, conn, near, far := streams(t)
	// The far end reads nothing of this stream: what it keeps is bounded.
	buf := make([]byte, 1<<20)
	sent, err := 0, error(nil)
	for err == nil && sent < 256<<20 {
		var n int
		n, err = near.Write(buf)
		sent += n
	}
	if !errors.Is(err, network.ErrReset) || sent < webrtc.MaxUnread/2 || sent > 2*webrtc.MaxUnread+webrtc.HighWater {
		t.Errorf("wrote %d bytes to one who does not read: %v", sent, err)
	}
	if _, err := io.ReadAll(far); !errors.Is(err, webrtc.ErrUnread) {
		t.Errorf("the stalled reader got %v", err)
	}
	if conn.IsClosed() {
		t.Error("the connection ended with the stream")
	}
}

func TestDeadlines(t *testing.T) {
	_, _, near, _ := streams(t)
	near.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := near.Read(make([]byte, 1)); err == nil {
		t.Error("Read ended without one")
	}
	near.SetReadDeadline(time.Now().Add(-time.Second))
	if _, err := near.Read(make([]byte, 1)); err == nil {
		t.Error("Read ended without one")
	}
}

func TestCloseRead(t *testing.T) {
	_, _, near, far := streams(t)
	if err := far.CloseRead(); err != nil {
		t.Fatal(err)
	}
	wait(t, "the writer is told", func() bool {
		_, err := near.Write([]byte("x"))
		return errors.Is(err, network.ErrReset)
	})
	if _, err := io.WriteString(far, "still"); err != nil {
		t.Fatal(err)
	}
	far.CloseWrite()
	if got, err := io.ReadAll(near); string(got) != "still" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// TestFarEndDies ends the far end under a connection.
func TestFarEndDies(t *testing.T) {
	b, conn, near, _ := streams(t)
	b.Close()
	if _, err := io.ReadAll(near); err == nil {
		t.Error("Read ended as if all was said")
	}
	wait(t, "the connection is closed", conn.IsClosed)
	if _, err := conn.NewStream(t.Context()); err == nil {
		t.Error("opened a stream on a closed connection")
	}
}
