package server

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/andybalholm/brotli"

	"github.com/webfabric/weft/shared/gateway"
)

// nodeName is the compiled node in Config.Assets, raw or with ".br" added.
const nodeName = "node.wasm"

// compressLevel is brotli's level for the pages, compressed at start: they are
// small, and what a relay sends most often.
const compressLevel = 9

// static are the files of Config.Assets, held in memory.
type static struct {
	files map[string]*file // by URL path
	// wasm is the URL path of the node, "" if there is none, and wasmBytes
	// what a browser downloads of it, compressed.
	wasm      string
	wasmBytes int
	list      []byte // /assets.json
}

type file struct {
	ctype     string
	etag      string
	csp       string
	immutable bool
	raw       []byte // nil: only br is there
	br        []byte // nil: not worth it
}

func newStatic(fsys fs.FS) (*static, error) {
	s := &static{files: make(map[string]*file)}
	hashes := make(map[string]string)
	if fsys != nil {
		err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || name == nodeName || name == nodeName+".br" {
				return err
			}
			raw, err := fs.ReadFile(fsys, name)
			if err != nil {
				return err
			}
			f := &file{ctype: staticType(name, raw), raw: raw, csp: csp(name, raw)}
			if len(raw) > 1024 && compressible(f.ctype) {
				var buf bytes.Buffer
				bw := brotli.NewWriterLevel(&buf, compressLevel)
				if _, err := bw.Write(raw); err != nil {
					return err
				}
				if err := bw.Close(); err != nil {
					return err
				}
				f.br = buf.Bytes()
			}
			hash := shortHash(raw)
			f.etag = `"` + hash + `"`
			url := "/" + name
			if name == "index.html" {
				url = "/"
			}
			s.files[url], hashes[url] = f, hash
			return nil
		})
		if err == nil {
			err = s.addNode(fsys, hashes)
		}
		if err != nil {
			return nil, fmt.Errorf("server: read the pages: %w", err)
		}
	}
	var err error
	if s.list, err = json.Marshal(map[string]any{"files": hashes}); err != nil {
		return nil, fmt.Errorf("server: list the pages: %w", err)
	}
	return s, nil
}

func (s *static) addNode(fsys fs.FS, hashes map[string]string) error {
	raw, err := readOptional(fsys, nodeName)
	if err != nil {
		return err
	}
	br, err := readOptional(fsys, nodeName+".br")
	if err != nil || (raw == nil && br == nil) {
		return err
	}
	sent := br
	if sent == nil {
		sent = raw
	}
	hash := shortHash(sent)
	s.wasm, s.wasmBytes = "/node."+hash+".wasm", len(sent)
	s.files[s.wasm] = &file{ctype: "application/wasm", etag: `"` + hash + `"`, csp: pageCSP(nil), immutable: true, raw: raw, br: br}
	hashes[s.wasm] = hash
	return nil
}

func readOptional(fsys fs.FS, name string) ([]byte, error) {
	b, err := fs.ReadFile(fsys, name)
	if err != nil && !isNotExist(err) {
		return nil, err
	}
	return b, nil
}

// serve answers r if there is a file for it.
func (s *static) serve(w http.ResponseWriter, r *http.Request) bool {
	p := r.URL.Path
	if p == "/assets.json" {
		h := w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", "no-cache")
		h.Set("Content-Length", strconv.Itoa(len(s.list)))
		if r.Method != http.MethodHead {
			w.Write(s.list)
		}
		return true
	}
	switch p {
	case "/index.html":
		p = "/"
	case "/favicon.ico":
		// What browsers ask for when a page names no icon: it has none, and
		// that is no error in its console.
		w.Header().Set("Cache-Control", "public, max-age=86400")
		w.WriteHeader(http.StatusNoContent)
		return true
	}
	f := s.files[p]
	if f == nil {
		return false
	}
	h := w.Header()
	h.Set("Content-Type", f.ctype)
	h.Set("Content-Security-Policy", f.csp)
	h.Set("ETag", f.etag)
	h.Set("Cache-Control", "no-cache")
	if f.immutable {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	if f.br != nil {
		h.Add("Vary", "Accept-Encoding")
	}
	if etagMatches(r.Header.Get("If-None-Match"), f.etag) {
		w.WriteHeader(http.StatusNotModified)
		return true
	}
	switch {
	case f.br != nil && acceptsBrotli(r):
		h.Set("Content-Encoding", "br")
		send(w, r, f.br)
	case f.raw != nil:
		send(w, r, f.raw)
	case r.Method != http.MethodHead:
		// For a client without brotli: no browser with a Service Worker is one.
		io.Copy(w, brotli.NewReader(bytes.NewReader(f.br)))
	}
	return true
}

func send(w http.ResponseWriter, r *http.Request, b []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	if r.Method != http.MethodHead {
		w.Write(b)
	}
}

// acceptsBrotli reads Accept-Encoding (RFC 9110, 12.5.3) as far as is needed.
func acceptsBrotli(r *http.Request) bool {
	for _, part := range strings.Split(r.Header.Get("Accept-Encoding"), ",") {
		name, params, _ := strings.Cut(part, ";")
		if !strings.EqualFold(strings.TrimSpace(name), "br") {
			continue
		}
		q, ok := strings.CutPrefix(strings.ReplaceAll(params, " ", ""), "q=")
		if !ok {
			return true
		}
		v, err := strconv.ParseFloat(q, 64)
		return err == nil && v > 0
	}
	return false
}

// shortHash is the first 16 hex digits of b's SHA-256: enough to tell
// versions of our own files apart.
func shortHash(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:8])
}

func staticType(name string, raw []byte) string {
	switch path.Ext(name) {
	case ".webmanifest":
		return "application/manifest+json"
	case ".map":
		return "application/json"
	}
	return gateway.ContentType(name, raw[:min(len(raw), 512)])
}

func compressible(ctype string) bool {
	t, _, err := mime.ParseMediaType(ctype)
	return err == nil && (strings.HasPrefix(t, "text/") || strings.HasSuffix(t, "json") || strings.HasSuffix(t, "+xml") || t == "application/javascript")
}

// inlineScript finds the scripts that stand in a page itself.
var inlineScript = regexp.MustCompile(`(?is)<script((?:\s+[^>]*)?)>(.*?)</script>`)

// csp is the policy of a file: that of the relay's pages, with the hashes of
// an HTML page's own inline scripts (an import map is one).
func csp(name string, raw []byte) string {
	var hashes []string
	if path.Ext(name) == ".html" {
		for _, m := range inlineScript.FindAllSubmatch(raw, -1) {
			if !strings.Contains(strings.ToLower(string(m[1])), "src=") {
				h := sha256.Sum256(m[2])
				hashes = append(hashes, " 'sha256-"+base64.StdEncoding.EncodeToString(h[:])+"'")
			}
		}
	}
	return pageCSP(hashes)
}

// pageCSP: scripts come from the relay's origin (the worker answers /ipfs/…
// there); connections may go to other relays.
func pageCSP(hashes []string) string {
	return "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'" + strings.Join(hashes, "") +
		"; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:" +
		"; connect-src 'self' http: https: ws: wss: data: blob:; worker-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
}
