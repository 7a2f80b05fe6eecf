// Package swarm decides which other nodes of its origin a node is connected to.
//
// Who is there comes from the rendezvous (shared/bcin); only they are dialled,
// and whoever has gone from there is forgotten. There are never many
// neighbours: a [Policy] says how many are wanted and which, somewhat more may
// come by themselves, and those over that are turned away, the idle and useless
// first and never one that bytes move to or from. Now and then the worst makes
// room for another. Relays are not neighbours: shared/node connects to them.
//
// The neighbours are simply connections of the host: shared/exchange sees them
// there. A liar ([Swarm.Block]) is none again as long as the node runs.
package swarm

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/webfabric/weft/shared/bcin"
	"github.com/webfabric/weft/shared/webrtc"
)

// Rendezvous tells who is there; [bcin.Client] does.
type Rendezvous interface {
	Peers() []bcin.Record
	Changed() <-chan struct{}
	Discover(ctx context.Context, want cid.Cid, limit int) ([]bcin.Record, error)
}

var _ Rendezvous = (*bcin.Client)(nil)

// DefaultMaxPeers is how many neighbours a node has at most: a few more than a
// mesh wants, so that who comes late finds someone.
const DefaultMaxPeers = 8

const (
	// overflow is how many more than the most are let in for a moment, so that
	// an idle neighbour can go in their place.
	overflow = 4
	// saverDegree is how many neighbours a node has that saves data: they cost
	// it nothing, and spare the relay.
	saverDegree = 2
	// maxDials is how many dials are under way at once: each is a WebRTC
	// negotiation, which keeps a page busy.
	maxDials = 2
	// dialTimeout ends one dial; shared/webrtc gives up after 20 s itself.
	dialTimeout = 25 * time.Second
	// enoughHolders is how many neighbours that hold something wanted are
	// sought even where there are enough others.
	enoughHolders = 2
	// courtesy is how long a newcomer has to dial us before we dial it: both at
	// once cost two negotiations for one connection.
	courtesy = 1500 * time.Millisecond
	// arrival is for how long after the start everyone counts as having been
	// there before.
	arrival = 2 * time.Second
	// A peer that could not be reached is dialled again after a pause from
	// firstPause on, which doubles: up to softPause where it did not answer, as
	// a page that is just being loaded does not, and up to lastPause where it
	// answered and the networks between let nothing through, or it turned us away.
	firstPause = 250 * time.Millisecond
	softPause  = 15 * time.Second
	lastPause  = 5 * time.Minute
	// turnedAway is how soon after its beginning a connection that we made and
	// the other side ended means that it has enough neighbours.
	turnedAway = 15 * time.Second
	// grace is how long a neighbour may be idle at first.
	grace = 10 * time.Second
	// busyFor is how long after the last byte a neighbour counts as busy.
	busyFor = 5 * time.Second
	// replaceEvery is how often the worst neighbour makes room for another.
	replaceEvery = time.Minute
	// sample is how often the neighbours' bytes are looked at.
	sample = time.Second
	// maxBlocked is how many liars are remembered, the first forgotten first.
	maxBlocked = 1024
	// discovered is how many holders of something wanted are asked for at once,
	// discoverEvery how often at most.
	discovered    = 16
	discoverEvery = 5 * time.Second
	// foundFor is how long they count as there: the relay tells of the end of
	// those only that it told of by itself.
	foundFor = 30 * time.Second
)

// A Config says what a Swarm works with. Host and BCIN are required.
type Config struct {
	Host host.Host
	BCIN Rendezvous
	// Policy is the zero value for a mesh of DefaultDegree.
	Policy Policy
	// MaxPeers is how many neighbours there are at most; 0 for DefaultMaxPeers.
	MaxPeers int
	// DataSaver: see [Swarm.SetDataSaver].
	DataSaver bool
	// IsRelay tells the peers that are none of the swarm's business.
	IsRelay func(peer.ID) bool
	// Score tells how good a neighbour is, more is better; nil for all the
	// same. Moved is how many bytes went to and from it, so that nobody in the
	// middle of a transfer is turned away.
	Score func(peer.ID) float64
	Moved func(peer.ID) uint64
	// Wants returns the roots being fetched, the most important first: their
	// holders are preferred.
	Wants func() []cid.Cid
	// Log defaults to slog.DiscardHandler.
	Log *slog.Logger
}

