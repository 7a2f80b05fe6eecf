//go:build js && wasm

package wsdial

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall/js"
	"time"

	"github.com/webfabric/weft/wasm/jsbytes"
)

const (
	// MaxQueue bounds what is received and not yet read, in bytes. Yamux lets a
	// peer have 256 KiB under way per stream at first and up to 16 MiB when the
	// reader keeps up; the conn's reader only decrypts and sorts, so what waits
	// here is what arrived while Go was busy with something else.
	MaxQueue = 32 << 20
	// maxBuffered is how many unsent bytes the browser may hold.
	maxBuffered = 1 << 20
	// pollBuffered is how often a full send buffer is looked at: the browser
	// has no event for it.
	pollBuffered = 2 * time.Millisecond
)

// Values of WebSocket.readyState.
const wsOpen = 1

// A Conn is one WebSocket as a net.Conn; message boundaries are not kept.
// Reads and writes may run at once, as net.Conn asks.
type Conn struct {
	ws    js.Value
	funcs []js.Func
	addr  addr

	mu     sync.Mutex
	queue  [][]byte
	queued int
	err    error // why no more will come; io.EOF after a closing handshake

	opened chan struct{} // closed when the socket opens
	closed chan struct{} // closed when it has ended, with err set
	signal chan struct{} // capacity 1: something was queued

	wmu        sync.Mutex // one writer at a time
	rd, wd     deadline
	release    sync.Once
	closeOnce  sync.Once
	closedHere chan struct{} // closed by Close
}

var _ net.Conn = (*Conn)(nil)

// Dial opens a WebSocket to url. Its error wraps [ErrRefused], or is ctx's.
func Dial(ctx context.Context, url string) (c *Conn, err error) {
	defer func() {
		if r := recover(); r != nil { // new WebSocket throws for a bad or forbidden URL
			c, err = nil, fmt.Errorf("%w: %s: %v", ErrRefused, url, r)
		}
	}()
	c = &Conn{
		ws:         js.Global().Get("WebSocket").New(url),
		addr:       addr(url),
		opened:     make(chan struct{}),
		closed:     make(chan struct{}),
		signal:     make(chan struct{}, 1),
		closedHere: make(chan struct{}),
		rd:         newDeadline(),
		wd:         newDeadline(),
	}
	c.ws.Set("binaryType", "arraybuffer")
	c.on("open", func(js.Value) { close(c.opened) })
	c.on("message", c.message)
	c.on("close", func(e js.Value) {
		if e.Get("wasClean").Bool() {
			c.end(io.EOF)
		} else {
			c.end(ErrReset)
		}
	})
	select {
	case <-c.opened:
		return c, nil
	case <-c.closed:
		c.free()
		return nil, fmt.Errorf("%w: %s", ErrRefused, url)
	case <-ctx.Done():
		c.Close()
		return nil, fmt.Errorf("wsdial: dial %s: %w", url, context.Cause(ctx))
	}
}

// on sets the handler of one event; it must not block.
func (c *Conn) on(event string, f func(e js.Value)) {
	fn := js.FuncOf(func(_ js.Value, args []js.Value) any {
		f(args[0])
		return nil
	})
	c.funcs = append(c.funcs, fn)
	c.ws.Set("on"+event, fn)
}

// free detaches the handlers, once nothing more can come.
func (c *Conn) free() {
	c.release.Do(func() {
		for _, event := range []string{"open", "message", "close"} {
			c.ws.Set("on"+event, js.Null())
		}
		for _, f := range c.funcs {
			f.Release()
		}
	})
}

// message queues what arrived. Text frames are no part of libp2p.
func (c *Conn) message(e js.Value) {
	data := e.Get("data")
	if data.Type() != js.TypeObject {
		c.end(fmt.Errorf("%w: a text frame", ErrReset))
		c.ws.Call("close")
		return
	}
	view := js.Global().Get("Uint8Array").New(data)
	size := view.Length()
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	if c.queued+size > MaxQueue {
		c.queue, c.queued = nil, 0
		c.mu.Unlock()
		c.end(ErrOverflow)
		c.ws.Call("close")
		return
	}
	b := jsbytes.Copy(view)
	c.queue = append(c.queue, b)
	c.queued += size
	c.mu.Unlock()
	select {
	case c.signal <- struct{}{}:
	default:
	}
}

