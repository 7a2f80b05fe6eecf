//go:build js && wasm

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"syscall/js"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"

	"github.com/webfabric/weft/shared/identity"
	"github.com/webfabric/weft/shared/webrtc"
	"github.com/webfabric/weft/wasm/rtcbridge"
)

// rtcPatience caps every wait; nothing is as slow.
const rtcPatience = time.Minute

// rtcTest is a tab's host, and scripts/wasmexec's native peer at the far end.
type rtcTest struct {
	host   host.Host
	bridge *rtcbridge.Bridge
	far    peer.AddrInfo
}

func newRTCTest(t *testing.T) *rtcTest {
	t.Helper()
	key, err := identity.New()
	if err != nil {
		t.Fatal(err)
	}
	r := &rtcTest{bridge: rtcbridge.New()}
	r.newPage()
	if r.host, err = newHost(key, r.bridge, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.host.Close()
		r.bridge.Close()
	})
	far, err := peer.AddrInfoFromString(os.Getenv("WEFT_TEST_RTC"))
	if err != nil {
		t.Fatal(err)
	}
	r.far = *far
	r.host.SetStreamHandler("/test/echo", func(s network.Stream) {
		io.Copy(s, s)
		s.Close()
	})
	return r
}

// newPage takes away the page that hosts the connections, and brings another.
func (r *rtcTest) newPage() { r.bridge.Attach(js.Global().Call("newRTC")) }

func (r *rtcTest) connect(t *testing.T) network.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), rtcPatience)
	defer cancel()
	r.host.Network().(*swarm.Swarm).Backoff().Clear(r.far.ID)
	if err := r.host.Connect(ctx, r.far); err != nil {
		t.Fatal(err)
	}
	for _, c := range r.host.Network().ConnsToPeer(r.far.ID) {
		var w *webrtc.Conn
		if c.As(&w) {
			return c
		}
	}
	t.Fatal("connected, and not by WebRTC")
	return nil
}

// open opens a stream of /test/what.
func (r *rtcTest) open(t *testing.T, what string) network.Stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), rtcPatience)
	defer cancel()
	s, err := r.host.NewStream(ctx, r.far.ID, protocol.ID("/test/"+what))
	if err != nil {
		t.Fatal(err)
	}
	s.SetDeadline(time.Now().Add(rtcPatience))
	t.Cleanup(func() { s.Reset() })
	return s
}

// seen is what the far end tells of the last stream it watched.
func (r *rtcTest) seen(t *testing.T) string {
	t.Helper()
	b, err := io.ReadAll(r.open(t, "seen"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestWebRTC(t *testing.T) {
	r := newRTCTest(t)
	conn := r.connect(t)

	t.Run("large writes, half-close", func(t *testing.T) {
		want := make([]byte, 8<<20)
		for at := 0; at < len(want); at += 1 << 16 {
			rand.Read(want[at : at+1<<16])
		}
		s := r.open(t, "echo")
		wrote := make(chan error, 1)
		go func() {
			_, err := s.Write(want)
			wrote <- errors.Join(err, s.CloseWrite())
		}()
		got, err := io.ReadAll(s)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("echo: %d bytes, %v", len(got), err)
		}
		if err := <-wrote; err != nil {
			t.Error(err)
		}
	})
	t.Run("1000 streams there", func(t *testing.T) {
		errs := make([]error, 1000)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { errs[i] = r.echo(t.Context(), uint32(i)) })
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Error(err)
		}
	})
	t.Run("1000 streams here", func(t *testing.T) {
		// A browser has 512 numbers for the far end's channels, so all are used
		// again.
		s := r.open(t, "call")
		if err := binary.Write(s, binary.BigEndian, uint32(1000)); err != nil {
			t.Fatal(err)
		}
		var good uint32
		if err := binary.Read(s, binary.BigEndian, &good); err != nil || good != 1000 {
			t.Errorf("%d of 1000 streams echoed, %v", good, err)
		}
	})
	t.Run("reset there", func(t *testing.T) {
		if _, err := io.ReadAll(r.open(t, "reset")); !errors.Is(err, network.ErrReset) {
			t.Errorf("Read = %v, want %v", err, network.ErrReset)
		}
	})
	t.Run("reset here", func(t *testing.T) {
		for want, end := range map[string]func(network.Stream) error{"reset": network.Stream.Reset, "end": network.Stream.Close} {
			s := r.open(t, "watch")
			if _, err := io.WriteString(s, "hello"); err != nil {
				t.Fatal(err)
			}
			// A reset may overtake the hello and the protocol's name with it.
			if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			end(s)
			if got := r.seen(t); got != want {
				t.Errorf("the far end saw %q, want %q", got, want)
			}
		}
	})
	t.Run("stalled reader there", func(t *testing.T) {
		s := r.open(t, "stall")
		buf := make([]byte, 1<<20)
		sent, err := 0, error(nil)
		for err == nil && sent < 256<<20 {
			var n int
			n, err = s.Write(buf)
			sent += n
		}
		if !errors.Is(err, network.ErrReset) || sent > 2*webrtc.MaxUnread+webrtc.HighWater {
			t.Errorf("wrote %d bytes to one who does not read: %v", sent, err)
		}
	})
	t.Run("stalled reader here", func(t *testing.T) {
		s := r.open(t, "flood")
		if _, err := io.WriteString(s, "x"); err != nil { // what opens it there
			t.Fatal(err)
		}
		got := r.seen(t) // returns when the far end could write no more
		if n, err := strconv.Atoi(got); err != nil || n > 2*webrtc.MaxUnread+webrtc.HighWater {
			t.Errorf("the far end wrote %s bytes to one who does not read", got)
		}
		if _, err := io.Copy(io.Discard, s); !errors.Is(err, webrtc.ErrUnread) {
			t.Errorf("Read = %v, want %v", err, webrtc.ErrUnread)
		}
	})
	if conn.IsClosed() {
		t.Error("the connection ended with a stream")
	}
	t.Run("far end leaves", func(t *testing.T) {
		s := r.open(t, "echo")
		if _, err := io.WriteString(s, "x"); err != nil {
			t.Fatal(err)
		}
		r.open(t, "leave").CloseWrite()
		if _, err := io.Copy(io.Discard, s); err == nil {
			t.Error("Read ended as if all was said")
		}
		waitFor(t, func() error {
			if !conn.IsClosed() {
				return errors.New("the connection is open")
			}
			return nil
		})
	})
}

