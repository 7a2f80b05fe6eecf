package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	boxo "github.com/ipfs/boxo/gateway"
	"github.com/ipfs/boxo/ipld/merkledag"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/multiformats/go-multihash"

	"github.com/webfabric/weft/shared/content"
	"github.com/webfabric/weft/shared/gateway"
)

// source is a node with its blocks in two places: held here, and with a peer.
type source struct {
	held, peer blockstore.Blockstore

	mu       sync.Mutex
	sessions int
	ended    func() error // of the last session
	asked    map[cid.Cid]int
	// get stands in for the peer, if not nil.
	get func(ctx context.Context, c cid.Cid) (blocks.Block, error)
}

func newSource() *source {
	mem := func() blockstore.Blockstore {
		return blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
	}
	return &source{held: mem(), peer: mem(), asked: map[cid.Cid]int{}}
}

func (s *source) Session(ctx context.Context) content.Getter {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions++
	s.ended = ctx.Err
	return s
}

func (s *source) Has(ctx context.Context, c cid.Cid) (bool, error) { return s.held.Has(ctx, c) }

func (s *source) GetBlock(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	if b, err := s.held.Get(ctx, c); err == nil {
		return b, nil
	}
	s.mu.Lock()
	s.asked[c]++
	get := s.get
	s.mu.Unlock()
	if get == nil {
		get = s.peer.Get
	}
	b, err := get(ctx, c)
	if err != nil {
		return nil, err
	}
	return b, s.held.Put(ctx, b)
}

func (s *source) wasAsked(c cid.Cid) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[c]
}

// publish puts files with the peer.
func (s *source) publish(t testing.TB, files fstest.MapFS) cid.Cid {
	t.Helper()
	dag := merkledag.NewDAGService(blockservice.New(s.peer, nil))
	st, err := content.Add(t.Context(), dag, files, ".")
	if err != nil {
		t.Fatal(err)
	}
	return st.Root
}

func (s *source) resolve(t testing.TB, root cid.Cid, path ...string) cid.Cid {
	t.Helper()
	tgt, err := content.Resolve(t.Context(), blockservice.New(s.peer, nil), root, path)
	if err != nil {
		t.Fatal(err)
	}
	return tgt.Cid
}

func open(t testing.TB, src gateway.Source, opts ...gateway.Option) *gateway.Gateway {
	t.Helper()
	g := gateway.New(src, opts...)
	t.Cleanup(func() { g.Close() })
	return g
}

func owns(roots ...cid.Cid) gateway.Option {
	return gateway.WithOwner(func(c cid.Cid) bool {
		for _, r := range roots {
			if r == c {
				return true
			}
		}
		return false
	})
}

// body reads and closes it, and holds Size and Content-Length to it.
func body(t testing.TB, resp *gateway.Response) string {
	t.Helper()
	if resp.Body == nil {
		return ""
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("body: %v", err)
	}
	if int64(len(data)) != resp.Size || resp.Header.Get("Content-Length") != strconv.Itoa(len(data)) {
		t.Errorf("body of %d bytes, Size %d, Content-Length %s", len(data), resp.Size, resp.Header.Get("Content-Length"))
	}
	return string(data)
}

func header(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Set(pairs[i], pairs[i+1])
	}
	return h
}

var site = fstest.MapFS{
	"index.html":     {Data: []byte("<!doctype html><h1>Hi</h1>")},
	"app.js":         {Data: []byte("export default 1")},
	"a b/ü.txt":      {Data: []byte("0123456789")},
	"m.wasm":         {Data: []byte("\x00asm\x01\x00\x00\x00")},
	"noext":          {Data: []byte("<html><script>1</script>")},
	"pic.svg":        {Data: []byte("<svg xmlns='http://www.w3.org/2000/svg'/>")},
	"list/<b>&.txt":  {Data: []byte("x")},
	"list/c:colon":   {Data: []byte("y")},
	"empty.txt":      {},
	"empty":          {Mode: fs.ModeDir},
	"sub/index.html": {Data: []byte("<p>sub")},
}

