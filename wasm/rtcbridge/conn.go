//go:build js && wasm

package rtcbridge

import (
	"context"
	"fmt"
	"sync"

	"github.com/webfabric/weft/shared/webrtc"
	"github.com/webfabric/weft/wasm/jsbytes"
)

// conn is one peer connection.
type conn struct {
	page    *page
	id      int
	events  webrtc.Events
	release func()        // gives back its place in the bridge
	slots   chan struct{} // holds a value for each channel of ours
	over    chan struct{} // closed when it is over, with err set

	mu       sync.Mutex
	channels map[int]*channel
	opened   int
	untold   int // bytes taken, of which the page was not told
	err      error
}

// Offer makes an offer and sets it.
func (c *conn) Offer(ctx context.Context) (string, error) {
	return c.ask(ctx, command{op: "offer"})
}

// Answer sets an offer and answers it.
func (c *conn) Answer(ctx context.Context, offer string) (string, error) {
	return c.ask(ctx, command{op: "answer", text: offer})
}

// SetAnswer sets the answer to Offer's.
func (c *conn) SetAnswer(ctx context.Context, sdp string) error {
	_, err := c.ask(ctx, command{op: "setAnswer", text: sdp})
	return err
}

// AddCandidate adds a candidate of the far end's.
func (c *conn) AddCandidate(ctx context.Context, init string) error {
	_, err := c.ask(ctx, command{op: "addCandidate", text: init})
	return err
}

func (c *conn) ask(ctx context.Context, cmd command) (string, error) {
	cmd.pc = c.id
	s, err := c.page.ask(ctx, cmd)
	if err != nil {
		return "", fmt.Errorf("rtcbridge: %s: %w", cmd.op, err)
	}
	return s, nil
}

// Open opens a channel, waiting while the browser has no more.
func (c *conn) Open(ctx context.Context, label string, e webrtc.ChannelEvents) (webrtc.DataChannel, error) {
	select {
	case c.slots <- struct{}{}:
	case <-c.over:
		return nil, fmt.Errorf("rtcbridge: open: %w", c.reason())
	case <-ctx.Done():
		return nil, fmt.Errorf("rtcbridge: open: %w", context.Cause(ctx))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil, fmt.Errorf("rtcbridge: open: %w", c.err)
	}
	ch := &channel{conn: c, id: 2*c.opened + 1, events: e}
	if err := c.page.send(command{op: "open", pc: c.id, ch: ch.id, text: label}); err != nil {
		return nil, fmt.Errorf("rtcbridge: open: %w", err)
	}
	c.opened++
	c.channels[ch.id] = ch
	return ch, nil
}

// incoming offers a channel of the far end's to the connection's owner.
func (c *conn) incoming(id int, label string) {
	ch := &channel{conn: c, id: id}
	ch.events = c.events.Channel(label, ch)
	if ch.events == nil {
		ch.Close()
		return
	}
	c.mu.Lock()
	over := c.err != nil
	if !over {
		c.channels[id] = ch
	}
	c.mu.Unlock()
	if over {
		ch.events.Closed()
	}
}

// channel returns an open channel, or nil.
func (c *conn) channel(id int) *channel {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.channels[id]
}

// channelClosed ends a channel that the page says has ended.
func (c *conn) channelClosed(id int) {
	c.mu.Lock()
	ch := c.channels[id]
	delete(c.channels, id)
	c.mu.Unlock()
	if ch != nil {
		ch.end()
	}
}

// closeChannels ends all channels of a connection that is over.
func (c *conn) closeChannels() {
	c.mu.Lock()
	channels := c.channels
	c.channels = map[int]*channel{}
	c.mu.Unlock()
	for _, ch := range channels {
		ch.end()
	}
}

// took counts what was taken, and tells the page now and then.
func (c *conn) took(bytes int) {
	c.mu.Lock()
	c.untold += bytes
	tell := 0
	if c.untold >= tookEvery {
		tell, c.untold = c.untold, 0
	}
	c.mu.Unlock()
	if tell > 0 {
		c.page.send(command{op: "took", pc: c.id, bytes: tell}) // who fails is over
	}
}

// reason is why the connection is over.
func (c *conn) reason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// end notes that the connection is over; it tells whether it was not before.
func (c *conn) end(why error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return false
	}
	c.err = why
	close(c.over)
	c.release()
	return true
}

// Close ends the connection. It does not wait.
func (c *conn) Close() error {
	if c.end(ErrClosed) {
		c.page.send(command{op: "close", pc: c.id}) // a page that has gone has closed it
		c.page.forget(c)
	}
	return nil
}

// channel is one data channel.
type channel struct {
	conn   *conn
	id     int // odd: opened by this side
	events webrtc.ChannelEvents

	mu      sync.Mutex
	given   int // bytes given to Send, ever
	drained int // of these, on their way
	closed  bool
}

// Send queues a copy of b.
func (ch *channel) Send(b []byte) error {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if ch.closed {
		return fmt.Errorf("rtcbridge: send: %w", ErrClosed)
	}
	if err := ch.conn.page.send(command{op: "send", pc: ch.conn.id, ch: ch.id, data: jsbytes.Uint8Array(b)}); err != nil {
		return fmt.Errorf("rtcbridge: send: %w", err)
	}
	ch.given += len(b)
	return nil
}

// BufferedAmount is what the browser has not sent yet, as far as was told.
func (ch *channel) BufferedAmount() int {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return ch.given - ch.drained
}

// drainedTo notes what the page told. Writers are called whenever there is more
// room, not only at LowWater: what they send has a way to go.
func (ch *channel) drainedTo(bytes int) {
	ch.mu.Lock()
	ch.drained = min(bytes, ch.given)
	ch.mu.Unlock()
	ch.events.Low()
}

// Close closes the channel once all is sent.
func (ch *channel) Close() error {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if !ch.closed {
		ch.closed = true
		ch.conn.page.send(command{op: "shut", pc: ch.conn.id, ch: ch.id}) // a page that has gone has closed it
	}
	return nil
}

// end tells the channel's owner, once.
func (ch *channel) end() {
	ch.mu.Lock()
	ch.closed = true
	ch.mu.Unlock()
	if ch.id%2 == 1 {
		<-ch.conn.slots
	}
	ch.events.Closed()
}
