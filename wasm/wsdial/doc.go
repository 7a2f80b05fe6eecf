// Package wsdial dials WebSockets from a browser: [Dial] makes a net.Conn of
// one, [Transport] makes it libp2p's transport for /ws and /wss addresses.
//
// What is received waits in a queue of at most [MaxQueue] bytes: a browser's
// WebSocket cannot be told to slow down, so a peer that sends more than the
// reader takes is cut off. What is written waits while the browser holds
// [maxBuffered] bytes unsent.
package wsdial

import "errors"

var (
	// ErrAddress means an address that is no WebSocket's.
	ErrAddress = errors.New("wsdial: unusable address")
	// ErrRefused means that the WebSocket could not be opened. Browsers do not
	// tell why.
	ErrRefused = errors.New("wsdial: connection refused")
	// ErrOverflow means that the peer sent faster than the reader took.
	ErrOverflow = errors.New("wsdial: receive queue full, connection reset")
	// ErrReset means that the connection ended without a closing handshake.
	ErrReset = errors.New("wsdial: connection reset")
)