func TestServe(t *testing.T) {
	src := newSource()
	root := src.publish(t, site)
	g := open(t, src, owns(root))
	base := "/ipfs/" + root.String()
	txt := `"` + src.resolve(t, root, "a b", "ü.txt").String() + `"`
	index := `"` + root.String() // the tag of a directory's index is the directory's
	const joined = "<!doctype html><h1>Hi</h1>" + gateway.JoinLine
	nav := func(r gateway.Request) gateway.Request { r.Navigation = true; return r }
	get := func(path string, h ...string) gateway.Request {
		path, query, _ := strings.Cut(path, "?")
		return gateway.Request{Path: path, RawQuery: query, Header: header(h...)}
	}
	type want struct {
		status int
		body   string // "*": any
		header map[string]string
	}
	for _, tt := range []struct {
		name string
		req  gateway.Request
		want want
	}{
		{"module", get(base + "/app.js"), want{200, "export default 1", map[string]string{
			"Content-Type": "text/javascript; charset=utf-8", "Cache-Control": "public, max-age=29030400, immutable",
			"Content-Security-Policy": "", "Accept-Ranges": "bytes", "X-Ipfs-Path": base + "/app.js"}}},
		{"wasm", get(base + "/m.wasm"), want{200, "*", map[string]string{"Content-Type": "application/wasm"}}},
		{"escaped path", get(base + "/a%20b/%C3%BC.txt"), want{200, "0123456789", map[string]string{"Etag": txt, "Content-Type": "text/plain; charset=utf-8"}}},
		{"double slashes", get(base + "//a%20b///%C3%BC.txt"), want{200, "0123456789", nil}},
		{"empty file", get(base + "/empty.txt"), want{200, "", map[string]string{"Content-Length": "0"}}},
		{"empty file, range", get(base+"/empty.txt", "Range", "bytes=0-9"), want{200, "", nil}},

		{"range", get(base+"/a%20b/%C3%BC.txt", "Range", "bytes=2-4"), want{206, "234", map[string]string{"Content-Range": "bytes 2-4/10", "Content-Length": "3"}}},
		{"range to the end", get(base+"/a%20b/%C3%BC.txt", "Range", "bytes=7-"), want{206, "789", map[string]string{"Content-Range": "bytes 7-9/10"}}},
		{"range past the end", get(base+"/a%20b/%C3%BC.txt", "Range", "bytes=7-99"), want{206, "789", nil}},
		{"last bytes", get(base+"/a%20b/%C3%BC.txt", "Range", "bytes=-3"), want{206, "789", nil}},
		{"range beyond", get(base+"/a%20b/%C3%BC.txt", "Range", "bytes=10-"), want{416, "*", map[string]string{"Content-Range": "bytes */10"}}},
		{"no last bytes", get(base+"/a%20b/%C3%BC.txt", "Range", "bytes=-0"), want{416, "*", nil}},
		{"two ranges", get(base+"/a%20b/%C3%BC.txt", "Range", "bytes=1-2,4-5"), want{200, "0123456789", nil}},
		{"malformed range", get(base+"/a%20b/%C3%BC.txt", "Range", "bytes=4-2"), want{200, "0123456789", nil}},
		{"signed range", get(base+"/a%20b/%C3%BC.txt", "Range", "bytes=+1-2"), want{200, "0123456789", nil}},
		{"another unit", get(base+"/a%20b/%C3%BC.txt", "Range", "lines=1-2"), want{200, "0123456789", nil}},
		{"If-Range of this", get(base+"/a%20b/%C3%BC.txt", "Range", "bytes=0-0", "If-Range", txt), want{206, "0", nil}},
		{"If-Range of another", get(base+"/a%20b/%C3%BC.txt", "Range", "bytes=0-0", "If-Range", `"x"`), want{200, "0123456789", nil}},
		{"If-Range of a date", get(base+"/a%20b/%C3%BC.txt", "Range", "bytes=0-0", "If-Range", "Sat, 21 Nov 2026 14:00:00 GMT"), want{200, "0123456789", nil}},
		{"HEAD", gateway.Request{Method: "HEAD", Path: base + "/app.js"}, want{200, "", map[string]string{"Content-Length": "16"}}},
		{"HEAD of a range", gateway.Request{Method: "HEAD", Path: base + "/app.js", Header: header("Range", "bytes=0-3")}, want{206, "", map[string]string{"Content-Length": "4"}}},
		{"If-None-Match", get(base+"/a%20b/%C3%BC.txt", "If-None-Match", `"x", W/`+txt), want{304, "", map[string]string{"Etag": txt}}},
		{"If-None-Match of another", get(base+"/a%20b/%C3%BC.txt", "If-None-Match", `"x"`), want{200, "*", nil}},

		{"index", get(base + "/"), want{200, "<!doctype html><h1>Hi</h1>", map[string]string{"Content-Type": "text/html", "Etag": index + `"`}}},
		{"index on navigation", nav(get(base + "/")), want{200, joined, map[string]string{"Etag": index + `.join"`, "Cache-Control": "no-cache", "Content-Security-Policy": ""}}},
		{"index on navigation, told by header", get(base+"/index.html", "Sec-Fetch-Mode", "navigate"), want{200, joined, nil}},
		{"join, HEAD", gateway.Request{Method: "HEAD", Path: base + "/", Navigation: true}, want{200, "", map[string]string{"Content-Length": strconv.Itoa(len(joined))}}},
		{"join has its own tag", nav(get(base+"/", "If-None-Match", index+`"`)), want{200, joined, nil}},
		{"join, unchanged", nav(get(base+"/", "If-None-Match", index+`.join"`)), want{304, "", nil}},
		{"join has no ranges", nav(get(base+"/", "Range", "bytes=0-3")), want{200, joined, nil}},
		{"?weft=off", nav(get(base + "/?weft=off")), want{200, "<!doctype html><h1>Hi</h1>", map[string]string{"Etag": index + `"`}}},
		{"fetch that accepts HTML", get(base+"/", "Accept", "text/html"), want{200, "<!doctype html><h1>Hi</h1>", nil}},
		{"HTML without extension", nav(get(base + "/noext")), want{200, "<html><script>1</script>" + gateway.JoinLine, map[string]string{"Content-Type": "text/html"}}},
		{"SVG is not joined", nav(get(base + "/pic.svg")), want{200, "<svg xmlns='http://www.w3.org/2000/svg'/>", nil}},
		{"directory without slash", nav(get(base + "/sub?x=1")), want{301, "", map[string]string{"Location": base + "/sub/?x=1"}}},
		{"root without slash", get(base), want{301, "", map[string]string{"Location": base + "/"}}},
		{"escaped directory", get(base + "/a%20b"), want{301, "", map[string]string{"Location": base + "/a%20b/"}}},
		{"empty directory", nav(get(base + "/empty/")), want{200, "*", map[string]string{"Content-Type": "text/html; charset=utf-8"}}},

		{"download", nav(get(base + "/?download=true&filename=%C3%BC%22.html")), want{200, "<!doctype html><h1>Hi</h1>", map[string]string{
			"Content-Disposition": `attachment; filename="__.html"; filename*=UTF-8''%C3%BC%22.html`}}},
		{"filename", get(base + "/app.js?filename=x.txt"), want{200, "*", map[string]string{"Content-Disposition": `inline; filename="x.txt"; filename*=UTF-8''x.txt`, "Content-Type": "text/plain; charset=utf-8"}}},
		{"data that the address calls a page", nav(get(base + "/app.js?filename=x.html")), want{200, "*", map[string]string{"Cache-Control": "no-cache",
			"Content-Security-Policy": "sandbox allow-downloads allow-top-navigation-by-user-activation; default-src 'none'; style-src 'unsafe-inline'"}}},
		{"data that the address calls a drawing", get(base + "/app.js?filename=x.svg"), want{200, "export default 1", map[string]string{"Content-Type": "image/svg+xml", "Content-Security-Policy": "sandbox"}}},
		{"page that the address calls another", nav(get(base + "/?filename=x.htm")), want{200, joined, nil}},
		{"data as if it were a folder", nav(get(base + "/app.js/")), want{200, "export default 1", map[string]string{"Content-Type": "text/javascript; charset=utf-8"}}},
		{"raw", get(base + "/app.js?format=raw"), want{200, "export default 1", map[string]string{"Content-Type": "application/vnd.ipld.raw", "X-Content-Type-Options": "nosniff"}}},
		{"raw by Accept", get(base+"/app.js", "Accept", "application/vnd.ipld.raw"), want{200, "export default 1", map[string]string{"Content-Type": "application/vnd.ipld.raw"}}},
		{"raw directory", get(base + "?format=raw"), want{200, "*", map[string]string{"Content-Type": "application/vnd.ipld.raw"}}},
		{"CAR", get(base + "?format=car"), want{406, "*", nil}},

		{"no such path", get(base + "/nope.js"), want{404, "*", map[string]string{"Content-Type": "application/json", "Cache-Control": "no-store"}}},
		{"below a file", get(base + "/app.js/x"), want{404, "*", nil}},
		{"no such path, navigation", nav(get(base + "/nope")), want{404, "*", map[string]string{"Content-Type": "text/html; charset=utf-8"}}},
		{"navigation that wants JSON", nav(get(base+"/nope", "Accept", "application/json")), want{404, "*", map[string]string{"Content-Type": "application/json"}}},
		{"script on a relay", get(base+"/nope", "Sec-Fetch-Dest", "script", "Accept", "text/html"), want{404, "*", map[string]string{"Content-Type": "application/json"}}},
		{"bad CID", get("/ipfs/nonsense/x"), want{400, "*", nil}},
		{"no CID", get("/ipfs/"), want{400, "*", nil}},
		{"weak hash", get("/ipfs/" + weak(t).String()), want{400, "*", nil}},
		{"bad escape", get(base + "/%zz"), want{400, "*", nil}},
		{"dots", get(base + "/sub/%2e%2e/app.js"), want{400, "*", nil}},
		{"bad query", get(base + "/app.js?%zz"), want{400, "*", nil}},
		{"elsewhere", get("/ipns/x"), want{404, "*", nil}},
		{"POST", gateway.Request{Method: "POST", Path: base + "/app.js"}, want{405, "*", map[string]string{"Allow": "GET, HEAD"}}},
		{"Service Worker", get(base+"/app.js", "Service-Worker", "script"), want{403, "*", nil}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp := g.Serve(t.Context(), tt.req)
			got := body(t, resp)
			if resp.Status != tt.want.status || tt.want.body != "*" && got != tt.want.body {
				t.Errorf("status %d, body %q; want %d, %q", resp.Status, got, tt.want.status, tt.want.body)
			}
			for name, value := range tt.want.header {
				if h := resp.Header.Get(name); h != value {
					t.Errorf("%s: %q, want %q", name, h, value)
				}
			}
			if resp.Status >= 400 && resp.Header.Get("Content-Type") == "application/json" {
				var e struct {
					Error struct {
						Status        int
						Code, Message string
					}
				}
				if err := json.Unmarshal([]byte(got), &e); err != nil || e.Error.Status != tt.want.status || e.Error.Code == "" || e.Error.Message == "" {
					t.Errorf("error body %s: %v", got, err)
				}
			}
		})
	}

	list := body(t, g.Serve(t.Context(), nav(get(base+"/list/"))))
	for _, part := range []string{`href="./%3Cb%3E&amp;.txt">&lt;b&gt;&amp;.txt</a>`, `href="./c:colon"`, `href="../"`} {
		if !strings.Contains(list, part) {
			t.Errorf("the listing lacks %s:\n%s", part, list)
		}
	}
	if strings.Contains(list, "<b>&") || strings.Contains(list, "<script") {
		t.Errorf("the listing is not escaped:\n%s", list)
	}
	src.mu.Lock()
	defer src.mu.Unlock()
	if src.sessions != 1 {
		t.Errorf("%d sessions for one root", src.sessions)
	}
}

