//go:build !race

package pionrtc_test

import (
	"reflect"
	"runtime"
	"strings"
	"testing"

	ttransport "github.com/libp2p/go-libp2p/p2p/transport/testsuite"
	ma "github.com/multiformats/go-multiaddr"
)

// TestSuite is go-libp2p's test suite for transports, through a relay. It runs
// without the race detector, which makes its 100 peers with 50 connections too
// slow for ICE; the tests beside it run with it.
func TestSuite(t *testing.T) {
	ttransport.StressTestTimeout = 4 * patience
	r := newRelay(t)
	a, b := newNode(t, nil), newNode(t, nil)
	addr := ma.StringCast(r.Addrs[0].String() + "/p2p/" + r.ID.String() + "/p2p-circuit/webrtc")
	for _, test := range ttransport.Subtests {
		name := runtime.FuncForPC(reflect.ValueOf(test).Pointer()).Name()
		t.Run(name[strings.LastIndex(name, ".")+1:], func(t *testing.T) {
			test(t, &farm{a.tpt, r}, dialer{b.tpt}, addr, a.ID())
		})
	}
}
