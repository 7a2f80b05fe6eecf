//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/webfabric/weft/relay/client"
)

// weftBinary is bin/weft.
func weftBinary(t *testing.T) string {
	t.Helper()
	bin, err := filepath.Abs("../../bin/weft")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(bin); err != nil {
		t.Fatalf("no bin/weft: run `make build` first, or `make e2e`: %v", err)
	}
	return bin
}

// A process is a `weft relay` of its own, for tests that kill it.
type process struct {
	t    *testing.T
	bin  string
	home string
	args []string
	url  string // stays over restarts
	id   string
	cmd  *exec.Cmd // nil while it is dead
}

// startProcess starts one on a free port. Those with the same home take what
// one user publishes.
func startProcess(t *testing.T, home string, args ...string) *process {
	t.Helper()
	p := &process{t: t, bin: weftBinary(t), home: home}
	p.args = append([]string{"relay", "--no-demo", "--data", t.TempDir()}, args...)
	p.start("127.0.0.1:0")
	t.Cleanup(p.kill)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := client.Find(ctx, p.url, "")
	if err != nil {
		t.Fatal(err)
	}
	p.id = r.ID.String()
	return p
}

func (p *process) start(listen string) {
	p.t.Helper()
	cmd := exec.Command(p.bin, append(p.args, "--listen", listen)...)
	cmd.Env = append(os.Environ(), "WEFT_HOME="+p.home)
	cmd.Stderr = testWriter{p.t}
	out, err := cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.cmd = cmd
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		p.t.Fatalf("weft relay printed no URL: %v", err)
	}
	p.url = strings.TrimSpace(line)
}

// kill ends it as a power cut would.
func (p *process) kill() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill() // it may have ended
	_ = p.cmd.Wait()         // killed
	p.cmd = nil
}

// restart starts it again where it was.
func (p *process) restart() {
	p.t.Helper()
	u, err := url.Parse(p.url)
	if err != nil {
		p.t.Fatal(err)
	}
	p.start("127.0.0.1:" + u.Port())
}

// publish publishes dir at it.
func (p *process) publish(dir string) cid.Cid {
	p.t.Helper()
	cmd := exec.Command(p.bin, "publish", "--relay", p.url, "--listen", "/ip4/127.0.0.1/tcp/0", dir)
	cmd.Env = append(os.Environ(), "WEFT_HOME="+p.home)
	cmd.Stderr = testWriter{p.t}
	out, err := cmd.Output()
	if err != nil {
		p.t.Fatalf("weft publish: %v", err)
	}
	_, after, _ := strings.Cut(string(out), "/ipfs/")
	text, _, _ := strings.Cut(strings.TrimSpace(after), "/")
	c, err := cid.Decode(text)
	if err != nil {
		p.t.Fatalf("weft publish printed %q: %v", out, err)
	}
	return c
}

// get is what it answers at path.
func (p *process) get(path string) string {
	p.t.Helper()
	resp, err := http.Get(p.url + path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b)
}

// metric is the value of one line of its /metrics, 0 if there is none.
func (p *process) metric(name string) float64 {
	p.t.Helper()
	for line := range strings.Lines(p.get("/metrics")) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				p.t.Fatal(err)
			}
			return v
		}
	}
	return 0
}
