//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/ipld/merkledag"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"

	"github.com/webfabric/weft/relay/client"
	"github.com/webfabric/weft/relay/publish"
	"github.com/webfabric/weft/shared/identity"
)

// TestStoppedWorker stops the worker, as browsers do with one that seems idle,
// between two imports, and many times.
func TestStoppedWorker(t *testing.T) {
	t.Parallel()
	r := startRelay(t)
	s := site{}
	for i := range 6 {
		s[fmt.Sprintf("m%d.js", i)] = fmt.Sprintf("export default %d;", i)
	}
	root := r.publishSite(s)
	p := r.joined(newVisitor(t))
	eval[bool](p, `() => { globalThis.restarts = []; node.on("restart", (e) => restarts.push(e.bootId)); return true; }`)
	before := p.status()
	get := func(i int) {
		t.Helper()
		if got := eval[int](p, `async (root, i) => (await node.import(root, "m" + i + ".js")).default`, root.String(), i); got != i {
			t.Errorf("import = %d, want %d", got, i)
		}
	}
	get(0)
	for i := 1; i < 5; i++ {
		p.stopWorker()
		get(i)
	}
	// A block that is there needs no relay.
	p.stopWorker()
	if got := eval[string](p, `async (root) => (await node.fetch(root, "m0.js")).text()`, root.String()); got != "export default 0;" {
		t.Errorf("what was there before: %q", got)
	}
	// Another instance, which is the same peer, and the page notices.
	after := p.status()
	if after.BootID == before.BootID {
		t.Error("the worker was never stopped: this test tests nothing")
	}
	if after.PeerID != before.PeerID {
		t.Errorf("peer ID = %s, was %s", after.PeerID, before.PeerID)
	}
	until[bool](p, "the page is told", `async () => { await node.status(); return restarts.length > 0; }`)
	eval[bool](p, `async () => { await node.online; return true; }`)
}

// A heldBack store gives one block only once it is let go.
type heldBack struct {
	blockstore.Blockstore
	block cid.Cid
	asked chan struct{} // closed when somebody asks for it
	once  sync.Once
	free  chan struct{} // closed to let it go
}

