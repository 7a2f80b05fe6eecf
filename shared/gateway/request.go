package gateway

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/ipfs/boxo/verifcid"
	"github.com/ipfs/go-cid"
)

var (
	errNotHere    = errors.New("gateway: not under /ipfs/")
	errBadCID     = errors.New("gateway: not a CID")
	errBadPath    = errors.New("gateway: malformed path")
	errBadQuery   = errors.New("gateway: malformed query")
	errFormat     = errors.New("gateway: format not available here")
	errBeyondSize = errors.New("gateway: range beyond the end")
)

// maxSegments is how many names a path may have.
const maxSegments = 1024

// target is what a path and query ask for.
type target struct {
	root     cid.Cid
	rootText string   // as in the path
	segments []string // decoded names
	slash    bool     // the path ends with one
	raw      bool     // the block itself
	download bool
	filename string // given in the query, else ""
	plain    bool   // ?weft=off: exact bytes for navigations too
}

// parse reads the path and query of a request. Its error wraps one of the
// errors above.
func parse(r Request) (target, error) {
	var t target
	rest, ok := strings.CutPrefix(r.Path, "/ipfs/")
	if !ok {
		return t, fmt.Errorf("%w: %.200q", errNotHere, r.Path)
	}
	t.slash = strings.HasSuffix(rest, "/")
	var first string
	first, rest, _ = strings.Cut(rest, "/")
	root, err := cid.Decode(first)
	if err == nil && strings.ContainsFunc(first, notInCID) {
		// Go's base32 and base64 skip line ends, which a header must not have.
		err = errors.New("a character that no CID has")
	}
	if err != nil {
		return t, fmt.Errorf("%w: %.200q: %w", errBadCID, first, err)
	}
	if err := verifcid.ValidateCid(verifcid.DefaultAllowlist, root); err != nil {
		return t, fmt.Errorf("%w: %s: %w", errBadCID, root, err)
	}
	t.root, t.rootText = root, first
	for s := range strings.SplitSeq(rest, "/") {
		if s == "" {
			continue
		}
		name, err := url.PathUnescape(s)
		if err != nil {
			return t, fmt.Errorf("%w: %w", errBadPath, err)
		}
		if name == "." || name == ".." || len(t.segments) == maxSegments {
			return t, fmt.Errorf("%w: %.200q", errBadPath, r.Path)
		}
		t.segments = append(t.segments, name)
	}
	q, err := url.ParseQuery(r.RawQuery)
	if err != nil {
		return t, fmt.Errorf("%w: %w", errBadQuery, err)
	}
	t.download = q.Get("download") == "true"
	t.filename = q.Get("filename")
	t.plain = q.Get("weft") == "off"
	accept := r.Header.Get("Accept")
	switch format := q.Get("format"); {
	case format == "raw" || format == "" && strings.Contains(accept, "application/vnd.ipld.raw"):
		t.raw = true
	case format != "":
		return t, fmt.Errorf("%w: %.40q", errFormat, format)
	case strings.Contains(accept, "application/vnd.ipld.") || strings.Contains(accept, "application/vnd.ipfs."):
		return t, fmt.Errorf("%w: %.200q", errFormat, accept)
	}
	return t, nil
}

func notInCID(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
}

// path is the target's, percent-encoded anew: fit for a header.
func (t target) path() string {
	var b strings.Builder
	b.WriteString("/ipfs/" + t.rootText)
	for _, s := range t.segments {
		b.WriteString("/" + url.PathEscape(s))
	}
	return b.String()
}

// name is what the path calls the target.
func (t target) name() string {
	if n := len(t.segments); n > 0 {
		return t.segments[n-1]
	}
	return t.rootText
}

// parseRange reads a Range header of one range, against size bytes: the range
// [from, to). It is not ok where the header is to be ignored: another unit,
// malformed, several ranges, or nothing to take a range of. The error is
// errBeyondSize.
func parseRange(header string, size int64) (from, to int64, ok bool, err error) {
	spec, isBytes := strings.CutPrefix(header, "bytes=")
	if !isBytes || strings.Contains(spec, ",") || size == 0 {
		return 0, 0, false, nil
	}
	first, last, found := strings.Cut(strings.TrimSpace(spec), "-")
	if !found {
		return 0, 0, false, nil
	}
	if first == "" {
		n, err := parseOffset(last)
		if err != nil {
			return 0, 0, false, nil
		}
		if n == 0 {
			return 0, 0, false, errBeyondSize
		}
		return size - min(n, size), size, true, nil
	}
	from, err = parseOffset(first)
	if err != nil {
		return 0, 0, false, nil
	}
	to = size
	if last != "" {
		end, err := parseOffset(last)
		if err != nil || end < from {
			return 0, 0, false, nil
		}
		if end < size {
			to = end + 1
		}
	}
	if from >= size {
		return 0, 0, false, errBeyondSize
	}
	return from, to, true, nil
}

// parseOffset reads digits only, no sign.
func parseOffset(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	return int64(n), err
}

// matches tells whether an If-None-Match header names etag, weakly compared.
func matches(header, etag string) bool {
	for tag := range strings.SplitSeq(header, ",") {
		tag = strings.TrimSpace(tag)
		if tag == "*" || strings.TrimPrefix(tag, "W/") == etag {
			return true
		}
	}
	return false
}

// htmlFirst tells whether accept asks for HTML before anything else.
func htmlFirst(accept string) bool {
	first, _, _ := strings.Cut(accept, ",")
	first, _, _ = strings.Cut(first, ";")
	return strings.EqualFold(strings.TrimSpace(first), "text/html")
}

// jsonFirst tells whether accept asks for JSON, and not for HTML before it.
func jsonFirst(accept string) bool {
	accept = strings.ToLower(accept)
	json, html := strings.Index(accept, "application/json"), strings.Index(accept, "text/html")
	return json >= 0 && (html < 0 || json < html)
}

// wantsJSON tells whether a script, and not a person, will read an error.
func wantsJSON(r Request) bool {
	accept := r.Header.Get("Accept")
	if jsonFirst(accept) {
		return true
	}
	if r.Navigation {
		return false
	}
	switch dest := r.Header.Get("Sec-Fetch-Dest"); dest {
	case "document", "iframe", "frame", "embed", "object":
		return false
	case "": // a worker sees no such header, and is told of navigations
		return !strings.Contains(strings.ToLower(accept), "text/html")
	}
	return true
}

// navigates tells whether the response will be shown as a document.
func navigates(r Request) bool {
	if r.Navigation || r.Header.Get("Sec-Fetch-Mode") == "navigate" {
		return true
	}
	for name := range r.Header {
		if strings.HasPrefix(strings.ToLower(name), "sec-fetch-") {
			return false
		}
	}
	// An old browser, which says nothing of the kind.
	return htmlFirst(r.Header.Get("Accept"))
}