// end notes why nothing more will come; the first reason stays.
func (c *Conn) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		close(c.closed)
	}
}

// Read returns what has arrived, in order, before it reports the end.
func (c *Conn) Read(p []byte) (int, error) {
	for {
		c.mu.Lock()
		n := 0
		for len(c.queue) > 0 && n < len(p) {
			m := copy(p[n:], c.queue[0])
			n += m
			if m == len(c.queue[0]) {
				c.queue[0] = nil
				c.queue = c.queue[1:]
			} else {
				c.queue[0] = c.queue[0][m:]
			}
		}
		c.queued -= n
		err := c.err
		c.mu.Unlock()
		switch {
		case n > 0 || len(p) == 0:
			return n, nil
		case err != nil:
			return 0, err
		}
		select {
		case <-c.signal:
		case <-c.closed:
		case <-c.closedHere:
			return 0, net.ErrClosed
		case <-c.rd.done():
			return 0, os.ErrDeadlineExceeded
		}
	}
}

// Write hands p to the browser once it holds little enough unsent.
func (c *Conn) Write(p []byte) (n int, err error) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	defer func() {
		if r := recover(); r != nil {
			n, err = 0, fmt.Errorf("%w: %v", ErrReset, r)
		}
	}()
	for {
		select {
		case <-c.closed: // which Close does too
			return 0, c.ended()
		case <-c.wd.done():
			return 0, os.ErrDeadlineExceeded
		default:
		}
		if c.ws.Get("readyState").Int() != wsOpen {
			return 0, c.ended()
		}
		if c.ws.Get("bufferedAmount").Int() <= maxBuffered {
			break
		}
		select {
		case <-time.After(pollBuffered):
		case <-c.closed:
		case <-c.closedHere:
		case <-c.wd.done():
		}
	}
	c.ws.Call("send", jsbytes.Uint8Array(p))
	return len(p), nil
}

// ended is the error of writing to a connection that has ended.
func (c *Conn) ended() error {
	select {
	case <-c.closedHere:
		return net.ErrClosed
	default:
		return ErrReset
	}
}

// Close ends the connection; reads and writes under way return net.ErrClosed.
func (c *Conn) Close() error {
	c.closeOnce.Do(func() {
		close(c.closedHere)
		c.free()
		func() {
			defer func() { _ = recover() }() // close throws only for a bad code
			c.ws.Call("close")
		}()
		c.end(net.ErrClosed)
	})
	return nil
}

// LocalAddr returns a placeholder: a browser does not say where it dials from.
func (c *Conn) LocalAddr() net.Addr { return addr("ws://browser/") }

// RemoteAddr returns the URL that was dialed.
func (c *Conn) RemoteAddr() net.Addr { return c.addr }

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	c.rd.set(t)
	c.wd.set(t)
	return nil
}

// SetReadDeadline sets when waiting reads end with os.ErrDeadlineExceeded.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.rd.set(t)
	return nil
}

// SetWriteDeadline sets when waiting writes end with os.ErrDeadlineExceeded.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.wd.set(t)
	return nil
}

// addr is a URL as a net.Addr.
type addr string

func (addr) Network() string  { return "websocket" }
func (a addr) String() string { return string(a) }

// A deadline is a channel that is closed at a time, which may be moved; it is
// net.Pipe's.
type deadline struct{ *deadlineState }

type deadlineState struct {
	mu    sync.Mutex
	timer *time.Timer
	ch    chan struct{}
}

func newDeadline() deadline { return deadline{&deadlineState{ch: make(chan struct{})}} }

func (d deadline) done() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ch
}

func (d deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.ch // the timer has fired: wait until it has closed ch
	}
	d.timer = nil
	passed := false
	select {
	case <-d.ch:
		passed = true
	default:
	}
	if t.IsZero() {
		if passed {
			d.ch = make(chan struct{})
		}
		return
	}
	if wait := time.Until(t); wait > 0 {
		if passed {
			d.ch = make(chan struct{})
		}
		ch := d.ch
		d.timer = time.AfterFunc(wait, func() { close(ch) })
		return
	}
	if !passed {
		close(d.ch)
	}
}
