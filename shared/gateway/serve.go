package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"

	"github.com/webfabric/weft/shared/content"
)

const (
	// immutable is boxo's gateway's, 48 weeks: a CID's bytes never change.
	immutable = "public, max-age=29030400, immutable"
	// listings change with the program that makes them.
	listingCache = "public, max-age=604800"

	sandbox = "sandbox"
	// pageSandbox is for pages of ours under foreign roots: no script, and
	// nothing from anywhere; a click on a link may still download.
	pageSandbox = "sandbox allow-downloads allow-top-navigation-by-user-activation; default-src 'none'; style-src 'unsafe-inline'"

	// statusCancelled is nobody's to see: who asked has gone away.
	statusCancelled = 499

	indexName = "index.html"
)

// Serve answers r. It never returns nil and never panics; an error is a
// response too. Close the body. The work ends when ctx does, or when the body
// is closed.
func (g *Gateway) Serve(ctx context.Context, r Request) (resp *Response) {
	ctx, cancel := context.WithCancel(ctx)
	w := &work{g: g, r: r, cancel: cancel}
	defer func() {
		if p := recover(); p != nil {
			g.log.Error("panic while answering", "path", r.Path, "panic", p)
			resp = w.page(http.StatusInternalServerError, "internal", "Something went wrong", "The node hit a fault of its own. Try again.")
		}
		if resp.Body == nil {
			w.end()
		} else if r.Method == http.MethodHead {
			resp.Body.Close()
			resp.Body = nil
		} else {
			context.AfterFunc(ctx, w.end) // even if nobody closes the body
		}
		resp.Header.Set("Content-Length", strconv.FormatInt(resp.Size, 10))
		if resp.Status == http.StatusNotModified {
			resp.Header.Del("Content-Length")
		}
	}()
	resp, err := w.answer(ctx)
	if err != nil {
		resp = w.fail(ctx, err)
	}
	return resp
}

// work is one request being answered.
type work struct {
	g      *Gateway
	r      Request
	t      target
	s      *session
	owned  bool // the owner has published the root
	cancel context.CancelFunc
	once   sync.Once
}

// end gives back what the request holds.
func (w *work) end() {
	w.once.Do(func() {
		w.cancel()
		if w.s != nil {
			w.g.release(w.s)
		}
	})
}

func (w *work) answer(ctx context.Context) (*Response, error) {
	switch w.r.Method {
	case "", http.MethodGet, http.MethodHead:
	default:
		resp := w.page(http.StatusMethodNotAllowed, "method_not_allowed", "Only reading is possible here", "Content at these addresses never changes.")
		resp.Header.Set("Allow", "GET, HEAD")
		return resp, nil
	}
	if w.r.Header.Get("Service-Worker") != "" {
		return w.page(http.StatusForbidden, "forbidden", "No Service Worker may come from here", "A worker from content would answer for the whole site."), nil
	}
	t, err := parse(w.r)
	if err != nil {
		return nil, err
	}
	w.t, w.owned = t, w.g.owner(t.root)
	w.s = w.g.acquire(t.root)
	if t.raw {
		return w.raw(ctx)
	}
	dir, names := t.root, t.segments
	if n := len(names); n > 0 {
		parent, err := content.Resolve(ctx, w.s.get, t.root, names[:n-1])
		if err != nil {
			return nil, err
		}
		dir, names = parent.Cid, names[n-1:]
	}
	found, err := content.Resolve(ctx, w.s.get, dir, names)
	if err != nil {
		return nil, err
	}
	if found.Kind == content.Dir {
		return w.dir(ctx, found)
	}
	resp, err := w.file(ctx, found, t.name(), found.Cid)
	if err == nil && len(names) > 0 && isModule(names[0]) {
		w.g.asked(w.s, dir, found.Cid)
	}
	return resp, err
}

