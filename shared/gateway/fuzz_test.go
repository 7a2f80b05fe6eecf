package gateway

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// FuzzParse: no path or query panics, and what is accepted is put together
// again as the same target, fit for a header.
func FuzzParse(f *testing.F) {
	const c = "/ipfs/bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
	for _, path := range []string{"", "/", "/ipfs/", c, c + "/", c + "/a/b.js", c + "//a%20b/%C3%BC", c + "/%2e%2e/x", c + "/%zz", c + "/a%2Fb",
		"/ipfs/QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn/x", "/ipfs/bafkqaaa", "/ipns/x", "/ipfs/f01551220" + strings.Repeat("00", 32)} {
		f.Add(path, "", "")
	}
	f.Add(c, "format=raw&filename=a%22b&download=true&weft=off", "text/html,application/json")
	f.Add(c, "format=car", "application/vnd.ipld.raw")
	f.Add(c, "a=%zz;", "application/vnd.ipld.car; version=1")
	f.Fuzz(func(t *testing.T, path, query, accept string) {
		r := Request{Path: path, RawQuery: query, Header: http.Header{"Accept": {accept}}}
		wantsJSON(r)
		navigates(r)
		first, err := parse(r)
		if err != nil {
			return
		}
		again, err := parse(Request{Path: first.path(), RawQuery: query, Header: r.Header})
		if err != nil || !again.root.Equals(first.root) || strings.Join(again.segments, "\x00") != strings.Join(first.segments, "\x00") {
			t.Fatalf("%q became %q: %v", path, first.path(), err)
		}
		if u, err := url.Parse(first.path()); err != nil || u.Host != "" || u.Scheme != "" {
			t.Fatalf("%q is not a path: %v", first.path(), err)
		}
		for _, s := range []string{first.path(), disposition("attachment", first.name()), disposition("inline", first.filename)} {
			if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Fatalf("%q is not fit for a header", s)
			}
		}
	})
}

// FuzzRange: a range that is accepted lies within the file.
func FuzzRange(f *testing.F) {
	for _, s := range []string{"", "bytes=0-", "bytes=0-0", "bytes=-1", "bytes=5-2", "bytes=1-2,3-4", "bytes=9223372036854775807-", "bytes=-9223372036854775808", "bytes=--1", "chars=0-1"} {
		f.Add(s, int64(10), `W/"a", "b"`)
	}
	f.Fuzz(func(t *testing.T, header string, size int64, tags string) {
		matches(tags, `"a"`)
		if size < 0 {
			return
		}
		from, to, ok, err := parseRange(header, size)
		if ok && (err != nil || from < 0 || from >= to || to > size) {
			t.Fatalf("parseRange(%q, %d) = %d, %d, %v", header, size, from, to, err)
		}
	})
}

// FuzzPages: what a directory's maker or a URL says never becomes markup.
func FuzzPages(f *testing.F) {
	f.Add("/a/\"><script>", "ho\"st<", "name?#&<>")
	f.Add("/%zz", "", "javascript:alert(1)")
	f.Fuzz(func(t *testing.T, path, host, name string) {
		r, err := parse(Request{Path: "/ipfs/bafkqaaa"})
		if err != nil {
			t.Fatal(err)
		}
		plain := func(page []byte) int { return strings.Count(string(page), "<") }
		if got, want := plain(InertPage(r.root, path, host)), plain(InertPage(r.root, "/x", "h")); got != want && host != "" {
			t.Errorf("InertPage(%q, %q) has %d tags, want %d", path, host, got, want)
		}
		if got, want := plain(errorHTML(404, name, host)), plain(errorHTML(404, "", "")); got != want {
			t.Errorf("an error page of %q has %d tags, want %d", name, got, want)
		}
	})
}
