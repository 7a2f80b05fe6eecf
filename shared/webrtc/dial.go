package webrtc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// When two peers dial each other at once, one connection is enough: the offer
// of the peer whose ID sorts later is answered, and the other one's dial
// returns what comes of it. A peer that is answering makes no offer, and one
// that has made its offer answers only a peer that sorts later; so of two none
// waits for the other's answer while the other waits for its own.

// errSuperseded ends an offer because the far end's is being answered.
var errSuperseded = errors.New("webrtc: the peer's own offer is answered")

// A dial is a Dial that has not returned.
type dial struct {
	got     chan *Conn // capacity 1: what came of an offer of the far end's
	offered bool
	stop    context.CancelCauseFunc // ends the offer under way
}

// peer returns the state of p, for callers that hold mu.
func (t *Transport) peer(p peer.ID) *peerState {
	s := t.peers[p]
	if s == nil {
		s = &peerState{changed: make(chan struct{})}
		t.peers[p] = s
	}
	return s
}

// tidy forgets a state without content, for callers that hold mu.
func (t *Transport) tidy(p peer.ID) {
	if s := t.peers[p]; s != nil && len(s.dials) == 0 && s.answering == 0 {
		delete(t.peers, p)
	}
}

// dialWebRTC makes offers until one is answered.
func (t *Transport) dialWebRTC(ctx context.Context, a ma.Multiaddr, p peer.ID) (_ *Conn, err error) {
	d := &dial{got: make(chan *Conn, 1)}
	t.mu.Lock()
	s := t.peer(p)
	s.dials = append(s.dials, d)
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		s.dials = slices.DeleteFunc(s.dials, func(x *dial) bool { return x == d })
		t.tidy(p)
		t.mu.Unlock()
		select {
		case c := <-d.got: // too late for this dial
			if err := t.accept(c, true); err != nil {
				c.end(ErrClosed)
			}
		default:
		}
	}()
	backoff := firstBackoff
	for n := 1; ; n++ {
		c, err := t.waitAnswering(ctx, p, d)
		if c != nil || err != nil {
			return c, err
		}
		select {
		case t.offering <- struct{}{}:
		case got := <-d.got:
			return got, nil
		case <-ctx.Done():
			return nil, fmt.Errorf("webrtc: dial %s: %w", p, context.Cause(ctx))
		case <-t.ctx.Done():
			return nil, ErrClosed
		}
		c, err = t.offer(ctx, a, p, d)
		<-t.offering
		select {
		case got := <-d.got:
			if c != nil {
				c.end(ErrClosed)
			}
			return got, nil
		default:
		}
		switch {
		case err == nil:
			return c, nil
		case ctx.Err() != nil:
			return nil, fmt.Errorf("webrtc: dial %s: %w", p, context.Cause(ctx))
		case errors.Is(err, errSuperseded):
			n--
			continue
		case !errors.Is(err, ErrNoAnswer) || n == maxOffers:
			return nil, fmt.Errorf("webrtc: dial %s: %w", p, err)
		}
		t.log.Debug("offer not answered", "peer", p, "attempt", n, "err", err)
		wait := time.NewTimer(backoff)
		select {
		case <-wait.C:
		case got := <-d.got:
			wait.Stop()
			return got, nil
		case <-ctx.Done():
		}
		wait.Stop()
		backoff *= 2
	}
}

// waitAnswering waits while offers of p are being answered. It returns a
// connection if d was given one meanwhile.
func (t *Transport) waitAnswering(ctx context.Context, p peer.ID, d *dial) (*Conn, error) {
	for {
		t.mu.Lock()
		s := t.peer(p)
		busy, changed := s.answering > 0, s.changed
		t.mu.Unlock()
		select {
		case c := <-d.got:
			return c, nil
		default:
		}
		if !busy {
			return nil, nil
		}
		select {
		case <-changed:
		case c := <-d.got:
			return c, nil
		case <-ctx.Done():
			return nil, fmt.Errorf("webrtc: dial %s: %w", p, context.Cause(ctx))
		case <-t.ctx.Done():
			return nil, ErrClosed
		}
	}
}

// claim tells whether d may make its offer now: not while p's is answered.
func (t *Transport) claim(p peer.ID, d *dial, stop context.CancelCauseFunc) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.peer(p).answering > 0 {
		return false
	}
	d.offered, d.stop = true, stop
	return true
}

// beginAnswer tells whether an offer of p is to be answered, and notes that it
// is.
func (t *Transport) beginAnswer(p peer.ID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.answering >= maxAnswering {
		return false
	}
	s := t.peer(p)
	defer t.tidy(p)
	if s.answering >= maxAnsweringPeer {
		return false
	}
	for _, d := range s.dials {
		if d.offered && t.host.ID() > p {
			return false
		}
	}
	t.answering++
	s.answering++
	return true
}

// endAnswer takes back what beginAnswer noted.
func (t *Transport) endAnswer(p peer.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.peers[p]
	t.answering--
	s.answering--
	close(s.changed)
	s.changed = make(chan struct{})
	t.tidy(p)
}

