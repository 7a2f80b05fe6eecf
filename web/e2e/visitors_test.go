//go:build e2e

package e2e

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// sumOf fetches a file in the page and returns the SHA-256 of what came.
const sumOf = `async (root, path) => {
	const response = await node.fetch(root, path);
	if (!response.ok) throw Object.assign(new Error(await response.text()), { code: String(response.status) });
	const sum = new Uint8Array(await crypto.subtle.digest("SHA-256", await response.arrayBuffer()));
	return Array.from(sum, (b) => b.toString(16).padStart(2, "0")).join("");
}`

// addFile adds bytes that nobody else has, and returns the root.
const addFile = `async (text, times) => (await node.add({ "data.bin": new TextEncoder().encode(text.repeat(times)) })).cid`

// meets waits until p has a WebRTC connection to the peer called id.
func meets(p *tab, id string) {
	p.t.Helper()
	until[bool](p, "they meet", `async (id) => (await node.status()).peers.some((p) => p.id === id && p.transport === "webrtc")`, id)
}

// TestVisitorsMeet: two visitors of a site find each other by themselves, and
// what the one has, the other gets from it.
func TestVisitorsMeet(t *testing.T) {
	t.Parallel()
	r := startRelay(t)
	one, two := r.joined(newVisitor(t)), r.joined(newVisitor(t))
	a, b := one.status().PeerID, two.status().PeerID
	meets(one, b)
	meets(two, a)
	const text, times = "only this visitor has it. ", 200_000
	root := eval[string](one, addFile, text, times)
	want := eval[string](one, sumOf, root, "data.bin")
	if got := eval[string](two, sumOf, root, "data.bin"); got != want {
		t.Errorf("the other got other bytes: %s, want %s", got, want)
	}
	got := until[[3]int64](two, "bytes are counted where they came from", `async (a) => {
		const { bytes, peers } = await node.status();
		const p = peers.find((p) => p.id === a);
		return bytes.fromPeers > 0 && p?.bytesIn > 0 && [bytes.fromPeers, p.bytesIn, p.bytesOut];
	}`, a)
	if got[0] != got[1] {
		t.Errorf("%d bytes from peers, of which %d from the one there is", got[0], got[1])
	}
	until[bool](one, "the giver counts too", `async (b) => {
		const { bytes, peers } = await node.status();
		return bytes.served > 0 && peers.find((p) => p.id === b)?.bytesOut > 0;
	}`, b)

	// Who leaves is gone at once.
	two.close()
	until[bool](one, "it is alone again", `async () => (await node.status()).peers.every((p) => p.relay)`)
}

// TestDataSaver: where the browser saves data nothing is given, unless the
// visitor says so.
func TestDataSaver(t *testing.T) {
	t.Parallel()
	r := startRelay(t)
	saver := newVisitor(t).blank()
	ctx, cancel := context.WithTimeout(saver.ctx, patience)
	defer cancel()
	if _, err := chromedp.Call(ctx, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{
		Source: `Object.defineProperty(navigator, "connection", { value: Object.assign(new EventTarget(), { saveData: true }) })`,
	}); err != nil {
		t.Fatal(err)
	}
	saver.navigate(r.url + "/blank.html")
	join(saver)
	until[bool](saver, "it gives nothing", `async () => { const { limits } = await node.status(); return limits.saveData && !limits.giving; }`)
	root := eval[string](saver, addFile, "mine alone. ", 100_000)

	other := r.joined(newVisitor(t))
	other.expects("504", "no_provider")
	meets(saver, other.status().PeerID) // it may take
	_, err := try[string](other, sumOf, root, "data.bin")
	var js *jsError
	if !errors.As(err, &js) || js.Code != "504" {
		t.Errorf("what a saver has: %v, want 504", err)
	}
	if s := saver.status(); s.Bytes.Served != 0 {
		t.Errorf("%d bytes given", s.Bytes.Served)
	}

	eval[any](saver, `() => node.limits({ give: true })`)
	want := eval[string](saver, sumOf, root, "data.bin")
	if got := eval[string](other, sumOf, root, "data.bin"); got != want {
		t.Errorf("other bytes came: %s, want %s", got, want)
	}
}

// TestVisitorsPage looks at two visitors on the page that they open.
func TestVisitorsPage(t *testing.T) {
	t.Parallel()
	r := startRelay(t)
	one, two := newVisitor(t).open(r.url+"/"), newVisitor(t).open(r.url+"/")
	const alone = `() => document.getElementById("give").ariaChecked === "true"`
	for _, p := range []*tab{one, two} {
		until[bool](p, "it gives", alone)
		until[bool](p, "the other is shown", `() => document.querySelectorAll("#others li").length === 1 && document.getElementById("others").textContent.includes("directly") && document.getElementById("peers").textContent === "1"`)
	}
	for _, p := range []*tab{one, two} { // join() gives the page's own node
		eval[bool](p, `async () => { globalThis.node = await (await import("/weft.js")).join(); return true; }`)
	}
	root := eval[string](one, addFile, "a page woven by the people reading it. ", 100_000)
	eval[string](two, sumOf, root, "data.bin")
	until[bool](two, "what came from visitors is shown", `() => /^[1-9]/.test(document.getElementById("from-peers").textContent) && /got [1-9]/.test(document.getElementById("others").textContent)`)
	until[bool](one, "what was given is shown", `() => /^[1-9]/.test(document.getElementById("served").textContent) && /gave [1-9]/.test(document.getElementById("others").textContent)`)
	if dir := os.Getenv("E2E_SCREENSHOT"); dir != "" {
		for i, p := range []*tab{one, two} {
			shot, err := chromedp.Run(p.ctx, chromedp.FullScreenshot(100))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(dir+[]string{".one.png", ".two.png"}[i], shot, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}

	// One click, and nothing is given any more: on the next visit either.
	eval[bool](one, `() => { document.getElementById("give").click(); return true; }`)
	until[bool](one, "it gives nothing", `async () => document.getElementById("give").ariaChecked === "false" && !(await node.status()).limits.giving`)
	one.stopWorker()
	one.reload(false)
	until[bool](one, "it has a peer again", `() => document.getElementById("relay").textContent === "Connected"`)
	until[bool](one, "it still gives nothing", `() => document.getElementById("give").ariaChecked === "false" && document.getElementById("give-text").textContent.startsWith("You give nothing")`)
}
