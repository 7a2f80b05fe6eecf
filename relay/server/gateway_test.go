package server_test

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ipfs/go-cid"
	carv2 "github.com/ipld/go-car/v2"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/webfabric/weft/relay/server"
	"github.com/webfabric/weft/shared/gateway"
)

// What is sent for a document depends on whose it is, and on whether the
// browser shows it or a program reads it.
func TestDocuments(t *testing.T) {
	n := newNode(t)
	s := start(t, func(c *server.Config) { c.Demo = site })
	n.connect(t, s, ma.P_TCP)
	foreignSite := fstest.MapFS{"other.txt": {Data: []byte("other")}}
	for k, v := range site {
		foreignSite[k] = v
	}
	own, foreign := "/ipfs/"+s.Demo().String(), "/ipfs/"+n.add(t, foreignSite).String()

	const (
		exact = iota
		joined
		inert
		disguised // exact, and a document of nobody
	)
	navigate := []string{"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Accept: text/html,*/*"}
	iframe := []string{"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"}
	object := []string{"Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: object"}
	fetch := []string{"Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty", "Accept: text/html"}
	script := []string{"Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: script"}
	image := []string{"Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"}
	old := []string{"Accept: text/html,application/xhtml+xml"}
	curl := []string{"Accept: */*"}
	tests := []struct {
		name, path, file string
		headers          []string
		own, foreign     int
		ctype            string
	}{
		{"page", "/index.html", "index.html", navigate, joined, inert, "text/html"},
		{"folder", "/", "index.html", navigate, joined, inert, "text/html"},
		{"iframe", "/index.html", "index.html", iframe, joined, inert, "text/html"},
		{"object", "/index.html", "index.html", object, joined, inert, "text/html"},
		{"sniffed page", "/noext", "noext", navigate, joined, inert, "text/html"},
		{"data that the address calls a page", "/app.js?filename=x.html", "app.js", navigate, inert, inert, "text/html"},
		{"data that the address calls a drawing", "/app.js?filename=x.svg", "app.js", fetch, disguised, disguised, "image/svg+xml"},
		{"page that the address calls another", "/index.html?filename=x.htm", "index.html", navigate, joined, inert, "text/html"},
		{"data as if it were a folder", "/app.js/", "app.js", navigate, exact, exact, "text/javascript"},
		{"old browser", "/index.html", "index.html", old, exact, inert, "text/html"},
		{"off", "/index.html?weft=off", "index.html", navigate, exact, inert, "text/html"},
		{"fetch", "/index.html", "index.html", fetch, exact, exact, "text/html"},
		{"program", "/index.html", "index.html", curl, exact, exact, "text/html"},
		{"page with a query of its own", "/index.html?uri=http://x", "index.html", navigate, joined, inert, "text/html"},
		{"download", "/index.html?download=true", "index.html", navigate, exact, exact, "text/html"},
		{"drawing", "/pic.svg", "pic.svg", navigate, exact, inert, "image/svg+xml"},
		{"drawing in a page", "/pic.svg", "pic.svg", image, exact, exact, "image/svg+xml"},
		{"XHTML", "/page.xhtml", "page.xhtml", navigate, exact, inert, "application/xhtml+xml"},
		{"text", "/sub/x.txt", "sub/x.txt", navigate, exact, exact, "text/plain"},
		{"module shown", "/app.js", "app.js", navigate, exact, exact, "text/javascript"},
		{"module", "/app.js", "app.js", script, exact, exact, "text/javascript"},
	}
	for _, tt := range tests {
		for _, owned := range []bool{true, false} {
			base, want := own, tt.own
			if !owned {
				base, want = foreign, tt.foreign
			}
			name := map[bool]string{true: "own ", false: "foreign "}[owned] + tt.name
			t.Run(name, func(t *testing.T) {
				url := s.URL() + base + tt.path
				resp, body := do(t, request(t, "GET", url, nil, tt.headers...))
				h := resp.Header
				data := string(site[tt.file].Data)
				if resp.StatusCode != 200 {
					t.Fatalf("%s %s", resp.Status, body)
				}
				csp := h.Get("Content-Security-Policy")
				if trusted := owned && want != inert && want != disguised; trusted == strings.HasPrefix(csp, "sandbox") || h.Get("X-Content-Type-Options") != "nosniff" {
					t.Errorf("Content-Security-Policy %q", csp)
				}
				active := gateway.IsActiveDocument(tt.ctype)
				if vary := strings.Join(h.Values("Vary"), ","); active != strings.Contains(vary, "Sec-Fetch-Mode") {
					t.Errorf("Vary %q", vary)
				}
				etag := h.Get("ETag")
				switch want {
				case exact, disguised:
					if body != data || !strings.HasPrefix(h.Get("Content-Type"), tt.ctype) || !strings.Contains(h.Get("Cache-Control"), "immutable") {
						t.Errorf("body %.60q, headers %v", body, h)
					}
				case joined:
					if body != data+gateway.JoinLine || h.Get("Cache-Control") != "no-cache" || !strings.HasSuffix(etag, `.join"`) {
						t.Errorf("body %.200q, headers %v", body, h)
					}
				case inert:
					if strings.Contains(body, "<script") || strings.Contains(body, "<title>site") || !strings.Contains(body, "download=true") || h.Get("Cache-Control") != "no-cache" || etag != "" || !strings.HasPrefix(h.Get("Content-Type"), "text/html") {
						t.Errorf("body %.200q, headers %v", body, h)
					}
				}
				if download := strings.Contains(tt.path, "download"); download != strings.HasPrefix(h.Get("Content-Disposition"), "attachment") {
					t.Errorf("Content-Disposition %q", h.Get("Content-Disposition"))
				}
				if n := h.Get("Content-Length"); n != strconv.Itoa(len(body)) {
					t.Errorf("Content-Length %s of %d bytes", n, len(body))
				}
				head, none := do(t, request(t, "HEAD", url, nil, tt.headers...))
				if none != "" || head.StatusCode != 200 || head.ContentLength != int64(len(body)) || head.Header.Get("ETag") != etag {
					t.Errorf("HEAD: %s, length %d, want %d; %v", head.Status, head.ContentLength, len(body), head.Header)
				}
				if etag != "" {
					if resp, body := do(t, request(t, "GET", url, nil, append(tt.headers, "If-None-Match: "+etag)...)); resp.StatusCode != 304 || body != "" {
						t.Errorf("If-None-Match: %s", resp.Status)
					}
				}
				if resp, _ := do(t, request(t, "GET", url, nil, append(tt.headers, `If-None-Match: "x"`)...)); resp.StatusCode != 200 {
					t.Errorf("another If-None-Match: %s", resp.Status)
				}
			})
		}
	}

	t.Run("the file's ETag is not the joined one's", func(t *testing.T) {
		resp, _ := do(t, request(t, "GET", s.URL()+own+"/index.html", nil, curl...))
		joined, _ := do(t, request(t, "GET", s.URL()+own+"/index.html", nil, append(navigate, "If-None-Match: "+resp.Header.Get("ETag"))...))
		if joined.StatusCode != 200 {
			t.Errorf("navigation with the file's ETag: %s", joined.Status)
		}
	})
	t.Run("a worker's script", func(t *testing.T) {
		for _, base := range []string{own, foreign} {
			resp, _ := do(t, request(t, "GET", s.URL()+base+"/app.js", nil, "Service-Worker: script"))
			if resp.StatusCode != 403 {
				t.Errorf("%s", resp.Status)
			}
		}
	})
	// Bug: boxo's gateway cleans paths, so that these were another's page,
	// served and joined as the owner's.
	t.Run("another's page by way of the owner's root", func(t *testing.T) {
		for _, up := range []string{"/..%2f", "/%2e%2e%2F", "/sub/..%2f..%2f", "/.%2f..%2f", "%2f..%2f"} {
			url := s.URL() + own + up + strings.TrimPrefix(foreign, "/ipfs/") + "/index.html"
			resp, body := do(t, request(t, "GET", url, nil, navigate...))
			if resp.StatusCode != 400 || strings.Contains(body, "<title>site") {
				t.Errorf("%s: %s %.100q", up, resp.Status, body)
			}
		}
	})
	t.Run("a listing", func(t *testing.T) {
		resp, body := do(t, request(t, "GET", s.URL()+foreign+"/sub/", nil, navigate...))
		if resp.StatusCode != 200 || !strings.Contains(body, "x.txt") || strings.Contains(body, "join.js") || !strings.HasPrefix(resp.Header.Get("Content-Security-Policy"), "sandbox") {
			t.Errorf("%s %v", resp.Status, resp.Header)
		}
	})
	t.Run("a folder without a slash", func(t *testing.T) {
		resp, _ := do(t, request(t, "GET", s.URL()+own+"/sub?a=b", nil))
		if resp.StatusCode != 301 || resp.Header.Get("Location") != own+"/sub/?a=b" {
			t.Errorf("%s to %s", resp.Status, resp.Header.Get("Location"))
		}
	})
}

