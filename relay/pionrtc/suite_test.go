package pionrtc_test

import (
	"testing"

	ttransport "github.com/libp2p/go-libp2p/p2p/transport/testsuite"
)

// TestSuite is go-libp2p's test suite for transports, through a relay.
func TestSuite(t *testing.T) {
	ttransport.StressTestTimeout = 4 * patience
	r := newRelay(t)
	a, b := newNode(t, nil), newNode(t, nil)
	addr := r.Addrs[0].String() + "/p2p/" + r.ID.String() + "/p2p-circuit/webrtc"
	ttransport.SubtestTransport(t, &farm{a.tpt, r}, dialer{b.tpt}, addr, a.ID())
}
