package pionrtc_test

import (
	"context"
	"io"
	"regexp"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/webfabric/weft/relay/pionrtc"
	"github.com/webfabric/weft/shared/webrtc"
)

// modest is an engine whose peers are taken for browsers: it does not say how
// many streams it takes.
type modest struct{ webrtc.Engine }

func (m modest) New(ctx context.Context, e webrtc.Events) (webrtc.PeerConnection, error) {
	pc, err := m.Engine.New(ctx, e)
	return modestConn{pc}, err
}

type modestConn struct{ webrtc.PeerConnection }

var streamsLine = regexp.MustCompile("a=x-sctp-streams:[0-9]+\r\n")

func (c modestConn) Offer(ctx context.Context) (string, error) {
	sdp, err := c.PeerConnection.Offer(ctx)
	return streamsLine.ReplaceAllString(sdp, ""), err
}

func (c modestConn) Answer(ctx context.Context, offer string) (string, error) {
	sdp, err := c.PeerConnection.Answer(ctx, offer)
	return streamsLine.ReplaceAllString(sdp, ""), err
}

// TestNumbersAgain has 1,500 streams to a far end with 511 numbers for them, so
// that each is used about three times over.
func TestNumbersAgain(t *testing.T) {
	r := newRelay(t)
	a := newNode(t, nil)
	b, err := makeNode(nil, modest{pionrtc.New(pionrtc.WithLoopback())})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	addrB, err := b.reserve(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	b.SetStreamHandler(echoProtocol, func(s network.Stream) {
		io.Copy(s, s)
		s.Close()
	})
	connect(t, a, b, addrB)
	direct, _ := conns(a, b)
	if len(direct) != 1 {
		t.Fatalf("%d WebRTC connections", len(direct))
	}
	few := make(chan struct{}, 64) // at once: each waits for its turn no longer than the host lets it
	var wg sync.WaitGroup
	for range 1500 {
		few <- struct{}{}
		wg.Go(func() {
			defer func() { <-few }()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			s, err := a.NewStream(ctx, b.ID(), echoProtocol)
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			if _, err := io.WriteString(s, "hello"); err != nil {
				t.Error(err)
			}
			s.CloseWrite()
			if got, err := io.ReadAll(s); string(got) != "hello" || err != nil {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	wg.Wait()
	if direct[0].IsClosed() {
		t.Error("the connection ended")
	}
}
