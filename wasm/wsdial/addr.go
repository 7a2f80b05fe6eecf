package wsdial

import (
	"fmt"
	"net"

	ma "github.com/multiformats/go-multiaddr"
)

// URL returns the WebSocket URL that an address names:
// /(ip4|ip6|dns|dns4|dns6)/HOST/tcp/PORT, then /ws, /wss or /tls[/sni/NAME]/ws,
// then perhaps /p2p/ID. A name given as SNI takes the host's place, since the
// browser has one name for both. The error wraps [ErrAddress].
func URL(a ma.Multiaddr) (string, error) {
	var host, port, sni string
	var secure, ws, done bool
	for _, c := range a {
		p, bad := c.Protocol(), false
		switch p.Code {
		case ma.P_IP4, ma.P_IP6, ma.P_DNS, ma.P_DNS4, ma.P_DNS6:
			bad = host != ""
			host = c.Value()
		case ma.P_TCP:
			bad = host == "" || port != ""
			port = c.Value()
		case ma.P_TLS:
			bad = port == "" || secure || ws
			secure = true
		case ma.P_SNI:
			bad = !secure || ws || sni != ""
			sni = c.Value()
		case ma.P_WS:
			bad = port == "" || ws
			ws = true
		case ma.P_WSS:
			bad = port == "" || ws
			ws, secure = true, true
		case ma.P_P2P:
			bad = !ws || done
			done = true
		default:
			bad = true
		}
		if bad {
			return "", fmt.Errorf("%w: %s: unexpected /%s", ErrAddress, a, p.Name)
		}
	}
	if !ws {
		return "", fmt.Errorf("%w: %s: not a WebSocket", ErrAddress, a)
	}
	if sni != "" {
		host = sni
	}
	scheme := "ws://"
	if secure {
		scheme = "wss://"
	}
	return scheme + net.JoinHostPort(host, port) + "/", nil
}