// weak is a CID by a hash that is not accepted.
func weak(t *testing.T) cid.Cid {
	mh, err := multihash.Encode(make([]byte, 16), multihash.MD5)
	if err != nil {
		t.Fatal(err)
	}
	return cid.NewCidV1(cid.Raw, mh)
}

// TestForeign: nothing under a root that the owner has not published becomes a
// document of the origin.
func TestForeign(t *testing.T) {
	src := newSource()
	root := src.publish(t, site)
	g := open(t, src)
	base := "/ipfs/" + root.String()
	for _, tt := range []struct {
		name, path, query string
		nav               bool
		header            http.Header
		inert             bool
	}{
		{name: "navigation", path: "/", nav: true, inert: true},
		{name: "navigation to SVG", path: "/pic.svg", nav: true, inert: true},
		{name: "sniffed HTML", path: "/noext", nav: true, inert: true},
		{name: "by ?filename", path: "/app.js", query: "filename=x.html", nav: true, inert: true},
		{name: "weft=off", path: "/", query: "weft=off", nav: true, inert: true},
		{name: "range", path: "/", nav: true, header: header("Range", "bytes=0-5"), inert: true},
		{name: "old browser", path: "/", header: header("Accept", "text/html,*/*"), inert: true},
		{name: "told by header", path: "/", header: header("Sec-Fetch-Mode", "navigate"), inert: true},
		{name: "fetch", path: "/"},
		{name: "fetch with header", path: "/", header: header("Sec-Fetch-Mode", "cors", "Accept", "text/html")},
		{name: "module", path: "/app.js"},
		{name: "navigation to text", path: "/a%20b/%C3%BC.txt", nav: true},
		{name: "download", path: "/", query: "download=true", nav: true},
		{name: "raw", path: "/index.html", query: "format=raw", nav: true},
		{name: "listing", path: "/list/", nav: true},
		{name: "redirect", path: "/sub", nav: true},
		{name: "error", path: "/nope", nav: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp := g.Serve(t.Context(), gateway.Request{Path: base + tt.path, RawQuery: tt.query, Navigation: tt.nav, Header: tt.header, Host: "site.example"})
			got := body(t, resp)
			if csp := resp.Header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "sandbox") || strings.Contains(csp, "allow-scripts") || strings.Contains(csp, "allow-same-origin") {
				t.Errorf("Content-Security-Policy: %q", csp)
			}
			if resp.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Error("may be sniffed")
			}
			if inert := strings.Contains(got, "This document was not opened"); inert != tt.inert {
				t.Errorf("inert = %v, want %v: %s", inert, tt.inert, got)
			}
			if strings.Contains(got, "/join.js") {
				t.Error("joins")
			}
			if tt.inert && (resp.Status != 200 || strings.Contains(got, "<script") || !strings.Contains(got, root.String()) || !strings.Contains(got, "?download=true&amp;filename=")) {
				t.Errorf("status %d, %s", resp.Status, got)
			}
		})
	}
	evil := gateway.InertPage(root, base+`/"><script>alert(1)</script>`, `"><script>`)
	if bytes.Contains(evil, []byte("<script")) {
		t.Errorf("the inert page is not escaped: %s", evil)
	}
}

