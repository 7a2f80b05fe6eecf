package webrtc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	ma "github.com/multiformats/go-multiaddr"
)

// circuitAddr is where circuits arrive, and connections that began on them.
var circuitAddr = ma.StringCast("/p2p-circuit")

// webrtcAddr stands for this side's address.
var webrtcAddr = ma.StringCast("/webrtc")

// Transport is libp2p's transport for circuits, plain ones and those that only
// signal for a WebRTC connection.
type Transport struct {
	circuit *client.Client
	host    host.Host
	engine  Engine
	log     *slog.Logger

	ctx    context.Context // ends with Close; the parent of what runs in the background
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup

	offering chan struct{} // holds a value for each offer being negotiated

	mu        sync.Mutex
	closed    bool
	conns     map[*Conn]struct{}
	listeners []*listener
	peers     map[peer.ID]*peerState
	answering int // offers being worked on, of all peers
	circuits  map[peer.ID]chan struct{}
}

// peerState is what is under way with one peer.
type peerState struct {
	dials     []*dial
	answering int
	changed   chan struct{} // closed and replaced when answering goes down
}

var (
	_ transport.Transport    = (*Transport)(nil)
	_ transport.SkipResolver = (*Transport)(nil)
	_ io.Closer              = (*Transport)(nil)
)

// An Option changes how a Transport works.
type Option func(*Transport)

// WithLogger sets the logger; the default is slog.DiscardHandler.
func WithLogger(log *slog.Logger) Option { return func(t *Transport) { t.log = log } }

// AddTransport gives h a Transport, which takes the place of
// circuitv2/client's AddTransport, and has it listen for circuits and offers.
// Circuits are made secure by up. The swarm closes it.
func AddTransport(h host.Host, up transport.Upgrader, e Engine, opts ...Option) (*Transport, error) {
	n, ok := h.Network().(transport.TransportNetwork)
	if !ok {
		return nil, fmt.Errorf("webrtc: %T takes no transports", h.Network())
	}
	c, err := client.New(h, up)
	if err != nil {
		return nil, fmt.Errorf("webrtc: circuit client: %w", err)
	}
	t := &Transport{
		circuit:  c,
		host:     h,
		engine:   e,
		log:      slog.New(slog.DiscardHandler),
		conns:    map[*Conn]struct{}{},
		peers:    map[peer.ID]*peerState{},
		circuits: map[peer.ID]chan struct{}{},
		offering: make(chan struct{}, maxOffering),
	}
	for _, o := range opts {
		o(t)
	}
	t.ctx, t.cancel = context.WithCancelCause(context.Background())
	if err := n.AddTransport(t); err != nil {
		t.cancel(ErrClosed)
		return nil, fmt.Errorf("webrtc: %w", err)
	}
	if err := n.Listen(circuitAddr); err != nil {
		t.Close()
		return nil, fmt.Errorf("webrtc: listen: %w", err)
	}
	c.Start()
	h.SetStreamHandler(SignallingProtocol, t.handle)
	return t, nil
}

// Close ends every connection and waits for what runs in the background.
func (t *Transport) Close() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil
	}
	t.closed = true
	conns := t.conns
	t.conns = map[*Conn]struct{}{}
	t.mu.Unlock()
	t.cancel(ErrClosed)
	t.host.RemoveStreamHandler(SignallingProtocol)
	for c := range conns {
		c.end(ErrClosed)
		c.release()
	}
	t.wg.Wait()
	return t.circuit.Close()
}

// start runs f in the background unless the transport is closed.
func (t *Transport) start(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.wg.Go(f)
	return true
}

// forget closes what is below c, which has ended. The engine may be calling, so
// another goroutine does it.
func (t *Transport) forget(c *Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ours := t.conns[c]; ours { // and t is not closed
		delete(t.conns, c)
		t.wg.Go(c.release)
	}
}

// release closes the peer connection and frees its resources.
func (c *Conn) release() {
	if err := c.pc.Close(); err != nil {
		c.transport.log.Debug("peer connection not closed", "peer", c.remote, "err", err)
	}
	c.scope.Done()
}

// isWebRTC tells whether a asks for a WebRTC connection.
func isWebRTC(a ma.Multiaddr) bool {
	after := false
	for _, c := range a {
		switch c.Protocol().Code {
		case ma.P_CIRCUIT:
			after = true
		case ma.P_WEBRTC:
			return after
		}
	}
	return false
}

// IsCircuit tells whether what goes to a goes through a relay all the way.
func IsCircuit(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_CIRCUIT)
	return err == nil && !isWebRTC(a)
}

// CanDial tells whether a is a circuit's address.
func (t *Transport) CanDial(a ma.Multiaddr) bool { return t.circuit.CanDial(a) }

// Protocols names what Dial takes.
func (t *Transport) Protocols() []int { return []int{ma.P_CIRCUIT, ma.P_WEBRTC} }

// Proxy is false: WebRTC connections are direct. Those of plain circuits name
// the circuit client as their transport, which is one.
func (t *Transport) Proxy() bool { return false }

// SkipResolve leaves names to whichever transport dials the relay.
func (t *Transport) SkipResolve(context.Context, ma.Multiaddr) bool { return true }

