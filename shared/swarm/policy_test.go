//go:build !js

package swarm

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/webfabric/weft/shared/bcin"
)

func TestRing(t *testing.T) {
	for _, tt := range []struct {
		name  string
		there []peer.ID
		want  []peer.ID
	}{
		{name: "alone"},
		{name: "only itself", there: []peer.ID{"m"}},
		{name: "one other", there: []peer.ID{"z"}, want: []peer.ID{"z"}},
		{name: "in the middle", there: []peer.ID{"a", "z", "k", "n"}, want: []peer.ID{"k", "n"}},
		{name: "the first", there: []peer.ID{"n", "z", "p"}, want: []peer.ID{"z", "n"}},
		{name: "the last", there: []peer.ID{"a", "b", "c", "m"}, want: []peer.ID{"c", "a"}},
	} {
		if got := ring("m", tt.there); !slices.Equal(got, tt.want) {
			t.Errorf("%s: ring(m, %v) = %v, want %v", tt.name, tt.there, got, tt.want)
		}
	}
}

// nobody is a rendezvous at which nobody is.
type nobody struct{}

func (nobody) Peers() []bcin.Record     { return nil }
func (nobody) Changed() <-chan struct{} { return nil }
func (nobody) Discover(context.Context, cid.Cid, int) ([]bcin.Record, error) {
	return nil, bcin.ErrNoRelay
}

// TestTrim: who goes when there are too many.
func TestTrim(t *testing.T) {
	now := time.Now()
	old, fresh := now.Add(-time.Hour), now.Add(-time.Second)
	score := map[peer.ID]float64{"good": 5, "better": 6, "bad": -1}
	for _, tt := range []struct {
		name   string
		policy Policy
		most   int
		saver  bool
		nbs    map[peer.ID]neighbour
		want   []peer.ID // that are turned away
	}{
		{name: "enough room", most: 3, nbs: map[peer.ID]neighbour{"good": {since: old}, "bad": {since: old}}},
		{name: "the worst of the idle", most: 2, want: []peer.ID{"bad"}, nbs: map[peer.ID]neighbour{
			"good": {since: old}, "bad": {since: old}, "better": {since: old},
		}},
		{name: "not in the middle of a transfer", most: 1, want: []peer.ID{"good"}, nbs: map[peer.ID]neighbour{
			"good": {since: old}, "bad": {since: old, active: now}, "worse": {since: old, active: now.Add(-time.Second)},
		}},
		{name: "who has just come has a while", most: 1, want: []peer.ID{"good"}, nbs: map[peer.ID]neighbour{
			"good": {since: old}, "bad": {since: fresh},
		}},
		{name: "unless there are far too many", most: 1, want: []peer.ID{"6"}, nbs: map[peer.ID]neighbour{
			"1": {since: fresh.Add(-6)}, "2": {since: fresh.Add(-5)}, "3": {since: fresh.Add(-4)},
			"4": {since: fresh.Add(-3)}, "5": {since: fresh.Add(-2)}, "6": {since: fresh.Add(-1)},
		}},
		{name: "who is no part of a chain", policy: Chain(), most: 8, want: []peer.ID{"stranger"}, nbs: map[peer.ID]neighbour{
			"stranger": {since: old},
		}},
		{name: "a saver's own choice stays", most: 2, saver: true, want: []peer.ID{"caller"}, nbs: map[peer.ID]neighbour{
			"caller": {since: fresh}, "chosen": {since: old, outbound: true},
		}},
	} {
		h, err := libp2p.New(libp2p.NoListenAddrs)
		if err != nil {
			t.Fatal(err)
		}
		s := New(Config{Host: h, BCIN: nobody{}, Policy: tt.policy, Score: func(p peer.ID) float64 { return score[p] }})
		s.saver = tt.saver
		for p, n := range tt.nbs {
			s.nbs[p] = &n
		}
		s.trim(nil, 2, tt.most, now)
		var got []peer.ID
		for p, n := range s.nbs {
			if n.leaving {
				got = append(got, p)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q turned away, want %q", tt.name, got, tt.want)
		}
		s.dials.Wait()
		h.Close()
	}
}
