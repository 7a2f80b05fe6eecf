package webrtc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"
	msmux "github.com/multiformats/go-multistream"
)

// A circuitConn is a circuit that was made to signal over. It is in the swarm,
// so that the far end can identify this side and speak to it meanwhile.
type circuitConn struct {
	transport.CapableConn
	stat  network.ConnStats
	users atomic.Int32 // signalling streams on it
}

// Stat tells the swarm whether the circuit is limited.
func (c *circuitConn) Stat() network.ConnStats { return c.stat }

// As sets target if it is a **circuitConn, and else asks below.
func (c *circuitConn) As(target any) bool {
	if p, ok := target.(**circuitConn); ok {
		*p = c
		return true
	}
	return c.CapableConn.As(target)
}

// splitAddr returns the relay of a and the address of the circuit through it.
func splitAddr(a ma.Multiaddr) (relay peer.ID, circuit ma.Multiaddr, err error) {
	before, _ := ma.SplitFunc(a, func(c ma.Component) bool { return c.Protocol().Code == ma.P_CIRCUIT })
	_, relay = peer.SplitAddr(before)
	if relay == "" {
		return "", nil, fmt.Errorf("%w: no relay in %s", ErrAddress, a)
	}
	return relay, before.Encapsulate(circuitAddr), nil
}

// viaRelay tells whether nc is a circuit through relay.
func viaRelay(nc network.Conn, relay peer.ID) bool {
	a := nc.RemoteMultiaddr()
	if isWebRTC(a) {
		return false
	}
	before, after := ma.SplitFunc(a, func(c ma.Component) bool { return c.Protocol().Code == ma.P_CIRCUIT })
	_, id := peer.SplitAddr(before)
	return after != nil && id == relay
}

// A channel is a signalling stream.
type channel struct {
	key    crypto.PubKey
	stream network.MuxedStream
	in     *bufio.Reader
	out    chan signal
	quit   chan struct{}
	read   chan received
	ended  chan struct{} // closed when writing has ended
	done   func(ok bool) // gives the circuit back
}

type received struct {
	signal
	err error
}

// newChannel starts to read from and write to s.
func newChannel(s network.MuxedStream, key crypto.PubKey) *channel {
	ch := &channel{
		key:    key,
		stream: s,
		in:     bufio.NewReader(s),
		out:    make(chan signal, maxCandidates+1),
		quit:   make(chan struct{}),
		read:   make(chan received),
		ended:  make(chan struct{}),
		done:   func(bool) {},
	}
	s.SetDeadline(time.Now().Add(negotiateTimeout))
	go ch.readAll()
	go ch.writeAll()
	return ch
}

// readAll ends with close, which ends the stream.
func (ch *channel) readAll() {
	for {
		s, err := readSignal(ch.in)
		select {
		case ch.read <- received{s, err}:
		case <-ch.quit:
			return
		}
		if err != nil {
			return
		}
	}
}

func (ch *channel) writeAll() {
	defer close(ch.ended)
	for {
		select {
		case s := <-ch.out:
			if _, err := ch.stream.Write(s.append(nil)); err != nil {
				return // the reader hears of it too
			}
		case <-ch.quit:
			return
		}
	}
}

// send queues s; what is more than a peer may send is dropped.
func (ch *channel) send(s signal) {
	select {
	case ch.out <- s:
	default:
	}
}

// close ends the stream, in an orderly way if ok.
func (ch *channel) close(ok bool) {
	close(ch.quit)
	if ok {
		ch.stream.Close()
	} else {
		ch.stream.Reset()
	}
	<-ch.ended
	ch.done(ok)
}

// negotiate adds the far end's candidates until c is up.
func (ch *channel) negotiate(ctx context.Context, c *Conn) error {
	read, count := ch.read, 0
	for {
		select {
		case <-c.up:
			return nil
		case <-c.down:
			return fmt.Errorf("%w: %w", ErrNotConnected, c.reason())
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrNotConnected, context.Cause(ctx))
		case r := <-read:
			if r.err != nil {
				// The far end is done with it; candidates may still be tried.
				read = nil
				if errors.Is(r.err, ErrSignalling) {
					return r.err
				}
				continue
			}
			if r.kind != iceCandidate {
				return fmt.Errorf("%w: kind %d for a candidate", ErrSignalling, r.kind)
			}
			if count++; count > maxCandidates {
				return fmt.Errorf("%w: over %d candidates", ErrSignalling, maxCandidates)
			}
			if r.data == "" || r.data == "null" || r.data == `""` { // no more will come
				continue
			}
			// One candidate that is of no use here may be followed by others.
			if err := c.pc.AddCandidate(ctx, r.data); err != nil {
				c.transport.log.Debug("candidate not used", "peer", c.remote, "err", err)
			}
		}
	}
}