// header begins the headers of a response for what has the tag etag.
func (w *work) header(contentType, etag, cache string) http.Header {
	h := http.Header{
		"Content-Type":  {contentType},
		"Cache-Control": {cache},
		"X-Ipfs-Path":   {w.t.path()},
		// As the relay has it: the type is by the rules here, nobody guesses.
		"X-Content-Type-Options": {"nosniff"},
	}
	if w.t.slash {
		h["X-Ipfs-Path"][0] += "/"
	}
	if etag != "" {
		h.Set("Etag", etag)
	}
	if !w.owned {
		h.Set("Content-Security-Policy", sandbox)
	}
	return h
}

// unchanged returns the answer to a request that has what etag names, or nil.
func (w *work) unchanged(h http.Header) *Response {
	if !matches(w.r.Header.Get("If-None-Match"), h.Get("Etag")) {
		return nil
	}
	h.Del("Content-Type")
	h.Del("Accept-Ranges")
	return &Response{Status: http.StatusNotModified, Header: h}
}

func (w *work) raw(ctx context.Context) (*Response, error) {
	c := w.t.root
	if len(w.t.segments) > 0 {
		found, err := content.Resolve(ctx, w.s.get, c, w.t.segments)
		if err != nil {
			return nil, err
		}
		c = found.Cid
	}
	h := w.header("application/vnd.ipld.raw", `"`+c.String()+`.raw"`, immutable)
	h.Set("Content-Disposition", disposition("attachment", cmp.Or(w.t.filename, c.String()+".bin")))
	if resp := w.unchanged(h); resp != nil {
		return resp, nil
	}
	data, err := content.Block(ctx, w.s.get, c)
	if err != nil {
		return nil, err
	}
	return w.bytes(http.StatusOK, h, data), nil
}

// bytes is a response that is all there.
func (w *work) bytes(status int, h http.Header, data []byte) *Response {
	return &Response{Status: status, Header: h, Size: int64(len(data)), Body: &body{tail: data, cancel: w.cancel, close: w.end}}
}

// file answers with a file, called own where it lies. tag is what the path
// leads to: the file, or the directory whose index it is, as boxo's gateway has it.
func (w *work) file(ctx context.Context, found content.Target, own string, tag cid.Cid) (*Response, error) {
	name := cmp.Or(w.t.filename, own)
	w.owned = w.owned && !Disguises(own, w.t.filename)
	typ, err := w.contentType(ctx, found, name)
	if err != nil {
		return nil, err
	}
	active := IsActiveDocument(typ)
	if active && !w.owned && !w.t.download && navigates(w.r) {
		h := w.header("text/html; charset=utf-8", "", "no-cache")
		h.Set("Content-Security-Policy", pageSandbox)
		return w.bytes(http.StatusOK, h, InertPage(w.t.root, w.t.path(), w.r.Host)), nil
	}
	etag, tail := `"`+tag.String()+`"`, ""
	if w.owned && typ == htmlType && !w.t.plain && !w.t.download && (w.r.Navigation || w.r.Header.Get("Sec-Fetch-Mode") == "navigate") {
		etag, tail = `"`+tag.String()+`.join"`, JoinLine
	}
	h := w.header(typ, etag, immutable)
	if tail != "" {
		h.Set("Cache-Control", "no-cache")
	} else {
		h.Set("Accept-Ranges", "bytes")
	}
	if active {
		// The same URL has other bytes for a navigation.
		h.Set("Vary", "Accept, Sec-Fetch-Mode, Sec-Fetch-Dest")
	}
	if w.t.download {
		h.Set("Content-Disposition", disposition("attachment", name))
	} else if w.t.filename != "" {
		h.Set("Content-Disposition", disposition("inline", name))
	}
	if resp := w.unchanged(h); resp != nil {
		return resp, nil
	}
	status, from, to := http.StatusOK, int64(0), found.Size
	asked := w.r.Header.Get("Range")
	if ifRange := w.r.Header.Get("If-Range"); asked != "" && tail == "" && (ifRange == "" || ifRange == etag) {
		a, b, ok, err := parseRange(asked, found.Size)
		if err != nil {
			resp := w.fail(ctx, err)
			resp.Header.Set("Content-Range", fmt.Sprintf("bytes */%d", found.Size))
			return resp, nil
		}
		if ok {
			status, from, to = http.StatusPartialContent, a, b
			h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, found.Size))
		}
	}
	data, err := content.OpenRange(ctx, w.s.get, found, from, to-from)
	if err != nil {
		return nil, err
	}
	// No status before the first block is here.
	if _, err := data.Peek(); err != nil {
		data.Close()
		return nil, err
	}
	b := &body{data: data, tail: []byte(tail), cancel: w.cancel, close: w.end}
	return &Response{Status: status, Header: h, Body: b, Size: to - from + int64(len(tail))}, nil
}

