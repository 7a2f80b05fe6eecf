//go:build e2e

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
)

const (
	// visitorsAtOnce is how many come and go, and pool how many sites there are
	// to fetch from, of which one is replaced now and then.
	visitorsAtOnce = 6
	pool           = 4
)

// inside is what the node in the tab holds, where its worker is one for tests.
type inside struct {
	Goroutines int `json:"goroutines"`
	Values     int `json:"values"` // JavaScript values that Go holds, js.Funcs among them
	Heap       int `json:"heap"`   // bytes
	// Uncollected is Values before the collection that the question begins with.
	Uncollected int `json:"uncollected"`
}

// inspects gives the page inside(), where its worker is one for tests.
func (p *tab) inspects() {
	p.t.Helper()
	eval[bool](p, `() => {
		globalThis.inside = () => {
			const { port1, port2 } = new MessageChannel();
			const reply = new Promise((resolve) => port1.onmessage = (e) => resolve(e.data.result));
			navigator.serviceWorker.controller.postMessage({ weft: "inspect", id: 1, args: {} }, [port2]);
			return reply;
		};
		return true;
	}`)
}

// steady waits until the node holds no more than it did, and returns what it holds.
func (p *tab) steady(most inside) inside {
	p.t.Helper()
	return until[inside](p, fmt.Sprintf("no more is held than %+v", most), `async (most) => {
		const now = await inside();
		if (now.goroutines > most.goroutines || now.values > most.values || now.heap > most.heap) throw new Error(JSON.stringify(now));
		return now;
	}`, most)
}

// TestSoakChurn has six visitors come and go at random, each fetching random
// files of random sites, from each other and the relay, for a minute, or for
// $MINUTES. No fetch fails, and one visitor who stays, and the relay, hold no
// more when all have left than they did before.
func TestSoakChurn(t *testing.T) {
	length := time.Minute
	if s := os.Getenv("MINUTES"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("MINUTES: %v", err)
		}
		length = time.Duration(n) * time.Minute
	}
	r := startRelay(t)
	type published struct {
		root  cid.Cid
		files map[string]string // name to SHA-256
	}
	publish := func(seed uint64) published {
		s, p := site{}, published{files: map[string]string{}}
		for i := range 4 {
			name := fmt.Sprintf("f%d.bin", i)
			s[name] = noise(seed*16+uint64(i), 10_000+rand.IntN(4<<20))
			p.files[name] = sum(s[name])
		}
		p.root = r.publishSite(s)
		return p
	}
	var sites []published
	for i := range pool {
		sites = append(sites, publish(uint64(500+i)))
	}

	// come returns somebody's page; a visitor who stays has a worker for tests.
	come := func(v *visitor, worker string) (*tab, error) {
		p := v.open(r.url + "/blank.html")
		_, err := try[bool](p, `async (worker) => {
			const { join } = await import("/weft.js");
			globalThis.node = await join({ worker });
			await node.online;
			return true;
		}`, worker)
		return p, err
	}
	// any is some file's site and name.
	any := func() (published, string) {
		s := sites[rand.IntN(len(sites))]
		for name := range s.files {
			return s, name
		}
		panic("a site without files")
	}
	fetch := func(p *tab, s published, name string) error {
		got, err := try[string](p, sumOf, s.root.String(), name)
		if err != nil {
			return fmt.Errorf("%s/%s: %w", s.root, name, err)
		}
		if got != s.files[name] {
			return fmt.Errorf("%s/%s: other bytes", s.root, name)
		}
		return nil
	}
	stays, err := come(newVisitor(t), "/sw.js?test")
	if err != nil {
		t.Fatal(err)
	}
	stays.inspects()

	type guest struct {
		v *visitor
		p *tab
	}
	var guests [visitorsAtOnce]*guest
	var fetched, came int
	// round has each guest come or go, with even chances, and all that are there
	// fetch at the same time: half of them the same file, the others any.
	round := func(all bool) {
		for i, g := range guests {
			switch {
			case g == nil && (all || rand.IntN(2) == 0):
				v := newVisitor(t)
				p, err := come(v, "/sw.js")
				if err != nil {
					t.Fatalf("a visitor could not join: %v", err)
				}
				guests[i] = &guest{v, p}
				came++
			case g != nil && !all && rand.IntN(2) == 0:
				g.v.leave()
				guests[i] = nil
			}
		}
		hot, hotName := any()
		var wg sync.WaitGroup
		var mu sync.Mutex
		for _, p := range append([]*tab{stays}, func() (ps []*tab) {
			for _, g := range guests {
				if g != nil {
					ps = append(ps, g.p)
				}
			}
			return ps
		}()...) {
			wg.Go(func() {
				s, name := hot, hotName
				if rand.IntN(2) == 0 {
					s, name = any()
				}
				err := fetch(p, s, name)
				mu.Lock()
				defer mu.Unlock()
				fetched++
				if err != nil {
					t.Errorf("fetch %d: %v", fetched, err)
				}
			})
		}
		wg.Wait()
	}
	empty := func() {
		for i, g := range guests {
			if g != nil {
				g.v.leave()
				guests[i] = nil
			}
		}
		until[bool](stays, "everyone has left", `async () => (await node.status()).peers.every((p) => p.relay)`)
	}

	// What is held after one full house is what a node holds.
	round(true)
	empty()
	most := eval[inside](stays, `() => inside()`)
	relayMost := runtime.NumGoroutine()
	t.Logf("after the first: %+v in the tab, %d goroutines here", most, relayMost)
	most.Goroutines += 20
	most.Values += 200
	most.Heap = 2*most.Heap + 32<<20
	for end := time.Now().Add(length); time.Now().Before(end) && !t.Failed(); {
		round(false)
		if rand.IntN(4) == 0 {
			sites[rand.IntN(pool)] = publish(rand.Uint64() >> 8)
		}
	}
	empty()
	t.Logf("%d visitors came, %d files were fetched; at the end %+v in the tab", came, fetched, stays.steady(most))
	for deadline := time.Now().Add(patience); runtime.NumGoroutine() > relayMost+50; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			buf := new([1 << 20]byte)[:]
			t.Errorf("%d goroutines here, %d after the first full house:\n%s", runtime.NumGoroutine(), relayMost, buf[:runtime.Stack(buf, true)])
			break
		}
	}
	if s := stays.status(); s.Bytes.FromPeers == 0 {
		t.Error("nothing came from a visitor")
	}
}
