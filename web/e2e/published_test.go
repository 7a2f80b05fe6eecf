//go:build e2e

package e2e

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/webfabric/weft/shared/gateway"
)

// shown waits until the page of [everything] has run.
func shown(p *tab) {
	p.t.Helper()
	if got := until[string](p, "the site has run", `() => globalThis.done && document.getElementById("out").textContent`); got != "hello weft 42 later" {
		p.t.Errorf("the site shows %q", got)
	}
}

// kept waits until the page's node holds n blocks.
func kept(p *tab, n int) {
	p.t.Helper()
	until[bool](p, "what was visited is kept", `async (n) => {
		const { join } = await import("/weft.js");
		globalThis.node = await join();
		return (await node.status()).blocks >= n;
	}`, n)
}

// visited is everything that a visit of the site loads.
func visited(t *testing.T) site {
	s := everything(t)
	for _, name := range []string{"video.mp4", "no-extension", "a page/ü & more.js"} {
		delete(s, name)
	}
	return s
}

func TestFirstVisit(t *testing.T) {
	t.Parallel()
	r := startRelay(t)
	root := r.publishSite(visited(t))
	url := r.ipfs(root, "")

	// What the relay answers to a browser that nobody controls yet.
	navigation := func(url string) string {
		req, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Sec-Fetch-Mode", "navigate")
		req.Header.Set("Sec-Fetch-Dest", "document")
		req.Header.Set("Accept", "text/html")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	exact := visited(t)["index.html"]
	if got := navigation(url); got != exact+gateway.JoinLine {
		t.Errorf("navigation: got %q, want the page and the line that joins", got)
	}
	if got := navigation(url + "?weft=off"); got != exact {
		t.Errorf("?weft=off: got %q, want the exact page", got)
	}

	p := newVisitor(t).open(url)
	shown(p)
	until[bool](p, "the worker controls the page", `() => !!navigator.serviceWorker.controller`)
	kept(p, r.stats[root].Blocks)
	r.stop()
	p.expects("ERR_CONNECTION_REFUSED", "net::ERR_FAILED", "WebSocket connection")
	p.reload(false)
	shown(p)
	if got := eval[int](p, `async () => { const i = document.getElementById("img"); await i.decode(); return i.naturalWidth; }`); got != 7 {
		t.Errorf("the picture is %d wide", got)
	}
	// The worker adds the line too, to a navigation only.
	if !strings.Contains(eval[string](p, `() => document.documentElement.outerHTML`), "/join.js") {
		t.Error("the worker's page does not join")
	}
	if got := eval[string](p, `async () => (await fetch(location.pathname)).text()`); got != exact {
		t.Errorf("a script that fetches the page got %q, want the exact bytes", got)
	}
}

// TestShiftReload goes around the worker, as shift-reload does: the page is
// uncontrolled then, and joining takes it back.
func TestShiftReload(t *testing.T) {
	t.Parallel()
	r := startRelay(t)
	root := r.publishSite(visited(t))
	p := newVisitor(t).open(r.ipfs(root, ""))
	shown(p)
	until[bool](p, "the worker controls the page", `() => !!navigator.serviceWorker.controller`)
	p.reload(true)
	shown(p)
	eval[bool](p, `async () => {
		const { join } = await import("/weft.js");
		globalThis.node = await join();
		if (!navigator.serviceWorker.controller) throw new Error("joined, and nobody controls the page");
		await node.online;
		return true;
	}`)
	if got := eval[string](p, `async (root) => (await node.import(root, "lib/later.js")).word`, root.String()); got != "later" {
		t.Errorf("import after shift-reload: %q", got)
	}
	// On a page of the site, which does not join by itself.
	q := r.joined(newVisitor(t))
	q.reload(true)
	if eval[bool](q, `() => !!navigator.serviceWorker.controller`) {
		t.Error("a page is controlled after shift-reload: this test tests nothing")
	}
	join(q)
	if !eval[bool](q, `() => !!navigator.serviceWorker.controller`) {
		t.Error("joined, and nobody controls the page")
	}
}

// TestBrowserRestart comes back with the same profile after the browser and
// the relay have gone.
func TestBrowserRestart(t *testing.T) {
	t.Parallel()
	r := startRelay(t)
	root := r.publishSite(visited(t))
	pinned := r.publishSite(site{"keep.js": `export default "kept";`, "more.bin": noise(2, 5<<20)})
	dir := t.TempDir()
	v, quit := returningVisitor(t, dir)
	p := v.open(r.ipfs(root, ""))
	shown(p)
	kept(p, r.stats[root].Blocks)
	eval[bool](p, `async (cid) => { await node.pin(cid); return true; }`, pinned.String())
	before := p.status()
	quit()
	r.stop()

	v, _ = returningVisitor(t, dir)
	p = v.blank().expects("ERR_CONNECTION_REFUSED", "net::ERR_FAILED", "WebSocket connection")
	p.navigate(r.ipfs(root, ""))
	shown(p)
	kept(p, before.Blocks)
	after := p.status()
	if after.PeerID != before.PeerID {
		t.Errorf("peer ID = %s, was %s", after.PeerID, before.PeerID)
	}
	if len(after.Relays) != 0 {
		t.Errorf("relays = %v, and none is running", after.Relays)
	}
	if pins := eval[[]string](p, `() => node.pins()`); len(pins) != 1 || pins[0] != pinned.String() {
		t.Errorf("pins = %v, want [%s]", pins, pinned)
	}
	// Clearing takes what was visited, and leaves what is pinned.
	eval[bool](p, `async () => { await node.clear(); return true; }`)
	if got := eval[string](p, `async (cid) => (await node.import(cid, "keep.js")).default`, pinned.String()); got != "kept" {
		t.Errorf("pinned module: %q", got)
	}
	if got := eval[string](p, `async (cid) => {
		const body = await (await node.fetch(cid, "more.bin")).arrayBuffer();
		return new Uint8Array(await crypto.subtle.digest("SHA-256", body)).toHex();
	}`, pinned.String()); got != sum(noise(2, 5<<20)) {
		t.Error("pinned file: other bytes than were published")
	}
	p.expects("status of 504")
	if got := eval[int](p, `async (root) => (await node.fetch(root, "main.js")).status`, root.String()); got != 504 {
		t.Errorf("what was cleared: status %d, want 504", got)
	}
	// And the relay comes back.
	r.start()
	eval[bool](p, `async () => { await node.online; return true; }`)
	until[bool](p, "what was cleared can be fetched again", `async (root) => (await node.fetch(root, "main.js")).ok`, root.String())
}