// A Swarm keeps a node's neighbours. It is safe for concurrent use.
type Swarm struct {
	cfg    Config
	wake   chan struct{} // capacity 1
	dials  sync.WaitGroup
	begun  time.Time
	asking bool // Discover; by Run's goroutine only

	mu       sync.Mutex
	max      int
	saver    bool
	found    []bcin.Record // by the last Discover
	peers    map[peer.ID]*known
	nbs      map[peer.ID]*neighbour
	blocked  map[peer.ID]struct{}
	order    []peer.ID // of blocked, oldest first
	dialling int
	replaced time.Time
	asked    time.Time
	answers  chan []bcin.Record // capacity 1
}

// known is a peer that is there.
type known struct {
	record   bcin.Record
	seen     time.Time
	dialling bool
	next     time.Time // not to be dialled before
	pause    time.Duration
	circuit  bool // a circuit is all that leads there
}

// neighbour is a peer that is connected.
type neighbour struct {
	since    time.Time
	outbound bool
	moved    uint64
	active   time.Time // when moved last changed; zero for never
	leaving  bool      // closed by us
	excused  bool      // if it goes it is not its doing
}

// New returns a swarm that does nothing before Run.
func New(cfg Config) *Swarm {
	if cfg.MaxPeers <= 0 {
		cfg.MaxPeers = DefaultMaxPeers
	}
	if cfg.IsRelay == nil {
		cfg.IsRelay = func(peer.ID) bool { return false }
	}
	if cfg.Score == nil {
		cfg.Score = func(peer.ID) float64 { return 0 }
	}
	if cfg.Moved == nil {
		cfg.Moved = func(peer.ID) uint64 { return 0 }
	}
	if cfg.Wants == nil {
		cfg.Wants = func() []cid.Cid { return nil }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Swarm{
		cfg: cfg, wake: make(chan struct{}, 1), max: cfg.MaxPeers, saver: cfg.DataSaver,
		peers: map[peer.ID]*known{}, nbs: map[peer.ID]*neighbour{}, blocked: map[peer.ID]struct{}{},
		answers: make(chan []bcin.Record, 1),
	}
}

// SetDataSaver turns the saving of data on or off. A node that saves data has
// at most two neighbours, all of which it dialled itself; who dials it is
// turned away. That it serves nothing, and tells nobody where it is, is for
// shared/exchange and shared/bcin.
func (s *Swarm) SetDataSaver(on bool) {
	s.mu.Lock()
	s.saver = on
	s.mu.Unlock()
	s.Refresh()
}

// SetMaxPeers sets how many neighbours there are at most; 0 for DefaultMaxPeers.
func (s *Swarm) SetMaxPeers(n int) {
	if n <= 0 {
		n = DefaultMaxPeers
	}
	s.mu.Lock()
	s.max = n
	s.mu.Unlock()
	s.Refresh()
}

// Block disconnects a peer for good. Relays are not blocked.
func (s *Swarm) Block(p peer.ID) {
	if s.cfg.IsRelay(p) {
		return
	}
	s.mu.Lock()
	if _, known := s.blocked[p]; !known {
		s.blocked[p] = struct{}{}
		s.order = append(s.order, p)
		if len(s.order) > maxBlocked {
			delete(s.blocked, s.order[0])
			s.order = s.order[1:]
		}
	}
	s.mu.Unlock()
	s.Refresh()
}

// Blocked returns those that were blocked, the first first.
func (s *Swarm) Blocked() []peer.ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.order)
}

