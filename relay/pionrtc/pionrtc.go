// Package pionrtc is shared/webrtc's engine for native peers: peer connections
// by pion.
//
// The neighbour is wasm/rtcbridge, the same for tabs.
package pionrtc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/datachannel"
	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/logging"
	pion "github.com/pion/webrtc/v4"

	"github.com/webfabric/weft/shared/webrtc"
)

const (
	// maxMessage is the largest message taken, in bytes; what browsers take.
	maxMessage = 256 << 10
	// maxReceive is how many bytes a far end may send ahead of what was read:
	// 50 Mbit/s at 80 ms. With pion's default, 1 MiB, a burst is more than
	// sockets and routers hold, and each one that is lost costs a second.
	maxReceive = 512 << 10
	// maxRTO bounds the wait before something is sent again, which doubles each
	// time: a minute, SCTP's, is longer than anybody waits for a block.
	maxRTO = 4 * time.Second
	// maxEarly bounds what waits for a channel to open, in bytes.
	maxEarly = 4 << 20
	// rest is how long the number of a closed channel is not used again: a
	// reset request that SCTP sends once more would end the new channel.
	rest = 5 * time.Second
	// browserStreams is how many SCTP streams Chromium has
	// (kMaxSctpStreams), pionStreams how many pion has.
	browserStreams = 1024
	pionStreams    = 65535
	// streamsAttribute says in a description how many SCTP streams its peer
	// takes; pion does not tell what SCTP agreed on. Other peers ignore it.
	streamsAttribute = "a=x-sctp-streams:"
	// maxUnacknowledged is how many channels are opened that the far end has
	// not acknowledged: pion drops what comes for more than the 16 that wait
	// to be accepted, and has it sent again after a second or more.
	maxUnacknowledged = 16
	// doubt is how long a channel whose number was used before may take to be
	// acknowledged. A far end may never have let go of the number, see
	// closeInTurn. SCTP sends a lost OPEN again after a second.
	doubt = 3 * time.Second
	// resetPause is how long a request to reset streams is left alone: pion
	// sends a lost one again after a second.
	resetPause = 1200 * time.Millisecond
)

// An Engine makes peer connections by pion.
type Engine struct {
	api    *pion.API
	config pion.Configuration
}

var _ webrtc.Engine = (*Engine)(nil)

type options struct {
	loopback bool
	stun     []string
}

// An Option changes what an Engine's connections use.
type Option func(*options)

// WithLoopback uses loopback addresses and no others, and asks no mDNS: for
// peers on one machine.
func WithLoopback() Option { return func(o *options) { o.loopback = true } }

// WithSTUN sets the STUN servers, as URLs; the default is none.
func WithSTUN(urls ...string) Option { return func(o *options) { o.stun = urls } }

// New returns an engine.
func New(opts ...Option) *Engine {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	var s pion.SettingEngine
	s.DetachDataChannels()
	s.SetSCTPMaxMessageSize(maxMessage)
	s.SetSCTPMaxReceiveBufferSize(maxReceive)
	s.SetSCTPRTOMax(maxRTO)
	s.SetNetworkTypes([]pion.NetworkType{pion.NetworkTypeUDP4, pion.NetworkTypeUDP6})
	s.SetICETimeouts(5*time.Second, 20*time.Second, 2*time.Second)
	// A browser's transport is not on this host's trust: DTLS certificates are
	// checked by the fingerprints in the descriptions.
	s.LoggerFactory = &logging.DefaultLoggerFactory{DefaultLogLevel: logging.LogLevelDisabled}
	if o.loopback {
		s.SetIncludeLoopbackCandidate(true)
		s.SetIPFilter(net.IP.IsLoopback)
		s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	}
	// Without media there is nothing to intercept; the default makes several
	// goroutines for each connection.
	e := &Engine{api: pion.NewAPI(pion.WithSettingEngine(s), pion.WithMediaEngine(&pion.MediaEngine{}),
		pion.WithInterceptorRegistry(&interceptor.Registry{}))}
	if len(o.stun) > 0 {
		e.config.ICEServers = []pion.ICEServer{{URLs: o.stun}}
	}
	return e
}

