package gateway

import (
	"fmt"
	"html"
	"mime"
	"net/http"
	"path"
	"strings"

	"github.com/ipfs/go-cid"
)

// IsActiveDocument tells whether a browser that navigates to contentType may
// run what is in it: HTML, XHTML, SVG and every other XML, PDF.
func IsActiveDocument(contentType string) bool {
	t, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		t = strings.ToLower(strings.TrimSpace(contentType))
	}
	switch t {
	case "text/html", "text/xml", "application/xml", "application/pdf", "text/xsl",
		"multipart/related", "message/rfc822", "multipart/x-mixed-replace":
		return true
	}
	return strings.HasSuffix(t, "+xml")
}

// ContentType is the type of a file: by its name, else by its first 512 bytes.
func ContentType(name string, first []byte) string {
	if t, ok := byExtension[strings.ToLower(path.Ext(name))]; ok {
		return t
	}
	return http.DetectContentType(first)
}

var byExtension = map[string]string{".html": "text/html"}

// InertPage is shown in place of a document under a root that the owner of host has not published.
func InertPage(root cid.Cid, path, host string) []byte {
	return fmt.Appendf(nil, "<!doctype html><title>%s</title>", html.EscapeString(root.String()))
}

// ErrorPage makes the body of an error response, JSON or HTML as accept asks for.
func ErrorPage(status int, title, hint, accept string) (body []byte, contentType string) {
	return fmt.Appendf(nil, "<!doctype html><title>%s</title>", html.EscapeString(title)), "text/html; charset=utf-8"
}
