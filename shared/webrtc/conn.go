package webrtc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"
)

// A Conn is one peer connection as a libp2p connection.
type Conn struct {
	transport     *Transport
	dir           network.Direction
	local, remote peer.ID
	key           crypto.PubKey
	laddr, raddr  ma.Multiaddr
	scope         network.ConnManagementScope
	pc            PeerConnection // set before anything is negotiated

	unread   atomic.Int64 // bytes waiting for readers in all streams
	accepted chan *stream
	free     chan struct{} // capacity 1: a stream has ended
	up       chan struct{} // closed when connected
	down     chan struct{} // closed when over, with err set

	candidates     func(init string)       // sends a candidate, or keeps it until it can
	sendCandidates func(send func(string)) // says how; send must not wait

	mu       sync.Mutex
	streams  map[*stream]struct{}
	incoming int
	outgoing int
	err      error
	isUp     bool
	lost     *time.Timer // runs while there is no network
}

var (
	_ transport.CapableConn = (*Conn)(nil)
	_ Events                = (*Conn)(nil)
)

// Candidate passes a candidate of this side on to the negotiation.
func (c *Conn) Candidate(init string) { c.candidates(init) }

// State follows the state of the peer connection.
func (c *Conn) State(s State) {
	c.mu.Lock()
	if c.lost != nil {
		c.lost.Stop()
		c.lost = nil
	}
	switch s {
	case Connected:
		if !c.isUp && c.err == nil {
			c.isUp = true
			close(c.up)
		}
	case Disconnected:
		c.lost = time.AfterFunc(disconnectedTimeout, func() {
			c.end(fmt.Errorf("%w: no network for %v", ErrLost, disconnectedTimeout))
		})
	case Failed, Closed:
		c.mu.Unlock()
		c.end(ErrLost)
		return
	}
	c.mu.Unlock()
}

// Channel takes a channel that the far end opened.
func (c *Conn) Channel(label string, ch DataChannel) ChannelEvents {
	if label == initLabel {
		return &initChannel{}
	}
	if label != "" {
		return nil
	}
	s := newStream(c, true)
	s.ch = ch
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.incoming >= maxIncoming {
		return nil
	}
	select {
	case c.accepted <- s:
	default:
		return nil
	}
	c.incoming++
	c.streams[s] = struct{}{}
	return s
}

// initChannel is the channel that carries nothing.
type initChannel struct{ ended chan struct{} }

func (*initChannel) Message([]byte) {}
func (*initChannel) Low()           {}
func (i *initChannel) Closed() {
	if i.ended != nil {
		close(i.ended)
	}
}

// remove forgets a stream that has ended.
func (c *Conn) remove(s *stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.streams[s]; !ok {
		return
	}
	delete(c.streams, s)
	if s.incoming {
		c.incoming--
	} else {
		c.outgoing--
	}
	poke(c.free)
}

// highWater is how many unsent bytes a stream may have now.
func (c *Conn) highWater() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return min(HighWater, max(minHighWater, 16*HighWater/max(1, len(c.streams))))
}

// OpenStream opens a data channel. It waits while too many are open.
func (c *Conn) OpenStream(ctx context.Context) (network.MuxedStream, error) {
	if err := c.takeSlot(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-c.down:
			cancel(c.reason())
		case <-ctx.Done():
		}
	}()
	s := newStream(c, false)
	s.mu.Lock() // until ch is set, which the channel's events need
	ch, err := c.pc.Open(ctx, "", s)
	s.ch = ch
	s.mu.Unlock()
	c.mu.Lock()
	if err == nil && c.err == nil {
		c.streams[s] = struct{}{}
		c.mu.Unlock()
		s.mu.Lock()
		if s.done { // it ended before it was in streams
			c.remove(s)
		}
		s.mu.Unlock()
		return s, nil
	}
	c.outgoing--
	poke(c.free)
	if c.err != nil {
		err = c.err
	}
	c.mu.Unlock()
	if ch != nil {
		ch.Close()
	}
	return nil, fmt.Errorf("webrtc: open stream to %s: %w", c.remote, err)
}

// takeSlot counts one more outgoing stream.
func (c *Conn) takeSlot(ctx context.Context) error {
	for {
		c.mu.Lock()
		err, ok := c.err, c.outgoing < maxOutgoing
		if err == nil && ok {
			if c.outgoing++; c.outgoing < maxOutgoing {
				poke(c.free) // for another one who waits
			}
		}
		c.mu.Unlock()
		if err != nil {
			return err
		}
		if ok {
			return nil
		}
		select {
		case <-c.free:
		case <-c.down:
		case <-ctx.Done():
			return fmt.Errorf("webrtc: open stream to %s: %w", c.remote, context.Cause(ctx))
		}
	}
}

// AcceptStream waits for a stream that the far end opens.
func (c *Conn) AcceptStream() (network.MuxedStream, error) {
	select {
	case <-c.down:
		return nil, c.reason()
	default:
	}
	select {
	case s := <-c.accepted:
		return s, nil
	case <-c.down:
		return nil, c.reason()
	}
}

// reason is why the connection is over; nil if it is not.
func (c *Conn) reason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// end ends the connection and all its streams; the first reason stays.
func (c *Conn) end(why error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = why
	close(c.down)
	if c.lost != nil {
		c.lost.Stop()
		c.lost = nil
	}
	streams := c.streams
	c.streams = map[*stream]struct{}{}
	c.mu.Unlock()
	for s := range streams {
		s.mu.Lock()
		s.fail(&network.StreamError{Remote: !errors.Is(why, ErrClosed), TransportError: why})
		s.done, s.closed = true, true
		s.release()
		s.mu.Unlock()
	}
	c.transport.forget(c)
}

// Close closes the connection, and with it all streams.
func (c *Conn) Close() error {
	c.end(ErrClosed)
	return nil
}

// CloseWithError is Close: the protocol carries no codes.
func (c *Conn) CloseWithError(network.ConnErrorCode) error { return c.Close() }

// IsClosed tells whether the connection is over.
func (c *Conn) IsClosed() bool { return c.reason() != nil }

// LocalPeer is this side's ID.
func (c *Conn) LocalPeer() peer.ID { return c.local }

// RemotePeer is the far end's ID.
func (c *Conn) RemotePeer() peer.ID { return c.remote }

// RemotePublicKey is the far end's key.
func (c *Conn) RemotePublicKey() crypto.PubKey { return c.key }

// ConnState names the transport: DTLS and SCTP come with it.
func (c *Conn) ConnState() network.ConnectionState {
	return network.ConnectionState{Transport: "webrtc"}
}

// LocalMultiaddr is /webrtc: which address ICE chose stays with the engine.
func (c *Conn) LocalMultiaddr() ma.Multiaddr { return c.laddr }

// RemoteMultiaddr is the address that signalling went by,
// …/p2p-circuit/webrtc.
func (c *Conn) RemoteMultiaddr() ma.Multiaddr { return c.raddr }

// Scope is the resource manager's.
func (c *Conn) Scope() network.ConnScope { return c.scope }

// Transport is the transport, which is no proxy: the connection is direct.
func (c *Conn) Transport() transport.Transport { return c.transport }

// As sets target if it is a **Conn.
func (c *Conn) As(target any) bool {
	if p, ok := target.(**Conn); ok {
		*p = c
		return true
	}
	return false
}

var _ io.Closer = (*Conn)(nil)
