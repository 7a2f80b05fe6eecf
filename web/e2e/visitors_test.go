//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/webfabric/weft"
	"github.com/webfabric/weft/relay/server"
)

// looks has the page shown at a width, in a colour scheme.
func (p *tab) looks(width int64, scheme string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if _, err := chromedp.Call(ctx, emulation.SetScrollbarsHidden, emulation.SetScrollbarsHiddenParams{Hidden: true}); err != nil {
		p.t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: 900, DeviceScaleFactor: 1}); err != nil {
		p.t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}); err != nil {
		p.t.Fatal(err)
	}
}

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

// TestUploadLimit: a visitor that gives little in a second gives no more, while
// it takes what it likes; and gives all again when it says so.
func TestUploadLimit(t *testing.T) {
	t.Parallel()
	r := startRelay(t)
	one, two := r.joined(newVisitor(t)), r.joined(newVisitor(t))
	two.expects("504", "no_provider")
	meets(one, two.status().PeerID)
	meets(two, one.status().PeerID)
	const mebibytes = 8 // of texts of 17 letters, so that no block is like another
	mine := eval[string](one, addFile, "mine, and nobody.", mebibytes<<16)
	theirs := eval[string](two, addFile, "theirs and theirs", mebibytes<<16)
	want := eval[string](one, sumOf, mine, "data.bin")
	if got := eval[int](one, `async () => (await node.limits({ upload: 1000 })).upload`); got != 1000 { // a quarter of an hour for each block
		t.Errorf("the limit is %d bytes a second, want 1,000", got)
	}

	eval[bool](two, `(root) => { globalThis.early = node.fetch(root, "data.bin").then((r) => r.arrayBuffer()).then(() => "", String); return true; }`, mine)
	until[bool](one, "it gives something", `async () => (await node.status()).bytes.served > 0`)
	if got, sent := eval[string](one, sumOf, theirs, "data.bin"), eval[string](two, sumOf, theirs, "data.bin"); got != sent {
		t.Errorf("other bytes came: %s, want %s", got, sent)
	}
	// It has taken all of 8 MiB meanwhile, and given the block that was the first.
	if s := one.status(); s.Bytes.FromPeers+s.Bytes.FromRelay < mebibytes<<20 || s.Bytes.Served > 2<<20 {
		t.Errorf("it took %d bytes and gave %d, want all, and a block", s.Bytes.FromPeers+s.Bytes.FromRelay, s.Bytes.Served)
	}

	eval[any](one, `() => node.limits({ upload: 0 })`)
	eval[string](two, `() => early`) // it may have been given up
	if got := eval[string](two, sumOf, mine, "data.bin"); got != want {
		t.Errorf("other bytes came: %s, want %s", got, want)
	}
}

// TestConnectionLimit: a visitor that wants one connection has one.
func TestConnectionLimit(t *testing.T) {
	t.Parallel()
	r := startRelay(t)
	var all []*tab
	for range 3 {
		all = append(all, r.joined(newVisitor(t)))
	}
	has := func(p *tab, n int) {
		t.Helper()
		until[bool](p, fmt.Sprintf("it has %d neighbours", n), `async (n) => (await node.status()).peers.filter((p) => !p.relay).length === n`, n)
	}
	for _, p := range all {
		has(p, 2)
	}
	eval[any](all[0], `() => node.limits({ connections: 1 })`)
	has(all[0], 1)
	eval[any](all[0], `() => node.limits({ connections: 0 })`)
	has(all[0], 2)
}

// TestVisitorsPage looks at two visitors on the page that they open.
func TestVisitorsPage(t *testing.T) {
	t.Parallel()
	r := startRelay(t, func(c *server.Config) { c.Demo = weft.Demo() })
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
	until[bool](two, "what came from visitors is shown", `() => /^[1-9].* [KM]B/.test(document.getElementById("from-peers").textContent) && /got [1-9]/.test(document.getElementById("others").textContent) && /you got [1-9]/.test(document.getElementById("give-text").textContent)`)
	until[bool](one, "what was given is shown", `() => /^[1-9].* [KM]B/.test(document.getElementById("served").textContent) && /gave [1-9]/.test(document.getElementById("others").textContent) && /passed on [1-9]/.test(document.getElementById("give-text").textContent)`)
	for _, p := range []*tab{one, two} {
		until[bool](p, "the example is woven", `() => document.getElementById("cloth").ariaBusy === "false"`)
	}
	dir := filepath.Join("..", "..", "build", "visitors")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, shot := range []struct {
		name  string
		p     *tab
		width int64
		dark  string
	}{{"giving.png", one, 1100, "light"}, {"getting.png", two, 1100, "light"}, {"getting-dark.png", two, 1100, "dark"}, {"getting-phone.png", two, 390, "light"}} {
		shot.p.looks(shot.width, shot.dark)
		b, err := chromedp.Run(shot.p.ctx, chromedp.FullScreenshot(100))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, shot.name), b, 0o644); err != nil {
			t.Fatal(err)
		}
		// Nothing sticks out of the screen, and the way to stop is on it.
		if got := eval[[]int](shot.p, `() => {
			const { left, right, height } = document.getElementById("give").getBoundingClientRect();
			return [document.documentElement.scrollWidth - innerWidth, Math.round(left), Math.round(innerWidth - right), Math.round(height)];
		}`); got[0] > 0 || got[1] < 0 || got[2] < 0 || got[3] < 24 {
			t.Errorf("%s: it is %d pixels too wide, the switch %d from the left, %d from the right, %d high", shot.name, got[0], got[1], got[2], got[3])
		}
	}

	// The keyboard reaches the switch and shows where it is, and one press is
	// enough: nothing is given any more, on the next visit either.
	one.looks(1100, "light")
	eval[bool](one, `() => { document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute("tabindex"); return true; }`)
	for range 20 {
		if err := one.do(chromedp.KeyEvent(kb.Tab)); err != nil {
			t.Fatal(err)
		}
		if eval[bool](one, `() => document.activeElement?.id === "give"`) {
			break
		}
	}
	if got := eval[string](one, `() => document.activeElement?.id + " " + (getComputedStyle(document.activeElement).outlineStyle)`); got != "give solid" {
		t.Errorf("the keyboard is at %q, want the switch with an outline", got)
	}
	if err := one.do(chromedp.KeyEvent(" ")); err != nil {
		t.Fatal(err)
	}
	until[bool](one, "it gives nothing", `async () => document.getElementById("give").ariaChecked === "false" && !(await node.status()).limits.giving`)
	one.stopWorker()
	one.reload(false)
	until[bool](one, "it has a peer again", `() => document.getElementById("relay").textContent === "Connected"`)
	until[bool](one, "it still gives nothing", `() => document.getElementById("give").ariaChecked === "false" && document.getElementById("give-text").textContent.startsWith("You give nothing")`)
}
