package gateway

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/webfabric/weft/shared/content"
)

// listingMax is how many entries of a directory are shown.
const listingMax = 10_000

// head begins every page of ours: calm, light and dark, no script and nothing
// fetched from anywhere.
const head = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>%s</title>
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.6 system-ui, sans-serif; max-width: 44rem; margin: 12vh auto 4rem; padding: 0 1.25rem; }
h1 { font-size: 1.5rem; line-height: 1.3; font-weight: 600; margin: 0 0 .75rem; }
p { margin: 0 0 1rem; }
code { font: .875em ui-monospace, monospace; overflow-wrap: anywhere; }
small { opacity: .7; }
table { width: 100%%; border-collapse: collapse; }
td { padding: .3rem 0; border-bottom: 1px solid color-mix(in srgb, currentColor 15%%, transparent); overflow-wrap: anywhere; }
td + td { text-align: right; white-space: nowrap; padding-left: 1rem; opacity: .7; }
</style>
</head>
<body>
<main>
`

const foot = "</main>\n</body>\n</html>\n"

// InertPage is shown in place of a document under root, which the owner of the
// site at host has not published: what it is, and how to have it safely. path
// is the document's, percent-encoded, as in its URL; host may be empty. The
// page has no script and loads nothing; it is to be served with a
// Content-Security-Policy that has "sandbox allow-downloads", not alone.
func InertPage(root cid.Cid, path, host string) []byte {
	site := "this site"
	if host != "" {
		site = "<b>" + html.EscapeString(host) + "</b>"
	}
	name, err := url.PathUnescape(path[strings.LastIndex(path, "/")+1:])
	if err != nil || name == "" || name == root.String() {
		name = indexName
	}
	link := path + "?download=true&filename=" + url.QueryEscape(name)
	var b bytes.Buffer
	fmt.Fprintf(&b, head, "Not opened here")
	fmt.Fprintf(&b, `<h1>This document was not opened</h1>
<p>It is genuine: every byte is what its address says. But whoever made it is not the owner of %s, and opened here it could act in the site's name.</p>
<p><a href="%s" download>Download %s</a> to look at it.</p>
<p>If the site is yours, publish this content from your own key and it will open: <code>weft publish</code>.</p>
<p><small>Content address: <code>%s</code></small></p>
`, site, html.EscapeString(link), html.EscapeString(name), html.EscapeString(root.String()))
	b.WriteString(foot)
	return b.Bytes()
}

// ErrorPage makes the body of an error response and its type: JSON
// {"error":{"status":…,"code":…,"message":…}} where accept asks for it before
// HTML, else a page. The code is the status's ("not_found").
func ErrorPage(status int, title, hint, accept string) (body []byte, contentType string) {
	if jsonFirst(accept) {
		return errorJSON(status, statusCode(status), title, hint), "application/json"
	}
	return errorHTML(status, title, hint), "text/html; charset=utf-8"
}

// statusCode is the code that a status has where nothing says it better.
func statusCode(status int) string {
	switch status {
	case http.StatusBadRequest:
		return "bad_request"
	case http.StatusBadGateway:
		return "bad_block"
	case http.StatusGatewayTimeout:
		return "no_provider"
	case http.StatusInternalServerError:
		return "internal"
	case http.StatusRequestedRangeNotSatisfiable:
		return "range"
	}
	text := cmp.Or(http.StatusText(status), "error")
	return strings.ReplaceAll(strings.ToLower(text), " ", "_")
}

func errorJSON(status int, code, title, hint string) []byte {
	type problem struct {
		Status  int    `json:"status"`
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	message := title
	if hint != "" {
		message += ". " + hint
	}
	data, err := json.Marshal(map[string]problem{"error": {status, code, message}})
	if err != nil { // of strings and a number: cannot be
		panic(err)
	}
	return append(data, '\n')
}

func errorHTML(status int, title, hint string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, head, html.EscapeString(title))
	fmt.Fprintf(&b, "<h1>%s</h1>\n<p>%s</p>\n<p><small>%d</small></p>\n", html.EscapeString(title), html.EscapeString(hint), status)
	b.WriteString(foot)
	return b.Bytes()
}

func listingPage(t target, dir cid.Cid, entries []content.Entry, more bool) []byte {
	title := t.rootText
	if n := len(t.segments); n > 0 {
		title = t.segments[n-1]
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, head, html.EscapeString(title))
	fmt.Fprintf(&b, "<h1>%s</h1>\n<p><small><code>%s</code></small></p>\n<table>\n", html.EscapeString(title), dir)
	if len(t.segments) > 0 {
		b.WriteString("<tr><td><a href=\"../\">..</a><td>\n")
	}
	for _, e := range entries {
		// "./" keeps a name with a colon from being taken for a scheme.
		fmt.Fprintf(&b, "<tr><td><a href=\"./%s\">%s</a><td>%s\n", html.EscapeString(url.PathEscape(e.Name)), html.EscapeString(e.Name), size(e.Size))
	}
	b.WriteString("</table>\n")
	if more {
		fmt.Fprintf(&b, "<p><small>and more: the first %d are shown</small></p>\n", listingMax)
	}
	if len(entries) == 0 {
		b.WriteString("<p>Nothing is in here.</p>\n")
	}
	b.WriteString(foot)
	return b.Bytes()
}

// size is n bytes as people write it.
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", max(n, 0))
	}
	f, units := float64(n)/unit, "KMGTPE"
	for f >= unit && len(units) > 1 {
		f, units = f/unit, units[1:]
	}
	return fmt.Sprintf("%.1f %ciB", f, units[0])
}