// signalling opens a signalling stream to p on a circuit through a's relay: one
// that is there, or else a new one, which is closed afterwards.
func (t *Transport) signalling(ctx context.Context, a ma.Multiaddr, p peer.ID) (*channel, error) {
	relay, addr, err := splitAddr(a)
	if err != nil {
		return nil, err
	}
	ch, err := t.signalOnExisting(ctx, p, relay)
	if ch != nil || err != nil {
		return ch, err
	}
	unlock, err := t.lockCircuit(ctx, p)
	if err != nil {
		return nil, err
	}
	locked := true
	defer func() {
		if locked {
			unlock()
		}
	}()
	// Who held the lock may have made one.
	if ch, err := t.signalOnExisting(ctx, p, relay); ch != nil || err != nil {
		return ch, err
	}
	c, err := t.circuit.Dial(ctx, addr, p)
	if err != nil {
		return nil, fmt.Errorf("webrtc: circuit to %s: %w", p, err)
	}
	cc := &circuitConn{CapableConn: c}
	if s, ok := c.(network.ConnStat); ok {
		cc.stat = s.Stat()
	}
	cc.users.Add(1)
	if err := t.accept(cc, false); err != nil {
		c.Close()
		return nil, fmt.Errorf("webrtc: circuit to %s: %w", p, err)
	}
	unlock()
	locked = false
	s, err := c.OpenStream(ctx)
	if err == nil {
		ch, err = openChannel(ctx, s, cc.RemotePublicKey())
	}
	if err != nil {
		cc.users.Add(-1)
		c.Close()
		return nil, fmt.Errorf("webrtc: signalling to %s: %w", p, err)
	}
	ch.done = func(ok bool) {
		cc.users.Add(-1)
		if !ok && cc.users.Load() == 0 {
			c.Close()
			return
		}
		if !t.start(func() { t.linger(cc, p) }) {
			c.Close()
		}
	}
	return ch, nil
}

// signalOnExisting opens a signalling stream on a circuit that is there. It
// returns nil if there is none.
func (t *Transport) signalOnExisting(ctx context.Context, p, relay peer.ID) (*channel, error) {
	for _, nc := range t.host.Network().ConnsToPeer(p) {
		if nc.IsClosed() || !viaRelay(nc, relay) {
			continue
		}
		done := func(bool) {}
		var cc *circuitConn
		if nc.As(&cc) {
			cc.users.Add(1)
			done = func(bool) { cc.users.Add(-1) }
		}
		s, err := nc.NewStream(network.WithAllowLimitedConn(ctx, "webrtc signalling"))
		if err != nil {
			done(false)
			continue // it has just ended
		}
		ch, err := openChannel(ctx, s, nc.RemotePublicKey())
		if err != nil {
			done(false)
			return nil, fmt.Errorf("webrtc: signalling to %s: %w", p, err)
		}
		ch.done = done
		return ch, nil
	}
	return nil, nil
}

// openChannel agrees with the far end on the protocol of s.
func openChannel(ctx context.Context, s network.MuxedStream, key crypto.PubKey) (*channel, error) {
	stop := context.AfterFunc(ctx, func() { s.Reset() })
	err := msmux.SelectProtoOrFail(SignallingProtocol, io.ReadWriteCloser(s))
	if !stop() {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		s.Reset()
		if errors.Is(err, msmux.ErrNotSupported[string]{}) {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %w", ErrNoAnswer, err)
	}
	return newChannel(s, key), nil
}

// linger closes a circuit that was made to signal over, once nobody signals on
// it and the streams that began on it have ended, or had time to.
func (t *Transport) linger(cc *circuitConn, p peer.ID) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	end := time.Now().Add(circuitLinger)
	for t.ctx.Err() == nil {
		if cc.users.Load() == 0 && (time.Now().After(end) || !t.busy(cc, p)) {
			break
		}
		select {
		case <-tick.C:
		case <-t.ctx.Done():
		}
	}
	cc.Close()
}

// busy tells whether the swarm has streams on cc.
func (t *Transport) busy(cc *circuitConn, p peer.ID) bool {
	for _, nc := range t.host.Network().ConnsToPeer(p) {
		var c *circuitConn
		if nc.As(&c) && c == cc {
			return len(nc.GetStreams()) > 0
		}
	}
	return false
}
