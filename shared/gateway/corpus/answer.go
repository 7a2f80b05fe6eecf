package corpus

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
)

// A Request is how a path is asked for.
type Request struct {
	Method string
	Header map[string]string
}

// Requests are asked of each case that has an answer; of others only the
// first.
var Requests = []Request{
	{Method: "GET"},
	{Method: "HEAD"},
	{Method: "GET", Header: map[string]string{"Range": "bytes=0-3"}},
	{Method: "GET", Header: map[string]string{"Range": "bytes=-3"}},
	{Method: "GET", Header: map[string]string{"Range": "bytes=2-"}},
	{Method: "GET", Header: map[string]string{"Range": "bytes=120-310"}},
	{Method: "GET", Header: map[string]string{"Range": "bytes=1048570-1048590"}},
	{Method: "GET", Header: map[string]string{"Range": "bytes=9999999-"}},
	{Method: "GET", Header: map[string]string{"Range": "bytes=-9999999"}},
	{Method: "GET", Header: map[string]string{"Range": "bytes=0-9223372036854775807"}},
	{Method: "GET", Header: map[string]string{"Range": "octets=0-3"}},
	{Method: "GET", Header: map[string]string{"Range": "bytes=5-2"}},
	{Method: "GET", Header: map[string]string{"Range": "bytes=0-1,3-4"}},
	{Method: "GET", Header: map[string]string{"Range": "bytes=-0"}},
	{Method: "GET", Header: map[string]string{"Range": "bytes=0-99999999999999999999"}},
	{Method: "GET", Header: map[string]string{"Range": "bytes=0-3", "If-Range": `"other"`}},
	{Method: "GET", Header: map[string]string{"If-None-Match": `"other"`}},
	{Method: "GET", Header: map[string]string{"If-None-Match": "*"}},
}

// Of returns the requests that c is asked by.
func (c Case) Of() []Request {
	switch {
	case c.Status >= 300 || c.Status == Any:
		return Requests[:1]
	case c.Few:
		return Requests[:2]
	}
	return Requests
}

// An Answer is what all three give alike.
type Answer struct {
	Status int               `json:"status"`
	Header map[string]string `json:"header"`
	Hash   string            `json:"hash"` // SHA-256 of the body, in hexadecimal
}

// Headers are those of an [Answer], by status: what an error says is each
// answerer's own.
var Headers = map[int][]string{
	http.StatusOK:                           {"Content-Type", "Content-Length", "Etag", "Accept-Ranges", "Cache-Control"},
	http.StatusPartialContent:               {"Content-Type", "Content-Length", "Content-Range", "Etag", "Cache-Control"},
	http.StatusMovedPermanently:             {"Location"},
	http.StatusNotModified:                  {"Etag"},
	http.StatusRequestedRangeNotSatisfiable: {"Content-Range"},
}

// NewAnswer makes an Answer of a response.
func NewAnswer(status int, header http.Header, body []byte) Answer {
	a := Answer{Status: status, Header: map[string]string{}}
	for _, name := range Headers[status] {
		if v := header.Get(name); v != "" {
			a.Header[name] = v
		}
	}
	if status < 300 {
		sum := sha256.Sum256(body)
		a.Hash = hex.EncodeToString(sum[:])
	}
	return a
}

// Broken is the answer whose body ended by an error: see [Case.Status].
func Broken() Answer {
	return Answer{Status: http.StatusBadGateway, Header: map[string]string{}}
}

// Diff says how a is not b, or "".
func (a Answer) Diff(b Answer) string {
	if a.Status != b.Status {
		return fmt.Sprintf("status %d, not %d", a.Status, b.Status)
	}
	for _, name := range Headers[a.Status] {
		if a.Header[name] != b.Header[name] {
			return fmt.Sprintf("%s %q, not %q", name, a.Header[name], b.Header[name])
		}
	}
	if a.Hash != b.Hash {
		return "another body"
	}
	return ""
}
