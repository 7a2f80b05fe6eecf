package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/webfabric/weft/relay/auth"
	"github.com/webfabric/weft/relay/store"
	"github.com/webfabric/weft/shared/content"
)

const (
	publishPath = "/weft/publish"
	// maxPublishes is how many publishes are worked on at once.
	maxPublishes = 8
	// maxPublishAddrs is how many addresses a publisher may name.
	maxPublishAddrs = 64
	dialTimeout     = 15 * time.Second
	progressEvery   = 250 * time.Millisecond
)

// publishRequest is the body of POST /weft/publish.
type publishRequest struct {
	Root  string   `json:"root"`
	Name  string   `json:"name"`
	Addrs []string `json:"addrs"` // multiaddrs of who has the blocks
}

// Progress is a line of the answer: what has been walked so far.
type Progress struct {
	Blocks int64 `json:"blocks"` // of the DAG
	Bytes  int64 `json:"bytes"`  // in them
	New    int64 `json:"new"`    // blocks the relay did not keep before
}

// Published is the answer's last line, unless that is {"error": "…"}.
type Published struct {
	Cid string `json:"cid"`
	URL string `json:"url"`
	Progress
}

// servePublish answers POST /weft/publish and DELETE /weft/publish/<cid>.
func (s *Server) servePublish(w *response, r *http.Request) {
	rest, sub := strings.CutPrefix(r.URL.Path, publishPath+"/")
	switch {
	case !sub && r.Method == http.MethodPost, sub && r.Method == http.MethodDelete:
	default:
		w.Header().Set("Allow", map[bool]string{false: "POST", true: "DELETE"}[sub])
		s.fail(w, r, http.StatusMethodNotAllowed, "Method not allowed", "POST /weft/publish, or DELETE /weft/publish/<cid>.")
		return
	}
	// The deadline is taken back afterwards: it would end the long answer too.
	w.control.SetReadDeadline(time.Now().Add(bodyTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		status := http.StatusBadRequest
		if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
			status = http.StatusRequestEntityTooLarge
		}
		w.Header().Set("Connection", "close")
		s.refuse(w, r, status, "Request body not read", err)
		return
	}
	w.control.SetReadDeadline(time.Time{})
	by, err := s.verifier.Check(r, body)
	if err != nil {
		status := auth.Status(err)
		if status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", "Weft")
		}
		s.refuse(w, r, status, "Not authorised", err)
		return
	}
	if s.draining.Load() {
		s.refuse(w, r, http.StatusServiceUnavailable, "Closing", errors.New("the relay is closing"))
		return
	}
	if sub {
		s.unpublish(w, r, rest)
		return
	}
	root, req, infos, err := parsePublish(body, by)
	if err != nil {
		s.refuse(w, r, http.StatusBadRequest, "Malformed request", err)
		return
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		w.Header().Set("Retry-After", "10")
		s.refuse(w, r, http.StatusServiceUnavailable, "Busy", fmt.Errorf("%d publishes are being worked on", maxPublishes))
		return
	}
	s.publish(w, r, by, root, req.Name, infos)
}

func (s *Server) refuse(w http.ResponseWriter, r *http.Request, status int, title string, err error) {
	s.metrics.publishes.WithLabelValues("refused").Inc()
	s.fail(w, r, status, title, err.Error())
}

// parsePublish reads a request of by.
func parsePublish(body []byte, by peer.ID) (cid.Cid, publishRequest, []peer.AddrInfo, error) {
	var req publishRequest
	fail := func(err error) (cid.Cid, publishRequest, []peer.AddrInfo, error) {
		return cid.Undef, publishRequest{}, nil, fmt.Errorf("server: publish: %w", err)
	}
	if err := json.Unmarshal(body, &req); err != nil {
		return fail(err)
	}
	root, err := cid.Decode(req.Root)
	if err != nil {
		return fail(fmt.Errorf("root %q: %w", req.Root, err))
	}
	if len(req.Name) > store.MaxNameLen {
		return fail(fmt.Errorf("name longer than %d bytes", store.MaxNameLen))
	}
	if len(req.Addrs) > maxPublishAddrs {
		return fail(fmt.Errorf("%d addresses, at most %d", len(req.Addrs), maxPublishAddrs))
	}
	addrs := make([]ma.Multiaddr, 0, len(req.Addrs))
	for _, text := range req.Addrs {
		a, err := ma.NewMultiaddr(text)
		if err != nil {
			return fail(fmt.Errorf("address %q: %w", text, err))
		}
		if _, err := a.ValueForProtocol(ma.P_P2P); err != nil {
			a = a.Encapsulate(ma.StringCast("/p2p/" + by.String()))
		}
		addrs = append(addrs, a)
	}
	infos, err := peer.AddrInfosFromP2pAddrs(addrs...)
	if err != nil {
		return fail(fmt.Errorf("addresses: %w", err))
	}
	return root, req, infos, nil
}

