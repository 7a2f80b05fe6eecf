package content

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	chunk "github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/boxo/ipld/unixfs/hamt"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
)

// profile says how files and directories become blocks. It is passed to
// everything that wants it; boxo's global defaults are neither read nor set.
var profile = uio.UnixFS_v1_2025

// Blocks are stored in batches: one transaction for many is what makes a
// store in IndexedDB quick (DESIGN.md, 5). Two batches are held at a time,
// one being filled and one being stored.
const (
	batchBytes  = 8 << 20
	batchBlocks = 256
)

// Stat is what an add has done so far.
type Stat struct {
	Root   cid.Cid // undefined until the end
	Files  int     // regular files and symlinks
	Blocks int     // distinct blocks
	Bytes  int64   // read from files
}

// An AddOption changes an add.
type AddOption func(*adder)

// WithHidden adds the entries of directories whose names begin with a dot too;
// the default leaves them out, with all that is below them.
func WithHidden() AddOption { return func(a *adder) { a.hidden = true } }

// WithProgress has f called with what was done, after every block and file.
// It is called from the goroutine that adds, and must be quick.
func WithProgress(f func(Stat)) AddOption { return func(a *adder) { a.progress = f } }

// Add adds name of fsys, a directory with all that is below it, a file, or a
// symlink: "." of os.DirFS(dir) is dir itself. Symlinks are kept as symlinks,
// and not followed, where fsys is an fs.ReadLinkFS (os.DirFS is); hidden
// entries are left out unless [WithHidden] is given, name itself never is.
// Anything else (a device, a socket) is an error.
//
// Every block is hashed once, before it is handed to dag in batches. When Add
// returns without error dag has accepted all of them.
func Add(ctx context.Context, dag ipld.DAGService, fsys fs.FS, name string, opts ...AddOption) (Stat, error) {
	info, err := fs.Lstat(fsys, name)
	if err != nil {
		return Stat{}, fmt.Errorf("content: add: %w", err)
	}
	return add(ctx, dag, fsItem(fsys, name, info.Mode()), opts)
}

// A NamedReader is one file of [AddFiles].
type NamedReader struct {
	// Path is relative, separated by slashes, without "." and ".." (fs.ValidPath),
	// or empty for a file that is added alone.
	Path string
	// Open is called once, when the file's turn has come.
	Open func() (io.ReadCloser, error)
}

// AddFiles adds files as one directory tree. All of them are added, hidden
// names too: they were asked for by name. A path that is no fs.ValidPath, is
// named twice, or is a file and a directory at once, is an error that wraps
// fs.ErrInvalid, and nothing is added. A single file whose path is empty is
// added as itself, without a directory.
func AddFiles(ctx context.Context, dag ipld.DAGService, files []NamedReader, opts ...AddOption) (Stat, error) {
	if len(files) == 1 && files[0].Path == "" {
		return add(ctx, dag, item{name: "file", open: files[0].Open}, opts)
	}
	root := new(tree)
	for _, f := range files {
		if err := root.put(f.Path, f); err != nil {
			return Stat{}, err
		}
	}
	return add(ctx, dag, root.item("."), append(slices.Clip(opts), WithHidden()))
}

// An item is one thing to add; one of its functions is set.
type item struct {
	name    string
	open    func() (io.ReadCloser, error) // a file
	target  func() (string, error)        // a symlink
	entries func() ([]item, error)        // a directory
}

func fsItem(fsys fs.FS, name string, mode fs.FileMode) item {
	it := item{name: name}
	switch mode.Type() {
	case 0:
		it.open = func() (io.ReadCloser, error) { return fsys.Open(name) }
	case fs.ModeSymlink:
		it.target = func() (string, error) { return fs.ReadLink(fsys, name) }
	case fs.ModeDir:
		it.entries = func() ([]item, error) {
			list, err := fs.ReadDir(fsys, name)
			if err != nil {
				return nil, err
			}
			items := make([]item, len(list))
			for i, e := range list {
				items[i] = fsItem(fsys, path.Join(name, e.Name()), e.Type())
			}
			return items, nil
		}
	}
	return it
}