// New makes a peer connection.
func (e *Engine) New(_ context.Context, events webrtc.Events) (webrtc.PeerConnection, error) {
	pc, err := e.api.NewPeerConnection(e.config)
	if err != nil {
		return nil, fmt.Errorf("pionrtc: %w", err)
	}
	c := &conn{pc: pc, events: events, opening: make(chan struct{}, maxUnacknowledged), over: make(chan struct{})}
	pc.OnICECandidate(func(candidate *pion.ICECandidate) {
		if candidate == nil {
			return
		}
		b, err := json.Marshal(candidate.ToJSON())
		if err == nil {
			events.Candidate(string(b))
		}
	})
	pc.OnConnectionStateChange(func(s pion.PeerConnectionState) {
		if state, ok := states[s]; ok {
			events.State(state)
		}
	})
	pc.SCTP().OnClose(func(error) { events.State(webrtc.Closed) })
	pc.OnDataChannel(func(dc *pion.DataChannel) {
		ch := newChannel(c)
		ch.dc = dc
		if ch.events = events.Channel(dc.Label(), ch); ch.events == nil {
			ch.events, ch.closing = refused{}, true
		}
		ch.start()
	})
	return c, nil
}

var states = map[pion.PeerConnectionState]webrtc.State{
	pion.PeerConnectionStateNew:          webrtc.Connecting,
	pion.PeerConnectionStateConnecting:   webrtc.Connecting,
	pion.PeerConnectionStateConnected:    webrtc.Connected,
	pion.PeerConnectionStateDisconnected: webrtc.Disconnected,
	pion.PeerConnectionStateFailed:       webrtc.Failed,
	pion.PeerConnectionStateClosed:       webrtc.Closed,
}

// refused hears of a channel that nobody wants.
type refused struct{}

func (refused) Message([]byte) {}
func (refused) Low()           {}
func (refused) Closed()        {}

// conn is one peer connection.
type conn struct {
	pc     *pion.PeerConnection
	events webrtc.Events
	wg     sync.WaitGroup // channels being read

	opening chan struct{} // holds a value for each channel not acknowledged
	over    chan struct{} // closed by Close

	mu      sync.Mutex
	closed  bool
	streams int // SCTP streams of the far end
	odd     int // 1 if the numbers of our channels are odd
	next    int // our channels numbered so far; the first is the init channel
	resting []rested
	dead    int // numbers in doubt: the far end did not acknowledge their channels

	toReset   []*channel // to be closed in turn
	resetting bool       // somebody does
}

// rested is a channel's number that may be used again.
type rested struct {
	id    uint16
	since time.Time
}

// Offer makes an offer and starts to gather candidates.
func (c *conn) Offer(context.Context) (string, error) {
	offer, err := c.pc.CreateOffer(nil)
	if err == nil {
		err = c.pc.SetLocalDescription(offer)
	}
	if err != nil {
		return "", fmt.Errorf("pionrtc: offer: %w", err)
	}
	return mark(offer.SDP), nil
}

// Answer answers an offer and starts to gather candidates.
func (c *conn) Answer(_ context.Context, offer string) (string, error) {
	err := c.pc.SetRemoteDescription(pion.SessionDescription{Type: pion.SDPTypeOffer, SDP: offer})
	if err != nil {
		return "", fmt.Errorf("pionrtc: offer: %w", err)
	}
	answer, err := c.pc.CreateAnswer(nil)
	if err != nil {
		return "", fmt.Errorf("pionrtc: answer: %w", err)
	}
	// The DTLS client's channels have even numbers (RFC 8832, 6).
	c.described(offer, !active(answer.SDP))
	if err := c.pc.SetLocalDescription(answer); err != nil {
		return "", fmt.Errorf("pionrtc: answer: %w", err)
	}
	return mark(answer.SDP), nil
}

