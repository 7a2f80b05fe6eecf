//go:build e2e

package e2e

import (
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
)

// status is what `await node.status()` resolves to.
type status struct {
	PeerID string   `json:"peerId"`
	Relays []string `json:"relays"`
	Peers  []struct {
		PeerID    string `json:"peerId"`
		Addr      string `json:"addr"`
		Transport string `json:"transport"`
		Relay     bool   `json:"relay"`
		BytesIn   int64  `json:"bytesIn"`
	} `json:"peers"`
	Blocks int `json:"blocks"`
	Bytes  struct {
		FromRelay, FromPeers, FromDisk, Served int64
	} `json:"bytes"`
	Storage struct {
		Used, Quota, Pinned int64
	} `json:"storage"`
	Started float64 `json:"started"`
	Memory  int64   `json:"memory"`
	BootID  string  `json:"bootId"`
	State   string  `json:"state"`
}

func (p *tab) status() status {
	p.t.Helper()
	return eval[status](p, `() => node.status()`)
}

func TestJoin(t *testing.T) {
	t.Parallel()
	r := startRelay(t)
	v := newVisitor(t)
	p := r.joined(v)
	s := p.status()
	id, err := peer.Decode(s.PeerID)
	if err != nil {
		t.Fatalf("status().peerId = %q: %v", s.PeerID, err)
	}
	if len(s.Relays) != 1 || s.Relays[0] != r.server.ID().String() {
		t.Errorf("status().relays = %v, want [%s]", s.Relays, r.server.ID())
	}
	if len(s.Peers) != 1 || !s.Peers[0].Relay || s.Peers[0].PeerID != r.server.ID().String() {
		t.Errorf("status().peers = %+v, want the relay", s.Peers)
	}
	if len(r.server.Host().Network().ConnsToPeer(id)) == 0 {
		t.Errorf("the relay has no connection to %s, who says it is connected", id)
	}
	if s.State != "ready" || s.BootID == "" {
		t.Errorf("status() = %+v, want ready, with a bootId", s)
	}

	// Someone else is someone else; the same one stays the same.
	other := r.joined(newVisitor(t)).status()
	if other.PeerID == s.PeerID {
		t.Error("two visitors have one identity")
	}
	p.reload(false)
	join(p)
	if again := p.status(); again.PeerID != s.PeerID {
		t.Errorf("peer ID after a reload = %s, was %s", again.PeerID, s.PeerID)
	}
}

func TestTwoTabs(t *testing.T) {
	t.Parallel()
	r := startRelay(t)
	root := r.publishSite(site{"a.js": "export const a = 1;", "b.js": "export const b = 2;"})
	v := newVisitor(t)
	one, two := v.open(r.url+"/blank.html"), v.open(r.url+"/blank.html")
	const start = `() => { globalThis.joining = import("/weft.js").then((m) => m.join()).then((n) => globalThis.node = n); return true; }`
	eval[bool](one, start)
	eval[bool](two, start)
	for _, p := range []*tab{one, two} {
		eval[bool](p, `async () => { await joining; await node.online; return true; }`)
	}
	a, b := one.status(), two.status()
	if a.PeerID != b.PeerID || a.BootID != b.BootID {
		t.Errorf("two tabs of one visitor: %+v and %+v, want one node", a, b)
	}
	eval[int](one, `async (root) => (await import("/ipfs/" + root + "/a.js")).a`, root.String())
	if got := eval[int](two, `async (root) => (await import("/ipfs/" + root + "/b.js")).b`, root.String()); got != 2 {
		t.Errorf("the second tab imported %d, want 2", got)
	}
	// One closing takes nothing from the other.
	one.close()
	eval[string](two, `async (root) => (await node.fetch(root, "a.js")).text()`, root.String())
	eval[bool](two, `async () => { await node.leave(); return true; }`)
}
