package server

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/webfabric/weft/shared/gateway"
)

// ServeHTTP answers every request of the relay's listener.
func (s *Server) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if isUpgrade(r) {
		s.upgrade(rw, r)
		return
	}
	w := &response{ResponseWriter: rw, control: http.NewResponseController(rw), wait: s.cfg.writeTimeout}
	w.extend()
	what := pathAPI
	defer func() {
		s.metrics.httpBytes.Add(float64(w.sent))
		s.metrics.egress.WithLabelValues(what).Add(float64(w.sent))
		s.metrics.httpRequests.WithLabelValues(strconv.Itoa(min(max(w.status/100, 2), 5)) + "xx").Inc()
	}()
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	path := r.URL.Path
	if path != publishPath && r.ContentLength != 0 {
		// Nothing else takes a body. It is not read, and the connection ends
		// before its sender can hold it open with more of it.
		w.control.SetReadDeadline(time.Now().Add(time.Second))
		h.Set("Connection", "close")
		s.fail(w, r, http.StatusRequestEntityTooLarge, "No body wanted", "This address takes no request body.")
		return
	}
	if s.cors(w, r) {
		return
	}
	switch {
	case path == "/ipfs" || strings.HasPrefix(path, "/ipfs/"):
		what = pathGateway
		s.serveIPFS(w, r)
	case path == publishPath || strings.HasPrefix(path, publishPath+"/"):
		s.servePublish(w, r)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		h.Set("Allow", "GET, HEAD, OPTIONS")
		s.fail(w, r, http.StatusMethodNotAllowed, "Method not allowed", "Only GET and HEAD.")
	case path == "/weft/config.json":
		s.serveConfig(w, r)
	case path == "/weft/roots":
		s.serveRoots(w, r)
	case path == "/healthz":
		s.serveHealth(w)
	case path == "/metrics":
		s.metrics.handler().ServeHTTP(w, r)
	default:
		what = pathStatic
		if !s.static.serve(w, r) {
			s.fail(w, r, http.StatusNotFound, "Not found", "This relay has nothing at this address.")
		}
	}
}

func isUpgrade(r *http.Request) bool {
	return strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}

// upgrade hands a WebSocket connection to libp2p.
func (s *Server) upgrade(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path != "/":
		http.Error(w, "no WebSocket here: libp2p's is at /", http.StatusNotFound)
	case s.draining.Load():
		http.Error(w, "the relay is closing", http.StatusServiceUnavailable)
	case !s.origins.allows(r):
		s.metrics.upgrades.WithLabelValues("refused").Inc()
		http.Error(w, "pages of this origin may not use this relay; its operator can allow them with --allow-origin", http.StatusForbidden)
	default:
		s.metrics.upgrades.WithLabelValues("accepted").Inc()
		s.upgrades.ServeHTTP(w, r)
	}
}

func (s *Server) serveHealth(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if s.draining.Load() {
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, "draining\n")
		return
	}
	io.WriteString(w, "ok\n")
}

// fail answers with an error page, or JSON for scripts.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, status int, title, hint string) {
	body, ctype := gateway.ErrorPage(status, title, hint, errorAccept(r))
	h := w.Header()
	h.Set("Content-Type", ctype)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", errorCSP)
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		w.Write(body)
	}
}

// errorCSP lets an error page show itself, and nothing else.
const errorCSP = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

// errorAccept is what of an error r's sender understands: scripts get JSON.
func errorAccept(r *http.Request) string {
	switch dest := r.Header.Get("Sec-Fetch-Dest"); {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		return "application/json"
	case dest != "" && !documentDest[dest]:
		return "application/json"
	}
	return r.Header.Get("Accept")
}

// writeJSON answers with v.
func writeJSON(w http.ResponseWriter, r *http.Request, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-cache")
	h.Set("Content-Length", strconv.Itoa(len(b)))
	if r.Method != http.MethodHead {
		w.Write(b)
	}
}

// response counts what is sent, and gives the client a while to take each
// piece: a client that reads nothing is cut off, a slow one is not.
type response struct {
	http.ResponseWriter
	control *http.ResponseController
	wait    time.Duration
	until   time.Time
	status  int
	sent    int64
}

func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// extend moves the deadline of writing, not at every small piece.
func (w *response) extend() {
	now := time.Now()
	if w.until.Sub(now) > w.wait*3/4 {
		return
	}
	w.until = now.Add(w.wait)
	w.control.SetWriteDeadline(w.until)
}

func (w *response) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.extend()
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	w.extend()
	n, err := w.ResponseWriter.Write(p)
	w.sent += int64(n)
	return n, err
}

func (w *response) Flush() {
	w.extend()
	w.control.Flush()
}

// etagMatches tells whether header, an If-None-Match, names etag; weak and
// strong are the same there (RFC 9110, 13.1.2).
func etagMatches(header, etag string) bool {
	if header == "" || etag == "" {
		return false
	}
	if strings.TrimSpace(header) == "*" {
		return true
	}
	for _, t := range strings.Split(header, ",") {
		if strings.TrimPrefix(strings.TrimSpace(t), "W/") == strings.TrimPrefix(etag, "W/") {
			return true
		}
	}
	return false
}