// TestLikeBoxo asks the relay's gateway the same.
func TestLikeBoxo(t *testing.T) {
	src := newSource()
	root := src.publish(t, site)
	g := open(t, src, owns(root))
	backend, err := boxo.NewBlocksBackend(blockservice.New(src.peer, nil))
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(boxo.NewHandler(boxo.Config{DeserializedResponses: true}, backend))
	defer srv.Close()
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	base := "/ipfs/" + root.String()
	txt := `"` + src.resolve(t, root, "a b", "ü.txt").String() + `"`
	for _, tt := range []struct {
		method, path string
		header       http.Header
	}{
		{"GET", "/app.js", nil}, {"HEAD", "/app.js", nil}, {"GET", "/", nil}, {"GET", "/sub", nil}, {"GET", "/sub/", nil}, {"HEAD", "/sub/", nil},
		{"GET", "/a%20b/%C3%BC.txt", nil}, {"GET", "/m.wasm", nil}, {"GET", "/pic.svg", nil}, {"GET", "/noext", nil}, {"GET", "/empty.txt", nil},
		{"GET", "/a%20b/%C3%BC.txt", header("Range", "bytes=2-4")}, {"GET", "/a%20b/%C3%BC.txt", header("Range", "bytes=-4")},
		{"GET", "/a%20b/%C3%BC.txt", header("Range", "bytes=3-")}, {"GET", "/a%20b/%C3%BC.txt", header("Range", "bytes=77-")},
		{"GET", "/a%20b/%C3%BC.txt", header("If-None-Match", txt)}, {"GET", "/app.js?format=raw", nil},
		{"GET", "/nope", nil}, {"GET", "/app.js/below", nil}, {"GET", "/app.js?filename=y.txt", nil}, {"GET", "/app.js?download=true&filename=y.js", nil},
		{"POST", "/app.js", nil},
	} {
		t.Run(tt.method+" "+tt.path+fmt.Sprint(tt.header), func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), tt.method, srv.URL+base+tt.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			for k, v := range tt.header {
				req.Header[k] = v
			}
			theirs, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer theirs.Body.Close()
			data, err := io.ReadAll(theirs.Body)
			if err != nil {
				t.Fatal(err)
			}
			path, query, _ := strings.Cut(tt.path, "?")
			ours := g.Serve(t.Context(), gateway.Request{Method: tt.method, Path: base + path, RawQuery: query, Header: tt.header})
			got := body(t, ours)
			if ours.Status != theirs.StatusCode {
				t.Fatalf("status %d, boxo's %d", ours.Status, theirs.StatusCode)
			}
			if ours.Status >= 300 {
				if ours.Header.Get("Location") != theirs.Header.Get("Location") {
					t.Errorf("Location %q, boxo's %q", ours.Header.Get("Location"), theirs.Header.Get("Location"))
				}
				return
			}
			if got != string(data) {
				t.Errorf("body %q, boxo's %q", got, data)
			}
			for _, h := range []string{"Etag", "Cache-Control", "Content-Type", "Content-Range", "Content-Length", "X-Ipfs-Path"} {
				mine := ours.Header.Get(h)
				if h == "X-Ipfs-Path" { // boxo's has bytes that a header in a browser may not
					mine, err = url.PathUnescape(mine)
				}
				if err != nil || mine != theirs.Header.Get(h) {
					t.Errorf("%s: %q, boxo's %q", h, ours.Header.Get(h), theirs.Header.Get(h))
				}
			}
		})
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func TestLargeFile(t *testing.T) {
	src := newSource()
	data := noise(64 << 20)
	root := src.publish(t, fstest.MapFS{"v.mp4": {Data: data}})
	g := open(t, src, owns(root))
	path := "/ipfs/" + root.String() + "/v.mp4"
	for _, tt := range []struct {
		name, ask string
		from, to  int
		maxBlocks int
	}{
		{"tail", "bytes=-100", 64<<20 - 100, 64 << 20, 4},
		{"middle", "bytes=33554430-33554433", 33554430, 33554434, 5},
		{"all", "bytes=0-", 0, 64 << 20, 70},
	} {
		src.mu.Lock()
		clear(src.asked)
		src.mu.Unlock()
		resp := g.Serve(t.Context(), gateway.Request{Path: path, Header: header("Range", tt.ask)})
		got := body(t, resp)
		if resp.Status != 206 || got != string(data[tt.from:tt.to]) {
			t.Errorf("%s: status %d, %d bytes", tt.name, resp.Status, len(got))
		}
		src.mu.Lock()
		if len(src.asked) > tt.maxBlocks {
			t.Errorf("%s: asked for %d blocks, want at most %d", tt.name, len(src.asked), tt.maxBlocks)
		}
		src.mu.Unlock()
	}
	// By WriteTo, as wasm/swfetch does.
	resp := g.Serve(t.Context(), gateway.Request{Path: path})
	defer resp.Body.Close()
	var all bytes.Buffer
	if n, err := resp.Body.(io.WriterTo).WriteTo(&all); err != nil || n != resp.Size || !bytes.Equal(all.Bytes(), data) {
		t.Errorf("WriteTo = %d, %v", n, err)
	}
}