func (h *heldBack) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	if c.Equals(h.block) {
		h.once.Do(func() { close(h.asked) })
		select {
		case <-h.free:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return h.Blockstore.Get(ctx, c)
}

// TestStopDuringImport stops the worker while a module's body is on its way:
// half of it has come, the other half is still with a peer of the relay.
func TestStopDuringImport(t *testing.T) {
	t.Parallel()
	r := startRelay(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	module := "export default 'whole'; //" + strings.Repeat("x", 3<<20)
	stat, err := publish.Add(ctx, r.blocks, site{"big.js": module}.write(t))
	if err != nil {
		t.Fatal(err)
	}
	dag := merkledag.NewDAGService(blockservice.New(r.blocks, offline.Exchange(r.blocks)))
	dir, err := dag.Get(ctx, stat.Root)
	if err != nil {
		t.Fatal(err)
	}
	file, err := dag.Get(ctx, dir.Links()[0].Cid)
	if err != nil {
		t.Fatal(err)
	}
	held := &heldBack{
		Blockstore: r.blocks,
		block:      file.Links()[len(file.Links())-1].Cid,
		asked:      make(chan struct{}),
		free:       make(chan struct{}),
	}
	key, err := identity.New()
	if err != nil {
		t.Fatal(err)
	}
	at, err := client.Find(ctx, r.url, "")
	if err != nil {
		t.Fatal(err)
	}
	other, err := client.Connect(ctx, at, key, held)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	let := sync.OnceFunc(func() { close(held.free) })
	defer let()

	p := r.joined(newVisitor(t))
	before := p.status()
	eval[bool](p, `(root) => { globalThis.importing = node.import(root, "big.js").then((m) => m.default); return true; }`, stat.Root.String())
	select {
	case <-held.asked:
	case <-ctx.Done():
		t.Fatal("nobody asked for the second half of the module")
	}
	until[bool](p, "the first half came", `async (n) => (await node.status()).blocks >= n`, len(file.Links())-1)
	p.stopWorker()
	let()
	if got := eval[string](p, `() => importing`); got != "whole" {
		t.Errorf("import = %q", got)
	}
	if after := p.status(); after.BootID == before.BootID {
		t.Error("the worker was never stopped: this test tests nothing")
	}
}

// TestPanic makes the node panic: the page is told, and another one starts.
func TestPanic(t *testing.T) {
	t.Parallel()
	r := startRelay(t)
	root := r.publishSite(site{"a.js": "export default 1;", "b.js": "export default 2;", "c.js": "export default 3;"})
	p := newVisitor(t).open(r.url + "/blank.html")
	eval[bool](p, `async () => {
		const { join } = await import("/weft.js");
		globalThis.node = await join({ worker: "/sw.js?test" });
		await node.online;
		globalThis.failures = [];
		node.on("error", (e) => failures.push(e.code));
		globalThis.panics = (args) => {
			const { port1, port2 } = new MessageChannel();
			const reply = new Promise((resolve) => port1.onmessage = (e) => resolve(e.data.error?.code ?? ""));
			navigator.serviceWorker.controller.postMessage({ weft: "panic", id: 1, args }, [port2]);
			return reply;
		};
		return true;
	}`)
	before := p.status()
	eval[int](p, `async (root) => (await node.import(root, "a.js")).default`, root.String())

	// At the boundary: the call fails, the node goes on.
	if code := eval[string](p, `() => panics({ caught: true })`); code != "internal" {
		t.Errorf("a call that panics: code %q, want internal", code)
	}
	if s := p.status(); s.Started != before.Started {
		t.Error("the node was started anew by a panic that was caught")
	}
	if got := eval[int](p, `async (root) => (await node.import(root, "b.js")).default`, root.String()); got != 2 {
		t.Errorf("import = %d", got)
	}

	// Elsewhere: the program ends.
	eval[bool](p, `() => { panics({}); return true; }`)
	until[bool](p, "the page is told", `() => failures.includes("node_restarted")`)
	p.said("panic: asked to panic") // so a stub's, too, would not pass unheard
	if got := eval[int](p, `async (root) => (await node.import(root, "c.js")).default`, root.String()); got != 3 {
		t.Errorf("import after a panic = %d", got)
	}
	after := p.status()
	if after.Started == before.Started {
		t.Error("no other node was started")
	}
	if after.PeerID != before.PeerID {
		t.Errorf("peer ID = %s, was %s", after.PeerID, before.PeerID)
	}

	// Nobody else can do that.
	q := r.joined(newVisitor(t))
	s := q.status()
	if code := eval[string](q, `async () => {
		const { port1, port2 } = new MessageChannel();
		const reply = new Promise((resolve) => port1.onmessage = (e) => resolve(e.data.error?.code ?? ""));
		navigator.serviceWorker.controller.postMessage({ weft: "panic", id: 1, args: {} }, [port2]);
		return reply;
	}`); code != "bad_request" {
		t.Errorf("panic without ?test: code %q, want bad_request", code)
	}
	if q.status().Started != s.Started {
		t.Error("a page made the node panic")
	}
}

// TestRelayRestart takes the relay away and brings it back.
func TestRelayRestart(t *testing.T) {
	t.Parallel()
	r := startRelay(t)
	root := r.publishSite(site{"a.js": "export default 1;", "b.js": "export default 2;"})
	p := r.joined(newVisitor(t)).expects("ERR_CONNECTION_REFUSED", "net::ERR_FAILED", "WebSocket connection", "status of 504")
	eval[int](p, `async (root) => (await node.import(root, "a.js")).default`, root.String())
	r.stop()
	until[bool](p, "the node notices", `async () => (await node.status()).relays.length === 0`)
	if got := eval[string](p, `async (root) => (await node.fetch(root, "a.js")).text()`, root.String()); got != "export default 1;" {
		t.Errorf("what was fetched before: %q", got)
	}
	if got := eval[int](p, `async (root) => (await node.fetch(root, "b.js")).status`, root.String()); got != 504 {
		t.Errorf("what was not: status %d, want 504", got)
	}
	_, err := try[int](p, `async (root) => (await node.import(root, "b.js")).default`, root.String())
	if js, ok := err.(*jsError); !ok || js.Code != "no_provider" {
		t.Errorf("import: %v, want no_provider", err)
	}
	r.start()
	until[bool](p, "the node is connected again", `async () => (await node.status()).relays.length === 1`)
	if got := eval[int](p, `async (root) => (await node.import(root, "b.js")).default`, root.String()); got != 2 {
		t.Errorf("import from the relay that came back = %d", got)
	}
}
