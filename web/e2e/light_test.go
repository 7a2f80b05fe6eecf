//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// nodeMemory is the most that the node may take for itself, in bytes, however
// long a stream is.
const nodeMemory = 192 << 20

// nodeValues is the most JavaScript values that it may refer to: a chunk that
// is passed on is nine, and until Go collects, the buffer stays that it is in.
const nodeValues = 3000

// TestLight has much come into a page: the node's memory stays bounded, and the
// page's main thread is not held up. The sizes are small enough for every day;
// with MEASURE=1 (`make measure`) it is 1 GiB, and main-thread tasks over 50 ms,
// which a busy machine makes by itself, are errors.
func TestLight(t *testing.T) {
	r := startRelay(t)
	p := newVisitor(t).open(r.url + "/blank.html")
	eval[bool](p, `async () => {
		const { join } = await import("/weft.js");
		globalThis.node = await join({ worker: "/sw.js?test" });
		await node.online;
		return true;
	}`)
	p.inspects()
	measure := os.Getenv("MEASURE") != ""

	// One chunk again and again, so that what is kept stays small.
	stream := func(pieces int) string {
		t.Helper()
		dir := t.TempDir()
		f, err := os.Create(filepath.Join(dir, "stream.bin"))
		if err != nil {
			t.Fatal(err)
		}
		chunks := []string{noise(1, 1<<20), noise(2, 1<<20), noise(3, 1<<20)}
		for i := range pieces {
			if _, err := f.WriteString(chunks[i%len(chunks)]); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		return "/ipfs/" + r.publish(dir).String() + "/stream.bin"
	}
	size := 128
	if measure {
		size = 1024
	}
	// 64 MiB of blocks that all come over the network and are all kept.
	fresh := r.publishSite(site{"fresh.bin": noise(4, 64<<20)})
	for _, tt := range []struct {
		name, url string
		bytes     int
	}{
		{"64 MiB fetched", "/ipfs/" + fresh.String() + "/fresh.bin", 64 << 20},
		{fmt.Sprintf("%d MiB streamed", size), stream(size), size << 20},
	} {
		got := eval[struct {
			Bytes int       `json:"bytes"`
			Tasks []float64 `json:"tasks"`
			Took  float64   `json:"took"`
		}](p, `async (url) => {
			const tasks = [];
			const observer = new PerformanceObserver((list) => tasks.push(...list.getEntries().map((e) => e.duration)));
			observer.observe({ type: "longtask" });
			const begun = performance.now();
			const response = await fetch(url);
			if (!response.ok) throw new Error(url + ": status " + response.status);
			const reader = response.body.getReader();
			let bytes = 0;
			for (let part; !(part = await reader.read()).done;) bytes += part.value.length;
			const took = performance.now() - begun;
			await new Promise((resolve) => setTimeout(resolve, 0)); // what was observed is told in a task of its own
			tasks.push(...observer.takeRecords().map((e) => e.duration));
			observer.disconnect();
			return { bytes, tasks, took };
		}`, tt.url)
		memory, held := p.status().Memory, eval[inside](p, `() => inside()`)
		t.Logf("%s in %.0f ms: %d main-thread tasks over 50 ms %v; the node has %d MiB and refers to %d values", tt.name, got.Took, len(got.Tasks), got.Tasks, memory>>20, held.Uncollected)
		if got.Bytes != tt.bytes {
			t.Errorf("%s: %d bytes came, want %d", tt.name, got.Bytes, tt.bytes)
		}
		if memory == 0 || memory > nodeMemory {
			t.Errorf("%s: the node has %d bytes of memory, want at most %d", tt.name, memory, nodeMemory)
		}
		if held.Uncollected > nodeValues {
			t.Errorf("%s: the node refers to %d JavaScript values, want at most %d", tt.name, held.Uncollected, nodeValues)
		}
		if measure && len(got.Tasks) > 0 {
			t.Errorf("%s: main-thread tasks of %v ms", tt.name, got.Tasks)
		}
	}
}
