package node

import (
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
)

// NewMuxer returns go-libp2p's yamux with frames, header included, that fit
// into one noise message. The default's frames of 64 KiB do not: each is sent
// as a message of 65,519 bytes and one of 17, and over a WebSocket, where a
// message is an event for the page's process, that doubles their number.
func NewMuxer() *yamux.Transport {
	config := *yamux.DefaultTransport.Config()
	config.MaxMessageSize = noise.MaxPlaintextLength
	return (*yamux.Transport)(&config)
}