// deliver gives c, which came of an offer of the far end's, to a dial that waits
// for the peer, or to a listener.
func (t *Transport) deliver(c *Conn) error {
	t.mu.Lock()
	if s := t.peers[c.remote]; s != nil {
		for _, d := range s.dials {
			select {
			case d.got <- c:
				c.dir = network.DirOutbound
				if d.stop != nil {
					d.stop(errSuperseded)
				}
				t.mu.Unlock()
				return nil
			default:
			}
		}
	}
	t.mu.Unlock()
	return t.accept(c, true)
}

// offer makes one offer to p.
func (t *Transport) offer(ctx context.Context, a ma.Multiaddr, p peer.ID, d *dial) (_ *Conn, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, negotiateTimeout, fmt.Errorf("not connected within %v", negotiateTimeout))
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer context.AfterFunc(t.ctx, func() { stop(ErrClosed) })()
	ch, err := t.signalling(ctx, a, p)
	if err != nil {
		return nil, err
	}
	defer func() { ch.close(err == nil) }()
	if !t.claim(p, d, stop) {
		return nil, errSuperseded
	}
	defer func() {
		t.mu.Lock()
		d.offered, d.stop = false, nil
		t.mu.Unlock()
	}()
	_, raddr, err := splitAddr(a)
	if err != nil {
		return nil, err
	}
	c, err := t.newConn(ctx, network.DirOutbound, p, raddr.Encapsulate(webrtcAddr))
	if err != nil {
		return nil, err
	}
	c.key = ch.key
	defer func() {
		if err != nil {
			c.end(ErrClosed)
		}
	}()
	init, err := c.pc.Open(ctx, initLabel, &initChannel{})
	if err != nil {
		return nil, err
	}
	sdp, err := c.pc.Offer(ctx)
	if err != nil {
		return nil, err
	}
	ch.send(signal{sdpOffer, sdp})
	c.sendCandidates(func(init string) { ch.send(signal{iceCandidate, init}) })

	late := time.NewTimer(answerTimeout)
	defer late.Stop()
	select {
	case r := <-ch.read:
		switch {
		case errors.Is(r.err, ErrSignalling):
			return nil, r.err
		case r.err != nil:
			return nil, fmt.Errorf("%w: %w", ErrNoAnswer, r.err)
		case r.kind != sdpAnswer:
			return nil, fmt.Errorf("%w: kind %d for an answer", ErrSignalling, r.kind)
		}
		if err := c.pc.SetAnswer(ctx, r.data); err != nil {
			return nil, err
		}
	case <-late.C:
		return nil, fmt.Errorf("%w within %v", ErrNoAnswer, answerTimeout)
	case <-c.down:
		return nil, c.reason()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if err := ch.negotiate(ctx, c); err != nil {
		return nil, err
	}
	init.Close()
	return c, nil
}

// handle answers an offer.
func (t *Transport) handle(s network.Stream) {
	p := s.Conn().RemotePeer()
	if !t.start(func() {
		if err := t.answer(s); err != nil {
			t.log.Debug("offer not answered", "peer", p, "err", err)
		}
	}) {
		s.Reset()
	}
}

// answer answers one offer and delivers the connection.
func (t *Transport) answer(s network.Stream) (err error) {
	p := s.Conn().RemotePeer()
	ctx, cancel := context.WithTimeoutCause(t.ctx, negotiateTimeout, fmt.Errorf("not connected within %v", negotiateTimeout))
	defer cancel()
	ch := newChannel(s, s.Conn().RemotePublicKey())
	defer func() { ch.close(err == nil) }()
	var offer string
	select {
	case r := <-ch.read:
		if r.err != nil {
			return r.err
		}
		if r.kind != sdpOffer {
			return fmt.Errorf("%w: kind %d for an offer", ErrSignalling, r.kind)
		}
		offer = r.data
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if !t.beginAnswer(p) {
		return fmt.Errorf("%w: busy, or our own was made", ErrNoAnswer)
	}
	defer t.endAnswer(p)
	// js-libp2p reaches us by whatever connection there is.
	raddr := webrtcAddr
	if a := s.Conn().RemoteMultiaddr(); t.CanDial(a) && !isWebRTC(a) {
		raddr = a.Encapsulate(webrtcAddr)
	}
	c, err := t.newConn(ctx, network.DirInbound, p, raddr)
	if err != nil {
		return err
	}
	c.key = ch.key
	defer func() {
		if err != nil {
			c.end(ErrClosed)
		}
	}()
	sdp, err := c.pc.Answer(ctx, offer)
	if err != nil {
		return err
	}
	ch.send(signal{sdpAnswer, sdp})
	c.sendCandidates(func(init string) { ch.send(signal{iceCandidate, init}) })
	if err := ch.negotiate(ctx, c); err != nil {
		return err
	}
	return t.deliver(c)
}