// Refresh has the swarm look at its neighbours now, for a caller who knows that
// what it wants has changed.
func (s *Swarm) Refresh() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Anew says that connections end, or have ended, for a reason of this side's, as
// when the page goes that has them: nobody has turned us away, and everyone is
// worth dialling at once.
func (s *Swarm) Anew() {
	s.mu.Lock()
	for _, n := range s.nbs {
		n.excused = true
	}
	for _, k := range s.peers {
		k.pause, k.next = 0, time.Time{}
	}
	s.mu.Unlock()
	s.Refresh()
}

// Neighbours returns who is connected and no relay, sorted.
func (s *Swarm) Neighbours() []peer.ID {
	var out []peer.ID
	for p := range s.connected() {
		out = append(out, p)
	}
	slices.Sort(out)
	return out
}

// connected returns the neighbours among the host's peers, and whether we
// dialled them. A circuit that somebody opened to us is there to agree on a
// better connection, and makes nobody a neighbour.
func (s *Swarm) connected() map[peer.ID]bool {
	out := map[peer.ID]bool{}
	for _, c := range s.cfg.Host.Network().Conns() {
		p, outbound := c.RemotePeer(), c.Stat().Direction == network.DirOutbound
		if c.IsClosed() || s.cfg.IsRelay(p) {
			continue
		}
		if webrtc.IsCircuit(c.RemoteMultiaddr()) {
			s.mu.Lock()
			k := s.peers[p]
			meant := k != nil && k.circuit && outbound
			s.mu.Unlock()
			if !meant {
				continue
			}
		}
		out[p] = out[p] || outbound
	}
	return out
}

// Run keeps the neighbours until ctx ends, whose cause it returns. It leaves
// the connections there are.
func (s *Swarm) Run(ctx context.Context) error {
	hears := &network.NotifyBundle{
		ConnectedF:    func(network.Network, network.Conn) { s.Refresh() },
		DisconnectedF: func(network.Network, network.Conn) { s.Refresh() },
	}
	s.cfg.Host.Network().Notify(hears)
	defer s.dials.Wait()
	defer s.cfg.Host.Network().StopNotify(hears)
	s.begun = time.Now()
	for ctx.Err() == nil {
		t := time.NewTimer(time.Until(s.step(ctx, time.Now())))
		select {
		case <-t.C:
		case <-s.wake:
		case <-s.cfg.BCIN.Changed():
		case found := <-s.answers:
			s.mu.Lock()
			s.found, s.asking = found, false
			s.mu.Unlock()
		case <-ctx.Done():
		}
		t.Stop()
	}
	return context.Cause(ctx)
}

// idle is how long the swarm rests when nothing happens: records that are
// found by a relay, and neighbours lost, wake it.
const idle = 30 * time.Second

