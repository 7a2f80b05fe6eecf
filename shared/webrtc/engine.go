package webrtc

import "context"

// An Engine makes peer connections.
type Engine interface {
	// New makes one whose events go to e, possibly before New returns.
	New(ctx context.Context, e Events) (PeerConnection, error)
}

// A State is what RTCPeerConnection.connectionState tells.
type State int

// The states of a peer connection. Failed and Closed are final.
const (
	Connecting State = iota
	Connected
	Disconnected
	Failed
	Closed
)

// Events is told what happens to a peer connection. Its methods return at once
// and may be called from any goroutine.
type Events interface {
	// Candidate is called for each local ICE candidate, as the JSON text of an
	// RTCIceCandidateInit.
	Candidate(init string)
	// State is called when the state has changed.
	State(s State)
	// Channel is called when the far end has opened ch. What it returns hears
	// of ch; nil refuses it, and the engine closes it.
	Channel(label string, ch DataChannel) ChannelEvents
}

// A PeerConnection is one RTCPeerConnection. Its methods may be called at once
// from several goroutines, except that the first three follow their order.
type PeerConnection interface {
	// Offer makes an offer and sets it as the local description. Candidates
	// come from then on.
	Offer(ctx context.Context) (sdp string, err error)
	// Answer sets the far end's offer, and makes and sets the answer to it.
	Answer(ctx context.Context, offer string) (sdp string, err error)
	// SetAnswer sets the far end's answer to Offer's.
	SetAnswer(ctx context.Context, sdp string) error
	// AddCandidate adds a candidate of the far end, once it is described.
	AddCandidate(ctx context.Context, init string) error
	// Open opens a reliable, ordered data channel, which can be sent on at
	// once. It waits while no more can be had.
	Open(ctx context.Context, label string, e ChannelEvents) (DataChannel, error)
	// Close ends everything. It may be called again.
	Close() error
}

// A DataChannel is one RTCDataChannel.
type DataChannel interface {
	// Send queues b as one binary message, and never waits. It does not keep b.
	Send(b []byte) error
	// BufferedAmount is how many bytes were given to Send and not yet to the
	// network.
	BufferedAmount() int
	// Close closes the channel once what was sent before has gone out.
	// It may be called again, and does not wait.
	Close() error
}

// ChannelEvents is told what happens to a data channel. Its methods return at
// once; they are called one after another, Low excepted.
type ChannelEvents interface {
	// Message is given each binary message, which it owns.
	Message(b []byte)
	// Low is called when BufferedAmount has come down to LowWater. It may be
	// called with the engine's locks held.
	Low()
	// Closed is called once, last: nothing more is received or sent.
	Closed()
}
