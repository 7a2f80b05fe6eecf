//go:build e2e

package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/chromedp"
)

// untended is longer than a browser keeps a worker to which nothing happens (30 s),
// and than it waits before it throttles what a hidden page does (10 s).
const untended = 45 * time.Second

// TestHidden has a visitor put the window away. The page that is hidden hosts
// connections, which keep the worker alive, and it goes on serving, by the rules
// of a browser that is not told to spare tests.
func TestHidden(t *testing.T) {
	t.Parallel()
	r := startRelay(t)
	v, _ := returningVisitor(t, t.TempDir(),
		chromedp.Flag("disable-background-timer-throttling", false),
		chromedp.Flag("disable-renderer-backgrounding", false),
		chromedp.Flag("disable-backgrounding-occluded-windows", false))
	a, b := r.joined(v), r.joined(newVisitor(t))
	a.expects(unreachable...)
	b.expects(unreachable...)
	a.meets(b)
	const size = 3 << 20
	root := eval[string](a, addFile, "only the hidden one has it. ", size/28)
	want := eval[string](a, sumOf, root, "data.bin")
	started := a.status().BootID

	ctx, cancel := context.WithTimeout(a.ctx, patience)
	defer cancel()
	window, err := chromedp.Call(ctx, browser.GetWindowForTarget, browser.GetWindowForTargetParams{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, browser.SetWindowBounds, browser.SetWindowBoundsParams{
		WindowID: window.WindowID, Bounds: &browser.Bounds{WindowState: browser.WindowStateMinimized},
	}); err != nil {
		t.Fatal(err)
	}
	until[bool](a, "the page is hidden", `() => document.visibilityState === "hidden"`)
	time.Sleep(untended) // that nothing happens for so long is what the test is about

	r.leaves(b)
	if got := eval[string](b, sumOf, root, "data.bin"); got != want {
		t.Error("other bytes came")
	}
	if s := b.status(); s.Bytes.FromPeers == 0 {
		t.Error("nothing came from the hidden page")
	}
	if now := a.status().BootID; now != started {
		t.Error("its worker was stopped meanwhile")
	}
}
