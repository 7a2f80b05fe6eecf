package bcin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// A session is one stream to a relay: a watch, and the own record's
// registrations one after the other.
type session struct {
	c     *Client
	relay peer.ID
	wake  chan struct{} // capacity 1: look at the own record again

	// By run's goroutine only, and after it has ended by Run's.
	skew     time.Duration // of the relay's clock against ours
	last     time.Time     // expiry of the last record sent, by the relay's clock
	answered bool

	stream network.Stream
	nextID uint64

	own        Record    // as last sent; its Origin is empty before that
	renewable  bool      // the relay has own
	pending    uint64    // the request that is not answered yet, 0 if none
	pendingOp  string    // its operation
	due        time.Time // when own is to be renewed, or tried again
	pause      time.Duration
	overdue    time.Time // when pending should have been answered
	told       map[peer.ID]struct{}
	mismatched bool // a record that is none was logged
}

// run has one session, until the stream or ctx ends.
func (s *session) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	open, opened := context.WithTimeoutCause(ctx, answerTimeout, fmt.Errorf("bcin: no stream within %v", answerTimeout))
	var err error
	s.stream, err = s.c.cfg.Host.NewStream(network.WithNoDial(open, "bcin"), s.relay, Protocol)
	opened()
	if err != nil {
		cancel()
		return err
	}
	s.told = map[peer.ID]struct{}{}
	s.pause = refused
	replies := make(chan reply)
	ended := make(chan error, 1)
	go func() { // ends with the stream
		defer close(ended)
		in := bufio.NewReader(s.stream)
		for {
			r, err := readReply(in)
			if err != nil {
				ended <- err
				return
			}
			select {
			case replies <- r:
			case <-ctx.Done():
				return
			}
		}
	}()
	s.c.begin(s)
	defer func() {
		cancel()
		s.stream.Reset()
		for range ended { // until it is closed
		}
		s.c.end(s)
	}()
	if err := s.send(request{op: opWatch, limit: MaxView}); err != nil {
		return err
	}
	watch := s.nextID
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		if err := s.register(); err != nil {
			return err
		}
		select {
		case r := <-replies:
			if err := s.hear(r, watch); err != nil {
				return err
			}
		case <-s.wake:
		case <-tick.C:
			if s.pending != 0 && time.Now().After(s.overdue) {
				return fmt.Errorf("bcin: no answer within %v", answerTimeout)
			}
		case err := <-ended:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (s *session) send(r request) error {
	s.nextID++
	r.id, r.origin = s.nextID, s.c.cfg.Origin
	s.stream.SetWriteDeadline(time.Now().Add(answerTimeout))
	b, err := r.marshal()
	return writeFrame(s.stream, b, err)
}

// register sends the own record if it has changed or is to be renewed.
func (s *session) register() error {
	if s.pending != 0 {
		return nil
	}
	own, now := s.c.own(), time.Now()
	first := s.own.Origin == ""
	if first && len(own.Addrs) == 0 {
		return nil
	}
	differs := !first && (own.Epoch != s.own.Epoch || !slices.EqualFunc(own.Addrs, s.own.Addrs, ma.Multiaddr.Equal) || !slices.Equal(own.Holds, s.own.Holds))
	if !first && now.Before(s.due) && (!differs || s.pause > refused) {
		return nil
	}
	op := opRegister
	if s.renewable && !differs {
		op = opRenew
	}
	// Later than the last one in any case: that is what makes it the newer.
	own.Expires = now.Add(s.skew + s.c.cfg.TTL).Truncate(time.Millisecond)
	if !own.Expires.After(s.last) {
		own.Expires = s.last.Add(time.Millisecond)
	}
	sealed, err := Seal(own, s.c.cfg.Key)
	if err != nil {
		return err
	}
	if err := s.send(request{op: op, record: sealed}); err != nil {
		return err
	}
	s.own, s.last = own, own.Expires
	s.pending, s.pendingOp, s.overdue = s.nextID, op, now.Add(answerTimeout)
	return nil
}

// hear takes a message of the relay over.
func (s *session) hear(r reply, watch uint64) error {
	s.answered = true
	s.skew = skewOf(r.now)
	switch {
	case r.id == watch && r.kind == kindEvent:
		return s.event(r)
	case r.id == watch && r.kind == kindOK:
		return nil
	case r.id == s.pending && s.pending != 0 && r.kind == kindOK:
		s.pending, s.renewable, s.pause = 0, true, refused
		s.due = time.Now().Add(s.c.cfg.TTL / 2)
		return nil
	case r.id == s.pending && s.pending != 0 && r.kind == kindError:
		s.refused(codeToError(r.code, r.message), r.epoch)
		return nil
	case r.kind == kindError:
		return codeToError(r.code, r.message)
	}
	return fmt.Errorf("%w: kind %.20q for request %d", errMessage, r.kind, r.id)
}

// refused takes over that the relay did not take the own record.
func (s *session) refused(err error, epoch uint64) {
	s.pending, s.renewable = 0, false
	again := false // at once, if it was not refused just before
	switch {
	case errors.Is(err, ErrUnknown) && s.pendingOp == opRenew:
		again = true // it is registered anew
	case errors.Is(err, ErrStale):
		// Our own, of a time when the clock was ahead.
		s.c.outdate(max(epoch, s.own.Epoch))
		again = true
	case errors.Is(err, ErrExpired), errors.Is(err, ErrMalformed):
		// Signed by our clock, which is wrong; by now the relay's is known.
		s.last = time.Time{}
		again = true
	}
	s.due = time.Now()
	if !again || s.pause > refused {
		s.due = s.due.Add(time.Duration((0.5 + rand.Float64()) * float64(s.pause)))
		s.c.log.Warn("not registered", "relay", s.relay, "err", err)
	}
	s.pause = min(2*s.pause, maxRetry)
}

// event takes over who joined and left.
func (s *session) event(r reply) error {
	for _, p := range r.left {
		delete(s.told, p)
		s.c.drop(s, p)
	}
	for _, sealed := range r.records {
		if p, same := s.c.same(s, sealed); same {
			s.told[p] = struct{}{}
			continue
		}
		rec, err := Open(sealed, s.c.cfg.Origin, time.Now().Add(s.skew))
		if err != nil {
			if !s.mismatched {
				s.mismatched = true
				s.c.log.Warn("a relay told of a record that is none", "relay", s.relay, "err", err)
			}
			continue
		}
		s.told[rec.Peer] = struct{}{}
		if len(s.told) > MaxView {
			return fmt.Errorf("%w: more than %d records", errMessage, MaxView)
		}
		s.c.add(s, rec, sealed)
	}
	return nil
}
