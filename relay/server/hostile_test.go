package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/coder/websocket"
	blocks "github.com/ipfs/go-block-format"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// patience is how long a test waits for what the relay must do.
const patience = 60 * time.Second

func startHere(t *testing.T, change func(*Config)) (*Server, string) {
	t.Helper()
	cfg := Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"}
	if change != nil {
		change(&cfg)
	}
	s, err := New(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		s.Close(ctx)
	})
	return s, s.listener.Addr().String()
}

// raw sends text on a connection of its own.
func raw(t *testing.T, addr, text string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	return c
}

// ends waits until the other side has closed c, whatever c still sends.
func ends(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("the relay keeps the connection")
	}
}

func TestHugeHeaders(t *testing.T) {
	_, addr := startHere(t, nil)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go func() {
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\nX-A: ")
		for range 64 {
			if _, err := c.Write(bytes.Repeat([]byte("a"), 1<<10)); err != nil {
				return
			}
		}
	}()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%v, %v; want 431", resp, err)
	}
}

// Headers that never end are cut off by the server's time-out.
func TestSlowHeaders(t *testing.T) {
	s, _ := startHere(t, nil)
	if s.http.ReadHeaderTimeout <= 0 || s.http.ReadHeaderTimeout > time.Minute || s.http.IdleTimeout <= 0 || s.http.MaxHeaderBytes <= 0 {
		t.Errorf("time-outs: headers %v, idle %v; header bytes %d", s.http.ReadHeaderTimeout, s.http.IdleTimeout, s.http.MaxHeaderBytes)
	}
}

// A body where none is wanted is not read, though it never ends.
func TestEndlessBody(t *testing.T) {
	_, addr := startHere(t, nil)
	for _, path := range []string{"/", "/ipfs/bafkqabdumvzxi", "/weft/config.json", "/weft/publish/bafkqaaa"} {
		c := raw(t, addr, "POST "+path+" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("%s: %v, %v; want 413", path, resp, err)
			continue
		}
		ends(t, c)
	}
	// To publish, a body is read up to its limit and no further.
	c := raw(t, addr, "POST /weft/publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
	go func() {
		for {
			if _, err := fmt.Fprintf(c, "1000\r\n%s\r\n", strings.Repeat(" ", 0x1000)); err != nil {
				return
			}
		}
	}()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("publish: %v, %v; want 413", resp, err)
	}
	ends(t, c)
}

// A client that takes nothing of a response is cut off.
func TestReaderThatDoesNotRead(t *testing.T) {
	site := fstest.MapFS{"a": {Data: make([]byte, 64<<20)}}
	s, addr := startHere(t, func(c *Config) { c.Demo, c.writeTimeout = site, 50*time.Millisecond })
	c := raw(t, addr, "GET /ipfs/"+s.demo.String()+"/a HTTP/1.1\r\nHost: x\r\n\r\n")
	// Reading begins when the relay has given up: the response's end is missing.
	deadline := time.Now().Add(patience)
	for s.status(t, "2xx") == 0 {
		if time.Now().After(deadline) {
			t.Fatal("the relay still waits")
		}
		time.Sleep(10 * time.Millisecond)
	}
	n, err := io.Copy(io.Discard, c)
	if n >= 64<<20 {
		t.Errorf("read %d bytes, %v: the response was not cut off", n, err)
	}
}

// status is how many requests were answered.
func (s *Server) status(t *testing.T, label string) int {
	t.Helper()
	families, err := s.metrics.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "weft_relay_http_requests_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == label {
				return int(m.GetCounter().GetValue())
			}
		}
	}
	t.Fatalf("no counter %s", label)
	return 0
}

