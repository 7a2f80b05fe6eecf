//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/boxo/bitswap/message"
	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/transport/websocket"
	"github.com/libp2p/go-msgio"
)

const bitswap = "/ipfs/bitswap/1.2.0"

// A liar is a libp2p host that speaks Bitswap over WebSockets, and answers
// wants for blocks as its mode says.
type liar struct {
	t      *testing.T
	host   host.Host
	blocks blockstore.Blockstore // what it could answer
	mode   atomic.Value          // string
	wants  atomic.Int64          // for blocks, answered in whatever way
	ctx    context.Context       // ends with the test
	work   sync.WaitGroup
}

// The modes of a liar.
const (
	honest         = "honest"
	flippedBit     = "a flipped bit"
	wrongBlock     = "a wrong block"
	truncated      = "a truncated stream"
	endlessBlocks  = "endless blocks"
	endlessMessage = "an endless message"
)

func newLiar(t *testing.T, bs blockstore.Blockstore) *liar {
	t.Helper()
	h, err := libp2p.New(
		libp2p.NoTransports,
		libp2p.Transport(websocket.New),
		libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0/ws"),
		libp2p.DisableRelay(),
	)
	if err != nil {
		t.Fatal(err)
	}
	l := &liar{t: t, host: h, blocks: bs, ctx: t.Context()}
	l.mode.Store(honest)
	h.SetStreamHandler(bitswap, l.serve)
	t.Cleanup(func() {
		l.mode.Store(honest)
		h.Close()
		l.work.Wait()
	})
	return l
}

// addr is where a browser dials the liar.
func (l *liar) addr() string {
	return fmt.Sprintf("%s/p2p/%s", l.host.Addrs()[0], l.host.ID())
}

func (l *liar) serve(s network.Stream) {
	defer s.Reset()
	r := msgio.NewVarintReaderSize(s, network.MessageSizeMax)
	for {
		m, _, err := message.FromMsgReader(r)
		if err != nil {
			return
		}
		var haves, wants []cid.Cid
		for _, e := range m.Wantlist() {
			switch {
			case e.Cancel:
			case e.WantType == 1: // HAVE
				haves = append(haves, e.Cid)
			default:
				wants = append(wants, e.Cid)
			}
		}
		if len(haves)+len(wants) == 0 {
			continue
		}
		l.work.Add(1)
		go func() {
			defer l.work.Done()
			l.answer(s.Conn().RemotePeer(), haves, wants)
		}()
	}
}

func (l *liar) answer(p peer.ID, haves, wants []cid.Cid) {
	s, err := l.host.NewStream(l.ctx, p, bitswap)
	if err != nil {
		return // it has gone
	}
	defer s.Close()
	m := message.New(false)
	for _, c := range haves {
		if ok, err := l.blocks.Has(l.ctx, c); err == nil && ok {
			m.AddHave(c)
		} else {
			m.AddDontHave(c)
		}
	}
	mode := l.mode.Load().(string)
	for _, c := range wants {
		b, err := l.blocks.Get(l.ctx, c)
		if err != nil {
			m.AddDontHave(c)
			continue
		}
		switch data := bytes.Clone(b.RawData()); mode {
		case flippedBit:
			data[len(data)/2] ^= 1
			if b, err = blocks.NewBlockWithCid(data, c); err != nil {
				l.t.Error(err)
				return
			}
		case wrongBlock:
			b = blocks.NewBlock([]byte("not what you asked for"))
		}
		m.AddBlock(b)
	}
	if len(wants) > 0 {
		l.wants.Add(1)
		switch mode {
		case truncated:
			var whole bytes.Buffer
			if err := m.ToNetV1(&whole); err != nil {
				l.t.Error(err)
				return
			}
			_, _ = s.Write(whole.Bytes()[:whole.Len()/2]) // it may have gone
			return
		case endlessBlocks:
			for n := uint64(0); l.mode.Load() == mode; n++ {
				m := message.New(false)
				m.AddBlock(blocks.NewBlock([]byte(noise(n, 64<<10))))
				if err := m.ToNetV1(s); err != nil {
					return
				}
			}
			return
		case endlessMessage:
			if _, err := s.Write(binary.AppendUvarint(nil, network.MessageSizeMax-1)); err != nil {
				return
			}
			// A field of bytes of unheard-of length, and then a few of them at a time.
			_, _ = s.Write(append([]byte{0x0a}, binary.AppendUvarint(nil, 1<<40)...))
			<-l.ctx.Done()
			return
		}
	}
	if err := m.ToNetV1(s); err != nil {
		_ = s.Reset() // it has gone
	}
}

// namesRelay makes the site's configuration name another relay.
func (f *front) namesRelay(t *testing.T, r *relay, addr string) {
	f.answer(func(w http.ResponseWriter, req *http.Request) bool {
		if req.URL.Path != "/weft/config.json" {
			return false
		}
		resp, err := http.Get(r.url + "/weft/config.json")
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return true
		}
		defer resp.Body.Close()
		var c map[string]any
		if err := json.NewDecoder(resp.Body).Decode(&c); err != nil {
			t.Error(err)
		}
		c["relays"] = []string{addr}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(c); err != nil {
			t.Error(err)
		}
		return true
	})
}