// SetAnswer takes the answer to Offer.
func (c *conn) SetAnswer(_ context.Context, answer string) error {
	c.described(answer, active(answer))
	err := c.pc.SetRemoteDescription(pion.SessionDescription{Type: pion.SDPTypeAnswer, SDP: answer})
	if err != nil {
		return fmt.Errorf("pionrtc: answer: %w", err)
	}
	return nil
}

// AddCandidate adds a candidate of the far end's.
func (c *conn) AddCandidate(_ context.Context, init string) error {
	var candidate pion.ICECandidateInit
	if err := json.Unmarshal([]byte(init), &candidate); err != nil {
		return fmt.Errorf("pionrtc: candidate: %w", err)
	}
	if err := c.pc.AddICECandidate(candidate); err != nil {
		return fmt.Errorf("pionrtc: candidate: %w", err)
	}
	return nil
}

// mark adds streamsAttribute to the description, in its only media section.
func mark(sdp string) string {
	return sdp + streamsAttribute + strconv.Itoa(pionStreams) + "\r\n"
}

// active tells whether the answerer is the DTLS client.
func active(answer string) bool { return strings.Contains(answer, "a=setup:active") }

// described notes what the far end's description and the roles say.
func (c *conn) described(remote string, odd bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.streams = browserStreams
	if _, rest, ok := strings.Cut(remote, streamsAttribute); ok {
		number, _, _ := strings.Cut(rest, "\r\n")
		if n, err := strconv.ParseUint(number, 10, 16); err == nil {
			c.streams = int(n)
		}
	}
	if odd {
		c.odd = 1
	}
	c.next = 1
}

// waitNumber waits for a free number, and tells whether it was used before.
// There are many, and they become free with time alone.
func (c *conn) waitNumber(ctx context.Context) (id uint16, used bool, err error) {
	for {
		if id, used, ok := c.number(); ok {
			return id, used, nil
		}
		again := time.NewTimer(rest / 50)
		select {
		case <-again.C:
		case <-c.over:
		case <-ctx.Done():
		}
		again.Stop()
		if ctx.Err() != nil {
			return 0, false, fmt.Errorf("pionrtc: open: no channel free: %w", context.Cause(ctx))
		}
		select {
		case <-c.over:
			return 0, false, fmt.Errorf("pionrtc: open: %w", webrtc.ErrClosed)
		default:
		}
	}
}

// number returns a free number for a channel.
func (c *conn) number() (id uint16, used, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.resting) > 0 && time.Since(c.resting[0].since) >= rest {
		id := c.resting[0].id
		c.resting = c.resting[1:]
		return id, true, true
	}
	n := 2*c.next + c.odd
	if c.next == 0 || n >= c.streams {
		return 0, false, false
	}
	c.next++
	return uint16(n), false, true
}

// Open opens a channel. The first one, before the peers are described, is the
// init channel, which pion numbers.
func (c *conn) Open(ctx context.Context, label string, e webrtc.ChannelEvents) (webrtc.DataChannel, error) {
	for {
		ch, err := c.open(ctx, label, e)
		if err != nil {
			return nil, fmt.Errorf("pionrtc: open: %w", err)
		}
		if ch != nil {
			return ch, nil
		}
	}
}

