package server

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"

	boxo "github.com/ipfs/boxo/gateway"
	"github.com/ipfs/boxo/verifcid"
	"github.com/ipfs/go-cid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/webfabric/weft/shared/content"
	"github.com/webfabric/weft/shared/gateway"
)

// maxGatewayRequests is how many requests for content are worked on at once.
const maxGatewayRequests = 2048

// newGateway is boxo's gateway over the relay's blocks.
func (s *Server) newGateway() (http.Handler, error) {
	backend, err := boxo.NewBlocksBackend(s.service)
	if err != nil {
		return nil, err
	}
	return boxo.NewHandler(boxo.Config{
		DeserializedResponses: true,
		NoDNSLink:             true,
		DisableHTMLErrors:     true, // we have our own
		RetrievalTimeout:      s.cfg.Retrieval,
		MaxConcurrentRequests: maxGatewayRequests,
		MetricsRegistry:       prometheus.NewRegistry(), // its labels are not of a fixed set
	}, backend), nil
}

// documentDest are the values of Sec-Fetch-Dest that make a browser show what
// it gets as a document.
var documentDest = map[string]bool{"document": true, "iframe": true, "frame": true, "embed": true, "object": true}

// isNavigation tells whether r's sender may show the response as a document:
// it says so, or says nothing and would rather have HTML than anything else
// (browsers send no Sec-Fetch headers to insecure origins).
func isNavigation(r *http.Request) bool {
	if r.Header.Get("Sec-Fetch-Mode") != "" || r.Header.Get("Sec-Fetch-Dest") != "" {
		return saysNavigation(r)
	}
	first, _, _ := strings.Cut(r.Header.Get("Accept"), ",")
	first, _, _ = strings.Cut(first, ";")
	return strings.EqualFold(strings.TrimSpace(first), "text/html")
}

// saysNavigation tells whether r's sender says so.
func saysNavigation(r *http.Request) bool {
	return r.Header.Get("Sec-Fetch-Mode") == "navigate" || documentDest[r.Header.Get("Sec-Fetch-Dest")]
}

// serveIPFS answers /ipfs/… by boxo's gateway, under the rules that
// shared/gateway follows in the tab.
func (s *Server) serveIPFS(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Service-Worker") == "script" {
		s.fail(w, r, http.StatusForbidden, "No worker from here", "Content under /ipfs cannot be a Service Worker of this origin.")
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD, OPTIONS")
		s.fail(w, r, http.StatusMethodNotAllowed, "Method not allowed", "Only GET and HEAD.")
		return
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/ipfs/"), "/")
	// boxo's gateway cleans the path: with dots in it, encoded so that a
	// browser leaves them, it would serve another root than the one that is
	// looked up here.
	for segment := range strings.SplitSeq(r.URL.Path, "/") {
		if segment == "." || segment == ".." {
			s.fail(w, r, http.StatusBadRequest, "Not a content address", "No part of the path may be . or ..")
			return
		}
	}
	root, err := cid.Decode(first)
	if err != nil || strings.ContainsAny(first, "\r\n") {
		s.fail(w, r, http.StatusBadRequest, "Not a content address", "What follows /ipfs/ in the address is no CID: "+strconv.Quote(first)+".")
		return
	}
	if err := verifcid.ValidateCid(verifcid.DefaultAllowlist, root); err != nil {
		s.fail(w, r, http.StatusBadRequest, "Not a content address", "No block can be verified by this CID: "+err.Error()+".")
		return
	}
	q := r.URL.Query()
	g := &gatewayResponse{
		ResponseWriter: w, server: s, request: r, root: root,
		own: s.list.Load().has(root), navigation: isNavigation(r), says: saysNavigation(r),
		download: q.Get("download") == "true", off: q.Get("weft") == "off",
		filename: q.Get("filename"),
	}
	if !g.own {
		w.Header().Set("Content-Security-Policy", "sandbox")
	}
	if g.navigation {
		// What is sent may not be the file: its ETag and ranges are not the
		// file's then. finish does the comparison.
		g.ifNoneMatch = r.Header.Get("If-None-Match")
		r = r.Clone(r.Context())
		r.Header.Del("If-None-Match")
		r.Header.Del("If-Modified-Since")
		r.Header.Del("If-Range")
		r.Header.Del("Range")
	}
	if q.Has("uri") {
		// To boxo's gateway this asks for a redirect; to a page it is its own.
		r = r.Clone(r.Context())
		q.Del("uri")
		r.URL.RawQuery = q.Encode()
	}
	s.gateway.ServeHTTP(g, s.ranged(r))
	g.finish()
}