func TestFailures(t *testing.T) {
	src := newSource()
	root := src.publish(t, fstest.MapFS{"big.bin": {Data: noise(20 << 20)}, "small.js": {Data: []byte("1")}})
	big := src.resolve(t, root, "big.bin")
	var leaves []cid.Cid
	nd, err := merkledag.NewDAGService(blockservice.New(src.peer, nil)).Get(t.Context(), big)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range nd.Links() {
		leaves = append(leaves, l.Cid)
	}
	fresh := func(get func(ctx context.Context, c cid.Cid) (blocks.Block, error)) *source {
		s := newSource()
		s.peer, s.get = src.peer, get
		return s
	}
	failing := func(at cid.Cid, err error) *source {
		return fresh(func(ctx context.Context, c cid.Cid) (blocks.Block, error) {
			if c == at {
				return nil, err
			}
			return src.peer.Get(ctx, c)
		})
	}
	path := "/ipfs/" + root.String() + "/big.bin"
	bad := fmt.Errorf("flipped: %w", content.ErrBadBlock)
	for _, tt := range []struct {
		name   string
		src    *source
		status int
		code   string
	}{
		{"nobody has the root", failing(root, fmt.Errorf("none: %w", gateway.ErrNoProvider)), 504, "no_provider"},
		{"no exchange", fresh(func(ctx context.Context, c cid.Cid) (blocks.Block, error) { return newSource().peer.Get(ctx, c) }), 504, "no_provider"},
		{"bad root", failing(root, bad), 502, "bad_block"},
		{"bad index of the file", failing(big, bad), 502, "bad_block"},
		{"bad first leaf", failing(leaves[0], bad), 502, "bad_block"},
		{"no first leaf", failing(leaves[0], gateway.ErrNoProvider), 504, "no_provider"},
		{"a fault", failing(root, errors.New("disk on fire")), 500, "internal"},
		{"a panic", fresh(func(ctx context.Context, c cid.Cid) (blocks.Block, error) { panic("bug") }), 500, "internal"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp := open(t, tt.src).Serve(t.Context(), gateway.Request{Path: path})
			got := body(t, resp)
			if resp.Status != tt.status || !strings.Contains(got, `"code":"`+tt.code+`"`) {
				t.Errorf("status %d, %s; want %d, %s", resp.Status, got, tt.status, tt.code)
			}
		})
	}

	t.Run("bad later leaf", func(t *testing.T) {
		resp := open(t, failing(leaves[7], bad)).Serve(t.Context(), gateway.Request{Path: path})
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		if resp.Status != 200 || !errors.Is(err, content.ErrBadBlock) || len(data) != 7<<20 {
			t.Errorf("status %d, %d bytes, %v; want 200, 7 MiB, ErrBadBlock", resp.Status, len(data), err)
		}
	})

	stuck := func(from cid.Cid) (*source, chan struct{}) {
		reached := make(chan struct{}, 1000)
		return fresh(func(ctx context.Context, c cid.Cid) (blocks.Block, error) {
			if c != from {
				return src.peer.Get(ctx, c)
			}
			reached <- struct{}{}
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}), reached
	}
	t.Run("patience", func(t *testing.T) {
		s, _ := stuck(leaves[0])
		resp := open(t, s, gateway.WithPatience(10*time.Millisecond)).Serve(t.Context(), gateway.Request{Path: path})
		if got := body(t, resp); resp.Status != 504 {
			t.Errorf("status %d, %s", resp.Status, got)
		}
	})
	t.Run("cancelled before the status", func(t *testing.T) {
		s, reached := stuck(leaves[0])
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-reached; cancel() }()
		resp := open(t, s).Serve(ctx, gateway.Request{Path: path})
		if got := body(t, resp); resp.Status != 499 {
			t.Errorf("status %d, %s", resp.Status, got)
		}
	})
	t.Run("cancelled in the body", func(t *testing.T) {
		s, reached := stuck(leaves[3])
		ctx, cancel := context.WithCancel(t.Context())
		resp := open(t, s).Serve(ctx, gateway.Request{Path: path})
		defer resp.Body.Close()
		go func() { <-reached; cancel() }()
		if _, err := io.ReadAll(resp.Body); !errors.Is(err, context.Canceled) {
			t.Errorf("read = %v", err)
		}
	})
	t.Run("closed beside a read", func(t *testing.T) {
		s, reached := stuck(leaves[3])
		resp := open(t, s).Serve(t.Context(), gateway.Request{Path: path})
		done := make(chan error)
		go func() { _, err := io.Copy(io.Discard, resp.Body); done <- err }()
		<-reached
		resp.Body.Close()
		if err := <-done; err == nil {
			t.Error("the read ended well")
		}
	})
	t.Run("closed gateway", func(t *testing.T) {
		g := gateway.New(src)
		g.Close()
		if resp := g.Serve(t.Context(), gateway.Request{Path: path}); resp == nil {
			t.Error("no response")
		} else if resp.Body != nil {
			resp.Body.Close()
		}
	})
}

