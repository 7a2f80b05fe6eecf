package server

import (
	"encoding/base64"
	"net/http"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/webfabric/weft/shared/content"
)

// configVersion is that of /weft/config.json.
const configVersion = 1

// publicConfig is /weft/config.json: what a node must know to join.
type publicConfig struct {
	Version int      `json:"version"`
	PeerID  string   `json:"peerId"`
	Relays  []string `json:"relays"` // for browsers
	Swarm   []string `json:"swarm"`  // for native peers
	Owner   struct {
		PeerID string `json:"peerId"`
		Roots  string `json:"roots"` // base64 of a sealed owner.Roots
	} `json:"owner"`
	Demo   string `json:"demo,omitempty"`
	Limits struct {
		MaxBlockSize   int `json:"maxBlockSize"`   // bytes
		MaxReservation int `json:"maxReservation"` // seconds
	} `json:"limits"`
	Node struct {
		Wasm  string `json:"wasm"` // "" in a relay that was built without one
		Exec  string `json:"exec"`
		Bytes int    `json:"bytes"` // to download, compressed
	} `json:"node"`
}

func (s *Server) serveConfig(w http.ResponseWriter, r *http.Request) {
	c := publicConfig{Version: configVersion, PeerID: s.id.String(), Relays: []string{}, Swarm: []string{}}
	self := ma.StringCast("/p2p/" + s.id.String())
	host, secure := r.Host, r.TLS != nil
	if s.public != nil {
		host, secure = s.public.Host, s.public.Scheme == "https"
	}
	a, err := relayAddr(host, secure, s.upgrades.addr)
	if err != nil {
		a = s.upgrades.addr
	}
	c.Relays = append(c.Relays, a.Encapsulate(self).String())
	for _, a := range s.host.Addrs() {
		if _, err := a.ValueForProtocol(ma.P_WS); err != nil {
			c.Swarm = append(c.Swarm, a.Encapsulate(self).String())
		}
	}
	c.Owner.PeerID = s.id.String()
	c.Owner.Roots = base64.StdEncoding.EncodeToString(s.list.Load().sealed)
	if s.demo.Defined() {
		c.Demo = s.demo.String()
	}
	c.Limits.MaxBlockSize = content.MaxBlockSize
	c.Limits.MaxReservation = int(time.Hour / time.Second)
	c.Node.Wasm, c.Node.Exec, c.Node.Bytes = s.static.wasm, "/wasm_exec.js", s.static.wasmBytes
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
