package wsdial

import (
	"errors"
	"testing"

	ma "github.com/multiformats/go-multiaddr"
)

const id = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"

func TestURL(t *testing.T) {
	for _, tt := range []struct {
		in, want string
	}{
		{"/ip4/127.0.0.1/tcp/8787/ws", "ws://127.0.0.1:8787/"},
		{"/ip6/::1/tcp/8787/ws/p2p/" + id, "ws://[::1]:8787/"},
		{"/dns4/localhost/tcp/8787/ws/p2p/" + id, "ws://localhost:8787/"},
		{"/dns/example.org/tcp/443/wss", "wss://example.org:443/"},
		{"/dns6/example.org/tcp/443/tls/ws", "wss://example.org:443/"},
		{"/ip4/192.0.2.1/tcp/443/tls/sni/example.org/ws", "wss://example.org:443/"},
		{"/dns4/example.org/tcp/443/tls/wss", "wss://example.org:443/"},
		{"/ip4/127.0.0.1/tcp/8787", ""},
		{"/ip4/127.0.0.1/udp/8787/quic-v1", ""},
		{"/tcp/80/ws", ""},
		{"/ip4/127.0.0.1/ws", ""},
		{"/ip4/127.0.0.1/tcp/80/ws/ws", ""},
		{"/ip4/127.0.0.1/tcp/80/ws/p2p/" + id + "/p2p-circuit", ""},
		{"/ip4/127.0.0.1/tcp/80/sni/example.org/ws", ""},
	} {
		a, err := ma.NewMultiaddr(tt.in)
		if err != nil {
			t.Fatal(err)
		}
		got, err := URL(a)
		if got != tt.want || (tt.want == "") != errors.Is(err, ErrAddress) {
			t.Errorf("URL(%s) = %q, %v; want %q", tt.in, got, err, tt.want)
		}
	}
}