// TestSiblings: once two modules of a directory were asked for, the others
// come by themselves; large files, and what is not a module, do not.
func TestSiblings(t *testing.T) {
	src := newSource()
	files := fstest.MapFS{
		"lib/huge.js": {Data: noise(1 << 20)}, "lib/readme.txt": {Data: []byte("r")},
		"other/x.js": {Data: []byte("x")}, "other/y.js": {Data: []byte("y")},
	}
	const n = 600
	for i := range n {
		files[fmt.Sprintf("lib/m%d.js", i)] = &fstest.MapFile{Data: fmt.Append(nil, "export default ", i)}
	}
	root := src.publish(t, files)
	g := open(t, src)
	get := func(path string) {
		t.Helper()
		resp := g.Serve(t.Context(), gateway.Request{Path: "/ipfs/" + root.String() + path})
		if body(t, resp); resp.Status != 200 {
			t.Fatalf("%s: status %d", path, resp.Status)
		}
	}
	get("/other/x.js")
	get("/other/x.js")
	get("/lib/m0.js")
	get("/lib/m1.js")
	deadline := time.Now().Add(60 * time.Second)
	for i := 0; i < n; {
		if src.wasAsked(src.resolve(t, root, "lib", fmt.Sprintf("m%d.js", i))) > 0 {
			i++
			continue
		}
		if time.Now().After(deadline) {
			t.Fatalf("module %d was not fetched ahead", i)
		}
		time.Sleep(time.Millisecond)
	}
	g.Close() // waits for the fetching
	for _, not := range [][]string{{"lib", "huge.js"}, {"lib", "readme.txt"}, {"other", "y.js"}} {
		if src.wasAsked(src.resolve(t, root, not...)) > 0 {
			t.Errorf("%v was fetched ahead", not)
		}
	}
	src.mu.Lock()
	defer src.mu.Unlock()
	for c, times := range src.asked {
		if times > 1 {
			t.Errorf("%s was fetched %d times", c, times)
		}
	}
	if src.sessions != 1 || src.ended() == nil {
		t.Errorf("%d sessions, the last ended: %v; want one that has", src.sessions, src.ended())
	}
}