func (w *work) contentType(ctx context.Context, found content.Target, name string) (string, error) {
	if found.Kind == content.Symlink {
		return "inode/symlink", nil // as boxo's gateway does
	}
	if t := byName(name); t != "" {
		return t, nil
	}
	head, err := content.OpenRange(ctx, w.s.get, found, 0, sniffBytes)
	if err != nil {
		return "", err
	}
	defer head.Close()
	first, err := io.ReadAll(head)
	if err != nil {
		return "", err
	}
	return ContentType(name, first), nil
}

func (w *work) dir(ctx context.Context, found content.Target) (*Response, error) {
	if !w.t.slash {
		// A directory is a document: nobody imports one, so no module gets two
		// instances by this (DESIGN.md, 8).
		to := w.t.path() + "/"
		if q, err := url.ParseQuery(w.r.RawQuery); err == nil && len(q) > 0 {
			to += "?" + q.Encode()
		}
		h := w.header("text/html; charset=utf-8", "", immutable)
		h.Set("Location", to)
		return w.bytes(http.StatusMovedPermanently, h, nil), nil
	}
	index, err := content.Resolve(ctx, w.s.get, found.Cid, []string{indexName})
	switch {
	case err == nil && index.Kind != content.Dir:
		return w.file(ctx, index, indexName, found.Cid)
	case err != nil && !errors.Is(err, content.ErrNotFound):
		return nil, err
	}
	h := w.header("text/html; charset=utf-8", `"DirIndex-weft_CID-`+found.Cid.String()+`"`, listingCache)
	if !w.owned {
		h.Set("Content-Security-Policy", pageSandbox)
	}
	if resp := w.unchanged(h); resp != nil {
		return resp, nil
	}
	var entries []content.Entry
	more := false
	for e, err := range content.List(ctx, w.s.get, found.Cid) {
		if err != nil {
			return nil, err
		}
		if len(entries) == listingMax {
			more = true
			break
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b content.Entry) int { return cmp.Compare(a.Name, b.Name) })
	return w.bytes(http.StatusOK, h, listingPage(w.t, found.Cid, entries, more)), nil
}