// ranged returns r with a Range that boxo's gateway answers as RFC 9110 has it:
// one that is malformed, of another unit, or of several ranges is left out, since
// it answers 400 to some; one of the last bytes is by their offset, since it
// answers 500 to more than the file has.
func (s *Server) ranged(r *http.Request) *http.Request {
	header := r.Header.Get("Range")
	spec, ok := strings.CutPrefix(header, "bytes=")
	first, last, found := strings.Cut(strings.TrimSpace(spec), "-")
	from, err1 := strconv.ParseUint(first, 10, 63)
	to, err2 := strconv.ParseUint(last, 10, 63)
	switch {
	case header == "":
		return r
	case !ok || !found:
		header = ""
	case err1 == nil && (last == "" || err2 == nil && to >= from):
		return r
	case first == "" && err2 == nil:
		head := r.Clone(r.Context())
		head.Method = http.MethodHead
		head.Header.Del("Range")
		w := &headOnly{header: http.Header{}}
		s.gateway.ServeHTTP(w, head)
		size, err := strconv.ParseUint(w.header.Get("Content-Length"), 10, 63)
		if header = ""; w.status == http.StatusOK && err == nil && size > 0 {
			header = fmt.Sprintf("bytes=%d-", size-min(to, size))
		}
	default:
		header = ""
	}
	r = r.Clone(r.Context())
	if r.Header.Del("Range"); header != "" {
		r.Header.Set("Range", header)
	}
	return r
}

// headOnly keeps a response's status and headers.
type headOnly struct {
	header http.Header
	status int
}

func (h *headOnly) Header() http.Header         { return h.header }
func (h *headOnly) Write(b []byte) (int, error) { h.WriteHeader(http.StatusOK); return len(b), nil }
func (h *headOnly) WriteHeader(status int) {
	if h.status == 0 {
		h.status = status
	}
}

// what gatewayResponse does with the response of boxo's gateway.
type treatment uint8

const (
	pass    treatment = iota + 1 // as it is
	join                         // as it is, and the joining line
	replace                      // by body
)

// errReplaced ends boxo's writing of a body that is not wanted.
var errReplaced = errors.New("server: response replaced")

// gatewayResponse applies our rules to what boxo's gateway writes.
type gatewayResponse struct {
	http.ResponseWriter
	server  *Server
	request *http.Request
	root    cid.Cid
	// filename is what the query calls the file, "" for nothing; name is that
	// or its own, as its type goes by it.
	filename, name string

	own, navigation, says, download, off bool
	ifNoneMatch                          string

	treat   treatment
	written int64
	want    int64 // Content-Length before the joining line, -1 if unknown
	failed  int   // status, when it is an error
}

func (g *gatewayResponse) Unwrap() http.ResponseWriter { return g.ResponseWriter }

func (g *gatewayResponse) WriteHeader(status int) {
	if g.treat != 0 {
		return
	}
	h := g.Header()
	g.treat = pass
	if status >= 400 {
		g.treat, g.failed = replace, status
		for _, k := range []string{"Content-Length", "Content-Type", "Content-Disposition", "Etag", "Cache-Control", "Last-Modified", "Content-Encoding", "X-Ipfs-Path", "X-Ipfs-Roots"} {
			h.Del(k)
		}
		return
	}
	// boxo's ETag of a file is its CID; those of listings and of other formats
	// have something before or after it.
	etag := h.Get("Etag")
	_, notCID := cid.Decode(strings.Trim(etag, `"`))
	file := (status == http.StatusOK || status == http.StatusPartialContent) && notCID == nil
	if file {
		own := g.ownName()
		g.name = cmp.Or(g.filename, own)
		if g.own && gateway.Disguises(own, g.filename) {
			g.own = false
			h.Set("Content-Security-Policy", "sandbox")
		}
	}
	if file && knownType(g.name) {
		// By our table, not by the machine's mime.types.
		h.Set("Content-Type", gateway.ContentType(g.name, nil))
	}
	if file && g.download && !strings.HasPrefix(h.Get("Content-Disposition"), "attachment") {
		// boxo's gateway does this only if the request names the file.
		h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": g.name}))
	}
	ctype := h.Get("Content-Type")
	active := file && gateway.IsActiveDocument(ctype)
	if active {
		// Whether it is shown or read decides what is sent.
		h.Add("Vary", "Accept, Sec-Fetch-Mode, Sec-Fetch-Dest")
	}
	switch {
	case !g.navigation || status != http.StatusOK:
	case active && !g.own && !g.download:
		g.treat = replace
		return
	case active && g.own && g.says && !g.download && !g.off && isHTML(ctype):
		g.treat, g.want = join, -1
		h.Set("Etag", strings.TrimSuffix(etag, `"`)+`.join"`)
		h.Set("Cache-Control", "no-cache")
		h.Del("Accept-Ranges")
		if n, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64); err == nil {
			g.want = n
			h.Set("Content-Length", strconv.FormatInt(n+int64(len(gateway.JoinLine)), 10))
		}
	}
	if g.navigation && status == http.StatusOK && etagMatches(g.ifNoneMatch, h.Get("Etag")) {
		g.treat = replace
		h.Del("Content-Length")
		h.Del("Content-Type")
		g.failed = http.StatusNotModified
		return
	}
	g.ResponseWriter.WriteHeader(status)
}