// TestModuleGraph imports 600 modules at once through one session.
func TestModuleGraph(t *testing.T) {
	src := newSource()
	files := fstest.MapFS{}
	const n = 600
	for i := range n {
		files[fmt.Sprintf("d%d/m%d.js", i%13, i)] = &fstest.MapFile{Data: fmt.Append(nil, i)}
	}
	root := src.publish(t, files)
	var mu sync.Mutex
	now, most := 0, 0
	src.get = func(ctx context.Context, c cid.Cid) (blocks.Block, error) {
		mu.Lock()
		now++
		most = max(most, now)
		mu.Unlock()
		defer func() { mu.Lock(); now--; mu.Unlock() }()
		return src.peer.Get(ctx, c)
	}
	g := open(t, src)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			resp := g.Serve(t.Context(), gateway.Request{Path: fmt.Sprintf("/ipfs/%s/d%d/m%d.js", root, i%13, i)})
			if got := body(t, resp); resp.Status != 200 || got != fmt.Sprint(i) {
				t.Errorf("module %d: status %d, %q", i, resp.Status, got)
			}
		})
	}
	wg.Wait()
	g.Close()
	if src.sessions != 1 || most > 64 {
		t.Errorf("%d sessions, %d blocks at once; want one, at most 64", src.sessions, most)
	}
}

