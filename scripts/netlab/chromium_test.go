//go:build netlab

package netlab_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os/exec"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/webfabric/weft/scripts/netlab"
)

// chromium starts a browser on n, with a page of the relay's that has joined.
func (r *relay) chromium(n *netlab.Node) context.Context {
	r.t.Helper()
	ip, err := exec.LookPath("ip")
	if err != nil {
		r.t.Fatal(err)
	}
	opts := []chromedp.ExecAllocatorOption{
		chromedp.UserDataDir(r.t.TempDir()),
		chromedp.Flag("headless", "new"),
		// The relay has no certificate here, and pages have no workers without.
		chromedp.Flag("unsafely-treat-insecure-origin-as-secure", r.url),
		chromedp.ModifyCmdFunc(func(cmd *exec.Cmd) {
			cmd.Args = append(append(n.Command(), cmd.Path), cmd.Args[1:]...)
			cmd.Path = ip
		}),
	}
	for _, name := range []string{
		"no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "no-default-browser-check", "disable-background-networking",
		"disable-component-update", "disable-sync", "disable-extensions", "disable-dev-shm-usage", "no-proxy-server",
	} {
		opts = append(opts, chromedp.Flag(name, true))
	}
	actx, acancel := chromedp.NewExecAllocator(context.Background(), opts...)
	r.t.Cleanup(acancel)
	ctx, cancel := chromedp.NewContext(actx)
	r.t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 2*patience)
	r.t.Cleanup(cancel)
	if err := chromedp.Do(ctx, chromedp.Navigate(r.url+"/")); err != nil {
		r.t.Fatal(err)
	}
	page[bool](r.t, ctx, `async () => {
		const { join } = await import("/weft.js");
		globalThis.node = await join();
		await node.online;
		return true;
	}`)
	return ctx
}

// page calls the function expression fn with args in the page.
func page[T any](t *testing.T, ctx context.Context, fn string, args ...any) T {
	t.Helper()
	b, err := json.Marshal(append([]any{}, args...))
	if err != nil {
		t.Fatal(err)
	}
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](fmt.Sprintf("(%s)(...%s)", fn, b), chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatalf("in the page: %v\nfrom %s", err, fn)
	}
	return v
}

// TestBrowserNAT: a visitor's browser and a native peer, both behind NATs, find
// a way to each other by the relay's STUN, and go on without the relay. The
// browser hides its own addresses, as browsers do.
func TestBrowserNAT(t *testing.T) {
	lab, r := start(t)
	const size = 4<<20 + 321
	giver := r.guest(place(t, lab, netlab.Cone, netlab.Line{Delay: 10 * time.Millisecond}))
	root := giver.must(order{Do: "add", Seed: 8, Size: size, Chunk: 1 << 20}).Root
	ctx := r.chromium(place(t, lab, netlab.Cone, netlab.Line{Delay: 10 * time.Millisecond}))
	page[bool](t, ctx, `async () => {
		while (!(await node.status()).peers.some((p) => p.transport === "webrtc")) await new Promise((resolve) => setTimeout(resolve, 100));
		return true;
	}`)
	r.kill()
	begun := time.Now()
	got := page[string](t, ctx, `async (root) => {
		const response = await fetch("/ipfs/" + root);
		if (!response.ok) throw new Error(await response.text());
		const sum = new Uint8Array(await crypto.subtle.digest("SHA-256", await response.arrayBuffer()));
		return Array.from(sum, (b) => b.toString(16).padStart(2, "0")).join("");
	}`, root.String())
	t.Logf("%.1f s", time.Since(begun).Seconds())
	if want := sha256.Sum256(noise(8, size)); got != hex.EncodeToString(want[:]) {
		t.Error("other bytes came")
	}
	if n := page[float64](t, ctx, `async () => (await node.status()).bytes.fromPeers`); n < size {
		t.Errorf("%v bytes from the other visitor, want all %d", n, size)
	}
}
