//go:build e2e

package e2e

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/webfabric/weft/relay/server"
)

// staticHost serves dir as any host of static files does, at localhost.
func staticHost(t *testing.T, dir string) string {
	t.Helper()
	srv := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	return "http://localhost:" + u.Port()
}

// TestElsewhere has a page on a static host join through a relay that names it
// an allowed origin; a page that it does not name is refused.
func TestElsewhere(t *testing.T) {
	t.Parallel()
	bin := weftBinary(t)
	dir := t.TempDir()
	if out, err := exec.Command(bin, "assets", dir).CombinedOutput(); err != nil {
		t.Fatalf("weft assets: %v\n%s", err, out)
	}
	if err := os.WriteFile(filepath.Join(dir, "blank.html"), []byte(blankPage), 0o644); err != nil {
		t.Fatal(err)
	}
	allowed, refused := staticHost(t, dir), staticHost(t, dir)
	r := startRelay(t, func(c *server.Config) { c.AllowOrigins = []string{allowed} })
	root := r.publishSite(site{"m.js": "export default 3;", "index.html": "<!doctype html><title>x</title><script>localStorage.pwned = 1</script>"})

	v := newVisitor(t)
	p := v.open(allowed + "/blank.html")
	eval[bool](p, `async (relay) => {
		const { join } = await import("/weft.js");
		globalThis.node = await join({ relays: [relay] });
		await node.online;
		return true;
	}`, r.url)
	if got := eval[int](p, `async (root) => (await node.import(root, "m.js")).default`, root.String()); got != 3 {
		t.Errorf("import = %d", got)
	}
	if s := p.status(); len(s.Relays) != 1 || s.Relays[0] != r.server.ID().String() {
		t.Errorf("relays = %v, want the one named", s.Relays)
	}
	// The worker remembers its relays.
	p.stopWorker()
	if got := eval[string](p, `async (root) => { await node.online; return (await node.fetch(root, "m.js")).text(); }`, root.String()); got != "export default 3;" {
		t.Errorf("after a stop: %q", got)
	}
	// What the relay's owner publishes is not this origin's own.
	v.open(allowed + "/ipfs/" + root.String() + "/")
	if eval[bool](p, `() => localStorage.getItem("pwned") !== null`) {
		t.Error("a page of the relay's owner ran with the rights of another origin")
	}

	p = newVisitor(t).open(refused + "/blank.html")
	p.expects("CORS", "ERR_FAILED", "WebSocket connection", "status of 403")
	if got := eval[string](p, `(relay) => fetch(relay + "/weft/config.json").then(() => "answered", () => "refused")`, r.url); got != "refused" {
		t.Errorf("CORS: %s", got)
	}
	if got := eval[string](p, `(relay) => new Promise((resolve) => {
		const ws = new WebSocket(relay.replace("http", "ws") + "/");
		ws.onopen = () => resolve("answered");
		ws.onerror = () => resolve("refused");
	})`, r.url); got != "refused" {
		t.Errorf("WebSocket: %s", got)
	}
	_, err := try[bool](p, `async (relay) => { await (await import("/weft.js")).join({ relays: [relay] }); return true; }`, r.url)
	if js, ok := err.(*jsError); !ok || js.Code != "no_relay" {
		t.Errorf("join through a relay that refuses: %v, want no_relay", err)
	}
}
