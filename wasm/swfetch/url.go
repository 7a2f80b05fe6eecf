package swfetch

import "strings"

// splitURL takes the path, as it is encoded, and the query out of a URL with a
// host, as a Request has it. Whether their percent signs make sense is for the
// gateway to say, which answers 400: net/url refuses the whole URL.
func splitURL(url string) (path, query string, ok bool) {
	_, rest, ok := strings.Cut(url, "://")
	if !ok {
		return "", "", false
	}
	rest, _, _ = strings.Cut(rest, "#")
	rest, query, _ = strings.Cut(rest, "?")
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		return rest[i:], query, true
	}
	return "/", query, true
}
