//go:build js && wasm

package main

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	tptu "github.com/libp2p/go-libp2p/p2p/net/upgrader"
	"github.com/libp2p/go-libp2p/p2p/security/noise"

	"github.com/webfabric/weft/shared/node"
	"github.com/webfabric/weft/shared/webrtc"
	"github.com/webfabric/weft/wasm/wsdial"
)

// maxStreams is how many streams the other side of a connection may have open;
// each can have us hold a window of 256 KiB. A relay opens one for each Bitswap
// message under way and for each circuit. go-libp2p's default is no bound: it
// leaves that to its resource manager, which would weigh more than it helps here.
const maxStreams = 256

// dialTimeout ends a dial that nothing else has ended.
const dialTimeout = 30 * time.Second

// newHost assembles a libp2p host from the parts that compile for a browser;
// the root package go-libp2p does not (DESIGN 1). It dials WebSockets, and
// through relays circuits and WebRTC, for which rtc makes the connections.
func newHost(key crypto.PrivKey, rtc webrtc.Engine, log *slog.Logger) (host.Host, error) {
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("host: peer ID: %w", err)
	}
	ps, err := pstoremem.NewPeerstore()
	if err != nil {
		return nil, fmt.Errorf("host: peerstore: %w", err)
	}
	// Identify signs with the keys it finds here.
	if err := ps.AddPrivKey(id, key); err != nil {
		return nil, fmt.Errorf("host: peerstore: %w", err)
	}
	if err := ps.AddPubKey(id, key.GetPublic()); err != nil {
		return nil, fmt.Errorf("host: peerstore: %w", err)
	}
	bus := eventbus.NewBus()
	rcmgr := &network.NullResourceManager{}
	sw, err := swarm.NewSwarm(id, ps, bus, swarm.WithResourceManager(rcmgr),
		// A dial may be a whole WebRTC negotiation, which says itself when it
		// takes too long; through a relay on localhost or in a LAN, too, for
		// whose addresses the swarm has 5 s.
		swarm.WithDialTimeout(dialTimeout), swarm.WithDialTimeoutLocal(dialTimeout))
	if err != nil {
		return nil, fmt.Errorf("host: swarm: %w", err)
	}
	muxer := node.NewMuxer()
	muxer.MaxIncomingStreams = maxStreams
	muxers := []tptu.StreamMuxer{{ID: yamux.ID, Muxer: muxer}}
	secure, err := noise.New(noise.ID, key, muxers)
	if err != nil {
		return nil, fmt.Errorf("host: noise: %w", err)
	}
	up, err := tptu.New([]sec.SecureTransport{secure}, muxers, nil, rcmgr, nil)
	if err != nil {
		return nil, fmt.Errorf("host: upgrader: %w", err)
	}
	if err := sw.AddTransport(wsdial.New(up, rcmgr)); err != nil {
		return nil, fmt.Errorf("host: WebSocket transport: %w", err)
	}
	h, err := basichost.NewHost(sw, &basichost.HostOpts{
		EventBus:   bus,
		UserAgent:  "weft-tab",
		EnablePing: true,
	})
	if err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	if _, err := webrtc.AddTransport(h, up, rtc, webrtc.WithLogger(log)); err != nil {
		return nil, fmt.Errorf("host: WebRTC transport: %w", err)
	}
	h.Start()
	return h, nil
}