// tree puts the paths of AddFiles together; a node has a file or entries.
type tree struct {
	file    *NamedReader
	entries map[string]*tree
}

func (t *tree) put(rest string, f NamedReader) error {
	if !fs.ValidPath(f.Path) || f.Path == "." {
		return fmt.Errorf("content: add %q: %w: not a relative path", f.Path, fs.ErrInvalid)
	}
	first, rest, deeper := strings.Cut(rest, "/")
	sub := t.entries[first]
	if sub != nil && (!deeper || sub.file != nil) {
		return fmt.Errorf("content: add %q: %w: named twice, or a file and a directory", f.Path, fs.ErrInvalid)
	}
	if sub == nil {
		sub = new(tree)
		if t.entries == nil {
			t.entries = make(map[string]*tree)
		}
		t.entries[first] = sub
	}
	if deeper {
		return sub.put(rest, f)
	}
	sub.file = &f
	return nil
}

func (t *tree) item(name string) item {
	it := item{name: name}
	if t.file != nil {
		it.open = t.file.Open
		return it
	}
	it.entries = func() ([]item, error) {
		var items []item
		for _, e := range slices.Sorted(maps.Keys(t.entries)) {
			items = append(items, t.entries[e].item(path.Join(name, e)))
		}
		return items, nil
	}
	return it
}

type adder struct {
	hidden   bool
	progress func(Stat)

	builder cid.Builder
	out     *batch
	stat    Stat
}

func add(ctx context.Context, dag ipld.DAGService, it item, opts []AddOption) (Stat, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a := &adder{builder: profile.CidBuilder(), progress: func(Stat) {}}
	for _, o := range opts {
		o(a)
	}
	a.out = &batch{DAGService: dag, seen: cid.NewSet(), ctx: func() context.Context { return ctx }}
	a.out.added = func() { a.stat.Blocks++; a.progress(a.stat) }

	root, err := a.add(ctx, it)
	if err == nil {
		err = a.out.flush()
	}
	if werr := a.out.wait(); err == nil {
		err = werr
	}
	if err != nil {
		return a.stat, err
	}
	a.stat.Root = root.Cid
	a.progress(a.stat)
	return a.stat, nil
}

// add adds it and returns the link its parent needs.
func (a *adder) add(ctx context.Context, it item) (link *ipld.Link, err error) {
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("content: add %s: %w", it.name, err)
	}
	switch {
	case it.entries != nil:
		return a.dir(ctx, it)
	case it.open != nil:
		link, err = a.file(ctx, it)
	case it.target != nil:
		link, err = a.symlink(it)
	default:
		return nil, fmt.Errorf("content: add %s: %w, directory or symlink", it.name, ErrNotFile)
	}
	if err == nil {
		a.stat.Files++
		a.progress(a.stat)
	}
	return link, err
}

func (a *adder) file(ctx context.Context, it item) (*ipld.Link, error) {
	f, err := it.open()
	if err != nil {
		return nil, fmt.Errorf("content: add %s: %w", it.name, err)
	}
	defer f.Close()
	params := helpers.DagBuilderParams{
		Maxlinks:   profile.FileDAGWidth,
		RawLeaves:  profile.RawLeaves,
		CidBuilder: a.builder,
		Dagserv:    a.out,
	}
	counted := readerFunc(func(p []byte) (int, error) {
		if err := context.Cause(ctx); err != nil {
			return 0, err
		}
		n, err := f.Read(p)
		a.stat.Bytes += int64(n)
		return n, err
	})
	b, err := params.New(chunk.NewSizeSplitter(counted, profile.ChunkSize))
	if err != nil {
		return nil, fmt.Errorf("content: add %s: %w", it.name, err)
	}
	nd, err := balanced.Layout(b)
	if err != nil {
		return nil, fmt.Errorf("content: add %s: %w", it.name, err)
	}
	return ipld.MakeLink(nd)
}

