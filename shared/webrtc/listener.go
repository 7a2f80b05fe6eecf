package webrtc

import (
	"net"
	"slices"
	"sync"

	"github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"
)

// A listener yields circuits, connections offered over them, or both.
type listener struct {
	transport *Transport
	addr      ma.Multiaddr
	webrtc    bool
	circuits  transport.Listener // nil if webrtc
	conns     chan transport.CapableConn
	done      chan struct{}
	once      sync.Once
	wg        sync.WaitGroup
}

var _ transport.Listener = (*listener)(nil)

// acceptCircuits passes on what the circuit client accepts.
func (l *listener) acceptCircuits() {
	for {
		c, err := l.circuits.Accept()
		if err != nil {
			return
		}
		select {
		case l.conns <- c:
		case <-l.done:
			c.Close()
			return
		}
	}
}

// Accept waits for the next connection.
func (l *listener) Accept() (transport.CapableConn, error) {
	select {
	case <-l.done:
		return nil, transport.ErrListenerClosed
	default:
	}
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, transport.ErrListenerClosed
	}
}

// Close ends Accept; connections that were accepted live on.
func (l *listener) Close() error {
	var err error
	l.once.Do(func() {
		close(l.done)
		t := l.transport
		t.mu.Lock()
		t.listeners = slices.DeleteFunc(t.listeners, func(x *listener) bool { return x == l })
		t.mu.Unlock()
		if l.circuits != nil {
			err = l.circuits.Close()
		}
		l.wg.Wait()
	})
	return err
}

// Addr is the address as a net.Addr.
func (l *listener) Addr() net.Addr { return netAddr(l.addr.String()) }

// Multiaddr is what Listen was given.
func (l *listener) Multiaddr() ma.Multiaddr { return l.addr }

// netAddr is a multiaddr as a net.Addr.
type netAddr string

func (netAddr) Network() string  { return "webrtc" }
func (a netAddr) String() string { return string(a) }
