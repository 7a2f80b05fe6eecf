//go:build e2e && soak

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

func init() { patience = 15 * time.Minute } // 1 GiB is one wait

// rendererBytes is the resident memory of all renderer processes of the tests'
// Chromium, where pages and Service Workers run.
func rendererBytes(t *testing.T) (total int64) {
	t.Helper()
	browser := strconv.Itoa(chromedp.FromContext(chromium.ctx).Browser.Process().Pid)
	parent, kind := map[string]string{}, map[string]bool{}
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended
		}
		pid := filepath.Base(filepath.Dir(f))
		fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		parent[pid] = fields[1]
		cmd, err := os.ReadFile(filepath.Join(filepath.Dir(f), "cmdline"))
		kind[pid] = err == nil && strings.Contains(string(cmd), "--type=renderer")
	}
	for pid := range parent {
		up := pid
		for up != "" && up != browser {
			up = parent[up]
		}
		if up != browser || !kind[pid] {
			continue
		}
		b, err := os.ReadFile(filepath.Join("/proc", pid, "statm"))
		if err != nil {
			continue
		}
		pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		total += pages * int64(os.Getpagesize())
	}
	return total
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestSoak has two visitors fetch for $MINUTES (default 10), and watches the
// memory of the relay, which is this process, and of the tabs. It begins with
// one stream of 1 GiB.
func TestSoak(t *testing.T) {
	minutes := 10
	if s := os.Getenv("MINUTES"); s != "" {
		var err error
		if minutes, err = strconv.Atoi(s); err != nil {
			t.Fatalf("MINUTES: %v", err)
		}
	}
	r := startRelay(t)
	one, two := r.joined(newVisitor(t)), r.joined(newVisitor(t))

	// 1 GiB, of one chunk again and again, so that what is kept stays small and
	// only the stream could grow.
	const piece = 1 << 20
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "gib.bin"))
	if err != nil {
		t.Fatal(err)
	}
	chunks := []string{noise(1, piece), noise(2, piece), noise(3, piece)}
	for i := range 1024 {
		if _, err := f.WriteString(chunks[i%len(chunks)]); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	root := r.publish(dir)
	before := rendererBytes(t)
	got := eval[[2]string](one, streamSums, "/ipfs/"+root.String()+"/gib.bin", piece)
	if got[1] != fmt.Sprint(1<<30) {
		t.Errorf("the stream gave %s bytes, want %d", got[1], 1<<30)
	}
	after := rendererBytes(t)
	t.Logf("1 GiB streamed: tabs had %d MiB, have %d MiB", before>>20, after>>20)
	if after-before > 256<<20 {
		t.Errorf("the tabs grew by %d MiB while 1 GiB went through", (after-before)>>20)
	}

	// The first round fills caches; from the second on memory is compared.
	end := time.Now().Add(time.Duration(minutes) * time.Minute)
	var tabs, relay int64
	for round := 0; time.Now().Before(end) || round < 3; round++ {
		s := site{}
		for i := range 16 {
			s[fmt.Sprintf("f%d.bin", i)] = noise(rand.Uint64()&0xffff, 64<<10+rand.IntN(2<<20))
		}
		root := r.publishSite(s)
		for _, p := range []*tab{one, two} {
			eval[bool](p, `async (root, names) => {
				await Promise.all(names.map(async (n) => { const r = await node.fetch(root, n); if (!r.ok) throw new Error(n + ": " + r.status); await r.arrayBuffer(); }));
				await node.clear();
				return true;
			}`, root.String(), []string{"f0.bin", "f1.bin", "f2.bin", "f3.bin", "f4.bin", "f5.bin", "f6.bin", "f7.bin", "f8.bin", "f9.bin", "f10.bin", "f11.bin", "f12.bin", "f13.bin", "f14.bin", "f15.bin"})
		}
		// The publisher's store is in memory here; what the relay holds is on disk.
		if keys, err := r.blocks.AllKeysChan(t.Context()); err == nil {
			for c := range keys {
				if err := r.blocks.DeleteBlock(t.Context(), c); err != nil {
					t.Fatal(err)
				}
			}
		}
		h, b := heap(), rendererBytes(t)
		if round == 1 {
			tabs, relay = b, h
		}
		if round%10 == 0 {
			t.Logf("round %d: relay's heap %d MiB, tabs %d MiB", round, h>>20, b>>20)
		}
	}
	h, b := heap(), rendererBytes(t)
	t.Logf("end: relay's heap %d MiB (was %d), tabs %d MiB (were %d)", h>>20, relay>>20, b>>20, tabs>>20)
	if h > 2*relay+256<<20 {
		t.Errorf("the relay's heap grew from %d to %d MiB", relay>>20, h>>20)
	}
	if b > 2*tabs+256<<20 {
		t.Errorf("the tabs grew from %d to %d MiB", tabs>>20, b>>20)
	}
}