// step looks at everything once and returns when to look again.
func (s *Swarm) step(ctx context.Context, now time.Time) time.Time {
	wants := s.cfg.Wants()
	records := s.cfg.BCIN.Peers()
	conns := s.connected()
	next := now.Add(idle)
	soon := func(t time.Time) {
		if t.Before(next) {
			next = t
		}
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.asked) > foundFor {
		s.found = nil
	}
	s.learn(append(records, s.found...), now)
	there := s.there()
	s.meet(conns, now)
	if len(s.nbs) > 0 {
		soon(now.Add(sample))
	}

	degree, most := s.cfg.Policy.want(), s.max
	if s.saver {
		degree, most = min(degree, saverDegree), saverDegree
	}
	degree = min(degree, most)
	s.trim(there, degree, most, now)
	s.replace(there, degree, now)

	have, holders := s.dialling, 0
	for p, n := range s.nbs {
		if !n.leaving {
			have++
			if k := s.peers[p]; k != nil && k.serves(wants) {
				holders++
			}
		}
	}
	serving := holders // of all that are there
	for _, p := range s.candidates(there, wants) {
		k := s.peers[p]
		limit := degree
		if k.serves(wants) {
			serving++
			if holders < enoughHolders {
				limit = most // whoever has what is wanted is worth one more
			}
		}
		if have >= limit || s.dialling >= maxDials {
			break
		}
		due := k.next
		if k.seen.Sub(s.begun) > arrival {
			if c := k.seen.Add(courtesy); c.After(due) {
				due = c
			}
		}
		if due.After(now) {
			soon(due)
			continue
		}
		have++
		if k.serves(wants) {
			holders++
		}
		s.dial(ctx, p, k)
	}
	// Among more visitors than the relay tells of, the holders may be unknown.
	if len(wants) > 0 && serving == 0 && len(records) >= bcin.MaxView && !s.asking && now.Sub(s.asked) > discoverEvery {
		s.asking, s.asked = true, now
		s.dials.Go(func() {
			found, err := s.cfg.BCIN.Discover(ctx, wants[0], discovered)
			if err != nil {
				s.cfg.Log.Debug("nobody discovered", "root", wants[0], "err", err)
			}
			s.answers <- found // capacity 1, and one is asked at a time
		})
	}
	return next
}

// learn takes over who is there. The caller holds mu, as for all below.
func (s *Swarm) learn(records []bcin.Record, now time.Time) {
	seen := map[peer.ID]bool{}
	for _, r := range records {
		if r.Peer == s.cfg.Host.ID() || s.cfg.IsRelay(r.Peer) {
			continue
		}
		seen[r.Peer] = true
		k := s.peers[r.Peer]
		switch {
		case k == nil:
			s.peers[r.Peer] = &known{record: r, seen: now}
		case k.record.Epoch != r.Epoch && r.Newer(k.record):
			// It has started anew: what was tried before says nothing.
			*k = known{record: r, seen: now, dialling: k.dialling}
		case r.Newer(k.record):
			k.record = r
		}
	}
	for p, k := range s.peers {
		if !seen[p] && !k.dialling {
			delete(s.peers, p)
		}
	}
}

func (s *Swarm) there() []peer.ID {
	out := make([]peer.ID, 0, len(s.peers))
	for p := range s.peers {
		out = append(out, p)
	}
	slices.Sort(out)
	return out
}

// meet takes over who is connected, and closes what the blocked have.
func (s *Swarm) meet(conns map[peer.ID]bool, now time.Time) {
	for p, n := range s.nbs {
		if _, connected := conns[p]; connected {
			continue
		}
		delete(s.nbs, p)
		if k := s.peers[p]; k != nil && n.outbound && !n.leaving {
			if now.Sub(n.since) < turnedAway && n.active.IsZero() && !n.excused {
				k.later(now, lastPause)
				k.next = now.Add(max(k.next.Sub(now), turnedAway))
			} else {
				k.pause, k.next = 0, now // it was a neighbour once
			}
		}
	}
	for p, outbound := range conns {
		n := s.nbs[p]
		if n == nil {
			n = &neighbour{since: now, outbound: outbound, moved: s.cfg.Moved(p)}
			s.nbs[p] = n
			if k := s.peers[p]; k != nil {
				k.next = time.Time{}
			}
		}
		if moved := s.cfg.Moved(p); moved != n.moved {
			n.moved, n.active = moved, now
		}
		if _, blocked := s.blocked[p]; blocked && !n.leaving {
			s.cfg.Log.Info("blocked peer disconnected", "peer", p)
			s.close(p, n)
		}
	}
}

// close ends the connections to p.
func (s *Swarm) close(p peer.ID, n *neighbour) {
	n.leaving = true
	s.dials.Go(func() { // it may wait for the far end
		if err := s.cfg.Host.Network().ClosePeer(p); err != nil {
			s.cfg.Log.Debug("peer not disconnected", "peer", p, "err", err)
		}
		s.Refresh()
	})
}

