//go:build js && wasm

package rtcbridge

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"syscall/js"

	"github.com/webfabric/weft/shared/webrtc"
	"github.com/webfabric/weft/wasm/jsapi"
	"github.com/webfabric/weft/wasm/jsbytes"
)

// command is an RTCCommand of web/types.js.
type command struct {
	op     string
	id     int // of its answer, if it is to be answered
	pc, ch int
	text   string // label, sdp or init
	stun   []string
	data   js.Value // an Uint8Array with a buffer of its own
	bytes  int
}

// textOf names the property that has a command's text.
var textOf = map[string]string{"answer": "sdp", "setAnswer": "sdp", "addCandidate": "init", "open": "label"}

// value makes the object that is posted.
func (c *command) value() js.Value {
	v := map[string]any{"op": c.op, "pc": c.pc}
	if c.id != 0 {
		v["id"] = c.id
	}
	if c.ch != 0 {
		v["ch"] = c.ch
	}
	if name := textOf[c.op]; name != "" {
		v[name] = c.text
	}
	switch c.op {
	case "new":
		v["stun"] = jsapi.Array(c.stun)
	case "send":
		v["data"] = c.data.Get("buffer")
	case "took":
		v["bytes"] = c.bytes
	}
	return jsapi.Object(v)
}

// event is an RTCEvent of web/types.js.
type event struct {
	kind   string
	id     int
	pc, ch int
	text   string // value, init, state or label
	failed bool   // done with an error, which text is
	data   []byte
	bytes  int
	conn   *conn // for what is queued on this side: closed
}

// parse reads what the page posted. It copies.
func parse(v js.Value) event {
	e := event{kind: v.Get("type").String()}
	number := func(name string) int {
		if n := v.Get(name); n.Type() == js.TypeNumber {
			return n.Int()
		}
		return 0
	}
	text := func(name string) string {
		if s := v.Get(name); s.Type() == js.TypeString {
			return s.String()
		}
		return ""
	}
	if e.kind == "done" {
		e.id, e.text = number("id"), text("value")
		if v.Get("error").Type() == js.TypeString {
			e.failed, e.text = true, text("error")
		}
		return e
	}
	e.pc, e.ch = number("pc"), number("ch")
	switch e.kind {
	case "candidate":
		e.text = text("init")
	case "state":
		e.text = text("state")
	case "channel":
		e.text = text("label")
	case "message":
		view := uint8Array.New(v.Get("data"))
		e.data = jsbytes.Copy(view)
	case "drained":
		e.bytes = number("bytes")
	}
	return e
}

var uint8Array = js.Global().Get("Uint8Array")

// page is the page that hosts connections, as long as it does.
type page struct {
	port js.Value
	log  *slog.Logger
	on   js.Func

	pokeOut, pokeIn chan struct{} // capacity 1
	gone            chan struct{} // closed when it is over, with err set

	mu      sync.Mutex
	out     []command
	in      []event
	answers map[int]chan event // capacity 1 each
	conns   map[int]*conn
	next    int // number of commands to be answered, and connections, so far
	err     error
}

func newPage(port js.Value, log *slog.Logger) *page {
	p := &page{
		port:    port,
		log:     log,
		pokeOut: make(chan struct{}, 1),
		pokeIn:  make(chan struct{}, 1),
		gone:    make(chan struct{}),
		answers: map[int]chan event{},
		conns:   map[int]*conn{},
	}
	p.on = jsapi.Func(func(args []js.Value) any {
		batch := args[0].Get("data")
		n := batch.Length()
		events := make([]event, n)
		for i := range n {
			events[i] = parse(batch.Index(i))
		}
		p.mu.Lock()
		if p.err == nil {
			p.in = append(p.in, events...)
		}
		p.mu.Unlock()
		poke(p.pokeIn)
		return nil
	})
	port.Set("onmessage", p.on)
	go p.post()
	go p.dispatch()
	return p
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// end closes the line. Whoever waits is told why, every connection ends.
func (p *page) end(why error) {
	p.mu.Lock()
	if p.err != nil {
		p.mu.Unlock()
		return
	}
	p.err = why
	p.in, p.out = nil, nil
	close(p.gone)
	p.mu.Unlock()
	p.port.Set("onmessage", js.Null())
	p.port.Call("close")
	p.on.Release()
}

// reason is why the page is over; nil if it is not.
func (p *page) reason() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// send queues a command.
func (p *page) send(c command) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return p.err
	}
	p.out = append(p.out, c)
	poke(p.pokeOut)
	return nil
}

