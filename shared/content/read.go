package content

import (
	"context"
	"errors"
	"io"
	"iter"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

// Kind tells files from directories.
type Kind uint8

const (
	File Kind = iota + 1
	Dir
	Symlink
)

// A Target is what a path leads to.
type Target struct {
	Cid  cid.Cid
	Kind Kind
	Size int64 // bytes of a file or of a symlink's target; 0 for directories
}

// Resolve follows segments from root. Symlinks are not followed.
func Resolve(ctx context.Context, get Getter, root cid.Cid, segments []string) (Target, error) {
	return Target{}, errors.ErrUnsupported
}

// An Entry is one name in a directory.
type Entry struct {
	Name string
	Cid  cid.Cid
	Size int64 // bytes of the whole DAG below, as its maker says
}

// List yields the entries of the directory dir; a non-nil error is the last pair.
func List(ctx context.Context, get Getter, dir cid.Cid) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) { yield(Entry{}, errors.ErrUnsupported) }
}

// Open opens the file or symlink t to be read from its beginning, with read-ahead. ctx bounds every read.
func Open(ctx context.Context, get Getter, t Target) (*Reader, error) {
	return nil, errors.ErrUnsupported
}

// Reader reads a file.
type Reader struct{}

var _ io.ReadSeekCloser = (*Reader)(nil)

// Size is the file's, in bytes.
func (r *Reader) Size() int64                                  { return 0 }
func (r *Reader) Read(p []byte) (int, error)                   { return 0, errors.ErrUnsupported }
func (r *Reader) Seek(offset int64, whence int) (int64, error) { return 0, errors.ErrUnsupported }
func (r *Reader) Close() error                                 { return nil }

// A WalkOption changes a Walk.
type WalkOption func(*walk)

type walk struct{ parallel int }

// WithParallel sets how many blocks are fetched at once; the default is 32.
func WithParallel(n int) WalkOption { return func(w *walk) { w.parallel = n } }

// Walk calls visit once for every block of the DAG under root, never two at a
// time, in no order; visit's error ends the walk.
func Walk(ctx context.Context, get Getter, root cid.Cid, visit func(blocks.Block) error, opts ...WalkOption) error {
	return errors.ErrUnsupported
}