// TestLyingPeer asks a peer that answers with other bytes than were asked for.
func TestLyingPeer(t *testing.T) {
	t.Parallel()
	r := startRelay(t)
	l := newLiar(t, r.blocks)
	f := newFront(t, r)
	f.namesRelay(t, r, l.addr())
	p := newVisitor(t).open(f.url + "/blank.html")
	p.expects("status of 50[24]")
	join(p)

	for i, tt := range []struct {
		mode string
		code string // either, where empty
	}{
		{flippedBit, "bad_block"},
		{wrongBlock, "bad_block"},
		{endlessBlocks, "bad_block"},
		{truncated, "no_provider"},
		{endlessMessage, "no_provider"},
	} {
		t.Run(tt.mode, func(t *testing.T) {
			p := p.in(t)
			text := noise(uint64(100+i), 200<<10)
			root := r.publishSite(site{"m.js": fmt.Sprintf("export default %d;", i), "data.bin": text})
			before := p.status()
			l.mode.Store(tt.mode)
			wants := l.wants.Load()
			type failure struct {
				Status int
				Code   string
				Body   string
			}
			got := eval[failure](p, `async (root) => {
				const r = await node.fetch(root, "m.js");
				const body = await r.text();
				let code = "";
				try { code = JSON.parse(body).error.code } catch {}
				return { Status: r.status, Code: code, Body: body };
			}`, root.String())
			status := map[string]int{"bad_block": 502, "no_provider": 504}[tt.code]
			if got.Code != tt.code || got.Status != status {
				t.Errorf("fetch: got %+v, want %d %s", got, status, tt.code)
			}
			if strings.Contains(got.Body, "export") {
				t.Errorf("fetch delivered %q", got.Body)
			}
			if l.wants.Load() == wants {
				t.Error("the liar was not asked: this test tests nothing")
			}
			if tt.mode == flippedBit { // its retries take a while: once is enough
				_, err := try[bool](p, `async (root) => { await node.import(root, "m.js"); return true; }`, root.String())
				js, ok := err.(*jsError)
				if !ok || js.Code != tt.code {
					t.Errorf("import: %v, want code %s", err, tt.code)
				}
			}
			// Nothing was stored, and the node lives.
			after := p.status()
			if after.Blocks != before.Blocks || after.BootID != before.BootID || after.Started != before.Started {
				t.Errorf("status %+v, was %+v: want the same blocks and the same node", after, before)
			}
			l.mode.Store(honest)
			until[bool](p, "an honest answer is taken", `async (root) => (await node.fetch(root, "m.js")).ok`, root.String())
			if got := eval[int](p, `async (root) => (await node.import(root, "m.js")).default`, root.String()); got != i {
				t.Errorf("import from an honest peer: %d, want %d", got, i)
			}
			if got := eval[string](p, `async (root) => {
				const body = await (await node.fetch(root, "data.bin")).arrayBuffer();
				return new Uint8Array(await crypto.subtle.digest("SHA-256", body)).toHex();
			}`, root.String()); got != sum(text) {
				t.Error("other bytes than were published")
			}
		})
	}
}

// TestLyingGateway does the same before the node is up, where plain JavaScript
// takes blocks from the relay's gateway and verifies them.
func TestLyingGateway(t *testing.T) {
	t.Parallel()
	r := startRelay(t)
	root := r.publishSite(site{"m.js": "export default 7;", "n.js": "export default 8;"})
	f := newFront(t, r)
	var mode atomic.Value
	mode.Store(honest)
	var lies atomic.Int64
	released := make(chan struct{})
	release := sync.OnceFunc(func() { close(released) })
	t.Cleanup(release)
	f.answer(func(w http.ResponseWriter, req *http.Request) bool {
		if strings.HasPrefix(req.URL.Path, "/node.") {
			select {
			case <-released:
			case <-req.Context().Done():
			}
			return false
		}
		mode := mode.Load().(string)
		if !strings.HasPrefix(req.URL.Path, "/ipfs/") || mode == honest {
			return false
		}
		lies.Add(1)
		resp, err := http.Get(r.url + req.URL.RequestURI())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return true
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
		switch mode {
		case flippedBit:
			body[len(body)/2] ^= 1
			_, _ = w.Write(body) // the browser may have gone
		case wrongBlock:
			_, _ = io.WriteString(w, "not what you asked for")
		case truncated:
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
			_, _ = w.Write(body[:len(body)/2])
		case endlessBlocks:
			junk := []byte(noise(9, 64<<10))
			for {
				if _, err := w.Write(junk); err != nil {
					return true
				}
			}
		}
		return true
	})
	p := newVisitor(t).open(f.url + "/blank.html")
	p.expects("status of 50[24]")
	eval[bool](p, `async () => { globalThis.node = await (await import("/weft.js")).join(); return true; }`)
	for _, m := range []string{flippedBit, wrongBlock, endlessBlocks} {
		mode.Store(m)
		before := lies.Load()
		got := eval[string](p, `async (root) => {
			const r = await node.fetch(root, "m.js", { headers: { Accept: "application/json" } });
			return r.status + " " + (await r.json()).error.code;
		}`, root.String())
		if got != "502 bad_block" {
			t.Errorf("%s: got %s, want 502 bad_block", m, got)
		}
		if lies.Load() == before {
			t.Errorf("%s: nobody was lied to: this tests nothing", m)
		}
	}
	// A block that is cut off is no block: the node, once it is up, knows better.
	mode.Store(truncated)
	before := lies.Load()
	eval[bool](p, `(root) => { globalThis.cut = node.fetch(root, "m.js").then((r) => r.text()); return true; }`, root.String())
	for deadline := time.Now().Add(patience); lies.Load() == before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody asked the gateway")
		}
	}
	release()
	if got := eval[string](p, `() => cut`); got != "export default 7;" {
		t.Errorf("after the node came up: %q", got)
	}
	mode.Store(flippedBit) // nobody asks the gateway any more
	eval[bool](p, `async () => { await node.online; return true; }`)
	if got := eval[int](p, `async (root) => (await node.import(root, "n.js")).default`, root.String()); got != 8 {
		t.Errorf("import from the node: %d", got)
	}
}
