//go:build kubo

package kubo_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"

	"github.com/webfabric/weft/relay/publish"
	"github.com/webfabric/weft/relay/server"
	"github.com/webfabric/weft/scripts/kubo"
	"github.com/webfabric/weft/shared/content"
)

// noise writes n bytes, the same for one seed, to path.
func noise(t *testing.T, path string, seed byte, n int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{seed}), n)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// tree writes files, by path; a path that ends in a slash is an empty folder.
func tree(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSameCID adds the same files with both programs.
func TestSameCID(t *testing.T) {
	k := kubo.New(t)
	small := map[string]string{
		"index.html": "<!doctype html><title>site</title>", "app.js": "export default 1\n",
		"css/site.css": "body{}", "a/b/c/deep.txt": "deep", "empty.txt": "",
	}
	tests := []struct {
		name string
		make func(t *testing.T, dir string) string // returns what to add
		opts []content.AddOption
		kubo []string
	}{
		{name: "empty file", make: func(t *testing.T, dir string) string {
			tree(t, dir, map[string]string{"f": ""})
			return filepath.Join(dir, "f")
		}},
		{name: "file of one byte", make: func(t *testing.T, dir string) string {
			tree(t, dir, map[string]string{"f": "x"})
			return filepath.Join(dir, "f")
		}},
		{name: "file of exactly one chunk", make: func(t *testing.T, dir string) string {
			noise(t, filepath.Join(dir, "f"), 1, 1<<20)
			return filepath.Join(dir, "f")
		}},
		{name: "file of one chunk and a byte", make: func(t *testing.T, dir string) string {
			noise(t, filepath.Join(dir, "f"), 2, 1<<20+1)
			return filepath.Join(dir, "f")
		}},
		{name: "file over 200 MiB", make: func(t *testing.T, dir string) string {
			noise(t, filepath.Join(dir, "f"), 3, 201<<20+12345)
			return filepath.Join(dir, "f")
		}},
		// The second level of nodes begins after 1,024 chunks. Zeroes are one
		// block, so that this costs hashing only.
		{name: "file of two levels", make: func(t *testing.T, dir string) string {
			f := filepath.Join(dir, "f")
			if err := os.WriteFile(f, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(f, 1025<<20+7); err != nil {
				t.Fatal(err)
			}
			return f
		}},
		{name: "empty folder", make: func(t *testing.T, dir string) string { return dir }},
		{name: "small tree", make: func(t *testing.T, dir string) string { tree(t, dir, small); return dir }},
		{name: "empty folders inside", make: func(t *testing.T, dir string) string {
			tree(t, dir, map[string]string{"a/": "", "b/c/": "", "f": "x"})
			return dir
		}},
		{name: "hidden left out", make: func(t *testing.T, dir string) string {
			tree(t, dir, small)
			tree(t, dir, map[string]string{".env": "secret", ".git/config": "x"})
			return dir
		}},
		{name: "hidden added", opts: []content.AddOption{content.WithHidden()}, kubo: []string{"--hidden"},
			make: func(t *testing.T, dir string) string {
				tree(t, dir, small)
				tree(t, dir, map[string]string{".well-known/x": "y"})
				return dir
			}},
		{name: "names in unicode", make: func(t *testing.T, dir string) string {
			tree(t, dir, map[string]string{"ünïcode/日本語.txt": "a", "emoji 🧵.js": "b", "a b+c%20&.txt": "c", "é": "composed", "e\u0301": "decomposed", "Z": "1", "a": "2"})
			return dir
		}},
		{name: "symlinks", make: func(t *testing.T, dir string) string {
			tree(t, dir, small)
			for from, to := range map[string]string{"link": "index.html", "up": "../elsewhere", "dangling": "nowhere", "css/dir": "../a"} {
				if err := os.Symlink(to, filepath.Join(dir, from)); err != nil {
					t.Fatal(err)
				}
			}
			return dir
		}},
		{name: "10,000 entries", make: func(t *testing.T, dir string) string {
			files := map[string]string{}
			for i := range 10_000 {
				files[fmt.Sprintf("file-%05d.txt", i)] = fmt.Sprint(i)
			}
			tree(t, dir, files)
			return dir
		}},
		// A folder's block may have 256 KiB: at about 50 bytes an entry these
		// stay on either side of that.
		{name: "just below a HAMT", make: func(t *testing.T, dir string) string {
			files := map[string]string{}
			for i := range 4_000 {
				files[fmt.Sprintf("%05d", i)] = ""
			}
			tree(t, dir, files)
			return dir
		}},
		{name: "just above a HAMT", make: func(t *testing.T, dir string) string {
			files := map[string]string{}
			for i := range 6_000 {
				files[fmt.Sprintf("%05d", i)] = ""
			}
			tree(t, dir, files)
			return dir
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := tt.make(t, t.TempDir())
			bs := blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
			stat, err := publish.Add(t.Context(), bs, path, tt.opts...)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := stat.Root.String(), k.Hash(t, path, tt.kubo...); got != want {
				t.Errorf("root = %s, Kubo has %s", got, want)
			}
		})
	}
}

// newRelay runs a relay in this process.
func newRelay(t *testing.T) *server.Server {
	t.Helper()
	s, err := server.New(t.Context(), server.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// native returns the relay's TCP address with its peer ID.
func native(t *testing.T, s *server.Server) string {
	t.Helper()
	for _, a := range s.Addrs() {
		if s := a.String(); strings.Contains(s, "/ip4/127.0.0.1/tcp/") && !strings.Contains(s, "/ws") {
			return s
		}
	}
	t.Fatalf("no TCP address among %v", s.Addrs())
	return ""
}

func weft(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "weft")
	out, err := exec.Command("go", "build", "-o", bin, "github.com/webfabric/weft/relay").CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return bin
}

// TestKuboFetches has Kubo fetch what `weft publish --serve` serves, by Bitswap.
func TestKuboFetches(t *testing.T) {
	bin, data, home := weft(t), t.TempDir(), t.TempDir()
	env := append(os.Environ(), "WEFT_HOME="+home)
	id := exec.Command(bin, "id", "--data", data)
	id.Env = env
	key, err := id.Output()
	if err != nil {
		t.Fatal(err)
	}
	// A relay that the publisher can reach, and Kubo is not told of.
	relay := exec.Command(bin, "relay", "--listen", "127.0.0.1:0", "--data", t.TempDir(), "--no-demo",
		"--allow-publisher", strings.TrimSpace(string(key)))
	url := strings.TrimSpace(start(t, relay, env))

	site := t.TempDir()
	tree(t, site, map[string]string{"index.html": "<h1>hello</h1>", "js/app.js": "export default 7", "empty.txt": ""})
	noise(t, filepath.Join(site, "big.bin"), 9, 5<<20+3)
	pub := exec.Command(bin, "publish", "--serve", "--json", "--data", data, "--relay", url,
		"--listen", "/ip4/127.0.0.1/tcp/0", site)
	var got struct {
		Cid   string
		Addrs []string
	}
	if err := json.Unmarshal([]byte(start(t, pub, env)), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Addrs) == 0 {
		t.Fatal("weft publish --serve named no address")
	}
	k := kubo.Start(t)
	k.Connect(t, got.Addrs[0])
	for _, name := range []string{"index.html", "js/app.js", "empty.txt", "big.bin"} {
		want, err := os.ReadFile(filepath.Join(site, name))
		if err != nil {
			t.Fatal(err)
		}
		if b := k.Cat(t, got.Cid+"/"+name); !bytes.Equal(b, want) {
			t.Errorf("Kubo has %d bytes of %s, want the %d published", len(b), name, len(want))
		}
	}
}

// start starts cmd until the test ends, and returns the first line it prints.
func start(t *testing.T, cmd *exec.Cmd, env []string) string {
	t.Helper()
	cmd.Env = env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt) // it may have ended
		stuck := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v after SIGINT", cmd.Args[1], err)
		}
		stuck.Stop()
		if t.Failed() {
			t.Logf("%s wrote:\n%s", cmd.Args[1], stderr.Bytes())
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd.Args[1], err, stderr.Bytes())
	}
	return line
}

// TestRelayServesKubo asks the relay's gateway for what only a Kubo has that is
// connected to it.
func TestRelayServesKubo(t *testing.T) {
	s := newRelay(t)
	k := kubo.Start(t)
	site := t.TempDir()
	tree(t, site, map[string]string{"sub/hello.js": "export default 'from Kubo'", "empty.txt": ""})
	noise(t, filepath.Join(site, "big.bin"), 11, 3<<20+1)
	root := k.Add(t, site)
	k.Connect(t, native(t, s))
	for _, name := range []string{"sub/hello.js", "big.bin", "empty.txt"} {
		want, err := os.ReadFile(filepath.Join(site, name))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL()+"/ipfs/"+root+"/"+name, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || !bytes.Equal(got, want) {
			t.Errorf("GET %s = %s, %d bytes, %v; want the %d bytes that Kubo has", name, resp.Status, len(got), err, len(want))
		}
	}
}