// open is Open, and nil if the channel came to nothing: its number is in doubt.
func (c *conn) open(ctx context.Context, label string, e webrtc.ChannelEvents) (*channel, error) {
	select {
	case c.opening <- struct{}{}:
	case <-c.over:
		return nil, webrtc.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	ch := newChannel(c)
	ch.events, ch.ours = e, true
	var init *pion.DataChannelInit
	c.mu.Lock()
	described := c.next > 0
	c.mu.Unlock()
	used := false
	if described {
		var id uint16
		var err error
		if id, used, err = c.waitNumber(ctx); err != nil {
			ch.settle()
			return nil, err
		}
		init, ch.id = &pion.DataChannelInit{ID: &id}, &id
	}
	if !used {
		ch.fate.Store(taken)
	}
	var err error
	if ch.dc, err = c.pc.CreateDataChannel(label, init); err != nil {
		ch.settle()
		return nil, err
	}
	ch.start()
	if !used {
		return ch, nil
	}
	late := time.NewTimer(doubt)
	defer late.Stop()
	select {
	case <-ch.acked:
	case <-late.C:
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-c.over:
		err = webrtc.ErrClosed
	}
	if !ch.fate.CompareAndSwap(undecided, dropped) {
		return ch, nil // acknowledged
	}
	ch.settle()
	c.doubted(1)
	ch.Close() // which asks for the reset once more
	return nil, err
}

// doubted counts numbers that are in doubt. When half of ours are, the
// connection is of no use any more.
func (c *conn) doubted(n int) {
	c.mu.Lock()
	c.dead += n
	useless := n > 0 && c.dead >= c.streams/4
	c.mu.Unlock()
	if useless {
		c.events.State(webrtc.Failed)
	}
}

// Close ends the connection and waits for its channels.
func (c *conn) Close() error {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		close(c.over)
	}
	c.mu.Unlock()
	err := c.pc.Close()
	c.wg.Wait()
	return err
}

// closeInTurn resets ch's stream, together with others if some have been reset
// just now. pion asks for each stream on its own as soon as it is closed, while a
// browser takes only the request that comes next (RFC 6525, 5.1.1 allows one at a
// time): those that follow a lost one it refuses, and pion does not ask again
// (https://github.com/pion/sctp/pull/508). Such a stream's number is lost.
func (c *conn) closeInTurn(ch *channel) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.toReset = append(c.toReset, ch)
	if !c.resetting && !c.closed {
		c.resetting = true
		c.wg.Go(c.reset)
	}
}

// reset resets streams until there are none to be reset.
func (c *conn) reset() {
	for {
		c.mu.Lock()
		batch := c.toReset
		c.toReset = nil
		c.resetting = len(batch) > 0
		c.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		for _, ch := range batch {
			ch.raw.Close()
			close(ch.reset)
		}
		pause := time.NewTimer(resetPause)
		select {
		case <-pause.C:
		case <-c.over:
		}
		pause.Stop()
	}
}

// browser tells whether the far end is one, as far as can be seen.
func (c *conn) browser() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.streams > 0 && c.streams <= browserStreams
}

// free has the number of a channel of ours rest.
func (c *conn) free(id uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resting = append(c.resting, rested{id, time.Now()})
}

// channel is one data channel.
type channel struct {
	conn                   *conn
	dc                     *pion.DataChannel
	events                 webrtc.ChannelEvents
	id                     *uint16 // if numbered here
	ours                   bool
	fate                   atomic.Int32
	acked                  chan struct{} // of ours: closed when it is acknowledged
	reset                  chan struct{} // closed when it was closed in its turn
	settled, acknowledging sync.Once

	mu      sync.Mutex
	raw     rawChannel // nil until it is open
	early   [][]byte   // sent before that
	queued  int        // bytes in early
	closing bool
}

// What became of a channel whose number was used before.
const (
	undecided int32 = iota
	taken           // the far end acknowledged it, or there was no doubt
	dropped         // it did not in time: another one has taken its place
)

func newChannel(c *conn) *channel {
	return &channel{conn: c, acked: make(chan struct{}), reset: make(chan struct{})}
}

// rawChannel is what pion detaches.
type rawChannel interface {
	ReadDataChannel([]byte) (n int, text bool, err error)
	SetReadDeadline(time.Time) error
	Write([]byte) (int, error)
	Close() error
}

// acknowledged notes that the far end has the channel, and closes it if that is
// too late.
func (ch *channel) acknowledged() {
	if !ch.ours {
		return
	}
	ch.acknowledging.Do(func() {
		late := !ch.fate.CompareAndSwap(undecided, taken) && ch.fate.Load() == dropped
		close(ch.acked)
		ch.settle()
		if late {
			ch.conn.doubted(-1)
		}
	})
}

// settle lets another channel be opened.
func (ch *channel) settle() {
	if ch.ours {
		ch.settled.Do(func() { <-ch.conn.opening })
	}
}