// publish pulls root and keeps it, telling the publisher how far it is.
func (s *Server) publish(w *response, r *http.Request, by peer.ID, root cid.Cid, name string, infos []peer.AddrInfo) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	log := s.log.With("root", root, "by", by)
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	lines := json.NewEncoder(w)

	pull := s.newPull(root)
	done := make(chan error, 1)
	go func() {
		dialed := s.connect(ctx, infos)
		err := pull.run(ctx)
		if err == nil {
			err = s.keep(ctx, store.Root{Cid: root, Name: name, By: by})
		} else if dialed != nil {
			err = fmt.Errorf("%w (the publisher was not reached: %v)", err, dialed)
		}
		done <- err
	}()
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			// A failed write ends ctx with the connection; the end comes by done.
			lines.Encode(pull.progress())
			w.Flush()
			continue
		case err := <-done:
			if err != nil {
				s.metrics.publishes.WithLabelValues("failed").Inc()
				log.Warn("publish failed", "err", err)
				lines.Encode(map[string]string{"error": err.Error()})
				return
			}
			p := pull.progress()
			s.metrics.publishes.WithLabelValues("done").Inc()
			log.Info("published", "name", name, "blocks", p.Blocks, "bytes", p.Bytes, "new", p.New)
			lines.Encode(Published{Cid: root.String(), URL: s.contentURL(ctx, r, root), Progress: p})
			return
		}
	}
}

// contentURL is where visitors find root.
func (s *Server) contentURL(ctx context.Context, r *http.Request, root cid.Cid) string {
	base := "http://" + r.Host
	switch {
	case s.public != nil:
		base = s.URL()
	case r.TLS != nil:
		base = "https://" + r.Host
	}
	url := base + "/ipfs/" + root.String()
	if t, err := content.Resolve(ctx, s.keptService(), root, nil); err == nil && t.Kind == content.Dir {
		url += "/"
	}
	return url
}

// keptService reads what is kept, and asks nobody.
func (s *Server) keptService() blockservice.BlockService {
	kept := s.store.Blockstore()
	return blockservice.New(kept, offline.Exchange(kept))
}

// connect dials who has the blocks. It fails if nobody was reached; a
// publisher behind a NAT has connected by itself, and has no address.
func (s *Server) connect(ctx context.Context, infos []peer.AddrInfo) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var errs []error
	for _, info := range infos {
		if info.ID == s.id || s.host.Network().Connectedness(info.ID) == network.Connected {
			return nil
		}
		err := s.host.Connect(ctx, info)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (s *Server) unpublish(w http.ResponseWriter, r *http.Request, text string) {
	c, err := cid.Decode(text)
	if err != nil {
		s.refuse(w, r, http.StatusBadRequest, "Malformed request", fmt.Errorf("root %q: %w", text, err))
		return
	}
	switch err := s.drop(r.Context(), c); {
	case errors.Is(err, store.ErrUnknown):
		s.refuse(w, r, http.StatusNotFound, "Not kept", err)
	case err != nil:
		s.log.Error("unpublish failed", "root", c, "err", err)
		s.fail(w, r, http.StatusInternalServerError, "The relay failed", "The list of roots could not be written.")
	default:
		s.log.Info("unpublished", "root", c)
		w.WriteHeader(http.StatusNoContent)
	}
}

// demoName is the name of the demo's root.
const demoName = "demo"

// publishDemo keeps Config.Demo as one of the owner's roots, in place of the
// one of another version.
func (s *Server) publishDemo(ctx context.Context) error {
	dag := merkledag.NewDAGService(s.keptService())
	st, err := content.Add(ctx, dag, s.cfg.Demo, ".")
	if err != nil {
		return fmt.Errorf("server: add the demo: %w", err)
	}
	s.demo = st.Root
	kept := false
	for _, r := range s.store.Roots() {
		switch {
		case r.Cid.Equals(st.Root):
			kept = true
		case r.Name == demoName && r.By == s.id:
			if err := s.drop(ctx, r.Cid); err != nil {
				return err
			}
		}
	}
	if kept {
		return nil
	}
	return s.keep(ctx, store.Root{Cid: st.Root, Name: demoName, By: s.id})
}
