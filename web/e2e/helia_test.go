//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/webfabric/weft/relay/server"
)

// heliaPage runs pages/helia.js; globalThis.helia is there once it is up.
const heliaPage = `<!doctype html><meta charset=utf-8><link rel=icon href=data:,><title>Helia</title><script type=module src=/helia.js></script>`

// bundleHelia makes one file of pages/helia.js and the packages it imports.
func bundleHelia(t *testing.T) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "helia.js")
	cmd := exec.Command("node", filepath.Join(packageDir(t, "esbuild"), "bin", "esbuild"), filepath.Join("pages", "helia.js"),
		"--bundle", "--format=esm", "--platform=browser", "--target=es2022", "--define:global=globalThis", "--log-level=error", "--outfile="+out)
	cmd.Stderr = testWriter{t}
	if err := cmd.Run(); err != nil {
		t.Fatalf("bundle Helia: %v", err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestHelia has a tab of Helia and one of ours serve each other, whoever
// dialled. The relay is there for the signalling only: it has ended before a
// block is asked for.
func TestHelia(t *testing.T) {
	t.Parallel()
	script := bundleHelia(t)
	for _, tt := range []struct {
		name string
		dial func(ours, theirs *tab)
	}{
		{"Helia dials", func(ours, theirs *tab) {
			eval[any](theirs, `(id) => helia.dial(helia.relay + "/p2p-circuit/webrtc/p2p/" + id)`, ours.status().PeerID)
		}},
		{"Weft dials", func(ours, theirs *tab) {
			addr := until[string](theirs, "the relay keeps a slot for it", `() => helia.addr()`)
			eval[any](ours, `(addr) => node.connect(addr)`, addr)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := startRelay(t, func(c *server.Config) {
				c.Assets = withFiles{c.Assets, fstest.MapFS{"helia.html": {Data: []byte(heliaPage)}, "helia.js": {Data: script}}}
			})
			ours := r.joined(newVisitor(t))
			theirs := newVisitor(t).open(r.url + "/helia.html")
			id := until[string](theirs, "Helia is up, and connected to the relay", `() => helia.id`)
			relay := r.server.ID().String()
			tt.dial(ours, theirs)
			meets(ours, id)
			until[bool](theirs, "it is connected by WebRTC", `(id) => helia.connections(id).some((a) => a.includes("/webrtc"))`, ours.status().PeerID)
			r.leaves(ours, theirs)
			until[bool](theirs, "the relay and its circuits have gone", `(relay, id) =>
				helia.connections(relay).length === 0 && helia.connections(id).every((a) => a.includes("/webrtc"))`, relay, ours.status().PeerID)

			const size = 5<<20 + 321
			type made struct{ CID, Sum string }
			const makes = `async (add) => {
				const data = new Uint8Array(5 * 1024 * 1024 + 321);
				for (let at = 0; at < data.length; at += 65536) crypto.getRandomValues(data.subarray(at, Math.min(data.length, at + 65536)));
				const sum = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
				return { CID: await add(data), Sum: sum.toHex() };
			}`
			mine := eval[made](theirs, `() => (`+makes+`)((data) => helia.add("data.bin", data))`)
			if got := eval[string](ours, get, mine.CID, "data.bin"); got != mine.Sum {
				t.Errorf("our tab got other bytes")
			}
			if s := ours.status(); s.Bytes.FromPeers < size {
				t.Errorf("%d bytes from peers, want %d", s.Bytes.FromPeers, size)
			}
			mine = eval[made](ours, `() => (`+makes+`)(async (data) => (await node.add({ "data.bin": data })).cid)`)
			got := eval[string](theirs, `async (cid) => new Uint8Array(await crypto.subtle.digest("SHA-256", await helia.cat(cid, "data.bin"))).toHex()`, mine.CID)
			if got != mine.Sum {
				t.Errorf("Helia got other bytes")
			}
			until[bool](ours, "what was given is counted", `async (size) => (await node.status()).bytes.served >= size`, size)
		})
	}
}