// ownName is the file's name where it lies. boxo's gateway gives a file for
// /file/ too, which must not pass for a folder's index.
func (g *gatewayResponse) ownName() string {
	if strings.HasSuffix(g.request.URL.Path, "/") {
		roots := g.Header().Get("X-Ipfs-Roots")
		last, err := cid.Decode(roots[strings.LastIndex(roots, ",")+1:])
		if err == nil {
			// Its block was read for this answer.
			t, err := content.Resolve(g.request.Context(), g.server.service, last, nil)
			if err == nil && t.Kind == content.Dir {
				return "index.html"
			}
		}
	}
	return path.Base(g.request.URL.Path)
}

func (g *gatewayResponse) Write(p []byte) (int, error) {
	if g.treat == 0 {
		g.WriteHeader(http.StatusOK)
	}
	if g.treat == replace {
		if g.failed >= 400 {
			return len(p), nil
		}
		return 0, errReplaced
	}
	n, err := g.ResponseWriter.Write(p)
	g.written += int64(n)
	return n, err
}

// finish writes what comes after boxo's gateway, or instead of it.
func (g *gatewayResponse) finish() {
	w, r := g.ResponseWriter, g.request
	switch {
	case g.treat == 0:
	case g.treat == join && r.Method == http.MethodGet && (g.want < 0 || g.written == g.want):
		w.Write([]byte(gateway.JoinLine))
	case g.treat == replace && g.failed == http.StatusNotModified:
		w.WriteHeader(http.StatusNotModified)
	case g.treat == replace && g.failed != 0:
		title, hint := explain(g.failed)
		g.server.fail(w, r, g.failed, title, hint)
	case g.treat == replace:
		body := gateway.InertPage(g.root, r.URL.EscapedPath(), r.Host)
		h := w.Header()
		for _, k := range []string{"Etag", "Content-Disposition", "Accept-Ranges", "Last-Modified"} {
			h.Del(k)
		}
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Cache-Control", "no-cache")
		h.Set("Content-Security-Policy", inertCSP)
		h.Set("Content-Length", strconv.Itoa(len(body)))
		w.WriteHeader(http.StatusOK)
		if r.Method == http.MethodGet {
			w.Write(body)
		}
	}
}

// inertCSP lets the inert page's link download, or leave, and nothing else.
const inertCSP = "sandbox allow-downloads allow-top-navigation-by-user-activation; " + errorCSP

// explain says in a person's words what a status of the gateway means.
func explain(status int) (title, hint string) {
	switch status {
	case http.StatusBadRequest:
		return "Not a content address", "The address cannot be read as /ipfs/<CID>/path."
	case http.StatusNotFound:
		return "No such file", "The folder at this content address has no file of this name."
	case http.StatusGone:
		return "Gone", "This relay does not serve this content."
	case http.StatusRequestedRangeNotSatisfiable:
		return "Range not satisfiable", "The file is shorter than the part asked for."
	case http.StatusTooManyRequests:
		return "Too many requests", "The relay is busy. Try again in a moment."
	case http.StatusBadGateway:
		return "Bad content", "What was received is not what the content address names. Nothing of it was delivered."
	case http.StatusGatewayTimeout:
		return "Nobody has it", "No node that the relay is connected to holds this content, or none answered in time."
	case http.StatusInternalServerError:
		return "The relay failed", "Something went wrong in the relay. Try again."
	}
	return http.StatusText(status), "The relay cannot answer this request."
}

func isHTML(ctype string) bool {
	t, _, _ := strings.Cut(ctype, ";")
	return strings.EqualFold(strings.TrimSpace(t), "text/html")
}

// knownType tells whether a file's name alone gives its type.
func knownType(name string) bool {
	const none, html = "\x00", "<!doctype html>"
	return gateway.ContentType(name, []byte(none)) == gateway.ContentType(name, []byte(html))
}

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