func TestRanges(t *testing.T) {
	s := start(t, func(c *server.Config) { c.Demo = site })
	url := s.URL() + "/ipfs/" + s.Demo().String() + "/data.bin"
	data := string(site["data.bin"].Data)
	size := strconv.Itoa(len(data))
	tests := []struct {
		spec    string
		status  int
		content string
		body    string
	}{
		{"bytes=0-9", 206, "bytes 0-9/" + size, data[:10]},
		{"bytes=1048570-1048585", 206, "bytes 1048570-1048585/" + size, data[1048570:1048586]},
		{"bytes=-5", 206, "bytes 1999995-1999999/" + size, data[1999995:]},
		{"bytes=1999990-", 206, "bytes 1999990-1999999/" + size, data[1999990:]},
		{"bytes=2000000-", 416, "bytes */" + size, ""},
		{"", 200, "", data},
	}
	for _, tt := range tests {
		r := request(t, "GET", url, nil)
		if tt.spec != "" {
			r.Header.Set("Range", tt.spec)
		}
		resp, body := do(t, r)
		if resp.StatusCode != tt.status || resp.Header.Get("Content-Range") != tt.content || (tt.status < 300 && body != tt.body) {
			t.Errorf("%s: %s, Content-Range %q, %d bytes; want %d, %q, %d bytes", tt.spec, resp.Status, resp.Header.Get("Content-Range"), len(body), tt.status, tt.content, len(tt.body))
		}
	}
}

