//go:build js && wasm

package wsdial

import (
	"context"
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"
)

// local stands for this side's address, which a browser does not tell.
var local = ma.StringCast("/ip4/0.0.0.0/tcp/0/ws")

// Transport is libp2p's transport for /ws and /wss. It only dials.
type Transport struct {
	up    transport.Upgrader
	rcmgr network.ResourceManager
}

var (
	_ transport.Transport    = (*Transport)(nil)
	_ transport.SkipResolver = (*Transport)(nil)
)

// New returns a transport whose conns up makes secure.
func New(up transport.Upgrader, rcmgr network.ResourceManager) *Transport {
	if rcmgr == nil {
		rcmgr = &network.NullResourceManager{}
	}
	return &Transport{up: up, rcmgr: rcmgr}
}

// Dial connects to p at a.
func (t *Transport) Dial(ctx context.Context, a ma.Multiaddr, p peer.ID) (transport.CapableConn, error) {
	url, err := URL(a)
	if err != nil {
		return nil, err
	}
	scope, err := t.rcmgr.OpenConnection(network.DirOutbound, true, a)
	if err != nil {
		return nil, fmt.Errorf("wsdial: dial %s: %w", a, err)
	}
	if err := scope.SetPeer(p); err != nil {
		scope.Done()
		return nil, fmt.Errorf("wsdial: dial %s: %w", a, err)
	}
	c, err := Dial(ctx, url)
	if err != nil {
		scope.Done()
		return nil, err
	}
	// Upgrade closes the conn and ends the scope if it fails.
	return t.up.Upgrade(ctx, t, maConn{c, a}, network.DirOutbound, p, scope)
}

// CanDial tells whether a is a WebSocket's address.
func (t *Transport) CanDial(a ma.Multiaddr) bool {
	_, err := URL(a)
	return err == nil
}

// SkipResolve leaves names to the browser: a tab has no DNS.
func (t *Transport) SkipResolve(context.Context, ma.Multiaddr) bool { return true }

// Listen always fails.
func (t *Transport) Listen(ma.Multiaddr) (transport.Listener, error) {
	return nil, errors.New("wsdial: a browser cannot listen")
}

// Protocols names what Dial takes.
func (t *Transport) Protocols() []int { return []int{ma.P_WS, ma.P_WSS} }

// Proxy is false: the conns lead to the peer itself.
func (t *Transport) Proxy() bool { return false }

// maConn is a Conn with multiaddrs.
type maConn struct {
	*Conn
	remote ma.Multiaddr
}

func (c maConn) LocalMultiaddr() ma.Multiaddr  { return local }
func (c maConn) RemoteMultiaddr() ma.Multiaddr { return c.remote }
