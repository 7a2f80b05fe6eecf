//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// absent is the CID of something that nobody has.
func absent(t *testing.T) cid.Cid {
	t.Helper()
	h, err := multihash.Sum([]byte("nobody has this"), multihash.SHA2_256, -1)
	if err != nil {
		t.Fatal(err)
	}
	return cid.NewCidV1(cid.Raw, h)
}

// TestErrors asks for what cannot be had: as JSON for scripts, and as pages
// that a person understands.
func TestErrors(t *testing.T) {
	t.Parallel()
	r := startRelay(t)
	root := r.publishSite(site{"a.js": "export default 1;", "index.html": "<!doctype html><title>a site</title><link rel=icon href=data:,><p>here", "sub/x.txt": "x"})
	v := newVisitor(t)
	p := r.joined(v).expects("status of [45]")

	for _, tt := range []struct {
		name, path string
		status     int
		code       string
	}{
		{"a bad CID", "/ipfs/bafynonsense/a.js", 400, "bad_cid"},
		{"no such path", "/ipfs/" + root.String() + "/missing.js", 404, "not_found"},
		{"a path through a file", "/ipfs/" + root.String() + "/a.js/deeper", 404, "not_found"},
		{"nobody has it", "/ipfs/" + absent(t).String(), 504, "no_provider"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := p.in(t)
			type answer struct {
				Status int    `json:"status"`
				Type   string `json:"type"`
				Body   struct {
					Error struct {
						Status        int
						Code, Message string
					}
				} `json:"body"`
			}
			got := eval[answer](p, `async (path) => {
				const r = await fetch(path);
				return { status: r.status, type: r.headers.get("Content-Type"), body: await r.json() };
			}`, tt.path)
			if got.Status != tt.status || got.Body.Error.Status != tt.status || got.Body.Error.Code != tt.code || got.Body.Error.Message == "" || !strings.HasPrefix(got.Type, "application/json") {
				t.Errorf("fetch: got %+v, want %d %s as JSON", got, tt.status, tt.code)
			}
			if tt.status == 504 {
				return // each look takes a while; TestRelayRestart imports what nobody has
			}
			_, err := try[bool](p, `async (path) => { await node.import(path); return true; }`, tt.path)
			if js, ok := err.(*jsError); !ok || js.Code != tt.code {
				t.Errorf("node.import: %v, want code %s", err, tt.code)
			}
			// As a page.
			q := v.blank().expects("status of [45]")
			q.in(t).navigate(r.url + tt.path)
			page := eval[[2]string](q.in(t), `() => [document.contentType, document.body.innerText]`)
			if page[0] != "text/html" || len(page[1]) < 20 {
				t.Errorf("navigation: %s %q, want a page that explains", page[0], page[1])
			}
			q.close()
		})
	}
	t.Run("a method that is none of ours", func(t *testing.T) {
		p := p.in(t)
		if got := eval[int](p, `async (path) => (await fetch(path, { method: "POST" })).status`, "/ipfs/"+root.String()+"/a.js"); got != 405 {
			t.Errorf("POST: status %d, want 405", got)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		p := p.in(t)
		got := eval[string](p, `async (path) => {
			const c = new AbortController();
			const asked = fetch(path, { signal: c.signal }).then(() => "answered", (e) => e.name);
			c.abort();
			return asked;
		}`, "/ipfs/"+absent(t).String())
		if got != "AbortError" {
			t.Errorf("got %s, want AbortError", got)
		}
	})
	t.Run("a root without index", func(t *testing.T) {
		p := p.in(t)
		list := r.publishSite(site{"one.txt": "1", "two/x.txt": "2"})
		got := eval[string](p, `async (path) => { const r = await fetch(path, { headers: { Accept: "text/html" } }); return r.status + " " + await r.text(); }`, "/ipfs/"+list.String()+"/")
		if !strings.HasPrefix(got, "200 ") || !strings.Contains(got, "one.txt") || !strings.Contains(got, "two") {
			t.Errorf("a directory: got %.200s, want a listing", got)
		}
	})
	t.Run("a folder without its slash", func(t *testing.T) {
		q := v.blank()
		defer q.close()
		q.in(t).navigate(r.url + "/ipfs/" + root.String())
		if got := eval[string](q.in(t), `() => location.pathname + " " + document.body.innerText`); !strings.HasPrefix(got, "/ipfs/"+root.String()+"/ here") {
			t.Errorf("got %q", got)
		}
	})
}

// TestSameAsRelay compares the worker's headers with the relay's: whoever
// answers, a URL means the same thing.
func TestSameAsRelay(t *testing.T) {
	t.Parallel()
	r := startRelay(t)
	s := everything(t)
	root := r.publishSite(s)
	p := r.joined(newVisitor(t)).expects("status of [45]")
	names := []string{"Content-Type", "Content-Length", "Etag", "Cache-Control", "Accept-Ranges", "Content-Range", "X-Content-Type-Options"}
	base := "/ipfs/" + root.String() + "/"
	for _, tt := range []struct {
		method, path string
		header       [2]string
	}{
		{"GET", "main.js", [2]string{}},
		{"HEAD", "main.js", [2]string{}},
		{"HEAD", "video.mp4", [2]string{}},
		{"GET", "add.wasm", [2]string{}},
		{"GET", "img/dot.png", [2]string{}},
		{"GET", "css/style.css", [2]string{}},
		{"GET", "data/data.json", [2]string{}},
		{"GET", "no-extension", [2]string{}},
		{"HEAD", "", [2]string{}},
		{"GET", "index.html", [2]string{}},
		{"GET", "video.mp4", [2]string{"Range", "bytes=10-19"}},
		{"GET", "video.mp4", [2]string{"Range", "bytes=99999999-"}},
		{"GET", "main.js", [2]string{"If-None-Match", "ETAG"}},
		{"HEAD", "main.js", [2]string{"If-None-Match", "ETAG"}},
		{"GET", "main.js", [2]string{"If-None-Match", `"something else"`}},
		{"GET", "missing", [2]string{}},
	} {
		t.Run(strings.TrimSpace(fmt.Sprint(tt.method, " ", tt.path, " ", strings.Join(tt.header[:], " "))), func(t *testing.T) {
			p := p.in(t)
			req, err := http.NewRequest(tt.method, r.url+base+tt.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			value := tt.header[1]
			if value == "ETAG" {
				resp, err := http.Head(r.url + base + tt.path)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				value = resp.Header.Get("Etag")
			}
			headers := map[string]string{}
			if tt.header[0] != "" {
				req.Header.Set(tt.header[0], value)
				headers[tt.header[0]] = value
			}
			req.Header.Set("Accept-Encoding", "identity") // as stored
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			type answer struct {
				Status  int               `json:"status"`
				Headers map[string]string `json:"headers"`
			}
			got := eval[answer](p, `async (path, method, headers, names) => {
				const r = await fetch(path, { method, headers, cache: "no-store" });
				await r.arrayBuffer();
				return { status: r.status, headers: Object.fromEntries(names.map((n) => [n, r.headers.get(n) ?? ""])) };
			}`, base+tt.path, tt.method, headers, names)
			if got.Status != resp.StatusCode {
				t.Errorf("status: worker %d, relay %d", got.Status, resp.StatusCode)
			}
			if resp.StatusCode >= 400 {
				return // the words may differ
			}
			for _, n := range names {
				if want := resp.Header.Get(n); got.Headers[n] != want {
					t.Errorf("%s: worker %q, relay %q", n, got.Headers[n], want)
				}
			}
		})
	}
}
