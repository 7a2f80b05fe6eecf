//go:build e2e

package e2e

import (
	"os"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/webfabric/weft"
	"github.com/webfabric/weft/relay/server"
)

// text of an element by its id.
const textOf = `(id) => document.getElementById(id).textContent`

// TestIndex looks at the page a visitor opens.
func TestIndex(t *testing.T) {
	t.Parallel()
	r := startRelay(t, func(c *server.Config) { c.Demo = weft.Demo() })
	v := newVisitor(t)
	p := v.open(r.url + "/")
	id := until[string](p, "the peer ID is shown", `() => document.getElementById("peer").title`)
	until[bool](p, "the relay is shown", `() => document.getElementById("relay").textContent === "Connected"`)
	until[bool](p, "the example is shown", `() => document.getElementById("cloth").ariaBusy === "false" && document.getElementById("cloth").childElementCount > 0`)
	if text := eval[string](p, textOf, "woven"); !strings.Contains(text, "/ipfs/") {
		t.Errorf("the example says %q", text)
	}
	until[bool](p, "blocks are shown", `() => parseInt(document.getElementById("blocks").textContent) > 0`)
	if !strings.HasPrefix(id, "12D3Koo") {
		t.Errorf("peer ID %q", id)
	}
	if file := os.Getenv("E2E_SCREENSHOT"); file != "" {
		shot, err := chromedp.Run(p.ctx, chromedp.FullScreenshot(100))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, shot, 0o644); err != nil {
			t.Fatal(err)
		}
	}

	t.Run("phone width", func(t *testing.T) {
		p := p.in(t)
		if err := p.do(chromedp.EmulateViewport(360, 740)); err != nil {
			t.Fatal(err)
		}
		if got := eval[[2]int](p, `() => [document.documentElement.scrollWidth, innerWidth]`); got[0] > got[1] {
			t.Errorf("the page is %d wide in a window of %d", got[0], got[1])
		}
		if err := p.do(chromedp.ResetViewport()); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("light and dark", func(t *testing.T) {
		p := p.in(t)
		color := func(scheme string) string {
			if _, err := chromedp.Call(p.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}); err != nil {
				t.Fatal(err)
			}
			return eval[string](p, `() => { const s = getComputedStyle(document.body), h = getComputedStyle(document.documentElement); return s.color + " on " + s.backgroundColor + " on " + h.backgroundColor; }`)
		}
		if light, dark := color("light"), color("dark"); light == dark {
			t.Errorf("light and dark are the same: %s", light)
		}
		color("")
	})
	t.Run("keyboard", func(t *testing.T) {
		p := p.in(t)
		// press goes to an element with the tab key, as nobody with a mouse does.
		press := func(id, key string) {
			t.Helper()
			for range 40 {
				if eval[string](p, `() => document.activeElement.id`) == id {
					if err := p.do(chromedp.KeyEvent(key)); err != nil {
						t.Fatal(err)
					}
					return
				}
				if err := p.do(chromedp.KeyEvent(kb.Tab)); err != nil {
					t.Fatal(err)
				}
			}
			t.Fatalf("the tab key does not lead to #%s", id)
		}
		press("clear", kb.Enter)
		until[bool](p, "it asks", `() => !document.getElementById("confirm").hidden`)
		press("clear-yes", kb.Enter)
		until[bool](p, "it is cleared", `() => document.getElementById("confirm").hidden && document.getElementById("blocks").textContent === "0"`)

		press("toggle", kb.Enter)
		until[bool](p, "it has left", `async () => document.getElementById("toggle").textContent === "Join" && (await navigator.serviceWorker.getRegistrations()).length === 0`)
		press("toggle", kb.Enter)
		until[bool](p, "it has joined again", `(id) => document.getElementById("relay").textContent === "Connected" && document.getElementById("peer").title === id`, id)

		press("address", "nonsense")
		press("address", kb.Enter)
		until[string](p, "it says what is wrong", `() => document.getElementById("address-error").textContent`)
		eval[bool](p, `() => { document.getElementById("address").value = ""; return true; }`)
		press("address", r.server.Demo().String()+"/")
		press("address", kb.Enter)
		until[bool](p, "the address is opened", `(path) => location.pathname === path && document.readyState === "complete"`, "/ipfs/"+r.server.Demo().String()+"/")
	})
}

// TestIndexOffline opens the page again while the relay is away.
func TestIndexOffline(t *testing.T) {
	t.Parallel()
	r := startRelay(t, func(c *server.Config) { c.Demo = weft.Demo() })
	p := newVisitor(t).open(r.url + "/")
	const woven = `() => document.getElementById("cloth").ariaBusy === "false"`
	until[bool](p, "the example is shown", woven)
	until[bool](p, "the site's files are kept", `async () => (await (await caches.open("weft-assets")).keys()).some((r) => r.url.endsWith("/assets.json"))`)
	id := eval[string](p, `() => document.getElementById("peer").title`)
	r.stop()
	p.expects("ERR_CONNECTION_REFUSED", "net::ERR_FAILED", "WebSocket connection", "Failed to load resource")
	p.reload(false)
	until[bool](p, "the example is shown without a relay", woven)
	until[bool](p, "the same peer", `(id) => document.getElementById("peer").title === id`, id)
	until[bool](p, "it says so", `() => document.getElementById("relay").textContent === "Away"`)
}