// start has the channel read once it is open.
func (ch *channel) start() {
	ch.dc.SetBufferedAmountLowThreshold(webrtc.LowWater)
	ch.dc.OnBufferedAmountLow(ch.events.Low)
	ch.dc.OnOpen(func() { // pion calls it on a goroutine of its own
		c := ch.conn
		c.mu.Lock()
		if c.closed {
			c.mu.Unlock()
			ch.events.Closed()
			return
		}
		c.wg.Add(1)
		c.mu.Unlock()
		defer c.wg.Done()
		if raw, err := ch.dc.DetachWithDeadline(); err == nil {
			if dc, ok := raw.(*datachannel.DataChannel); ok {
				dc.OnOpen(ch.acknowledged)
			} else {
				ch.acknowledged()
			}
			ch.opened(raw)
			ch.read(raw)
		}
		ch.acknowledged()
		if ch.fate.Load() != dropped {
			ch.events.Closed()
		}
		if ch.id != nil {
			c.free(*ch.id)
		}
	})
}

// opened sends what waited.
func (ch *channel) opened(raw rawChannel) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.raw = raw
	for _, b := range ch.early {
		if _, err := raw.Write(b); err != nil {
			raw.Close()
			break
		}
	}
	ch.early, ch.queued = nil, 0
	if ch.closing {
		ch.closeRaw()
	}
}

// closeRaw closes what is open; mu is held.
func (ch *channel) closeRaw() error {
	if !ch.conn.browser() {
		return ch.raw.Close()
	}
	// The reader stops: it would answer the far end's reset out of turn.
	err := ch.raw.SetReadDeadline(time.Unix(1, 0))
	ch.conn.closeInTurn(ch)
	return err
}

// read passes messages on until the far end has closed the channel too.
func (ch *channel) read(raw rawChannel) {
	buf := make([]byte, 2<<10)
	for {
		n, text, err := raw.ReadDataChannel(buf)
		if err == nil {
			ch.acknowledged() // it was, or nothing would come
		}
		switch {
		case ch.fate.Load() == dropped && err == nil:
		case err == nil && !text:
			ch.events.Message(append(make([]byte, 0, n), buf[:n]...))
		case err == nil:
			ch.Close() // libp2p sends no text
		case errors.Is(err, io.ErrShortBuffer) && len(buf) < maxMessage:
			buf = make([]byte, 4*len(buf))
		case errors.Is(err, os.ErrDeadlineExceeded): // it was closed here
			select {
			case <-ch.reset:
				raw.SetReadDeadline(time.Time{})
			case <-ch.conn.over:
				return
			}
		case errors.Is(err, io.ErrShortBuffer):
			ch.conn.events.State(webrtc.Failed) // more than we said we take
			return
		default:
			raw.Close()
			return
		}
	}
}

// Send sends b, or keeps a copy until the channel is open.
func (ch *channel) Send(b []byte) error {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if ch.closing {
		return fmt.Errorf("pionrtc: send: %w", webrtc.ErrClosed)
	}
	if ch.raw != nil {
		if _, err := ch.raw.Write(b); err != nil {
			return fmt.Errorf("pionrtc: send: %w", err)
		}
		return nil
	}
	if ch.queued+len(b) > maxEarly {
		return fmt.Errorf("pionrtc: send: %d bytes before the channel is open", ch.queued+len(b))
	}
	ch.early = append(ch.early, append([]byte(nil), b...))
	ch.queued += len(b)
	return nil
}

// BufferedAmount is what pion has not yet had acknowledged.
func (ch *channel) BufferedAmount() int {
	ch.mu.Lock()
	queued := ch.queued
	ch.mu.Unlock()
	return queued + int(ch.dc.BufferedAmount())
}

// Close resets the SCTP stream once all before is sent.
func (ch *channel) Close() error {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if ch.closing {
		return nil
	}
	ch.closing = true
	if ch.raw == nil {
		return nil
	}
	return ch.closeRaw()
}
