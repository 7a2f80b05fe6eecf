package server

import (
	"net/http"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/webfabric/weft/shared/config"
	"github.com/webfabric/weft/shared/content"
)

func (s *Server) serveConfig(w http.ResponseWriter, r *http.Request) {
	c := config.Config{Version: config.Version, PeerID: s.id}
	self := ma.StringCast("/p2p/" + s.id.String())
	host, secure := r.Host, r.TLS != nil
	if s.public != nil {
		host, secure = s.public.Host, s.public.Scheme == "https"
	}
	a, err := relayAddr(host, secure, s.upgrades.addr)
	if err != nil {
		a = s.upgrades.addr
	}
	c.STUN = s.stunURLs(host)
	c.Relays = append(c.Relays, a.Encapsulate(self).String())
	c.Relays = append(c.Relays, s.others.addrs()...)
	for _, a := range s.host.Addrs() {
		if _, err := a.ValueForProtocol(ma.P_WS); err != nil {
			c.Swarm = append(c.Swarm, a.Encapsulate(self).String())
		}
	}
	c.Owner = config.Owner{PeerID: s.id, Roots: s.list.Load().sealed}
	if s.demo.Defined() {
		c.Demo = s.demo.String()
	}
	c.Limits = config.Limits{MaxBlockSize: content.MaxBlockSize, MaxReservation: int(time.Hour / time.Second)}
	c.Node = config.Node{Wasm: s.static.wasm, Exec: "/wasm_exec.js", Bytes: s.static.wasmBytes}
	writeJSON(w, r, c)
}

// publicRoot is one entry of /weft/roots.
type publicRoot struct {
	Cid   string    `json:"cid"`
	Name  string    `json:"name,omitempty"`
	By    peer.ID   `json:"by"`
	Added time.Time `json:"added"`
}

func (s *Server) serveRoots(w http.ResponseWriter, r *http.Request) {
	seq, _ := s.store.Seq()
	roots := []publicRoot{}
	for _, k := range s.store.Roots() {
		roots = append(roots, publicRoot{k.Cid.String(), k.Name, k.By, k.Added})
	}
	writeJSON(w, r, map[string]any{"seq": seq, "roots": roots})
}