// ask sends a command and waits for its answer.
func (p *page) ask(ctx context.Context, c command) (string, error) {
	answer := make(chan event, 1)
	p.mu.Lock()
	p.next++
	c.id = p.next
	p.answers[c.id] = answer
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.answers, c.id)
		p.mu.Unlock()
	}()
	if err := p.send(c); err != nil {
		return "", err
	}
	select {
	case e := <-answer:
		if e.failed {
			return "", fmt.Errorf("%w: %s", ErrRefused, e.text)
		}
		return e.text, nil
	case <-p.gone:
		return "", p.reason()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// post posts what is queued, until the page is over.
func (p *page) post() {
	for {
		select {
		case <-p.pokeOut:
		case <-p.gone:
			return
		}
		p.mu.Lock()
		batch := p.out
		p.out = nil
		p.mu.Unlock()
		if len(batch) == 0 {
			continue
		}
		if err := p.postBatch(batch); err != nil {
			p.log.Warn("the page cannot be reached", "err", err)
			p.end(fmt.Errorf("%w: %w", ErrPageGone, err))
		}
	}
}

func (p *page) postBatch(batch []command) (err error) {
	defer jsapi.Recover(&err)
	values := make([]any, len(batch))
	var transfer []any
	for i := range batch {
		values[i] = batch[i].value()
		if batch[i].op == "send" {
			transfer = append(transfer, batch[i].data.Get("buffer"))
		}
	}
	p.port.Call("postMessage", values, transfer)
	return nil
}

// dispatch hands on what came, in order, until the page is over; then it tells
// every connection.
func (p *page) dispatch() {
	for {
		select {
		case <-p.pokeIn:
			p.mu.Lock()
			batch := p.in
			p.in = nil
			p.mu.Unlock()
			for i := range batch {
				p.handle(&batch[i])
				batch[i] = event{}
			}
		case <-p.gone:
			p.mu.Lock()
			conns := p.conns
			p.conns = nil
			p.mu.Unlock()
			for _, c := range conns {
				c.end(ErrPageGone)
				c.events.State(webrtc.Failed)
				c.closeChannels()
			}
			return
		}
	}
}

// states are those of RTCPeerConnection.connectionState.
var states = map[string]webrtc.State{
	"new":          webrtc.Connecting,
	"connecting":   webrtc.Connecting,
	"connected":    webrtc.Connected,
	"disconnected": webrtc.Disconnected,
	"failed":       webrtc.Failed,
	"closed":       webrtc.Closed,
}

// handle acts on one event.
func (p *page) handle(e *event) {
	if e.conn != nil {
		p.mu.Lock()
		delete(p.conns, e.conn.id)
		p.mu.Unlock()
		e.conn.closeChannels()
		return
	}
	p.mu.Lock()
	answer, c := p.answers[e.id], p.conns[e.pc]
	p.mu.Unlock()
	if e.kind == "done" {
		if answer != nil {
			select {
			case answer <- *e:
			default:
			}
		}
		return
	}
	if c == nil || c.reason() != nil {
		return // it was closed on this side
	}
	switch e.kind {
	case "candidate":
		c.events.Candidate(e.text)
	case "state":
		if s, ok := states[e.text]; ok {
			c.events.State(s)
		}
	case "channel":
		c.incoming(e.ch, e.text)
		c.took(eventCost)
	case "message":
		if ch := c.channel(e.ch); ch != nil {
			ch.events.Message(e.data)
		}
		c.took(len(e.data) + eventCost)
	case "drained":
		if ch := c.channel(e.ch); ch != nil {
			ch.drainedTo(e.bytes)
		}
	case "closed":
		c.channelClosed(e.ch)
		c.took(eventCost)
	}
}

// newConn registers a connection.
func (p *page) newConn(e webrtc.Events, release func()) (*conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return nil, p.err
	}
	p.next++
	c := &conn{
		page:     p,
		id:       p.next,
		events:   e,
		release:  release,
		slots:    make(chan struct{}, maxChannels),
		over:     make(chan struct{}),
		channels: map[int]*channel{},
	}
	p.conns[c.id] = c
	return c, nil
}

// forget removes a connection that this side closed; its channels hear of it
// after what came for them before.
func (p *page) forget(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil { // else dispatch tells them
		p.in = append(p.in, event{conn: c})
		poke(p.pokeIn)
	}
}
