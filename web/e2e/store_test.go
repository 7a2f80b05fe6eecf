//go:build e2e

package e2e

import (
	"fmt"
	"testing"

	"github.com/chromedp/cdproto/storage"
	"github.com/chromedp/chromedp"
)

// TestAdd adds files in a tab, and has another visitor fetch them through the
// relay while the relay itself keeps nothing of them.
func TestAdd(t *testing.T) {
	t.Parallel()
	r := startRelay(t)
	p := r.joined(newVisitor(t))
	s := site{"index.js": "import { n } from './lib/n.js'; export default n;", "lib/n.js": "export const n = 9;", "big.bin": noise(5, 5<<20)}
	type added struct{ Cid, URL string }
	got := eval[added](p, `async (files) => {
		const noise = new Uint8Array(files["big.bin"]);
		for (let i = 0; i < noise.length; i++) noise[i] = i * 31 + (i >> 8);
		const added = await node.add({ "index.js": files["index.js"], "lib/n.js": files["lib/n.js"], "big.bin": new Blob([noise]) });
		return { Cid: added.cid, URL: added.url };
	}`, map[string]any{"index.js": s["index.js"], "lib/n.js": s["lib/n.js"], "big.bin": 5 << 20})
	// The same files give the same CID as `weft publish` makes.
	big := make([]byte, 5<<20)
	for i := range big {
		big[i] = byte(i*31 + i>>8)
	}
	s["big.bin"] = string(big)
	if want := r.stranger(s); got.Cid != want.String() {
		t.Errorf("node.add: %s, want %s as publish makes it", got.Cid, want)
	}
	if n := eval[int](p, `async (cid) => (await node.import(cid, "index.js")).default`, got.Cid); n != 9 {
		t.Errorf("import of what was added = %d", n)
	}
	// It is pinned: nobody else may have it.
	eval[bool](p, `async () => { await node.clear(); return true; }`)
	if pins := eval[[]string](p, `() => node.pins()`); len(pins) != 1 || pins[0] != got.Cid {
		t.Errorf("pins = %v, want [%s]", pins, got.Cid)
	}
	if have := eval[string](p, `async (cid) => new Uint8Array(await crypto.subtle.digest("SHA-256", await (await node.fetch(cid, "big.bin")).arrayBuffer())).toHex()`, got.Cid); have != sum(string(big)) {
		t.Error("other bytes than were added")
	}
	// Another visitor, through the relay.
	only := eval[string](p, `async () => (await node.add({ "only.js": "export default 'only here';" })).cid`)
	q := r.joined(newVisitor(t))
	if text := eval[string](q, `async (cid) => (await node.import(cid, "only.js")).default`, only); text != "only here" {
		t.Errorf("another visitor imported %q", text)
	}
	until[bool](p, "what was served is counted", `async () => (await node.status()).bytes.served > 0`)
	// Unpinned, it goes.
	before := p.status()
	eval[bool](p, `async (cid) => { await node.unpin(cid); await node.clear(); return true; }`, got.Cid)
	after := p.status()
	if after.Storage.Used >= before.Storage.Used || after.Blocks >= before.Blocks {
		t.Errorf("after unpin and clear: %+v, was %+v", after.Storage, before.Storage)
	}
	_, err := try[bool](p, `async () => { await node.pin("nonsense"); return true; }`)
	if js, ok := err.(*jsError); !ok || js.Code != "bad_cid" {
		t.Errorf("pin of nonsense: %v, want bad_cid", err)
	}
}

// TestQuota fetches more than the browser gives room for: what was used least
// recently goes, what is pinned and what is being read stays.
func TestQuota(t *testing.T) {
	t.Parallel()
	const size, piece, files = 24 << 20, 1 << 20, 6
	r := startRelay(t)
	var roots []string
	var want []string
	for i := range files {
		data := noise(uint64(200+i), size)
		want = append(want, sums([]byte(data), piece))
		roots = append(roots, r.publishSite(site{"f.bin": data}).String())
	}
	v := newVisitor(t)
	p := v.open(r.url + "/blank.html")
	// The browser holds the node to this, and tells it 10 GiB, as it tells all
	// pages so that they learn nothing of the disk. The node's own program
	// takes a part, and the browser looks only now and then: some more may fit.
	quota := float64(96 << 20)
	if _, err := chromedp.Call(p.ctx, storage.OverrideQuotaForOrigin, storage.OverrideQuotaForOriginParams{Origin: r.url, QuotaSize: &quota}); err != nil {
		t.Fatal(err)
	}
	join(p)
	eval[bool](p, `async (cid) => { await node.pin(cid); return true; }`, roots[0])
	for i := 1; i < files; i++ {
		got := eval[[2]string](p, streamSums, "/ipfs/"+roots[i]+"/f.bin", piece)
		if got[0] != want[i] || got[1] != fmt.Sprint(size) {
			t.Errorf("file %d: %s bytes with other content than was published", i, got[1])
		}
	}
	s := p.status()
	if s.Storage.Pinned < size || s.Storage.Used < 2*size || s.Storage.Used >= files*size {
		t.Errorf("status().storage = %+v: want what fits of %d, under a quota of %.0f", s.Storage, files*size, quota)
	}
	// What was read a moment ago is not thrown out at once, so the last file
	// may have found no room. In a while it does.
	last := "/ipfs/" + roots[files-1] + "/f.bin"
	until[bool](p, "the file in use is kept whole", `async (url, piece) => {
		const before = (await node.status()).bytes.fromRelay;
		await (`+streamSums+`)(url, piece);
		return (await node.status()).bytes.fromRelay === before;
	}`, last, piece)
	r.stop()
	p.expects("ERR_CONNECTION_REFUSED", "net::ERR_FAILED", "WebSocket connection", "status of 504")
	if got := eval[[2]string](p, streamSums, last, piece); got[0] != want[files-1] {
		t.Error("the file that was used last is gone")
	}
	if got := eval[[2]string](p, streamSums, "/ipfs/"+roots[0]+"/f.bin", piece); got[0] != want[0] {
		t.Error("the pinned file is gone")
	}
	until[bool](p, "the node notices", `async () => (await node.status()).relays.length === 0`)
	if status := eval[int](p, `async (cid) => (await node.fetch(cid, "f.bin")).status`, roots[1]); status == 200 {
		// Its root may be there: then its end is not.
		if _, err := try[[2]string](p, streamSums, "/ipfs/"+roots[1]+"/f.bin", piece); err == nil {
			t.Error("the file that was used least recently is still there whole")
		}
	}
}
