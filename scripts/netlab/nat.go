package netlab

import (
	"math/rand/v2"
	"net/netip"
	"sync"
)

// minPort is the first port that a router takes for itself.
const minPort = 1024

// A router translates between a node and its outer address.
type router struct {
	outside   netip.Addr
	symmetric bool

	mu  sync.Mutex
	out map[mapKey]*mapping
	in  map[portKey]*mapping
}

// mapKey is what has an outer port of its own. remote is zero unless the router
// is symmetric.
type mapKey struct {
	proto          byte
	inside, remote netip.AddrPort
}

type portKey struct {
	proto byte
	port  uint16
}

// A mapping is an outer port, and who was sent to by it.
type mapping struct {
	inside  netip.AddrPort
	port    uint16
	remotes map[netip.AddrPort]struct{}
}

func newRouter(kind NAT, outside netip.Addr) *router {
	return &router{outside: outside, symmetric: kind == Symmetric, out: map[mapKey]*mapping{}, in: map[portKey]*mapping{}}
}

// leave gives p its outer source.
func (r *router) leave(p *packet) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := mapKey{proto: p.proto, inside: p.src}
	if r.symmetric {
		key.remote = p.dst
	}
	m := r.out[key]
	if m == nil {
		m = &mapping{inside: p.src, remotes: map[netip.AddrPort]struct{}{}}
		for m.port == 0 || r.in[portKey{p.proto, m.port}] != nil {
			m.port = uint16(minPort + rand.IntN(1<<16-minPort))
		}
		r.out[key], r.in[portKey{p.proto, m.port}] = m, m
	}
	m.remotes[p.dst] = struct{}{}
	p.setSrc(netip.AddrPortFrom(r.outside, m.port))
}

// enter gives p its inner destination; it is false if p is not let in.
func (r *router) enter(p *packet) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.in[portKey{p.proto, p.dst.Port()}]
	if m == nil {
		return false
	}
	if _, known := m.remotes[p.src]; !known {
		return false
	}
	p.setDst(m.inside)
	return true
}