func (n *neighbour) busy(now time.Time) bool {
	return !n.active.IsZero() && now.Sub(n.active) < busyFor
}

// trim turns away the neighbours that are too many: those that the policy does
// not want first, then the worst of the idle. Who has just come has a while to
// ask for something, unless there are far too many.
func (s *Swarm) trim(there []peer.ID, degree, most int, now time.Time) {
	self := s.cfg.Host.ID()
	kept := 0
	var idle []peer.ID
	for p, n := range s.nbs {
		switch {
		case n.leaving:
		case s.saver && !n.outbound && !n.busy(now):
			s.turnAway(p, n)
		case now.Sub(n.since) > grace && !n.busy(now) && !s.cfg.Policy.fits(self, p, there):
			s.turnAway(p, n)
		default:
			kept++
			if !n.busy(now) {
				idle = append(idle, p)
			}
		}
	}
	slices.SortFunc(idle, s.worseFirst)
	for _, p := range idle {
		n := s.nbs[p]
		if kept <= most {
			return
		}
		if now.Sub(n.since) > grace {
			s.turnAway(p, n)
			kept--
		}
	}
	slices.SortFunc(idle, func(a, b peer.ID) int { return s.nbs[b].since.Compare(s.nbs[a].since) }) // the last first
	for _, p := range idle {
		n := s.nbs[p]
		if kept <= most+overflow {
			return
		}
		if !n.leaving {
			s.turnAway(p, n)
			kept--
		}
	}
}

func (s *Swarm) turnAway(p peer.ID, n *neighbour) {
	s.cfg.Log.Debug("peer turned away", "peer", p, "inbound", !n.outbound)
	s.close(p, n)
}

// worseFirst orders by score, then the one that has been silent longer.
func (s *Swarm) worseFirst(a, b peer.ID) int {
	if sa, sb := s.cfg.Score(a), s.cfg.Score(b); sa != sb {
		if sa < sb {
			return -1
		}
		return 1
	}
	return s.nbs[a].active.Compare(s.nbs[b].active)
}

// replace lets the worst neighbour of a mesh go where there are others to try.
func (s *Swarm) replace(there []peer.ID, degree int, now time.Time) {
	if s.cfg.Policy.kind != mesh || s.saver || len(s.nbs) < degree || degree < 2 {
		s.replaced = now
		return
	}
	if now.Sub(s.replaced) < replaceEvery {
		return
	}
	s.replaced = now
	if !slices.ContainsFunc(there, func(p peer.ID) bool {
		return s.nbs[p] == nil && !s.peers[p].dialling && !s.peers[p].next.After(now)
	}) {
		return
	}
	var idle []peer.ID
	for p, n := range s.nbs {
		if !n.leaving && !n.busy(now) && now.Sub(n.since) > replaceEvery/2 {
			idle = append(idle, p)
		}
	}
	if len(idle) == 0 {
		return
	}
	worst := slices.MinFunc(idle, s.worseFirst)
	s.turnAway(worst, s.nbs[worst])
	if k := s.peers[worst]; k != nil {
		k.next = now.Add(replaceEvery)
	}
}

// candidates returns who may be dialled, the best first.
func (s *Swarm) candidates(there []peer.ID, wants []cid.Cid) []peer.ID {
	var out []peer.ID
	for _, p := range there {
		_, blocked := s.blocked[p]
		if s.nbs[p] == nil && !s.peers[p].dialling && !blocked && s.cfg.Policy.fits(s.cfg.Host.ID(), p, there) {
			out = append(out, p)
		}
	}
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	slices.SortStableFunc(out, func(a, b peer.ID) int {
		switch sa, sb := s.peers[a].serves(wants), s.peers[b].serves(wants); {
		case sa == sb:
			return 0
		case sa:
			return -1
		default:
			return 1
		}
	})
	return out
}

func (k *known) serves(wants []cid.Cid) bool { return slices.ContainsFunc(wants, k.record.Serves) }
