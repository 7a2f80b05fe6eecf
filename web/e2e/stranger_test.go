//go:build e2e

package e2e

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"

	"github.com/webfabric/weft/relay/client"
	"github.com/webfabric/weft/relay/publish"
	"github.com/webfabric/weft/shared/identity"
)

// stranger adds s to a peer of the relay that may not publish there: whoever
// asks for it by CID gets it, and the origin's owner knows nothing of it.
func (r *relay) stranger(s site) cid.Cid {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	key, err := identity.New()
	if err != nil {
		r.t.Fatal(err)
	}
	at, err := client.Find(ctx, r.url, "")
	if err != nil {
		r.t.Fatal(err)
	}
	bs := blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
	stat, err := publish.Add(ctx, bs, s.write(r.t))
	if err != nil {
		r.t.Fatal(err)
	}
	p, err := client.Connect(ctx, at, key, bs)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { p.Close() })
	return stat.Root
}

// attack is what a page does that wants the origin's keys, storage and node.
// Whatever it reaches, it reports.
const attack = `
const report = (what) => { try { new Image().src = "/pwned?" + what; } catch {} try { fetch("/pwned?" + what, { keepalive: true }); } catch {} };
report("ran");
try { localStorage.setItem("pwned", "1"); report("storage"); } catch {}
try { if (parent !== self) { parent.pwned = true; if (parent.document) report("parent"); } } catch {}
try { if (opener) { opener.pwned = true; if (opener.document) report("opener"); } } catch {}
try { const open = indexedDB.open("weft"); open.onsuccess = () => report("keys"); } catch {}
try { if (navigator.serviceWorker.controller) report("worker"); } catch {}
try { import("/weft.js").then((m) => m.join()).then((n) => n.status()).then(() => report("node"), () => {}); } catch {}
`

// attacker is a site whose every document attacks.
func attacker() site {
	html := "<!doctype html><title>free cats</title><link rel=icon href=data:,><h1>cats</h1><script>" + attack + "</script>"
	svg := `<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script><![CDATA[` + attack + `]]></script></svg>`
	xhtml := `<html xmlns="http://www.w3.org/1999/xhtml"><head><title>x</title></head><body><script><![CDATA[` + attack + `]]></script></body></html>`
	return site{
		"index.html": html,
		"page":       html, // sniffed
		"cat.svg":    svg,
		"x.xhtml":    xhtml,
		"x.xml":      xhtml,
		"sw.js":      `self.addEventListener("fetch", () => {}); fetch("/pwned?serviceworker");`,
		"lib.js":     "export default 'a library';",
	}
}

// TestAttacker publishes an attacker's pages under a root that the owner has
// not published, and opens them in every way there is. Verified is not trusted.
func TestAttacker(t *testing.T) {
	t.Parallel()
	r := startRelay(t)
	f := newFront(t, r)
	var mu sync.Mutex
	var reports []string
	f.answer(func(w http.ResponseWriter, req *http.Request) bool {
		if req.URL.Path != "/pwned" {
			return false
		}
		mu.Lock()
		reports = append(reports, req.URL.RawQuery)
		mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
		return true
	})
	reported := func() string {
		mu.Lock()
		defer mu.Unlock()
		s := strings.Join(reports, " ")
		reports = nil
		return s
	}
	evil := attacker()
	root := r.stranger(evil)
	base := "/ipfs/" + root.String() + "/"
	// The owner's own page has no policy that would stop anything.
	home := r.publishSite(site{"index.html": blankPage})
	documents := []string{"", "index.html", "page", "cat.svg", "x.xhtml", "x.xml"}
	v := newVisitor(t)

	// check looks for what an attack leaves behind, from a page of the site.
	check := func(t *testing.T, p *tab, how string) {
		t.Helper()
		if got := eval[bool](p.in(t), `() => !!globalThis.pwned || localStorage.getItem("pwned") !== null`); got {
			t.Errorf("%s: the attacker reached the page or its storage", how)
		}
		if got := reported(); got != "" {
			t.Errorf("%s: the attacker reports: %s", how, got)
		}
	}
	// blocked are what the console says of what the test wants to fail.
	blocked := []string{"Blocked script execution", "response code \\(403\\)", "sandboxed", "Content Security Policy", "Refused to", "status of 403", "X-Frame-Options", "violates"}

	for _, who := range []string{"the relay", "the worker"} {
		t.Run("answered by "+who, func(t *testing.T) {
			home := v.open(f.url + "/ipfs/" + home.String() + "/?weft=off").expects(blocked...)
			if who == "the worker" {
				join(home.in(t))
			}
			for _, name := range documents {
				p := v.blank().expects(blocked...)
				p.in(t).navigate(f.url + base + name)
				if text := eval[string](p.in(t), `() => document.documentElement.outerHTML`); strings.Contains(text, "/pwned") || !strings.Contains(text, root.String()) {
					t.Errorf("navigation to %q: want the inert page, got %.300s", name, text)
				}
				p.close()
				check(t, home, "navigation to "+name)

				for _, el := range []string{"iframe", "object", "embed"} {
					eval[bool](home.in(t), `async (el, url) => {
						const e = document.createElement(el);
						const settled = new Promise((resolve) => { e.onload = e.onerror = resolve; });
						e[el === "object" ? "data" : "src"] = url;
						document.body.append(e);
						await settled;
						e.remove();
						return true;
					}`, el, base+name)
					check(t, home, el+" of "+name)
				}
			}
			if got := eval[string](home.in(t), `async (url) => {
				try {
					await navigator.serviceWorker.register(url + "sw.js", { scope: url });
					return "registered";
				} catch (e) {
					return e.name;
				}
			}`, base); got == "registered" {
				t.Error("a worker of the attacker's was registered")
			}
			check(t, home, "register")
			// What the owner's own pages import is the owner's choice, and works.
			if got := eval[string](home.in(t), `async (base) => (await import(base + "lib.js")).default`, base); got != "a library" {
				t.Errorf("a library under the root: %q", got)
			}
			if got := eval[string](home.in(t), `async (base) => { const i = new Image(); i.src = base + "cat.svg"; await i.decode(); return "drawn"; }`, base); got != "drawn" {
				t.Errorf("an image under the root: %q", got)
			}
			check(t, home, "imports")
			home.close()
		})
	}
	// Once the owner publishes the same, it runs: or the above would show nothing.
	if got := r.publishSite(evil); !got.Equals(root) {
		t.Fatalf("the same files have root %s, had %s", got, root)
	}
	p := v.open(f.url + "/blank.html")
	join(p)
	p = v.blank().expects(blocked...)
	p.navigate(f.url + base)
	if !eval[bool](p, `() => localStorage.getItem("pwned") !== null`) {
		t.Error("the owner's page does not run")
	}
}
