//go:build e2e

package e2e

import (
	"bufio"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// contentBytes is what the relay has sent of content, by path.
func (r *relay) contentBytes() map[string]int64 {
	r.t.Helper()
	resp, err := http.Get(r.url + "/metrics")
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	sums := map[string]int64{}
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		rest, ok := strings.CutPrefix(lines.Text(), `weft_relay_egress_bytes_total{path="`)
		path, value, cut := strings.Cut(rest, `"} `)
		if !ok || !cut || !slices.Contains([]string{"gateway", "bitswap", "circuit"}, path) {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			r.t.Fatal(err)
		}
		sums[path] = int64(v)
	}
	return sums
}

// sent is how many bytes of content that is altogether, since before.
func (r *relay) sent(before map[string]int64) (n int64) {
	r.t.Helper()
	for path, now := range r.contentBytes() {
		n += now - before[path]
	}
	return n
}

// TestLatecomers has visitors come one after another to a site of many small
// files and a large one, which those before them have: together they cost the
// relay less than the first one did.
func TestLatecomers(t *testing.T) {
	t.Parallel()
	const latecomers, files, large = 3, 60, 8 << 20
	s := site{"large.bin": noise(30, large)}
	for i := range files {
		s[fmt.Sprintf("m%d.js", i)] = noise(uint64(31+i), 10_000)
	}
	r := startRelay(t)
	root := r.publishSite(s)
	before := r.contentBytes()
	visit := func() *tab {
		p := r.joined(newVisitor(t))
		if r.sent(before) > 0 {
			until[bool](p, "there is a neighbour", `async () => (await node.status()).peers.some((p) => p.transport === "webrtc")`)
		}
		// Six at a time, as browsers do.
		got := eval[int](p, `async (root, files) => {
			let bytes = 0;
			const names = ["large.bin", ...Array.from({ length: files }, (_, i) => "m" + i + ".js")];
			await Promise.all(Array.from({ length: 6 }, async () => {
				for (let name; (name = names.pop());) {
					const response = await fetch("/ipfs/" + root + "/" + name);
					if (!response.ok) throw new Error(name + ": " + response.status);
					const { byteLength } = await response.arrayBuffer();
					bytes += byteLength;
				}
			}));
			return bytes;
		}`, root.String(), files)
		if want := large + files*10_000; got != want {
			t.Errorf("%d bytes came, want %d", got, want)
		}
		return p
	}
	visit()
	first := r.sent(before)
	before = r.contentBytes()
	for i := range latecomers {
		s := visit().status()
		t.Logf("latecomer %d: %d KiB from the relay, %d from visitors: %+v", i, s.Bytes.FromRelay>>10, s.Bytes.FromPeers>>10, s.Peers)
	}
	late := r.sent(before)
	t.Logf("the relay sent %d KiB to the first visitor, and %d to %d latecomers: %v, before them %v", first>>10, late>>10, latecomers, r.contentBytes(), before)
	if late >= first {
		t.Errorf("%d latecomers cost the relay %d bytes, the first visitor %d", latecomers, late, first)
	}
}

// TestFlashCrowd has eight visitors fetch the same 16 MiB at the same time:
// they get most of it from each other. It has the machine for itself.
func TestFlashCrowd(t *testing.T) {
	const visitors, size, piece = 8, 16 << 20, 1 << 20
	data := noise(16, size)
	r := startRelay(t)
	root := r.publishSite(site{"large.bin": data})
	want := sums([]byte(data), piece)
	before := r.contentBytes()
	tabs := make([]*tab, visitors)
	var joining sync.WaitGroup
	for i := range tabs {
		v := newVisitor(t)
		joining.Go(func() { tabs[i] = r.joined(v) })
	}
	joining.Wait()
	for _, p := range tabs {
		until[bool](p, "there are neighbours", `async () => (await node.status()).peers.some((p) => p.transport === "webrtc")`)
	}
	for i, p := range tabs {
		t.Logf("visitor %d has %d neighbours", i, len(p.status().Peers)-1)
	}
	var fetching sync.WaitGroup
	took := make([]time.Duration, visitors)
	begun := time.Now()
	for i, p := range tabs {
		fetching.Go(func() {
			got := eval[[2]string](p, streamSums, "/ipfs/"+root.String()+"/large.bin", piece)
			if got[0] != want || got[1] != fmt.Sprint(size) {
				t.Errorf("visitor %d got %s bytes with other content than was published", i, got[1])
			}
			took[i] = time.Since(begun)
		})
	}
	fetching.Wait()
	var fromRelay, fromPeers int64
	for i, p := range tabs {
		s := p.status()
		t.Logf("visitor %d: %v, %d MiB from the relay, %d from visitors, served %d", i, took[i], s.Bytes.FromRelay>>20, s.Bytes.FromPeers>>20, s.Bytes.Served>>20)
		fromRelay += s.Bytes.FromRelay
		fromPeers += s.Bytes.FromPeers
	}
	sent := r.sent(before)
	t.Logf("the last visitor had it after %.2f × the first's time", float64(slices.Max(took))/float64(slices.Min(took)))
	t.Logf("the relay sent %.2f × the content; from it came %d MiB, from visitors %d", float64(sent)/size, fromRelay>>20, fromPeers>>20)
	if sent < size/2 {
		t.Errorf("the relay counts %d bytes of content of %d", sent, size)
	}
	if sent >= 3*size {
		t.Errorf("the relay sent %d bytes, three times the content or more", sent)
	}
}
