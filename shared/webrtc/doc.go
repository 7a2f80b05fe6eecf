// Package webrtc is libp2p's browser-to-browser transport, /webrtc: two peers
// that meet over a circuit relay exchange descriptions and candidates on a
// stream there, and then talk over a WebRTC connection of their own
// (https://github.com/libp2p/specs/blob/master/webrtc/webrtc.md).
//
// The far end is who it says it is: the signalling stream runs over a circuit
// that Noise secures, and the descriptions it carries hold the fingerprints of
// the certificates that DTLS then checks.
//
// [Transport] stands in the swarm for circuits as well, since the swarm hands
// every address that contains p2p-circuit to one transport. It gives plain
// circuit addresses to circuitv2/client and takes …/p2p-circuit/webrtc itself.
// Between two peers there is one connection even if both dial at once.
//
// A stream is a data channel with an empty label. Nothing in WebRTC lets a
// receiver slow its sender down, so a stream whose reader leaves more than
// [MaxUnread] bytes is reset; a writer waits while [HighWater] bytes wait to be
// sent. Everything a peer can make this side hold is bounded.
//
// WebRTC itself is behind [Engine]: package relay/pionrtc natively, package
// wasm/rtcbridge in the tab, where the page owns the connections.
package webrtc

import (
	"errors"
	"time"
)

// SignallingProtocol is the protocol of the signalling stream, as js-libp2p
// speaks it (the specification's text still says /webrtc-signaling).
const SignallingProtocol = "/webrtc-signaling/0.0.1"

// initLabel names the channel that the dialer opens so that its description has
// a section for data; it carries nothing and is closed once connected.
const initLabel = "init"

const (
	// MaxFrame is the size of the largest frame sent, with its length prefix,
	// in bytes, as the specification asks for. A message of a data channel
	// may hold several.
	MaxFrame = 16 << 10
	// MaxMessage is the size of the largest data channel message sent, in
	// bytes; browsers and pion take 64 KiB from everyone.
	MaxMessage = 64 << 10
	// MaxUnread is how many bytes of one stream may wait for its reader.
	MaxUnread = 16 << 20
	// maxConnUnread is the same for all streams of a connection.
	maxConnUnread = 32 << 20
	// HighWater is how many unsent bytes of one stream make its writer wait;
	// many streams share what 16 of them may have.
	HighWater = 1 << 20
	// minHighWater is the least it is with many streams.
	minHighWater = 64 << 10
	// LowWater is how many unsent bytes let a waiting writer go on: an Engine
	// calls ChannelEvents.Low when a channel has come down to it.
	LowWater = 32 << 10

	// maxIncoming is how many streams the far end may have open at once.
	maxIncoming = 8192
	// maxOutgoing is how many this side opens at once; more wait. It is less,
	// as the far end learns later that a stream has ended.
	maxOutgoing = 2048

	// finAckTimeout is how long a closed stream waits for the far end to
	// confirm that it has everything; js-libp2p's figure.
	finAckTimeout = 10 * time.Second
	// disconnectedTimeout is how long a connection may be without network.
	disconnectedTimeout = 10 * time.Second

	// negotiateTimeout bounds one attempt at a connection.
	negotiateTimeout = 20 * time.Second
	// answerTimeout is how long an offer waits for its answer.
	answerTimeout = 8 * time.Second
	// firstBackoff is the wait before a second offer; it doubles.
	firstBackoff = 250 * time.Millisecond
	// maxOffers is how many offers one dial makes.
	maxOffers = 5
	// maxOffering is how many offers of this side are negotiated at once; more
	// wait, so that a crowd of dials does not make every one of them late.
	maxOffering = 16
	// maxAnswering is how many incoming offers are worked on at once, and
	// maxAnsweringPeer how many of one peer.
	maxAnswering     = 64
	maxAnsweringPeer = 4
	// circuitLinger is how long a circuit that was made for signalling is
	// kept for the streams that began on it, at most.
	circuitLinger = 5 * time.Second
	// deliverTimeout is how long a connection waits to be accepted.
	deliverTimeout = 10 * time.Second
)

var (
	// ErrAddress means an address that is no circuit's.
	ErrAddress = errors.New("webrtc: unusable address")
	// ErrNoAnswer means that the far end was reached but did not answer the
	// offer: it has no page open, or is busy, or preferred an offer of its own.
	// It says nothing about the network between the two.
	ErrNoAnswer = errors.New("webrtc: offer not answered")
	// ErrNotConnected means that the descriptions were exchanged and no way
	// between the peers was found.
	ErrNotConnected = errors.New("webrtc: no way to the peer")
	// ErrSignalling means that the far end broke the signalling protocol.
	ErrSignalling = errors.New("webrtc: malformed signalling")
	// ErrFrame means that the far end sent a frame that is none.
	ErrFrame = errors.New("webrtc: malformed frame")
	// ErrUnread means that the reader of a stream left too much unread.
	ErrUnread = errors.New("webrtc: too much unread")
	// ErrClosed means that this side closed the connection or the transport.
	ErrClosed = errors.New("webrtc: closed")
	// ErrLost means that the connection broke or the far end closed it.
	ErrLost = errors.New("webrtc: connection lost")
)