// echo has the far end send i back on a stream of its own.
func (r *rtcTest) echo(ctx context.Context, i uint32) error {
	ctx, cancel := context.WithTimeout(ctx, rtcPatience)
	defer cancel()
	s, err := r.host.NewStream(ctx, r.far.ID, "/test/echo")
	if err != nil {
		return err
	}
	defer s.Close()
	s.SetDeadline(time.Now().Add(rtcPatience))
	if err := binary.Write(s, binary.BigEndian, i); err != nil {
		return err
	}
	if err := s.CloseWrite(); err != nil {
		return err
	}
	b, err := io.ReadAll(s)
	if err != nil || len(b) != 4 || binary.BigEndian.Uint32(b) != i {
		return fmt.Errorf("stream %d: %x, %w", i, b, err)
	}
	return nil
}

// TestPageGone takes the page away in which the connections are.
func TestPageGone(t *testing.T) {
	r := newRTCTest(t)
	for range 3 {
		conn := r.connect(t)
		s := r.open(t, "echo")
		if _, err := io.WriteString(s, "x"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		r.newPage()
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, webrtc.ErrLost) {
			t.Errorf("Read = %v, want %v", err, webrtc.ErrLost)
		}
		if !conn.IsClosed() {
			t.Error("the connection outlived its page")
		}
	}
	r.bridge.Attach(js.Null())
	_, err := r.bridge.New(t.Context(), nil)
	if !errors.Is(err, rtcbridge.ErrNoPage) {
		t.Errorf("New = %v, want %v", err, rtcbridge.ErrNoPage)
	}
	// A connection under way when the page comes is made in it.
	r.host.Network().ClosePeer(r.far.ID)
	time.AfterFunc(100*time.Millisecond, r.newPage)
	r.connect(t)
}

// TestTooMany makes more connections than there may be.
func TestTooMany(t *testing.T) {
	b := rtcbridge.New()
	defer b.Close()
	b.Attach(js.Global().Call("newRTC"))
	var conns []webrtc.PeerConnection
	for range rtcbridge.MaxConns {
		c, err := b.New(t.Context(), quiet{})
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	if _, err := b.New(t.Context(), quiet{}); !errors.Is(err, rtcbridge.ErrTooMany) {
		t.Errorf("New = %v, want %v", err, rtcbridge.ErrTooMany)
	}
	for _, c := range conns {
		c.Close()
	}
	c, err := b.New(t.Context(), quiet{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Answer(t.Context(), "nonsense"); !errors.Is(err, rtcbridge.ErrRefused) {
		t.Errorf("Answer = %v, want %v", err, rtcbridge.ErrRefused)
	}
	b.Attach(js.Null())
	if _, err := c.Offer(t.Context()); !errors.Is(err, rtcbridge.ErrPageGone) {
		t.Errorf("Offer = %v, want %v", err, rtcbridge.ErrPageGone)
	}
}

// quiet hears nothing.
type quiet struct{}

func (quiet) Candidate(string)                                        {}
func (quiet) State(webrtc.State)                                      {}
func (quiet) Channel(string, webrtc.DataChannel) webrtc.ChannelEvents { return nil }
