//go:build !js

package wsdial

import (
	"testing"

	ma "github.com/multiformats/go-multiaddr"
)

func FuzzURL(f *testing.F) {
	for _, s := range []string{"/ip4/127.0.0.1/tcp/8787/ws", "/dns4/example.org/tcp/443/tls/sni/example.net/ws/p2p/" + id} {
		f.Add(ma.StringCast(s).Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ma.NewMultiaddrBytes(b)
		if err != nil {
			return
		}
		if url, err := URL(a); (url == "") == (err == nil) {
			t.Errorf("URL(%s) = %q, %v", a, url, err)
		}
	})
}
