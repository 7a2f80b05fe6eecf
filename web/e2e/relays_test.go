//go:build e2e

package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// unreachable are the errors that a browser logs of a relay that is dead.
var unreachable = []string{"ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE", "net::ERR_FAILED", "WebSocket connection", "Failed to load resource"}

// twoRelays starts two relays of one site: pages are the first's, which names
// the second. Both have what is in dir.
func twoRelays(t *testing.T, dir string) (first, second *process, root string) {
	t.Helper()
	home := t.TempDir()
	second = startProcess(t, home, "--allow-origin", "*")
	first = startProcess(t, home, "--relay", second.url)
	a, b := first.publish(dir), second.publish(dir)
	if a != b {
		t.Fatalf("one folder is %s and %s", a, b)
	}
	for end := time.Now().Add(patience); !strings.Contains(first.get("/weft/config.json"), second.id); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the first relay does not name the second")
		}
	}
	return first, second, a.String()
}

// connectedTo waits until the tab's relays are these.
func (p *tab) connectedTo(relays ...*process) {
	p.t.Helper()
	ids := []string{}
	for _, r := range relays {
		ids = append(ids, r.id)
	}
	slices.Sort(ids)
	until[bool](p, "its relays are the living ones", `async (ids) => {
		const { relays } = await node.status();
		return String(relays.toSorted()) === String(ids);
	}`, ids)
}

// TestRelaysDie kills each of two relays, during a download and while nothing
// happens, and starts it again.
func TestRelaysDie(t *testing.T) {
	t.Parallel()
	dir := site{
		"blank.html": blankPage,
		"a.js":       "export default 'a';", "b.js": "export default 'b';", "c.js": "export default 'c';",
	}.write(t)
	big := make([]byte, 48<<20)
	rand.New(rand.NewSource(1)).Read(big)
	if err := os.WriteFile(filepath.Join(dir, "big.bin"), big, 0o644); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(big)
	first, second, root := twoRelays(t, dir)
	p := newVisitor(t).open(first.url + "/ipfs/" + root + "/blank.html?weft=off").expects(unreachable...)
	join(p)
	p.connectedTo(first, second)

	// During a download: the one in use, which is the one that serves the page too.
	eval[bool](p, `async (root) => {
		const reader = (await node.fetch(root, "big.bin")).body.getReader();
		const parts = [];
		globalThis.got = 0;
		const read = async () => {
			const { value } = await reader.read();
			if (value) { parts.push(value); globalThis.got += value.byteLength; }
			return value;
		};
		while (globalThis.got < 4 << 20) await read();
		globalThis.rest = async () => {
			while (await read());
			const digest = await crypto.subtle.digest("SHA-256", await new Blob(parts).arrayBuffer());
			return [...new Uint8Array(digest)].map((b) => b.toString(16).padStart(2, "0")).join("");
		};
		return true;
	}`, root)
	const served = `weft_relay_egress_bytes_total{path="bitswap"}`
	before := second.metric(served)
	first.kill()
	if got := eval[string](p, `() => rest()`); got != hex.EncodeToString(sum[:]) {
		t.Errorf("the download's SHA-256 is %s, want %x", got, sum)
	}
	if second.metric(served) <= before {
		t.Error("the second relay served nothing after the first had died")
	}
	p.connectedTo(second)
	imports := func(name string) {
		t.Helper()
		if got := eval[string](p, `async (root, name) => (await node.import(root, name + ".js")).default`, root, name); got != name {
			t.Errorf("import of %s.js = %q", name, got)
		}
	}
	imports("a")

	// The page is loaded again though its own server is dead, by a worker that
	// has to start again too.
	p.stopWorker()
	p.reload(false)
	join(p)
	p.connectedTo(second)
	imports("b")

	first.restart()
	p.connectedTo(first, second)

	// While nothing happens.
	second.kill()
	p.connectedTo(first)
	imports("c")
	second.restart()
	p.connectedTo(first, second)
}