func TestTrustless(t *testing.T) {
	s := start(t, func(c *server.Config) { c.Demo = site })
	base := s.URL() + "/ipfs/" + s.Demo().String()
	resp, body := do(t, request(t, "GET", base+"?format=raw", nil))
	sum, err := s.Demo().Prefix().Sum([]byte(body))
	if err != nil || !sum.Equals(s.Demo()) || resp.Header.Get("Content-Type") != "application/vnd.ipld.raw" {
		t.Errorf("raw: %s %v, hashes to %s (%v)", resp.Status, resp.Header, sum, err)
	}
	// As a navigation too: what is asked for by format is not a document.
	resp, body = do(t, request(t, "GET", base+"/?format=car", nil, "Sec-Fetch-Mode: navigate"))
	br, err := carv2.NewBlockReader(strings.NewReader(body))
	if err != nil || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/vnd.ipld.car") {
		t.Fatalf("car: %s %v: %v", resp.Status, resp.Header, err)
	}
	blocks := map[cid.Cid]bool{}
	for {
		b, err := br.Next()
		if err != nil {
			break
		}
		blocks[b.Cid()] = true
	}
	if len(br.Roots) != 1 || !br.Roots[0].Equals(s.Demo()) || len(blocks) < len(site) {
		t.Errorf("car: roots %v, %d blocks", br.Roots, len(blocks))
	}
}

func TestGatewayErrors(t *testing.T) {
	s := start(t, func(c *server.Config) { c.Demo, c.Retrieval = site, time.Second })
	own := "/ipfs/" + s.Demo().String()
	absent := "/ipfs/bafkreidon73zkcrwdb5iafqtijxildoonbwnpv7dyd6ef3qdgads2jc4su"
	tests := []struct {
		name, method, path string
		status             int
		code               string
	}{
		{"no CID", "GET", "/ipfs/hello", 400, "bad_request"},
		{"no path", "GET", "/ipfs/", 400, "bad_request"},
		{"no file", "GET", own + "/nothing.js", 404, "not_found"},
		{"below a file", "GET", own + "/app.js/x", 404, "not_found"},
		{"nobody has it", "GET", absent, 504, "no_provider"},
		{"nobody has it, head", "HEAD", absent, 504, ""},
		{"method", "PUT", own + "/app.js", 405, "method_not_allowed"},
		{"elsewhere", "GET", "/nothing", 404, "not_found"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, accept := range []string{"Sec-Fetch-Dest: script", "Accept: application/json"} {
				resp, body := do(t, request(t, tt.method, s.URL()+tt.path, nil, accept))
				var e struct{ Error struct{ Code string } }
				if tt.code != "" {
					if err := json.Unmarshal([]byte(body), &e); err != nil {
						t.Errorf("body %q: %v", body, err)
					}
				}
				if resp.StatusCode != tt.status || e.Error.Code != tt.code || resp.Header.Get("Cache-Control") != "no-store" {
					t.Errorf("%s %s %v, want %d %q", resp.Status, body, resp.Header, tt.status, tt.code)
				}
			}
			if tt.method != "GET" {
				return
			}
			resp, body := do(t, request(t, "GET", s.URL()+tt.path, nil, "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Accept: text/html,*/*"))
			if resp.StatusCode != tt.status || !strings.HasPrefix(body, "<!doctype html>") || strings.Contains(body, "<script") || resp.ContentLength != int64(len(body)) {
				t.Errorf("as a page: %s %.100q", resp.Status, body)
			}
		})
	}
}

// A CID may hold its block in itself, and may be longer than any real one.
func TestInlineAndLargeCIDs(t *testing.T) {
	s := start(t, nil)
	resp, body := do(t, request(t, "GET", s.URL()+"/ipfs/bafkqabdumvzxi", nil)) // identity, "test"
	if resp.StatusCode != 200 || body != "test" {
		t.Errorf("identity CID: %s %q", resp.Status, body)
	}
	resp, _ = do(t, request(t, "GET", s.URL()+"/ipfs/"+strings.Repeat("b", 4000), nil))
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("long CID: %s", resp.Status)
	}
}