func (a *adder) symlink(it item) (*ipld.Link, error) {
	target, err := it.target()
	if err != nil {
		return nil, fmt.Errorf("content: add %s: %w", it.name, err)
	}
	data, err := unixfs.SymlinkData(target)
	if err != nil {
		return nil, fmt.Errorf("content: add %s: %w", it.name, err)
	}
	nd := merkledag.NodeWithData(data)
	if err := nd.SetCidBuilder(a.builder); err != nil {
		return nil, err
	}
	if err := a.out.put(nd); err != nil {
		return nil, err
	}
	return ipld.MakeLink(nd)
}

func (a *adder) dir(ctx context.Context, it item) (*ipld.Link, error) {
	entries, err := it.entries()
	if err != nil {
		return nil, fmt.Errorf("content: add %s: %w", it.name, err)
	}
	nd := merkledag.NodeWithData(unixfs.FolderPBData())
	if err := nd.SetCidBuilder(a.builder); err != nil {
		return nil, err
	}
	for _, e := range entries {
		name := path.Base(e.name)
		if !a.hidden && strings.HasPrefix(name, ".") {
			continue
		}
		if !utf8.ValidString(name) { // neither dag-pb nor io/fs has such names
			return nil, fmt.Errorf("content: add %q: %w: the name is not UTF-8", e.name, fs.ErrInvalid)
		}
		link, err := a.add(ctx, e)
		if err != nil {
			return nil, err
		}
		if err := nd.AddRawLink(name, link); err != nil {
			return nil, fmt.Errorf("content: add %s: %w", e.name, err)
		}
	}
	// The profile's estimate (SizeEstimationBlock) is by definition the size
	// of the block the directory would be, so that block is what is measured.
	if len(nd.RawData()) <= profile.HAMTShardingSize {
		if err := a.out.put(nd); err != nil {
			return nil, err
		}
		return ipld.MakeLink(nd)
	}
	shard, err := hamt.NewShard(a.out, profile.HAMTShardWidth)
	if err != nil {
		return nil, fmt.Errorf("content: add %s: %w", it.name, err)
	}
	shard.SetCidBuilder(a.builder)
	for _, l := range nd.Links() {
		if err := shard.SetLink(ctx, l.Name, l); err != nil {
			return nil, fmt.Errorf("content: add %s: %w", it.name, err)
		}
	}
	root, err := shard.Node() // adds every node of the shard
	if err != nil {
		return nil, fmt.Errorf("content: add %s: %w", it.name, err)
	}
	return ipld.MakeLink(root)
}

// A batch is the DAGService that boxo's builders write to. It passes each
// distinct node on once, many at a time, the storing beside the hashing.
type batch struct {
	ipld.DAGService
	ctx   func() context.Context // the builders know none
	added func()
	seen  *cid.Set

	nodes  []ipld.Node
	size   int
	stored chan error // of the batch being stored, if any
}

func (b *batch) Add(_ context.Context, nd ipld.Node) error { return b.put(nd) }

func (b *batch) AddMany(_ context.Context, nds []ipld.Node) error {
	for _, nd := range nds {
		if err := b.put(nd); err != nil {
			return err
		}
	}
	return nil
}

func (b *batch) put(nd ipld.Node) error {
	if !b.seen.Visit(nd.Cid()) {
		return nil
	}
	b.nodes = append(b.nodes, nd)
	b.size += len(nd.RawData())
	b.added()
	if b.size < batchBytes && len(b.nodes) < batchBlocks {
		return nil
	}
	return b.flush()
}

// flush begins to store what is pending, after what was being stored.
func (b *batch) flush() error {
	if err := b.wait(); err != nil || len(b.nodes) == 0 {
		return err
	}
	nodes, stored := b.nodes, make(chan error, 1)
	b.nodes, b.size, b.stored = nil, 0, stored
	go func() {
		err := b.DAGService.AddMany(b.ctx(), nodes)
		if err != nil {
			err = fmt.Errorf("content: store %d blocks: %w", len(nodes), err)
		}
		stored <- err
	}()
	return nil
}

func (b *batch) wait() error {
	if b.stored == nil {
		return nil
	}
	err := <-b.stored
	b.stored = nil
	return err
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