// WebSockets that are not libp2p, or not at /, do no harm.
func TestHostileWebSockets(t *testing.T) {
	s, addr := startHere(t, nil)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, resp, err := websocket.Dial(ctx, "ws://"+addr+"/other", nil); err == nil || resp == nil || resp.StatusCode != http.StatusNotFound {
		t.Errorf("upgrade elsewhere: %v, want 404", err)
	}
	for _, tt := range []struct {
		name string
		kind websocket.MessageType
		data []byte
	}{
		{"text", websocket.MessageText, []byte("hello")},
		{"garbage", websocket.MessageBinary, bytes.Repeat([]byte{0xff}, 4096)},
		{"huge message", websocket.MessageBinary, make([]byte, maxWSMessage+1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, _, err := websocket.Dial(ctx, "ws://"+addr+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			defer c.CloseNow()
			c.Write(ctx, tt.kind, tt.data) // may be cut off
			for {
				if _, _, err := c.Read(ctx); err != nil {
					break
				}
			}
			if ctx.Err() != nil {
				t.Error("the relay keeps the connection")
			}
		})
	}
	if n := len(s.host.Network().Conns()); n != 0 {
		t.Errorf("%d connections", n)
	}
}

// Bitswap messages that never end cost a bounded amount of memory: boxo makes
// room for all of a message once it has read its length.
func TestEndlessMessages(t *testing.T) {
	const streams = 200 // of 4 MiB
	s, _ := startHere(t, nil)
	h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DisableRelay(), libp2p.ResourceManager(&network.NullResourceManager{}))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := h.Connect(ctx, peer.AddrInfo{ID: s.ID(), Addrs: s.Host().Addrs()}); err != nil {
		t.Fatal(err)
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for range streams {
		out, err := h.NewStream(ctx, s.ID(), "/ipfs/bitswap/1.2.0")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write(binary.AppendUvarint(nil, network.MessageSizeMax)); err != nil {
			t.Fatal(err)
		}
	}
	for open := 0; open < streams; {
		if ctx.Err() != nil {
			t.Fatalf("%d streams are open, want %d", open, streams)
		}
		open = 0
		for _, c := range s.Host().Network().ConnsToPeer(h.ID()) {
			for _, st := range c.GetStreams() {
				if st.Protocol() == "/ipfs/bitswap/1.2.0" {
					open++
				}
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	if grew := int64(heap()) - int64(before); grew > streams*network.MessageSizeMax/4 {
		t.Errorf("%d messages that never end take %d MiB", streams, grew>>20)
	}
}

// The cache holds no more bytes than it may, and forgets what was used least lately.
func TestCache(t *testing.T) {
	const each = 100 + blockOverhead
	c := newCache(3 * each)
	var bs []blocks.Block
	for i := range 4 {
		bs = append(bs, blocks.NewBlock(bytes.Repeat([]byte{byte(i)}, 100)))
	}
	for _, b := range bs[:3] {
		c.put(b)
	}
	c.put(bs[0])
	if _, ok := c.get(bs[1].Cid()); !ok {
		t.Error("a block is missing")
	}
	c.put(bs[3]) // in place of 2
	for i, want := range []bool{true, true, false, true} {
		if _, ok := c.get(bs[i].Cid()); ok != want {
			t.Errorf("block %d: %v, want %v", i, ok, want)
		}
	}
	c.put(blocks.NewBlock(make([]byte, 3*each-blockOverhead+1)))
	if c.size != 3*each || c.order.Len() != 3 || len(c.byKey) != 3 {
		t.Errorf("%d bytes in %d blocks", c.size, c.order.Len())
	}
	c.drop(bs[0].Cid())
	if c.size != 2*each {
		t.Errorf("%d bytes after a drop", c.size)
	}
	for i := range 100 { // small ones are no way around the bound
		c.put(blocks.NewBlock([]byte{byte(i)}))
	}
	if n := c.order.Len(); n != 3 {
		t.Errorf("%d blocks of a byte are held, want 3", n)
	}
}

func FuzzParsePublish(f *testing.F) {
	by, err := peer.Decode("12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN")
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"root":"bafkqaaa","name":"n","addrs":["/ip4/127.0.0.1/tcp/1"]}`))
	f.Add([]byte(`{"root":"bafkqaaa","addrs":["/ip4/1.2.3.4/udp/1/quic-v1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"]}`))
	f.Add([]byte(`{"addrs":["/p2p-circuit","/dns4/x/tcp/1/p2p-circuit"]}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		root, req, infos, err := parsePublish(b, by)
		if err != nil {
			return
		}
		if !root.Defined() || len(infos) > len(req.Addrs) || len(req.Addrs) > maxPublishAddrs {
			t.Errorf("parsePublish(%q) = %v, %v, %v", b, root, req, infos)
		}
		for _, i := range infos {
			if i.ID == "" {
				t.Errorf("an address of nobody: %v", i)
			}
		}
	})
}

func FuzzRelayAddr(f *testing.F) {
	for _, h := range []string{"localhost:8787", "[::1]:1", "1.2.3.4", "a.b-c.example", "", "x:99999", "[fe80::1%eth0]:1", "a/b:1", "..", strings.Repeat("a", 300)} {
		f.Add(h, true)
		f.Add(h, false)
	}
	fallback := ma.StringCast("/ip4/127.0.0.1/tcp/1/ws")
	f.Fuzz(func(t *testing.T, host string, secure bool) {
		a, err := relayAddr(host, secure, fallback)
		if err != nil || a.Equal(fallback) {
			return
		}
		again, err := ma.NewMultiaddr(a.String())
		if err != nil || !again.Equal(a) {
			t.Errorf("relayAddr(%q) = %v, which reads as %v (%v)", host, a, again, err)
		}
		if _, err := a.ValueForProtocol(ma.P_TCP); err != nil {
			t.Errorf("relayAddr(%q) = %v", host, a)
		}
	})
}
