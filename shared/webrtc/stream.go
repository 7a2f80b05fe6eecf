package webrtc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

// chunkOverhead is what a received payload costs beside its bytes.
const chunkOverhead = 64

var (
	errWriteClosed = errors.New("webrtc: write on a stream closed for writing")
	errReadClosed  = errors.New("webrtc: read on a stream closed for reading")
)

// A stream is one data channel as a libp2p stream.
//
// Lock order: Conn.mu is never held while mu is taken. The engine's locks may
// be taken while mu is held, so Low, which is called with them, takes no lock.
type stream struct {
	conn     *Conn
	incoming bool
	ch       DataChannel

	readable chan struct{} // capacity 1: something changed for a reader
	writable chan struct{} // capacity 1: something changed for a writer
	rd, wd   deadline
	wmu      sync.Mutex // one writer at a time

	mu      sync.Mutex
	dec     decoder
	recv    [][]byte
	unread  int   // bytes in recv, with chunkOverhead for each
	readErr error // what comes after recv
	deadErr error // why nothing can be written any more
	buf     []byte

	sentFin   bool
	finAcked  bool
	gotFin    bool
	stopped   bool // this side reads no more
	closed    bool // Close was called
	done      bool // the channel is closed, or has been told to
	finAckEnd *time.Timer
}

var (
	_ network.MuxedStream = (*stream)(nil)
	_ ChannelEvents       = (*stream)(nil)
)

func newStream(c *Conn, incoming bool) *stream {
	return &stream{conn: c, incoming: incoming, readable: make(chan struct{}, 1), writable: make(chan struct{}, 1)}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Read returns what has arrived, in order, before it reports the end.
func (s *stream) Read(p []byte) (int, error) {
	for {
		select {
		case <-s.rd.done():
			return 0, os.ErrDeadlineExceeded
		default:
		}
		s.mu.Lock()
		n, freed := 0, 0
		for len(s.recv) > 0 && n < len(p) {
			m := copy(p[n:], s.recv[0])
			n, freed = n+m, freed+m
			if m < len(s.recv[0]) {
				s.recv[0] = s.recv[0][m:]
				break
			}
			s.recv[0] = nil
			s.recv = s.recv[1:]
			freed += chunkOverhead
		}
		s.unread -= freed
		more, err := len(s.recv) > 0 || s.readErr != nil, s.readErr
		s.mu.Unlock()
		s.conn.unread.Add(-int64(freed))
		if more {
			poke(s.readable) // for another reader
		}
		if n > 0 || len(p) == 0 {
			return n, nil
		}
		if err != nil {
			return 0, err
		}
		select {
		case <-s.readable:
		case <-s.rd.done():
		}
	}
}

// Write hands p over piece by piece, waiting while much is unsent.
func (s *stream) Write(p []byte) (int, error) {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	written := 0
	for {
		select {
		case <-s.wd.done():
			return written, os.ErrDeadlineExceeded
		default:
		}
		n, err := s.writeSome(p[written:])
		written += n
		if err != nil || written == len(p) {
			return written, err
		}
		if n > 0 {
			continue
		}
		select {
		case <-s.writable:
		case <-s.wd.done():
		}
	}
}

// writeSome sends one message if there is room for it.
func (s *stream) writeSome(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.deadErr != nil:
		return 0, s.deadErr
	case s.sentFin:
		return 0, errWriteClosed
	case len(p) == 0 || s.ch.BufferedAmount() >= s.conn.highWater():
		return 0, nil
	}
	b, n := s.buf[:0], 0
	for n < len(p) && len(b)+MaxFrame <= MaxMessage {
		part := p[n:min(len(p), n+maxPayload)]
		b = appendFrame(b, part)
		n += len(part)
	}
	if err := s.ch.Send(b); err != nil {
		return 0, s.lost(err)
	}
	// What was needed for much is not kept for the little that follows.
	if s.buf = b; cap(b) > MaxFrame && n == len(p) {
		s.buf = nil
	}
	return n, nil
}

// lost is the error of a stream whose channel refused to send.
func (s *stream) lost(err error) error {
	if s.deadErr == nil {
		s.deadErr = &network.StreamError{TransportError: fmt.Errorf("%w: %w", ErrLost, err)}
	}
	return s.deadErr
}

// sendFlag sends f, for callers that hold mu. A channel that is gone has told
// the far end enough.
func (s *stream) sendFlag(f flag) {
	if !s.done {
		s.ch.Send(appendFlag(nil, f))
	}
}

// CloseWrite tells the far end that no more comes.
func (s *stream) CloseWrite() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closeWrite()
	s.end()
	return nil
}

func (s *stream) closeWrite() {
	if s.sentFin || s.deadErr != nil {
		return
	}
	s.sentFin = true
	s.sendFlag(fin)
	poke(s.writable)
}

