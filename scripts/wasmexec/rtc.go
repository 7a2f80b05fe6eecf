package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	tptu "github.com/libp2p/go-libp2p/p2p/net/upgrader"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/websocket"

	"github.com/webfabric/weft/relay/pionrtc"
	"github.com/webfabric/weft/shared/identity"
	"github.com/webfabric/weft/shared/webrtc"
)

// newRTCPeer starts a native peer that is reached by WebRTC, signalled through
// through, which becomes a circuit relay. By protocol the peer does:
//
//	/test/echo   send back what comes
//	/test/call   read a number; open so many streams of /test/echo to whoever
//	             called, at once, use each; send back how many did as they should
//	/test/watch  send a byte, read to the end; what that was, /test/seen tells
//	/test/reset  reset the stream
//	/test/stall  never read
//	/test/flood  write until that fails; how much was written, /test/seen tells
//	/test/seen   wait for the next end of /test/watch or /test/flood, and tell
//	/test/leave  close the connection
func newRTCPeer(ctx context.Context, through host.Host) (addr string, stop func(), err error) {
	resources := relay.DefaultResources()
	resources.Limit = nil
	if _, err := relay.New(through, relay.WithResources(resources)); err != nil {
		return "", nil, fmt.Errorf("rtc peer: relay: %w", err)
	}
	key, err := identity.New()
	if err != nil {
		return "", nil, err
	}
	h, err := libp2p.New(libp2p.Identity(key), libp2p.NoListenAddrs, libp2p.DisableRelay(),
		libp2p.Transport(websocket.New), libp2p.ResourceManager(&network.NullResourceManager{}))
	if err != nil {
		return "", nil, fmt.Errorf("rtc peer: %w", err)
	}
	muxers := []tptu.StreamMuxer{{ID: yamux.ID, Muxer: yamux.DefaultTransport}}
	secure, err := noise.New(noise.ID, key, muxers)
	if err != nil {
		return "", nil, fmt.Errorf("rtc peer: %w", err)
	}
	upgrader, err := tptu.New([]sec.SecureTransport{secure}, muxers, nil, &network.NullResourceManager{}, nil)
	if err != nil {
		return "", nil, fmt.Errorf("rtc peer: %w", err)
	}
	if _, err := webrtc.AddTransport(h, upgrader, pionrtc.New(pionrtc.WithLoopback())); err != nil {
		return "", nil, fmt.Errorf("rtc peer: %w", err)
	}
	at := peer.AddrInfo{ID: through.ID(), Addrs: through.Addrs()}
	if err := h.Connect(ctx, at); err != nil {
		return "", nil, fmt.Errorf("rtc peer: %w", err)
	}
	if _, err := client.Reserve(ctx, h, at); err != nil {
		return "", nil, fmt.Errorf("rtc peer: %w", err)
	}

	seen := make(chan string, 16)
	handle := map[string]func(network.Stream){
		"echo": func(s network.Stream) {
			io.Copy(s, s)
			s.Close()
		},
		"call": func(s network.Stream) {
			defer s.Close()
			var n uint32
			if binary.Read(s, binary.BigEndian, &n) != nil {
				return
			}
			binary.Write(s, binary.BigEndian, call(ctx, h, s.Conn().RemotePeer(), n))
		},
		"watch": func(s network.Stream) {
			io.WriteString(s, "x")
			_, err := io.Copy(io.Discard, s)
			switch {
			case err == nil:
				seen <- "end"
			case errors.Is(err, network.ErrReset):
				seen <- "reset"
			default:
				seen <- err.Error()
			}
			s.Close()
		},
		"reset": func(s network.Stream) { s.Reset() },
		"stall": func(s network.Stream) {},
		"flood": func(s network.Stream) {
			buf, sent := make([]byte, 1<<20), 0
			for {
				n, err := s.Write(buf)
				sent += n
				if err != nil {
					seen <- fmt.Sprint(sent)
					return
				}
			}
		},
		"seen": func(s network.Stream) {
			defer s.Close()
			select {
			case what := <-seen:
				io.WriteString(s, what)
			case <-ctx.Done():
			}
		},
		"leave": func(s network.Stream) { s.Conn().Close() },
	}
	for name, f := range handle {
		h.SetStreamHandler(protocol.ID("/test/"+name), f)
	}
	return fmt.Sprintf("%s/p2p/%s/p2p-circuit/webrtc/p2p/%s", through.Addrs()[0], through.ID(), h.ID()), func() { h.Close() }, nil
}

// call opens n echo streams to p at once and returns how many echoed.
func call(ctx context.Context, h host.Host, p peer.ID, n uint32) (good uint32) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i := range n {
		wg.Go(func() {
			s, err := h.NewStream(ctx, p, "/test/echo")
			if err != nil {
				return
			}
			defer s.Close()
			if binary.Write(s, binary.BigEndian, i) != nil || s.CloseWrite() != nil {
				return
			}
			b, err := io.ReadAll(s)
			if err == nil && len(b) == 4 && binary.BigEndian.Uint32(b) == i {
				mu.Lock()
				good++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return good
}
