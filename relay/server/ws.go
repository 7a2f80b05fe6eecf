package server

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/transport"
	libp2pws "github.com/libp2p/go-libp2p/p2p/transport/websocket"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

const (
	// maxWSMessage is the largest WebSocket message read, in bytes. Streams of
	// noise frames (64 KiB each) have no need of larger ones; a message is
	// read as it comes and never held whole.
	maxWSMessage = 4 << 20
	// wsCloseWait is how long the other side has to answer a close frame.
	wsCloseWait = 250 * time.Millisecond
)

// upgrades hands the WebSocket connections that the HTTP server accepted to
// libp2p: a [manet.Listener] on one side, an [http.Handler] on the other.
type upgrades struct {
	addr    ma.Multiaddr // /ip4/…/tcp/…/ws
	netAddr net.Addr
	conns   chan manet.Conn
	closed  chan struct{}
	once    sync.Once

	mu    sync.Mutex
	pages map[string]string // origin of the page behind a connection, by its remote address
}

var _ manet.Listener = (*upgrades)(nil)

func newUpgrades(addr ma.Multiaddr, netAddr net.Addr) *upgrades {
	return &upgrades{addr: addr, netAddr: netAddr, conns: make(chan manet.Conn), closed: make(chan struct{}), pages: map[string]string{}}
}

// ServeHTTP upgrades r. The caller has checked its origin.
func (u *upgrades) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	remote, err := wsAddr(r.RemoteAddr, r.TLS != nil)
	if err != nil {
		http.Error(w, "no remote address", http.StatusInternalServerError)
		return
	}
	// Compression would only cost: what passes is encrypted. The origin was
	// checked by the caller, against the configured ones.
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true, CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return // Accept has answered
	}
	// The connection outlives the request, whose context ends with this call.
	nc := websocket.NetConn(context.Background(), c, websocket.MessageBinary)
	c.SetReadLimit(maxWSMessage)
	conn := &wsConn{Conn: nc, ws: c, local: u.addr, remote: remote}
	if origin := r.Header.Get("Origin"); origin != "" {
		u.mu.Lock()
		u.pages[remote.String()] = origin
		u.mu.Unlock()
		conn.gone = func() {
			u.mu.Lock()
			defer u.mu.Unlock()
			delete(u.pages, remote.String())
		}
	}
	select {
	case u.conns <- conn:
	case <-u.closed:
		conn.Close()
	case <-time.After(wsAcceptWait):
		c.Close(websocket.StatusTryAgainLater, "too many connections at once")
	}
}

// origin is that of the page whose connection comes from remote, "" if none is.
func (u *upgrades) origin(remote ma.Multiaddr) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.pages[remote.String()]
}

// wsAcceptWait is how long an upgraded connection waits for libp2p, which
// takes no more while it has many handshakes to do.
const wsAcceptWait = 10 * time.Second

// Accept implements [manet.Listener].
func (u *upgrades) Accept() (manet.Conn, error) {
	select {
	case c := <-u.conns:
		return c, nil
	case <-u.closed:
		return nil, net.ErrClosed
	}
}

func (u *upgrades) Close() error {
	u.once.Do(func() { close(u.closed) })
	return nil
}

func (u *upgrades) Multiaddr() ma.Multiaddr { return u.addr }
func (u *upgrades) Addr() net.Addr          { return u.netAddr }

// wsTransport dials as go-libp2p's WebSocket transport does, and listens on
// the relay's own HTTP server.
type wsTransport struct {
	*libp2pws.WebsocketTransport
	upgrader transport.Upgrader
	upgrades *upgrades
}

// newWSTransport returns a constructor for libp2p.Transport.
func newWSTransport(u *upgrades) func(transport.Upgrader, network.ResourceManager) (*wsTransport, error) {
	return func(up transport.Upgrader, rcmgr network.ResourceManager) (*wsTransport, error) {
		t, err := libp2pws.New(up, rcmgr, nil)
		if err != nil {
			return nil, err
		}
		return &wsTransport{WebsocketTransport: t, upgrader: up, upgrades: u}, nil
	}
}

// Listen implements [transport.Transport]. The one address is that of the HTTP server.
func (t *wsTransport) Listen(addr ma.Multiaddr) (transport.Listener, error) {
	if !addr.Equal(t.upgrades.addr) {
		return nil, errors.New("server: the relay's WebSocket address is that of its HTTP server, " + t.upgrades.addr.String())
	}
	return t.upgrader.UpgradeGatedMaListener(t, t.upgrader.GateMaListener(t.upgrades)), nil
}

// wsConn is an accepted connection.
type wsConn struct {
	net.Conn
	ws            *websocket.Conn
	local, remote ma.Multiaddr
	gone          func() // if not nil, called by Close
	closed        sync.Once
}

var _ manet.Conn = (*wsConn)(nil)

func (c *wsConn) LocalMultiaddr() ma.Multiaddr  { return c.local }
func (c *wsConn) RemoteMultiaddr() ma.Multiaddr { return c.remote }

// Close sends a close frame and returns; a peer that does not answer it within
// wsCloseWait is cut off.
func (c *wsConn) Close() error {
	c.closed.Do(func() {
		if c.gone != nil {
			c.gone()
		}
		cut := time.AfterFunc(wsCloseWait, func() { c.ws.CloseNow() })
		go func() {
			defer cut.Stop()
			c.ws.Close(websocket.StatusNormalClosure, "")
		}()
	})
	return nil
}

// wsAddr is the multiaddr of the peer at hostport.
func wsAddr(hostport string, secure bool) (ma.Multiaddr, error) {
	ap, err := netip.ParseAddrPort(hostport)
	if err != nil {
		return nil, err
	}
	a, err := manet.FromNetAddr(net.TCPAddrFromAddrPort(netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())))
	if err != nil {
		return nil, err
	}
	return a.AppendComponent(wsSuffix(secure)...), nil
}

var (
	wsPart, _  = ma.NewComponent("ws", "")
	tlsPart, _ = ma.NewComponent("tls", "")
)

// wsSuffix is /ws or /tls/ws.
func wsSuffix(secure bool) []*ma.Component {
	if secure {
		return []*ma.Component{tlsPart, wsPart}
	}
	return []*ma.Component{wsPart}
}
