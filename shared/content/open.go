package content

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/semaphore"
)

// Read-ahead. What has been asked for and not yet been read is bounded by
// window; a reader begins with the smaller firstWindow, and gets the rest as
// what it fetched is read, so that one that looks at the head of a file and
// goes away has not fetched much.
const (
	window      = 8 << 20
	firstWindow = 2 << 20
	// leastWeight is what a small block counts: it bounds the number of
	// requests in flight to 128.
	leastWeight = 64 << 10
	// maxPieces is how many can wait to be read: a window of the smallest, and
	// the two errors that may follow when the reader has gone away.
	maxPieces = window/leastWeight + 2
)

// A piece is some bytes being fetched; due tells that the reader waits for them.
type piece struct {
	*future[[]byte]
	due func()
}

// A Range reads part of a file, in order. It is an io.WriterTo, which spares
// io.Copy a copy of every block.
type Range struct {
	cancel  context.CancelFunc
	pieces  chan piece // in order; closed at the end
	weights chan int64 // beside pieces: what each counts in the window
	ahead   *semaphore.Weighted
	ended   chan struct{} // closed when the planner is done

	held   int64 // what the piece being read counts
	unused int64 // of the window, given out as pieces are read
	cur    []byte
	err    error
}

var (
	_ io.ReadCloser = (*Range)(nil)
	_ io.WriterTo   = (*Range)(nil)
)

// OpenRange reads the n bytes of t, a file or symlink, from offset off; what
// lies past the end is left out. Blocks are fetched ahead, many at a time, at
// most 8 MiB of them. Its error wraps [ErrNotFile], or is get's.
//
// ctx bounds every read. Close the range, or the fetching goes on until it
// ends; Close waits for get to return.
func OpenRange(ctx context.Context, get Getter, t Target, off, n int64) (*Range, error) {
	if t.node == nil {
		var err error
		if t.node, err = load(ctx, get, t.Cid); err != nil {
			return nil, err
		}
	}
	if t.node.kind == Dir {
		return nil, fmt.Errorf("%w: %s is a directory", ErrNotFile, t.Cid)
	}
	off = min(max(off, 0), t.node.size)
	n = min(max(n, 0), t.node.size-off)
	ctx, cancel := context.WithCancel(ctx)
	r := &Range{
		cancel:  cancel,
		pieces:  make(chan piece, maxPieces),
		weights: make(chan int64, maxPieces),
		ahead:   semaphore.NewWeighted(window),
		ended:   make(chan struct{}),
		unused:  window - firstWindow,
	}
	r.ahead.TryAcquire(r.unused)
	p := planner{get: get, r: r, lo: off, hi: off + n}
	go func() {
		defer close(r.ended)
		defer close(r.weights)
		defer close(r.pieces)
		if err := p.plan(ctx, t.node, 0, 1); err != nil {
			p.emit(ctx, leastWeight, func(context.Context) ([]byte, error) { return nil, err })
		}
	}()
	return r, nil
}

// Peek waits for the next piece and returns it without reading it: nothing at
// the end of the range.
func (r *Range) Peek() ([]byte, error) {
	for len(r.cur) == 0 && r.err == nil {
		r.ahead.Release(r.held)
		r.held = 0
		f, ok := <-r.pieces
		if !ok {
			r.err = io.EOF
			break
		}
		w := <-r.weights
		f.due()
		if r.cur, r.err = f.wait(); r.err != nil {
			r.cancel()
			r.cur = nil
		}
		more := min(r.unused, w)
		r.ahead.Release(more)
		r.held, r.unused = w, r.unused-more
	}
	if r.err == io.EOF {
		return nil, nil
	}
	return r.cur, r.err
}

func (r *Range) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	b, err := r.Peek()
	if err != nil {
		return 0, err
	}
	if len(b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, b)
	r.cur = b[n:]
	return n, nil
}

