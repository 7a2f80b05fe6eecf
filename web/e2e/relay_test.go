//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/crypto"

	"github.com/webfabric/weft"
	"github.com/webfabric/weft/relay/client"
	"github.com/webfabric/weft/relay/publish"
	"github.com/webfabric/weft/relay/server"
	"github.com/webfabric/weft/shared/content"
	"github.com/webfabric/weft/shared/identity"
)

// blankPage is a page of ours that does nothing by itself.
const blankPage = "<!doctype html><meta charset=utf-8><link rel=icon href=data:,><title>blank</title><p>A page of the site."

// withFiles is fsys with more files beside its own.
type withFiles struct {
	fs.FS
	more fstest.MapFS
}

func (w withFiles) Open(name string) (fs.File, error) {
	if _, ok := w.more[name]; ok {
		return w.more.Open(name)
	}
	return w.FS.Open(name)
}

func (w withFiles) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(w.FS, name)
	if err != nil || name != "." {
		return entries, err
	}
	more, err := fs.ReadDir(w.more, ".")
	byName := func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) }
	all := slices.SortedStableFunc(slices.Values(append(more, entries...)), byName) // ours first
	return slices.CompactFunc(all, func(a, b fs.DirEntry) bool { return byName(a, b) == 0 }), err
}

// A relay runs in the test's process, with a publisher whom it obeys.
type relay struct {
	t      *testing.T
	cfg    server.Config
	server *server.Server // nil while stopped
	url    string         // stays over restarts
	key    crypto.PrivKey // the publisher's
	blocks blockstore.Blockstore
	stats  map[cid.Cid]content.Stat // of what was published
}

// startRelay starts a relay on a free port; more changes its configuration.
func startRelay(t *testing.T, more ...func(*server.Config)) *relay {
	t.Helper()
	if _, err := fs.Stat(weft.Assets(), "node.wasm.br"); err != nil {
		t.Fatalf("no compiled node is embedded: run `make build` first, or `make e2e`: %v", err)
	}
	exec, err := fs.ReadFile(weft.Assets(), "wasm_exec.js")
	if err != nil {
		t.Fatal(err)
	}
	key, err := identity.New()
	if err != nil {
		t.Fatal(err)
	}
	id, err := identity.ID(key)
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{t: t, key: key, blocks: blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore())), stats: map[cid.Cid]content.Stat{}}
	r.cfg = server.Config{
		Dir:    t.TempDir(),
		Listen: "127.0.0.1:0",
		Assets: withFiles{weft.Assets(), fstest.MapFS{
			"blank.html":   {Data: []byte(blankPage)},
			"wasm_exec.js": {Data: append(exec, tellPages...)},
		}},
		// Nobody here is far away: what nobody has is known soon.
		Retrieval: 5 * time.Second,
		Log:       slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	r.cfg.Publishers = append(r.cfg.Publishers, id)
	for _, f := range more {
		f(&r.cfg)
	}
	r.start()
	t.Cleanup(r.stop)
	return r
}

func (r *relay) start() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := server.New(ctx, r.cfg)
	if err != nil {
		r.t.Fatalf("start the relay: %v", err)
	}
	r.server, r.url = s, s.URL()
	u, err := url.Parse(r.url)
	if err != nil {
		r.t.Fatal(err)
	}
	r.cfg.Listen = net.JoinHostPort("127.0.0.1", u.Port()) // for a restart
}

// stop ends the relay; requests at work are cut off.
func (r *relay) stop() {
	r.t.Helper()
	if r.server == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // no patience with anyone
	if err := r.server.Close(ctx); err != nil {
		r.t.Logf("stop the relay: %v", err)
	}
	r.server = nil
}

// publish publishes a folder as `weft publish` does, and returns its root.
func (r *relay) publish(dir string) cid.Cid {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	at, err := client.Find(ctx, r.url, r.server.ID())
	if err != nil {
		r.t.Fatalf("publish: %v", err)
	}
	p, err := client.Connect(ctx, at, r.key, r.blocks)
	if err != nil {
		r.t.Fatalf("publish: %v", err)
	}
	defer p.Close()
	stat, err := publish.Add(ctx, r.blocks, dir)
	if err != nil {
		r.t.Fatalf("publish: %v", err)
	}
	if _, err := publish.Ask(ctx, p, r.key, stat.Root, "site", nil); err != nil {
		r.t.Fatalf("publish: %v", err)
	}
	r.stats[stat.Root] = stat
	return stat.Root
}

// site is files by path.
type site map[string]string

// write puts s below a new folder and returns it.
func (s site) write(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range slices.Sorted(maps.Keys(s)) {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(s[name]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// publishSite publishes s.
func (r *relay) publishSite(s site) cid.Cid {
	r.t.Helper()
	return r.publish(s.write(r.t))
}

// ipfs is the URL of a path below root.
func (r *relay) ipfs(root cid.Cid, path string) string {
	return r.url + "/ipfs/" + root.String() + "/" + path
}

// joined opens the blank page for v and joins from it; globalThis.node is the
// client then.
func (r *relay) joined(v *visitor) *tab {
	v.t.Helper()
	p := v.open(r.url + "/blank.html")
	join(p)
	return p
}

// join joins from a page, and waits for the node to run and to have its relay.
func join(p *tab) {
	p.t.Helper()
	eval[bool](p, `async () => {
		const { join } = await import("/weft.js");
		globalThis.node = await join();
		await node.online;
		return true;
	}`)
}

// A front is an HTTP server before a relay, which sees and may change what
// passes. WebSockets pass too.
type front struct {
	url    string
	change atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
}

// newFront starts a front on a port of its own. Its origin must be one that
// the relay allows, so the Host header stays the visitor's.
func newFront(t *testing.T, r *relay) *front {
	t.Helper()
	f := &front{}
	target, err := url.Parse("http://" + r.cfg.Listen)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.SetURL(target)
			pr.Out.Host = pr.In.Host
		},
		FlushInterval: -1,
		ErrorLog:      slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if change := f.change.Load(); change != nil && (*change)(w, req) {
			return
		}
		proxy.ServeHTTP(w, req)
	})}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	f.url = "http://localhost:" + port
	return f
}

// answer makes fn see every request first; it returns whether it answered.
func (f *front) answer(fn func(http.ResponseWriter, *http.Request) bool) { f.change.Store(&fn) }

// testWriter writes a log to a test.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("relay: %s", bytes.TrimSpace(b))
	return len(b), nil
}
