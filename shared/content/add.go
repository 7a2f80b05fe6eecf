package content

import (
	"context"
	"errors"
	"io"
	"io/fs"

	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
)

// Stat is what an add has done so far.
type Stat struct {
	Root   cid.Cid // undefined until the end
	Files  int     // regular files and symlinks
	Blocks int     // distinct blocks
	Bytes  int64   // of the files
}

// An AddOption changes an add.
type AddOption func(*adder)

type adder struct {
	hidden   bool
	progress func(Stat)
}

// WithHidden adds what begins with a dot too.
func WithHidden() AddOption { return func(a *adder) { a.hidden = true } }

// WithProgress has f called with what was done, after every block.
func WithProgress(f func(Stat)) AddOption { return func(a *adder) { a.progress = f } }

// Add adds name of fsys: a directory with all that is below it, a file, or a
// symlink. "." is the whole of fsys: os.DirFS(dir).
func Add(ctx context.Context, dag ipld.DAGService, fsys fs.FS, name string, opts ...AddOption) (Stat, error) {
	return Stat{}, errors.ErrUnsupported
}

// A NamedReader is one file of AddFiles.
type NamedReader struct {
	Path string // slash-separated, relative
	Open func() (io.ReadCloser, error)
}

// AddFiles adds files in one directory tree.
func AddFiles(ctx context.Context, dag ipld.DAGService, files []NamedReader, opts ...AddOption) (Stat, error) {
	return Stat{}, errors.ErrUnsupported
}
