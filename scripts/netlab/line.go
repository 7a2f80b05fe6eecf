package netlab

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// maxWaiting is how many packets may be on their way on one line.
const maxWaiting = 1 << 14

// A pipe is one direction of a Line.
type pipe struct {
	line    Line
	deliver func([]byte)
	queue   chan underway

	mu   sync.Mutex
	free time.Time // when the line has sent what it was given
}

// underway is a packet that arrives at a time.
type underway struct {
	b  []byte
	at time.Time
}

// newPipe returns a pipe that hands what comes through to deliver, one packet
// after the other, as long as run runs.
func newPipe(line Line, deliver func([]byte)) *pipe {
	if line.Queue == 0 {
		line.Queue = line.Rate / 8 / 10
	}
	return &pipe{line: line, deliver: deliver, queue: make(chan underway, maxWaiting)}
}

// send takes b over, or loses it.
func (p *pipe) send(b []byte) {
	if p.line == (Line{}) {
		p.deliver(b)
		return
	}
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	// What is lost was sent all the same.
	lost := rand.Float64() < p.line.Loss
	if p.free.Before(now) {
		p.free = now
	}
	if p.line.Rate > 0 {
		if waiting := p.free.Sub(now).Seconds() * float64(p.line.Rate) / 8; int(waiting)+len(b) > p.line.Queue {
			return
		}
		p.free = p.free.Add(time.Duration(float64(len(b)) * 8 / float64(p.line.Rate) * float64(time.Second)))
	}
	if lost {
		return
	}
	select {
	case p.queue <- underway{b, p.free.Add(p.line.Delay)}:
	default:
	}
}

// run delivers until ctx ends.
func (p *pipe) run(ctx context.Context) {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case u := <-p.queue:
			if d := time.Until(u.at); d > 0 {
				t.Reset(d)
				select {
				case <-t.C:
				case <-ctx.Done():
					return
				}
			}
			p.deliver(u.b)
		case <-ctx.Done():
			return
		}
	}
}