// CloseRead drops what is unread and all that will come.
func (s *stream) CloseRead() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closeRead()
	s.end()
	return nil
}

func (s *stream) closeRead() {
	if s.stopped {
		return
	}
	s.stopped = true
	s.drop()
	if s.readErr == nil || errors.Is(s.readErr, io.EOF) {
		s.readErr = errReadClosed
	}
	if !s.gotFin {
		s.sendFlag(stopSending)
	}
	poke(s.readable)
}

// drop forgets what is unread, for callers that hold mu.
func (s *stream) drop() {
	s.conn.unread.Add(-int64(s.unread))
	s.recv, s.unread = nil, 0
}

// Close closes both directions. What was written is still sent; it does not
// wait for that.
func (s *stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.closeWrite()
	s.closeRead()
	s.end()
	if !s.done {
		s.finAckEnd = time.AfterFunc(finAckTimeout, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.finish()
		})
	}
	return nil
}

// end closes the channel once both directions are through: the far end has
// everything, and nothing of its is wanted any more.
func (s *stream) end() {
	if (s.finAcked || s.deadErr != nil) && (s.gotFin || s.closed) {
		s.finish()
	}
}

// finish closes the channel, for callers that hold mu.
func (s *stream) finish() {
	if s.done {
		return
	}
	s.done = true
	s.ch.Close()
	s.release()
}

// release takes the stream from the connection, for callers that hold mu.
func (s *stream) release() {
	if s.finAckEnd != nil {
		s.finAckEnd.Stop()
	}
	s.buf = nil
	s.conn.remove(s)
}

// Reset ends both directions at once.
func (s *stream) Reset() error { return s.ResetWithError(0) }

// ResetWithError is Reset: the protocol carries no codes.
func (s *stream) ResetWithError(code network.StreamErrorCode) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.abort(&network.StreamError{ErrorCode: code})
	return nil
}

// abort resets the stream, for callers that hold mu.
func (s *stream) abort(err error) {
	s.drop()
	s.fail(err)
	s.closed, s.stopped = true, true
	s.sendFlag(reset)
	s.finish()
}

// fail notes why nothing more will be read or written; the first reason stays.
func (s *stream) fail(err error) {
	if s.readErr == nil {
		s.readErr = err
	}
	if s.deadErr == nil {
		s.deadErr = err
	}
	poke(s.readable)
	poke(s.writable)
}

// SetDeadline sets both deadlines.
func (s *stream) SetDeadline(t time.Time) error {
	s.rd.set(t)
	s.wd.set(t)
	return nil
}

// SetReadDeadline sets when waiting reads end with os.ErrDeadlineExceeded.
func (s *stream) SetReadDeadline(t time.Time) error {
	s.rd.set(t)
	return nil
}

// SetWriteDeadline sets when waiting writes end with os.ErrDeadlineExceeded.
func (s *stream) SetWriteDeadline(t time.Time) error {
	s.wd.set(t)
	return nil
}

// Message takes what the channel received.
func (s *stream) Message(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		return
	}
	err := s.dec.decode(b, s.frame)
	if err == nil && (s.unread > MaxUnread || s.conn.unread.Load() > maxConnUnread && s.unread > 0) {
		err = ErrUnread
	}
	if err != nil && !s.done {
		s.abort(&network.StreamError{ErrorCode: network.StreamProtocolViolation, TransportError: err})
	}
	s.end()
}

// frame acts on one frame; mu is held.
func (s *stream) frame(f frame) {
	if len(f.payload) > 0 && !s.stopped && !s.gotFin && s.readErr == nil {
		s.recv = append(s.recv, f.payload)
		size := len(f.payload) + chunkOverhead
		s.unread += size
		s.conn.unread.Add(int64(size))
		poke(s.readable)
	}
	switch f.flag {
	case fin:
		s.gotFin = true
		s.sendFlag(finAck)
		if s.readErr == nil {
			s.readErr = io.EOF
		}
		poke(s.readable)
	case finAck:
		if s.sentFin {
			s.finAcked = true
		}
	case stopSending:
		if s.deadErr == nil {
			s.deadErr = &network.StreamError{Remote: true}
			poke(s.writable)
		}
	case reset:
		s.drop()
		s.fail(&network.StreamError{Remote: true})
		s.closed = true
		s.finish()
	}
}

// Low lets a writer go on.
func (s *stream) Low() { poke(s.writable) }

// Closed ends the stream when its channel has ended.
func (s *stream) Closed() {
	err := s.conn.reason()
	if err == nil {
		err = &network.StreamError{Remote: true}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail(err)
	if !s.done {
		s.done = true
		s.release()
	}
}
