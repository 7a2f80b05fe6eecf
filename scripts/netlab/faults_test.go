//go:build netlab

package netlab_test

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/webfabric/weft/scripts/netlab"
)

// patience caps every wait: far above what anything takes.
const patience = 2 * time.Minute

// A relay is a `weft relay` of its own on a node that all can reach.
type relay struct {
	t    *testing.T
	url  string
	http *http.Client
	cmd  *exec.Cmd
}

// start makes a lab with a relay.
func start(t *testing.T) (*netlab.Lab, *relay) {
	t.Helper()
	bin, err := filepath.Abs("../../bin/weft")
	if err == nil {
		_, err = os.Stat(bin)
	}
	if err != nil {
		t.Fatalf("no bin/weft: run `make build` first, or `make netlab`: %v", err)
	}
	lab := netlab.New()
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	n := place(t, lab, netlab.NoNAT, netlab.Line{})
	r := &relay{t: t, http: n.Client()}
	r.cmd = exec.Command(bin, "relay", "--no-demo", "--data", t.TempDir(), "--listen", n.Addr.String()+":8787")
	r.cmd.Env = append(os.Environ(), "WEFT_HOME="+t.TempDir())
	log := &tail{}
	r.cmd.Stderr = log
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Start(r.cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.kill()
		if t.Failed() {
			t.Logf("relay:\n%s", log)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("weft relay printed no URL: %v\n%s", err, log)
	}
	r.url = strings.TrimSpace(line)
	return lab, r
}

// place adds a node to the lab.
func place(t *testing.T, lab *netlab.Lab, nat netlab.NAT, line netlab.Line) *netlab.Node {
	t.Helper()
	n, err := lab.Node(nat, line)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// kill ends the relay as a power cut would.
func (r *relay) kill() {
	if r.cmd != nil {
		r.cmd.Process.Kill() // it may have ended
		r.cmd.Wait()
		r.cmd = nil
	}
}

func (r *relay) get(path string) []byte {
	r.t.Helper()
	resp, err := r.http.Get(r.url + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		r.t.Fatalf("%s: %s, %v", path, resp.Status, err)
	}
	return b
}

func (r *relay) config() []byte { r.t.Helper(); return r.get("/weft/config.json") }

// egress is how many bytes the relay has sent by path.
func (r *relay) egress(path string) int {
	r.t.Helper()
	for line := range strings.Lines(string(r.get("/metrics"))) {
		if value, ok := strings.CutPrefix(line, `weft_relay_egress_bytes_total{path="`+path+`"} `); ok {
			f, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				r.t.Fatal(err)
			}
			return int(f)
		}
	}
	return 0
}

// TestBadLine: a visitor whose line has a round trip of 80 ms and 10 Mbit/s, and
// loses 2 % of all packets each way, fetches from another one what nobody else
// has: with a relay that may help, and without.
func TestBadLine(t *testing.T) {
	t.Parallel()
	for _, alone := range []bool{false, true} {
		t.Run(map[bool]string{false: "with the relay", true: "alone"}[alone], func(t *testing.T) {
			t.Parallel()
			lab, r := start(t)
			const size = 2<<20 + 321
			giver := r.guest(place(t, lab, netlab.NoNAT, netlab.Line{}))
			root := giver.must(order{Do: "add", Seed: 1, Size: size, Chunk: 1 << 20}).Root
			taker := r.guest(place(t, lab, netlab.NoNAT, netlab.Line{Delay: 40 * time.Millisecond, Loss: 0.02, Rate: 10_000_000}))
			taker.until("they meet", over("webrtc"))
			if alone {
				r.kill()
			}
			a := taker.fetch(root, 1, size)
			s := taker.status().Stats
			t.Logf("%.1f s; from the other visitor %d bytes, from the relay %d", a.Took, s.FromPeers, s.FromRelay)
			if alone && s.FromPeers < size {
				t.Errorf("%d bytes from the other visitor, want all %d", s.FromPeers, size)
			}
		})
	}
}

// TestStall: the only visitor who has a file gives 99 of its 100 blocks and
// then nothing more; another one comes who has it too.
func TestStall(t *testing.T) {
	t.Parallel()
	lab, r := start(t)
	const chunk = 64 << 10
	const size = 100 * chunk
	staller := r.guest(place(t, lab, netlab.NoNAT, netlab.Line{}))
	root := staller.must(order{Do: "add", Seed: 2, Size: size, Chunk: chunk, Hold: true}).Root
	taker := r.guest(place(t, lab, netlab.NoNAT, netlab.Line{}))
	taker.until("they meet", over("webrtc"))
	taker.must(order{Do: "fetch", Root: root})
	taker.until("99 % are there", func(a answer) bool { return a.Stats.FromPeers+a.Stats.FromRelay >= 99*chunk })
	staller.until("the last block is asked for", func(a answer) bool { return a.Held })
	other := r.guest(place(t, lab, netlab.NoNAT, netlab.Line{}))
	other.must(order{Do: "add", Seed: 2, Size: size, Chunk: chunk})
	a := taker.fetched(2, size)
	t.Logf("%.1f s", a.Took)
}

// TestLiar: the visitor who says that it has a file sends something else; one
// that has it is there too.
func TestLiar(t *testing.T) {
	t.Parallel()
	lab, r := start(t)
	const size = 4 << 20
	liar := r.guest(place(t, lab, netlab.NoNAT, netlab.Line{}))
	root := liar.must(order{Do: "lie", Seed: 3, Size: size, Chunk: 256 << 10}).Root
	taker := r.guest(place(t, lab, netlab.NoNAT, netlab.Line{}))
	taker.until("they meet", over("webrtc"))
	honest := r.guest(place(t, lab, netlab.NoNAT, netlab.Line{}))
	honest.must(order{Do: "add", Seed: 3, Size: size, Chunk: 256 << 10})
	a := taker.fetch(root, 3, size)
	t.Logf("%.1f s", a.Took)
	id := liar.status().ID
	taker.until("the liar is shut out", func(a answer) bool {
		for _, p := range a.Peers {
			if p.ID == id {
				return false
			}
		}
		return len(a.Liars) == 1 && a.Liars[0] == id
	})
}

// TestNAT: two visitors behind NATs find a way to each other by the relay's
// STUN, and go on without the relay.
func TestNAT(t *testing.T) {
	t.Parallel()
	lab, r := start(t)
	const size = 4<<20 + 321
	giver := r.guest(place(t, lab, netlab.Cone, netlab.Line{Delay: 10 * time.Millisecond}))
	root := giver.must(order{Do: "add", Seed: 4, Size: size, Chunk: 1 << 20}).Root
	taker := r.guest(place(t, lab, netlab.Cone, netlab.Line{Delay: 10 * time.Millisecond}))
	for _, g := range []*guest{giver, taker} {
		g.until("they meet", over("webrtc"))
	}
	r.kill()
	a := taker.fetch(root, 4, size)
	s := taker.status()
	t.Logf("%.1f s", a.Took)
	if s.Stats.FromPeers < size || s.Stats.FromRelay != 0 {
		t.Errorf("%d bytes from the other visitor, %d from the relay", s.Stats.FromPeers, s.Stats.FromRelay)
	}
}

// TestCircuitOnly: no address of one visitor's can be reached by the other, so
// only what goes through the relay gets there: at first what it fetches for
// them, or the circuit that they signal on, and then a circuit that the swarm
// takes for want of something better.
func TestCircuitOnly(t *testing.T) {
	t.Parallel()
	lab, r := start(t)
	const size = 4<<20 + 321
	giver := r.guest(place(t, lab, netlab.Symmetric, netlab.Line{Delay: 10 * time.Millisecond}))
	first := giver.must(order{Do: "add", Seed: 5, Size: size, Chunk: 1 << 20}).Root
	taker := r.guest(place(t, lab, netlab.Symmetric, netlab.Line{Delay: 10 * time.Millisecond}))
	a := taker.fetch(first, 5, size)
	before := taker.status().Stats
	t.Logf("at once: %.1f s; from the other visitor %d bytes, from the relay %d", a.Took, before.FromPeers, before.FromRelay)

	// One of the two dials, gives up, and makes do with a circuit.
	taker.until("the swarm has a circuit", func(a answer) bool { return a.Swarm > 0 || giver.status().Swarm > 0 })
	second := giver.must(order{Do: "add", Seed: 6, Size: size, Chunk: 1 << 20}).Root
	a = taker.fetch(second, 6, size)
	s := taker.status()
	t.Logf("by the circuit: %.1f s; from the other visitor %d bytes, from the relay %d", a.Took, s.Stats.FromPeers-before.FromPeers, s.Stats.FromRelay-before.FromRelay)
	if !over("circuit")(s) || s.Stats.FromPeers == before.FromPeers || r.egress("circuit") < int(s.Stats.FromPeers) {
		t.Errorf("neighbours are %+v; %d bytes from the other visitor; the relay carried %d by circuits", s.Peers, s.Stats.FromPeers, r.egress("circuit"))
	}
	if over("webrtc")(s) {
		t.Error("a way was found between two symmetric NATs")
	}
}
