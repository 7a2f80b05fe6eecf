package swarm

import (
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
)

// DefaultDegree is how many neighbours a mesh wants. With six each, any two of
// a thousand nodes are some four steps apart, and a node that loses half of
// them is still in the mesh.
const DefaultDegree = 6

// A Policy says whom of those who are there a node wants as neighbours. The
// zero value is Mesh(DefaultDegree).
type Policy struct {
	kind   kind
	degree int
}

type kind uint8

const (
	mesh kind = iota
	star
	chain
)

// Mesh wants degree neighbours: those that hold what is wanted first, the
// others by chance.
func Mesh(degree int) Policy { return Policy{mesh, degree} }

// Star wants none: everything comes from the relays, which is what nodes have
// whose networks let nothing else through.
func Star() Policy { return Policy{kind: star} }

// Chain wants the two neighbours in the ring of all peer IDs, sorted. All who
// see the same peers agree on it, without a word.
func Chain() Policy { return Policy{kind: chain} }

// want is how many neighbours the policy asks for.
func (p Policy) want() int {
	switch {
	case p.kind == star:
		return 0
	case p.kind == chain:
		return 2
	case p.degree == 0:
		return DefaultDegree
	default:
		return p.degree
	}
}

// fits tells whether p may be a neighbour of self's, given who is there.
func (p Policy) fits(self, other peer.ID, there []peer.ID) bool {
	switch p.kind {
	case star:
		return false
	case chain:
		return slices.Contains(ring(self, there), other)
	default:
		return true
	}
}

// ring returns those before and after self in the ring of all: none, one or two.
func ring(self peer.ID, there []peer.ID) []peer.ID {
	all := slices.Clone(there)
	if !slices.Contains(all, self) {
		all = append(all, self)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	i, n := slices.Index(all, self), len(all)
	switch n {
	case 1:
		return nil
	case 2:
		return []peer.ID{all[1-i]}
	default:
		return []peer.ID{all[(i+n-1)%n], all[(i+1)%n]}
	}
}