// Dial connects to p at a circuit's address; with /webrtc after it the circuit
// is only the way to a direct connection.
func (t *Transport) Dial(ctx context.Context, a ma.Multiaddr, p peer.ID) (transport.CapableConn, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("webrtc: dial %s: %w", p, context.Cause(ctx))
	}
	if !t.CanDial(a) {
		return nil, fmt.Errorf("%w: %s", ErrAddress, a)
	}
	if isWebRTC(a) {
		c, err := t.dialWebRTC(ctx, a, p)
		if err != nil {
			return nil, err
		}
		return c, nil
	}
	if direct, why := network.GetForceDirectDial(ctx); direct {
		return nil, fmt.Errorf("%w: %s is not direct (%s)", ErrAddress, a, why)
	}
	unlock, err := t.lockCircuit(ctx, p)
	if err != nil {
		return nil, err
	}
	defer unlock()
	return t.circuit.Dial(ctx, a, p)
}

// lockCircuit waits for other dials of circuits to p to end: the circuit client
// fails the later of two at once even if the first one succeeds.
func (t *Transport) lockCircuit(ctx context.Context, p peer.ID) (unlock func(), err error) {
	for {
		t.mu.Lock()
		busy, ok := t.circuits[p]
		if !ok {
			mine := make(chan struct{})
			t.circuits[p] = mine
			t.mu.Unlock()
			return func() {
				t.mu.Lock()
				delete(t.circuits, p)
				t.mu.Unlock()
				close(mine)
			}, nil
		}
		t.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, fmt.Errorf("webrtc: dial circuit to %s: %w", p, context.Cause(ctx))
		}
	}
}

// newConn makes a connection with nothing negotiated yet.
func (t *Transport) newConn(ctx context.Context, dir network.Direction, p peer.ID, raddr ma.Multiaddr) (*Conn, error) {
	// The address with its relay's IP would count against that IP's limit.
	scope, err := t.host.Network().ResourceManager().OpenConnection(dir, false, webrtcAddr)
	if err != nil {
		return nil, fmt.Errorf("webrtc: %s: %w", p, err)
	}
	if err := scope.SetPeer(p); err != nil {
		scope.Done()
		return nil, fmt.Errorf("webrtc: %s: %w", p, err)
	}
	c := &Conn{
		transport: t,
		dir:       dir,
		local:     t.host.ID(),
		remote:    p,
		laddr:     webrtcAddr,
		raddr:     raddr,
		scope:     scope,
		accepted:  make(chan *stream, maxIncoming),
		free:      make(chan struct{}, 1),
		up:        make(chan struct{}),
		down:      make(chan struct{}),
		streams:   map[*stream]struct{}{},
	}
	var (
		mu      sync.Mutex
		waiting []string
		send    func(string)
	)
	c.candidates = func(init string) {
		mu.Lock()
		defer mu.Unlock()
		if send != nil {
			send(init)
		} else if len(waiting) < maxCandidates {
			waiting = append(waiting, init)
		}
	}
	c.sendCandidates = func(f func(string)) {
		mu.Lock()
		defer mu.Unlock()
		for _, w := range waiting {
			f(w)
		}
		waiting, send = nil, f
	}
	if c.pc, err = t.engine.New(ctx, c); err != nil {
		scope.Done()
		return nil, fmt.Errorf("webrtc: %s: %w", p, err)
	}
	t.mu.Lock()
	closed := t.closed
	if !closed {
		t.conns[c] = struct{}{}
	}
	t.mu.Unlock()
	if closed {
		c.end(ErrClosed)
		c.release()
		return nil, ErrClosed
	}
	if c.reason() != nil { // it ended before it was registered
		t.forget(c)
	}
	return c, nil
}

// Listen takes what arrives at a: circuits, for /p2p-circuit, and the
// connections that were offered over them unless there is a listener for
// …/webrtc too.
func (t *Transport) Listen(a ma.Multiaddr) (transport.Listener, error) {
	if !t.CanDial(a) {
		return nil, fmt.Errorf("%w: listen on %s", ErrAddress, a)
	}
	l := &listener{
		transport: t,
		addr:      a,
		webrtc:    isWebRTC(a),
		conns:     make(chan transport.CapableConn),
		done:      make(chan struct{}),
	}
	if !l.webrtc {
		inner, err := t.circuit.Listen(a)
		if err != nil {
			return nil, fmt.Errorf("webrtc: listen on %s: %w", a, err)
		}
		l.circuits = inner
		l.wg.Go(l.acceptCircuits)
	}
	t.mu.Lock()
	t.listeners = append(t.listeners, l)
	t.mu.Unlock()
	return l, nil
}

// listening returns the listener that webrtc connections, or circuits, go to.
func (t *Transport) listening(webrtc bool) *listener {
	t.mu.Lock()
	defer t.mu.Unlock()
	var found *listener
	for _, l := range t.listeners {
		if l.webrtc == webrtc {
			return l
		}
		if webrtc {
			found = l
		}
	}
	return found
}

// errNoListener means that nobody accepts connections.
var errNoListener = errors.New("webrtc: nobody listens")

// accept hands c to a listener.
func (t *Transport) accept(c transport.CapableConn, webrtc bool) error {
	l := t.listening(webrtc)
	if l == nil {
		return errNoListener
	}
	late := time.NewTimer(deliverTimeout)
	defer late.Stop()
	select {
	case l.conns <- c:
		return nil
	case <-l.done:
		return errNoListener
	case <-late.C:
		return fmt.Errorf("%w within %v", errNoListener, deliverTimeout)
	case <-t.ctx.Done():
		return ErrClosed
	}
}
