// Package rtcbridge is shared/webrtc's engine for the tab: peer connections that
// a page owns, driven over a MessagePort (web/rtc.js at its other end).
//
// One page of the origin hosts all connections at a time; web/pages.js chooses
// it and [Bridge.Attach] takes the line to it. When it goes, every connection
// fails with [ErrPageGone], and new ones are made in the page that comes next.
// Without a page there is no WebRTC: New waits for one a little, then returns
// [ErrNoPage].
//
// The program has one thread. What JavaScript calls only copies and queues; one
// goroutine for each page hands on what came, in order, and another posts what
// is to be sent, together. What waits is bounded: outwards by the writers, who
// look at BufferedAmount, inwards by the page, which closes a connection that
// has too much not taken here.
//
// The neighbour is relay/pionrtc, the same for native peers.
package rtcbridge

import "errors"

// MaxConns is how many connections there are at once, those under way included:
// 16 peers, and as many that come and go.
const MaxConns = 32

var (
	// ErrNoPage means that no page of the origin can host connections.
	ErrNoPage = errors.New("rtcbridge: no page hosts connections")
	// ErrPageGone means that the page which hosted the connection has gone.
	ErrPageGone = errors.New("rtcbridge: the page that hosted the connection has gone")
	// ErrTooMany means that there are [MaxConns] connections.
	ErrTooMany = errors.New("rtcbridge: too many connections")
	// ErrRefused means that the browser refused what was asked of it.
	ErrRefused = errors.New("rtcbridge: refused by the browser")
	// ErrClosed means that this side closed the connection or the channel.
	ErrClosed = errors.New("rtcbridge: closed")
)
