package server_test

import (
	"math/rand/v2"
	"testing"
	"testing/fstest"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/webfabric/weft/relay/server"
)

// BenchmarkBitswap fetches 64 MiB from the relay by each transport.
func BenchmarkBitswap(b *testing.B) {
	data := make([]byte, 64<<20)
	rng := rand.NewChaCha8([32]byte{2})
	rng.Read(data)
	s := start(b, func(c *server.Config) { c.Demo = fstest.MapFS{"a": {Data: data}} })
	for _, bb := range []struct {
		name  string
		proto int
	}{{"tcp", ma.P_TCP}, {"quic", ma.P_QUIC_V1}, {"ws", ma.P_WS}} {
		b.Run(bb.name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				b.StopTimer()
				n := newNode(b)
				n.connect(b, s, bb.proto)
				b.StartTimer()
				if got := n.get(b, s.Demo(), "a"); len(got) != len(data) {
					b.Fatalf("got %d bytes", len(got))
				}
			}
		})
	}
}
