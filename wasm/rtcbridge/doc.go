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

import (
	"errors"
	"time"
)

const (
	// MaxConns is how many connections there are at once, those under way
	// included: 16 peers, and as many that come and go.
	MaxConns = 32
	// maxChannels is how many channels of one connection are open that this
	// side opened: Chromium has 1,024 SCTP streams (kMaxSctpStreams), half of
	// them each side's, and one is the init channel's.
	maxChannels = 510
	// pageWait is how long New waits for a page: another one takes over sooner.
	pageWait = 3 * time.Second
	// eventCost is what an event counts for beside its data, in bytes; web/rtc.js
	// has the same.
	eventCost = 128
	// tookEvery is after how many bytes the page is told that they were taken.
	tookEvery = 256 << 10
)

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