// Next returns the next piece, as a rule the rest of a block: io.EOF at the
// end. The caller may keep it, but not change it.
func (r *Range) Next() ([]byte, error) {
	b, err := r.Peek()
	if err == nil && len(b) == 0 {
		err = io.EOF
	}
	r.cur = nil
	return b, err
}

// WriteTo writes the rest of the range to w, a block at a time. w must not
// change what it is given.
func (r *Range) WriteTo(w io.Writer) (n int64, err error) {
	for {
		b, err := r.Next()
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		m, err := w.Write(b)
		n += int64(m)
		if err != nil {
			return n, err
		}
	}
}

// errClosed is what reading after Close gives.
var errClosed = errors.New("content: read of a closed file")

// Close cancels what is being fetched and waits for it. It must not run beside
// a Read.
func (r *Range) Close() error {
	r.cancel()
	<-r.ended
	for f := range r.pieces {
		f.wait()
	}
	r.cur, r.err = nil, errClosed
	return nil
}

// A planner finds the pieces of [lo, hi) in order and has each fetched.
type planner struct {
	get    Getter
	r      *Range
	lo, hi int64
	begun  bool // a piece was emitted
}

// emit has f make the next piece, as soon as the window has room for it. The
// first is what the reader waits for, the others are read ahead.
func (p *planner) emit(ctx context.Context, weight int64, f func(context.Context) ([]byte, error)) error {
	weight = max(weight, leastWeight)
	if err := p.r.ahead.Acquire(ctx, weight); err != nil {
		weight = 0 // the end: the reader gets the error
		cause := context.Cause(ctx)
		f = func(context.Context) ([]byte, error) { return nil, cause }
	}
	fetch, due := ctx, func() {}
	if p.begun {
		fetch, due = Ahead(ctx)
	}
	p.begun = true
	p.r.weights <- weight
	p.r.pieces <- piece{start(func() ([]byte, error) { return f(fetch) }), due}
	return ctx.Err()
}