func TestErrorPage(t *testing.T) {
	for _, tt := range []struct{ accept, typ, part string }{
		{"application/json", "application/json", `{"error":{"status":404,"code":"not_found","message":"T\u003e. H"}}`},
		{"application/json, text/html", "application/json", `"not_found"`},
		{"text/html, application/json", "text/html; charset=utf-8", "<h1>T&gt;</h1>"},
		{"*/*", "text/html; charset=utf-8", "<h1>T&gt;</h1>"},
		{"", "text/html; charset=utf-8", "<p>H</p>"},
	} {
		got, typ := gateway.ErrorPage(404, "T>", "H", tt.accept)
		if typ != tt.typ || !strings.Contains(string(got), tt.part) {
			t.Errorf("ErrorPage(%q) = %s, %s", tt.accept, typ, got)
		}
	}
}

func TestContentType(t *testing.T) {
	for _, tt := range []struct {
		name   string
		first  string
		want   string
		active bool
	}{
		{"a.js", "", "text/javascript; charset=utf-8", false},
		{"a.MJS", "", "text/javascript; charset=utf-8", false},
		{"a.wasm", "", "application/wasm", false},
		{"a.json", "<html>", "application/json", false},
		{"a.css", "", "text/css; charset=utf-8", false},
		{"a.html", "", "text/html", true},
		{"a.xhtml", "", "application/xhtml+xml", true},
		{"a.svg", "", "image/svg+xml", true},
		{"a.xml", "", "text/xml; charset=utf-8", true},
		{"a.rss", "", "application/rss+xml", true},
		{"a.pdf", "", "application/pdf", true},
		{"a.mhtml", "", "multipart/related", true},
		{"a.woff2", "", "font/woff2", false},
		{"a.mp4", "", "video/mp4", false},
		{"a", "  <!DOCTYPE html>", "text/html", true},
		{"a", "<?xml version", "text/xml; charset=utf-8", true},
		{"a", "%PDF-1.7", "application/pdf", true},
		{"a", "\x89PNG\r\n\x1a\n", "image/png", false},
		{"a", "plain", "text/plain; charset=utf-8", false},
		{"a", "\x00\x01", "application/octet-stream", false},
		{"a", "", "text/plain; charset=utf-8", false},
	} {
		got := gateway.ContentType(tt.name, []byte(tt.first))
		if got != tt.want || gateway.IsActiveDocument(got) != tt.active {
			t.Errorf("ContentType(%q, %q) = %q, active %v; want %q, %v", tt.name, tt.first, got, gateway.IsActiveDocument(got), tt.want, tt.active)
		}
	}
	if !gateway.IsActiveDocument("not a type;;") || !gateway.IsActiveDocument("TEXT/HTML; charset=x") {
		t.Error("a type that does not parse, or in capitals, is taken for inert")
	}
}

func TestDisguises(t *testing.T) {
	for _, tt := range []struct {
		name, filename string
		want           bool
	}{
		{"a.json", "", false},
		{"a.json", "b.txt", false},
		{"a.json", "b.json", false},
		{"a.json", "b.html", true},
		{"a.json", "b.SVG", true},
		{"a.json", "b", true}, // it would be sniffed
		{"a", "b", false},     // it is sniffed
		{"a", "b.html", true},
		{"a.html", "b.svg", false},
		{"a.html", "b", false},
	} {
		if got := gateway.Disguises(tt.name, tt.filename); got != tt.want {
			t.Errorf("Disguises(%q, %q) = %v, want %v", tt.name, tt.filename, got, tt.want)
		}
	}
}