// fail is the answer to err.
func (w *work) fail(ctx context.Context, err error) *Response {
	var (
		status      int
		code        string
		title, hint string
	)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		status, code, title = statusCancelled, "cancelled", "Cancelled"
	case errors.Is(err, errBadCID):
		status, code, title, hint = http.StatusBadRequest, "bad_cid", "This is not a content address", "The part after /ipfs/ must be a CID: it begins with bafy, bafk or Qm."
	case errors.Is(err, errBadPath), errors.Is(err, errBadQuery):
		status, code, title, hint = http.StatusBadRequest, "bad_request", "This address is malformed", "It has characters that do not decode, or names that no directory can have."
	case errors.Is(err, errFormat):
		status, code, title, hint = http.StatusNotAcceptable, "not_acceptable", "Not available in this form", "A node in a tab gives files, and single blocks with ?format=raw; ask a relay for the rest."
	case errors.Is(err, errNotHere), errors.Is(err, content.ErrNotFound), errors.Is(err, content.ErrNotDir):
		status, code, title, hint = http.StatusNotFound, "not_found", "There is nothing at this path", "The content is whole, but has no file of this name."
	case errors.Is(err, errBeyondSize):
		status, code, title, hint = http.StatusRequestedRangeNotSatisfiable, "range", "The file ends before that", "The range asked for begins past the end."
	case errors.Is(err, content.ErrBadBlock):
		status, code, title, hint = http.StatusBadGateway, "bad_block", "What came is not what was asked for", "A block failed verification. Nothing of it was used; another peer may have the right one."
	case errors.Is(err, content.ErrNotUnixFS):
		status, code, title, hint = http.StatusNotAcceptable, "not_acceptable", "This is neither a file nor a directory", "It can be had as it is, with ?format=raw."
	case errors.Is(err, ErrNoProvider), errors.Is(err, context.DeadlineExceeded), ipld.IsNotFound(err):
		status, code, title, hint = http.StatusGatewayTimeout, "no_provider", "Nobody who has this could be reached", "Its holders may be away: try again in a moment, or when you are online."
	default:
		w.g.log.Error("request failed", "path", w.r.Path, "err", err)
		status, code, title, hint = http.StatusInternalServerError, "internal", "Something went wrong", "The node hit a fault of its own. Try again."
	}
	w.g.log.Debug("request refused", "path", w.r.Path, "status", status, "err", err)
	return w.page(status, code, title, hint)
}

// page is an error response.
func (w *work) page(status int, code, title, hint string) *Response {
	var data []byte
	typ := "application/json"
	if wantsJSON(w.r) {
		data = errorJSON(status, code, title, hint)
	} else {
		data, typ = errorHTML(status, title, hint), "text/html; charset=utf-8"
	}
	return w.bytes(status, http.Header{
		"Content-Type":            {typ},
		"Cache-Control":           {"no-store"},
		"Content-Security-Policy": {pageSandbox},
		"X-Content-Type-Options":  {"nosniff"},
	}, data)
}

// disposition is the header for a file of that name, RFC 6266.
func disposition(kind, name string) string {
	plain := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return '_'
		}
		return r
	}, name)
	return fmt.Sprintf(`%s; filename="%s"; filename*=UTF-8''%s`, kind, plain, strings.ReplaceAll(url.QueryEscape(name), "+", "%20"))
}

// A body is the bytes in memory, or a range and then its tail. Close may run
// beside a Read: a page goes away when it likes.
type body struct {
	cancel func() // ends what a Read waits for
	close  func()
	once   sync.Once

	mu   sync.Mutex // guards what follows
	data *content.Range
	tail []byte
	gone bool
}

var _ io.WriterTo = (*body)(nil)

func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gone {
		return 0, errClosed
	}
	if b.data != nil {
		n, err := b.data.Read(p)
		if err != io.EOF {
			return n, err
		}
	}
	if len(b.tail) == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	n := copy(p, b.tail)
	b.tail = b.tail[n:]
	return n, nil
}

// WriteTo writes the rest to w, a block at a time, without a copy; w must not
// change what it is given.
func (b *body) WriteTo(w io.Writer) (n int64, err error) {
	for {
		piece, err := b.next()
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		m, err := w.Write(piece)
		n += int64(m)
		if err != nil {
			return n, err
		}
	}
}

func (b *body) next() ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gone {
		return nil, errClosed
	}
	if b.data != nil {
		if piece, err := b.data.Next(); err != io.EOF {
			return piece, err
		}
	}
	piece := b.tail
	b.tail = nil
	if len(piece) == 0 {
		return nil, io.EOF
	}
	return piece, nil
}

func (b *body) Close() error {
	b.once.Do(func() {
		b.cancel()
		b.mu.Lock()
		defer b.mu.Unlock()
		b.gone = true
		if b.data != nil {
			b.data.Close()
		}
		b.close()
	})
	return nil
}

var errClosed = errors.New("gateway: read of a closed body")