// TestNamedRelays has a page name its relays itself, one of which is dead.
func TestNamedRelays(t *testing.T) {
	t.Parallel()
	dir := site{"blank.html": blankPage, "a.js": "export default 'a';"}.write(t)
	first, second, root := twoRelays(t, dir)
	third := startProcess(t, first.home, "--allow-origin", "*")
	third.kill()
	p := newVisitor(t).open(first.url + "/ipfs/" + root + "/blank.html?weft=off").expects(unreachable...)
	eval[bool](p, `async (relays) => {
		const { join } = await import("/weft.js");
		globalThis.node = await join({ relays });
		await node.online;
		return true;
	}`, []string{third.url, second.url})
	p.connectedTo(second)
	if got := eval[string](p, `async (root) => (await node.import(root, "a.js")).default`, root); got != "a" {
		t.Errorf("import = %q", got)
	}
}

// meets waits until p and q, of different visitors, are connected to each other
// by a data channel.
func (p *tab) meets(q *tab) {
	p.t.Helper()
	const by = `async (id) => (await node.status()).peers.some((p) => p.peerId === id && p.transport === "webrtc")`
	until[bool](p, "it is connected to the other visitor", by, q.status().PeerID)
	until[bool](q, "it is connected to the other visitor", by, p.status().PeerID)
}

// sends adds size bytes that nobody has to p's node, has q fetch them, and
// returns how many q then had from visitors: the relay fetches for a tab too.
func (p *tab) sends(q *tab, size int) (fromPeers int64) {
	p.t.Helper()
	cid := eval[string](p, `async (size) => {
		const data = new Uint8Array(size);
		for (let i = 0; i < size; i += 65536) crypto.getRandomValues(data.subarray(i, Math.min(size, i + 65536)));
		return (await node.add([{ path: "x.bin", data: new Blob([data]) }])).cid;
	}`, size)
	before := q.status().Bytes.FromPeers
	if got := eval[int](q, `async (cid) => (await (await node.fetch(cid, "x.bin")).arrayBuffer()).byteLength`, cid); got != size {
		p.t.Errorf("%d bytes came, of %d", got, size)
	}
	return q.status().Bytes.FromPeers - before
}

// gives is sends where visitors have to do all of it.
func (p *tab) gives(q *tab, size int) {
	p.t.Helper()
	if got := p.sends(q, size); got < int64(size) {
		p.t.Errorf("%d bytes came from visitors, of %d", got, size)
	}
}

// TestRelaysGone has two visitors go on exchanging when every relay is dead,
// and meet a third when one is back.
func TestRelaysGone(t *testing.T) {
	t.Parallel()
	first, second, root := twoRelays(t, site{"blank.html": blankPage}.write(t))
	visitor := func() *tab {
		p := newVisitor(t).open(first.url + "/ipfs/" + root + "/blank.html?weft=off").expects(unreachable...)
		join(p)
		p.connectedTo(first, second)
		return p
	}
	a, b := visitor(), visitor()
	a.meets(b)
	first.kill()
	a.connectedTo(second)
	a.gives(b, 4<<20)
	second.kill()
	a.connectedTo()
	b.connectedTo()
	a.gives(b, 4<<20)
	b.gives(a, 4<<20)

	first.restart()
	second.restart()
	c := visitor()
	c.meets(a)
	b.sends(a, 1<<20)
	c.sends(a, 1<<20)
}

// TestRefreshed has a visitor load its page again: under the same peer ID it is
// reached by who knew it before.
func TestRefreshed(t *testing.T) {
	t.Parallel()
	first, second, root := twoRelays(t, site{"blank.html": blankPage}.write(t))
	visitor := func() *tab {
		p := newVisitor(t).open(first.url + "/ipfs/" + root + "/blank.html?weft=off")
		join(p)
		p.connectedTo(first, second)
		return p
	}
	a, b := visitor(), visitor()
	a.meets(b)
	id := b.status().PeerID
	for _, worker := range []bool{false, true} {
		if worker {
			b.stopWorker()
		}
		b.reload(false)
		join(b)
		if got := b.status().PeerID; got != id {
			t.Fatalf("peer ID %s, before it was %s", got, id)
		}
		begun := time.Now()
		for b.sends(a, 1<<20) < 1<<20 {
			if time.Since(begun) > patience {
				t.Fatalf("with its worker stopped: %v; not connected again within %v", worker, patience)
			}
		}
		t.Logf("with its worker stopped: %v; connected again and sending %v after it was online", worker, time.Since(begun))
	}
}
