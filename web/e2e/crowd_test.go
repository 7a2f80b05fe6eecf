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
	var fromRelay, fromPeers, sent int64
	for i, p := range tabs {
		s := p.status()
		t.Logf("visitor %d: %v, %d MiB from the relay, %d from visitors, served %d", i, took[i], s.Bytes.FromRelay>>20, s.Bytes.FromPeers>>20, s.Bytes.Served>>20)
		fromRelay += s.Bytes.FromRelay
		fromPeers += s.Bytes.FromPeers
	}
	after := r.contentBytes()
	for path, n := range after {
		sent += n - before[path]
	}
	t.Logf("the last visitor had it after %.2f × the first's time", float64(slices.Max(took))/float64(slices.Min(took)))
	t.Logf("the relay sent %.2f × the content: %v, before %v; from it came %d MiB, from visitors %d", float64(sent)/size, after, before, fromRelay>>20, fromPeers>>20)
	if sent < size/2 {
		t.Errorf("the relay counts %d bytes of content of %d", sent, size)
	}
	if sent >= 3*size {
		t.Errorf("the relay sent %d bytes, three times the content or more", sent)
	}
}