// plan emits what of n, which begins at offset pos of the file, is in range.
func (p *planner) plan(ctx context.Context, n *node, pos int64, depth int) error {
	if depth > MaxFileDepth {
		return fmt.Errorf("%w: more than %d levels", ErrTooDeep, MaxFileDepth)
	}
	if own := p.cut(n.data, pos); len(own) > 0 {
		if err := p.emit(ctx, int64(len(own)), func(context.Context) ([]byte, error) { return own, nil }); err != nil {
			return err
		}
	}
	pos += int64(len(n.data))
	for i, l := range n.links {
		size := int64(n.sizes[i])
		at := pos
		pos += size
		if size == 0 || pos <= p.lo {
			continue
		}
		if at >= p.hi {
			return nil
		}
		if size <= MaxBlockSize {
			err := p.emit(ctx, size, func(ctx context.Context) ([]byte, error) {
				data, err := gather(ctx, p.get, l, size, depth+1)
				return p.cut(data, at), err
			})
			if err != nil {
				return err
			}
			continue
		}
		// Too large for one block, so it has children: the reader has the
		// window before them to go on with, meanwhile.
		sub, err := child(ctx, p.get, l, size)
		if err != nil {
			return err
		}
		if err := p.plan(ctx, sub, at, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// cut returns what of data, which begins at offset pos, is in range.
func (p *planner) cut(data []byte, pos int64) []byte {
	from := min(max(p.lo-pos, 0), int64(len(data)))
	to := min(max(p.hi-pos, from), int64(len(data)))
	return data[from:to]
}

// child loads a child of a file, which must have as many bytes as its parent says.
func child(ctx context.Context, get Getter, l link, size int64) (*node, error) {
	n, err := load(ctx, get, l.cid)
	if err != nil {
		if errors.Is(err, ErrNotUnixFS) {
			err = fmt.Errorf("%w: in a file: %w", ErrBadBlock, err)
		}
		return nil, err
	}
	if n.kind != File || n.size != size {
		return nil, fmt.Errorf("%w: %s has %d bytes, its parent says %d", ErrBadBlock, l.cid, n.size, size)
	}
	return n, nil
}

// gather returns all bytes of a part of a file that has at most MaxBlockSize:
// as a rule one leaf, which is not copied.
func gather(ctx context.Context, get Getter, l link, size int64, depth int) ([]byte, error) {
	if depth > MaxFileDepth {
		return nil, fmt.Errorf("%w: more than %d levels", ErrTooDeep, MaxFileDepth)
	}
	n, err := child(ctx, get, l, size)
	if err != nil {
		return nil, err
	}
	if len(n.links) == 0 {
		return n.data, nil
	}
	return n.appendTo(ctx, get, make([]byte, 0, size), depth)
}

// appendTo appends the bytes of n and its children to b.
func (n *node) appendTo(ctx context.Context, get Getter, b []byte, depth int) ([]byte, error) {
	if depth > MaxFileDepth {
		return nil, fmt.Errorf("%w: more than %d levels", ErrTooDeep, MaxFileDepth)
	}
	b = append(b, n.data...)
	for i, l := range n.links {
		if n.sizes[i] == 0 {
			continue
		}
		sub, err := child(ctx, get, l, int64(n.sizes[i]))
		if err != nil {
			return nil, err
		}
		if b, err = sub.appendTo(ctx, get, b, depth+1); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// A Reader reads a file and can seek in it. It is not for concurrent use.
type Reader struct {
	open  func(off int64) (*Range, error)
	size  int64
	pos   int64
	r     *Range // at pos, if not nil
	close bool
}

var (
	_ io.ReadSeekCloser = (*Reader)(nil)
	_ io.WriterTo       = (*Reader)(nil)
)

// Open opens t, a file or symlink, at its beginning. Nothing is read ahead
// before the first Read, and a Seek elsewhere drops what was. Its error wraps
// [ErrNotFile], or is get's. ctx bounds every read; Close the reader.
func Open(ctx context.Context, get Getter, t Target) (*Reader, error) {
	if t.node == nil {
		var err error
		if t.node, err = load(ctx, get, t.Cid); err != nil {
			return nil, err
		}
	}
	if t.node.kind == Dir {
		return nil, fmt.Errorf("%w: %s is a directory", ErrNotFile, t.Cid)
	}
	size := t.node.size
	return &Reader{size: size, open: func(off int64) (*Range, error) {
		return OpenRange(ctx, get, t, off, size-off)
	}}, nil
}

// Size is the file's, in bytes.
func (r *Reader) Size() int64 { return r.size }

func (r *Reader) Read(p []byte) (int, error) {
	if err := r.ready(); err != nil {
		return 0, err
	}
	n, err := r.r.Read(p)
	r.pos += int64(n)
	return n, err
}

// WriteTo writes the rest of the file to w; w must not change what it is given.
func (r *Reader) WriteTo(w io.Writer) (int64, error) {
	if err := r.ready(); err != nil {
		return 0, err
	}
	n, err := r.r.WriteTo(w)
	r.pos += n
	return n, err
}

func (r *Reader) ready() (err error) {
	if r.close {
		return errClosed
	}
	if r.r == nil {
		r.r, err = r.open(r.pos)
	}
	return err
}

// Seek sets where the next Read begins; past the end, it will return io.EOF.
func (r *Reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.pos
	case io.SeekEnd:
		offset += r.size
	}
	if offset < 0 {
		return 0, fmt.Errorf("content: seek to %d", offset)
	}
	if offset != r.pos && r.r != nil {
		r.r.Close()
		r.r = nil
	}
	r.pos = offset
	return offset, nil
}

// Close ends the read-ahead and waits for it.
func (r *Reader) Close() error {
	r.close = true
	if r.r != nil {
		r.r.Close()
		r.r = nil
	}
	return nil
}
