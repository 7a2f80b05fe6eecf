package exchange

import (
	"cmp"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Who is asked for a block.
//
// Every neighbour is asked whether it has the block (WANT_HAVE), and tells when
// it gets it later, too. One that has it is asked for it: the one that would be
// the soonest. Where none has:
//
//   - The relay is asked at once for what somebody waited for from the start.
//   - What is read ahead may be on its way to a neighbour, who says so by the
//     priority of its WANT_HAVE (comingPriority): it is then waited for. Where
//     several neighbours want a block and none has asked the relay yet, one of
//     them does, chosen by a hash of its peer ID and the CID: so visitors who
//     come at the same time fetch different blocks from the relay, without a
//     word about it, and the rest from each other. If two did, one takes it back.
//   - When the reader comes up with such a block, it is waited for no longer
//     than the relay would have taken.
const (
	// maxAsked is how many neighbours are asked whether they have a block.
	maxAsked = 8

	// Priorities as they go over the wire: what is waited for comes first,
	// and what was asked for first. comingPriority in a WANT_HAVE tells a
	// neighbour that the block is on its way to us; to others it is only a low
	// priority.
	duePriority    = 1 << 30
	aheadPriority  = 1 << 29
	havePriority   = 1 << 20
	comingPriority = 1

	// How long a block is left to neighbours: for four round trips or half of
	// what blocks take lately, within minAnswer and maxAnswer, as those that want
	// it too may be about to say so; until they have answered, answerPatience at
	// most; to one who ought to ask the relay, rivalPatience; to one who has
	// asked for it, comingPatience. Nobody suffers meanwhile: once a reader
	// comes up with the block, he waits for that only as long as the relay would
	// take, or as two blocks take lately, within minDue and maxDue.
	minAnswer      = 60 * time.Millisecond
	maxAnswer      = time.Second
	answerPatience = time.Second
	rivalPatience  = 5 * time.Second
	comingPatience = 10 * time.Second
	minDue         = 50 * time.Millisecond
	maxDue         = maxStall

	// A peer that is asked and sends nothing is taken to stall after eight
	// round trips, or three times what blocks take lately, within these; another
	// is asked beside it. Where all are slow, asking twice makes all slower.
	minStall = 3 * time.Second
	maxStall = 10 * time.Second
	// lost is after how long without a byte a want is sent to the same peer
	// again, if there is no other: less than a fetch waits. On a slow line a
	// stream may end before its block has come: libp2p gives it 10 s to name its
	// protocol, behind all that was sent before.
	lost = 8 * time.Second
	// What nobody has is asked for again after a pause that starts at minRetry
	// and doubles up to maxRetry.
	minRetry = time.Second
	maxRetry = 10 * time.Second
	// maxSilent is after how many questions that were not answered in time a
	// neighbour's answers are not waited for, until it gives one; maxUnkept after
	// how many blocks that were left to it in vain no more are, until it has one.
	maxSilent = 3
	maxUnkept = 3
	// takeBack is for how long after two have asked the relay for a block one of
	// them takes it back: later the relay is likely to be sending it.
	takeBack = 200 * time.Millisecond
	// tick is how often wants are looked at while there are any.
	tick = 250 * time.Millisecond

	// hot is from how large a share of a session's blocks a neighbour is
	// thought to have the next one too, and asked for it without a question.
	hot = 0.7

	// What a block is taken for whose session has had none yet, and one that
	// is no raw leaf.
	firstGuess = 64 << 10
	indexGuess = 16 << 10
)

// A presence is what a peer said of a block.
type presence uint8

const (
	asked   presence = iota + 1
	overdue          // asked, and has taken long to answer
	have
	haveNot
)

// A want is a block that somebody waits for. Exchange.mu guards it.
type want struct {
	cid     cid.Cid
	session *session // of the first who asked
	seq     uint64
	since   time.Time
	waiters []*waiter
	settled bool

	due   time.Time // when a reader came to wait for it; zero for not yet
	first bool      // that was from the start
	said  map[*remote]presence
	from  map[*remote]struct{} // who is asked for the block; none: it is in Exchange.idle
	idle  bool
	begun time.Time // when somebody was asked for the block first
	// deadline is when it should have come; retry when to ask everyone again.
	deadline time.Time
	retry    time.Time
	pause    time.Duration
}

func (x *Exchange) newWant(c cid.Cid, s *session, now time.Time) *want {
	x.seq++
	w := &want{
		cid: c, session: s, seq: x.seq, since: now,
		said: map[*remote]presence{}, from: map[*remote]struct{}{},
		retry: now.Add(minRetry), pause: minRetry,
	}
	x.wants[c] = w
	w.idle = true
	x.idle = append(x.idle, w)
	var list []*remote
	for _, r := range x.remotes {
		if !r.relay {
			list = append(list, r)
		}
	}
	if len(list) > maxAsked {
		rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		slices.SortStableFunc(list, func(a, b *remote) int { return cmp.Compare(b.rate, a.rate) })
		list = list[:maxAsked]
	}
	for _, r := range list {
		x.search(w, r)
	}
	return w
}

// hasten notes that a reader waits for w; first, that it did from the start.
func (w *want) hasten(now time.Time, first bool) {
	if w.due.IsZero() {
		w.due, w.first = now, first
	}
}

// entry is how w goes over the wire.
func (w *want) entry(k kind) entry {
	e := entry{kind: k, dontHave: true}
	order := int32(w.seq % (1 << 19))
	switch {
	case k == wantHave && len(w.from) > 0:
		e.priority = comingPriority
	case k == wantHave:
		e.priority = havePriority - order
	case !w.due.IsZero():
		e.priority = duePriority - order
	default:
		e.priority = aheadPriority - order
	}
	return e
}

// guess is how many bytes w's block may have.
func (w *want) guess() int {
	switch {
	case w.cid.Prefix().Codec != cid.Raw:
		return indexGuess
	case w.session.size > 0:
		return int(w.session.size)
	}
	return firstGuess
}

// learn notes that p sent w's block, of size bytes.
func (s *session) learn(w *want, p peer.ID, size int) {
	if w.cid.Prefix().Codec != cid.Raw {
		return
	}
	if s.size == 0 {
		s.size = float64(size)
	}
	s.size += 0.25 * (float64(size) - s.size)
}

// search asks r whether it has w's block.
func (x *Exchange) search(w *want, r *remote) {
	if r.mute || r.liar {
		return
	}
	w.said[r] = asked
	if r.stands[w.cid] != wantBlock {
		r.queue(w.cid, w.entry(wantHave))
	}
}

// ask has r send w's block.
func (x *Exchange) ask(w *want, r *remote, now time.Time) {
	first := len(w.from) == 0
	size := w.guess()
	w.from[r] = struct{}{}
	if w.begun.IsZero() {
		w.begun = now
	}
	r.out[w] = ask{now, size}
	r.outBytes += size
	if len(r.out) == 1 {
		r.progress = now
		r.base = r.read.Load()
	}
	r.measure(now)
	eta := r.eta(0)
	if w.due.IsZero() {
		w.deadline = now.Add(min(max(3*eta, 3*x.latency, time.Second), 2*maxStall))
	} else {
		w.deadline = now.Add(min(max(2*eta, 2*x.latency, time.Second/2), maxStall))
	}
	r.queue(w.cid, w.entry(wantBlock))
	if first {
		// The neighbours hear that it is coming.
		for o := range w.said {
			if o != r && o.stands[w.cid] == wantHave && w.said[o] != have {
				e := w.entry(wantHave)
				e.dontHave = !o.sent[w.cid]
				o.queue(w.cid, e)
			}
		}
	}
}

// release has r no longer count as asked for w's block.
func (x *Exchange) release(w *want, r *remote) {
	a, ok := r.out[w]
	if !ok {
		return
	}
	delete(r.out, w)
	r.outBytes -= a.size
	delete(w.from, r)
	if len(w.from) == 0 {
		w.begun = time.Time{}
	}
	if len(w.from) == 0 && !w.settled && !w.idle {
		w.idle = true
		x.idle = append(x.idle, w)
	}
}

// plan asks somebody for every want of which nobody is asked, as far as there
// is somebody; mu is held.
func (x *Exchange) plan(now time.Time) {
	if len(x.idle) > 1 {
		slices.SortFunc(x.idle, func(a, b *want) int {
			if d := a.due.IsZero(); d != b.due.IsZero() {
				if d {
					return 1
				}
				return -1
			}
			return cmp.Compare(a.seq, b.seq)
		})
	}
	list := x.idle
	x.idle = x.idle[:0]
	for _, w := range list {
		w.idle = false
		if w.settled {
			continue
		}
		if again := x.assign(w, now); len(w.from) == 0 {
			w.idle = true
			x.idle = append(x.idle, w)
			if !again.IsZero() {
				x.at(again)
			}
		}
	}
	clear(list[len(x.idle):])
	if len(x.wants) > 0 {
		x.at(now.Add(tick))
	}
}

// assign asks somebody for w, who is not asked already. If nobody is to be
// asked yet, it returns when to try again; zero for when something happens.
func (x *Exchange) assign(w *want, now time.Time) time.Time {
	size := w.guess()
	due := !w.due.IsZero()
	var best *remote
	busy := false
	for r, said := range w.said {
		if _, already := w.from[r]; already || r.relay || r.mute || r.liar {
			continue
		}
		if said != have && !(said != haveNot && w.session.seen[r.id] >= hot) {
			continue
		}
		if !due && !r.room(size) {
			busy = true
			continue
		}
		if best == nil || r.eta(size) < best.eta(size) {
			best = r
		}
	}
	relay := x.relayFor(w, size)
	if best != nil {
		// A reader does not wait for a slow neighbour where a relay is quick.
		if due && relay != nil && best.eta(size) > 2*relay.eta(size)+tick {
			best = relay
		}
		x.ask(w, best, now)
		return time.Time{}
	}
	if busy || relay == nil {
		return time.Time{}
	}
	if !w.first {
		if until := x.spare(w, relay, size, now); until.After(now) {
			return until
		}
	}
	if due || relay.room(size) {
		for r := range w.said {
			if !w.first && r.claims(w) != none {
				r.unkept++
			}
		}
		x.ask(w, relay, now)
	}
	return time.Time{}
}

// An expectation is why a block may be left to a neighbour that has it not.
type expectation uint8

const (
	none expectation = iota
	rival
	coming
)

// claims tells what may be expected of r, which wants w's block too: to have
// asked for it, or to be the one whose turn that is.
func (r *remote) claims(w *want) expectation {
	c, ok := r.theirs[w.cid]
	switch {
	case !ok || r.relay || r.mute || r.liar || r.unkept >= maxUnkept:
		return none
	case c.coming:
		return coming
	case rank(r.id, w.cid) > rank(r.x.cfg.Host.ID(), w.cid):
		return rival
	}
	return none
}

// relayFor returns the relay that would send w the soonest, nil for none. A
// liar is the last.
func (x *Exchange) relayFor(w *want, size int) (best *remote) {
	for _, r := range x.remotes {
		if _, already := w.from[r]; already || !r.relay || r.mute || w.said[r] == haveNot {
			continue
		}
		if best == nil || best.liar && !r.liar || best.liar == r.liar && r.eta(size) < best.eta(size) {
			best = r
		}
	}
	return best
}

// spare returns until when w is left to the neighbours, though they have it not.
func (x *Exchange) spare(w *want, relay *remote, size int, now time.Time) (until time.Time) {
	later := func(t time.Time) {
		if t.After(until) {
			until = t
		}
	}
	for r, said := range w.said {
		if r.relay || r.mute || r.liar {
			continue
		}
		answer := max(4*r.rtt, x.latency/2, minAnswer)
		later(w.since.Add(min(answer, maxAnswer)))
		if said == asked && r.silent < maxSilent {
			patience := answerPatience
			if r.rtt > 0 {
				patience = min(answer, answerPatience)
			}
			if t := w.since.Add(patience); t.After(now) {
				later(t)
			} else {
				w.said[r] = overdue
				r.silent++
			}
		}
		switch r.claims(w) {
		case coming:
			later(r.theirs[w.cid].at.Add(comingPatience))
		case rival:
			at := r.theirs[w.cid].at
			if at.Before(w.since) {
				at = w.since
			}
			later(at.Add(rivalPatience))
		}
	}
	if !w.due.IsZero() {
		if t := w.due.Add(min(max(relay.eta(size), 2*x.latency, minDue), maxDue)); t.Before(until) {
			until = t
		}
	}
	return until
}

// rank is by what those who want a block agree on who of them asks a relay: the
// highest does.
func rank(p peer.ID, c cid.Cid) uint64 {
	h := fnv.New64a()
	h.Write([]byte(p))
	h.Write(c.Bytes())
	// FNV's last bytes hardly reach the upper bits: mix (splitmix64).
	v := h.Sum64()
	v = (v ^ v>>30) * 0xbf58476d1ce4e5b9
	v = (v ^ v>>27) * 0x94d049bb133111eb
	return v ^ v>>31
}

// look does what time has come for: other peers are asked for what is late,
// and all for what nobody had, which it returns. mu is held.
func (x *Exchange) look(now time.Time) (again []cid.Cid) {
	x.next = time.Time{}
	for _, r := range x.remotes {
		r.measure(now)
	}
	for _, w := range x.wants {
		switch {
		case len(w.from) > 0:
			x.late(w, now)
		case now.After(w.retry):
			again = append(again, w.cid)
			w.pause = min(2*w.pause, maxRetry)
			w.retry = now.Add(w.pause)
			for _, r := range x.remotes {
				if r.relay {
					delete(w.said, r)
				} else if w.said[r] != have {
					x.search(w, r)
				}
			}
		}
	}
	x.plan(now)
	return again
}

// late asks another peer for w if those that are asked stall, or are far slower
// than another would be.
func (x *Exchange) late(w *want, now time.Time) {
	size := w.guess()
	due := !w.due.IsZero()
	quiet := time.Duration(1<<63 - 1) // the liveliest one's silence
	soonest := quiet
	liars := now.After(w.deadline)
	var last *remote
	for r := range w.from {
		since := r.out[w].at
		if r.progress.After(since) {
			since = r.progress
		}
		if q := now.Sub(since); q < quiet {
			quiet, last = q, r
		}
		soonest = min(soonest, r.eta(0))
		liars = liars && r.astray > 0
	}
	patience := min(max(8*last.rtt, 3*x.latency, minStall), maxStall)
	if !due {
		patience *= 2 // nobody suffers yet
	}
	struck := liars || quiet > patience
	slow := due && now.After(w.deadline) && len(w.from) == 1
	if !struck && !slow {
		return
	}
	var other *remote
	for r, said := range w.said {
		if _, already := w.from[r]; already || r.relay || r.mute || r.liar || said != have {
			continue
		}
		if other == nil || r.eta(size) < other.eta(size) {
			other = r
		}
	}
	if other == nil {
		other = x.relayFor(w, size)
	}
	switch {
	case other != nil && (struck || 3*other.eta(size) < soonest):
		if struck {
			last.stalls++
			w.session.seen[last.id] = 0
		}
		x.ask(w, other, now)
	case other == nil && quiet > lost:
		last.out[w] = ask{now, last.out[w].size}
		last.queue(w.cid, w.entry(wantBlock))
	}
}

// yield takes back what a relay was asked for by two at once: r has asked for
// c's block too, and it is r's turn.
func (x *Exchange) yield(r *remote, c cid.Cid, now time.Time) {
	w := x.wants[c]
	if w == nil || !w.due.IsZero() || len(w.from) != 1 || rank(r.id, c) < rank(x.cfg.Host.ID(), c) {
		return
	}
	for relay := range w.from {
		if relay.relay && now.Sub(relay.out[w].at) < takeBack {
			x.release(w, relay)
			relay.cancel(c, false)
		}
	}
}
