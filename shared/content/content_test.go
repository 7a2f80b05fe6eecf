package content_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	chunk "github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	"github.com/ipfs/boxo/ipld/unixfs/importer/trickle"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/multiformats/go-multihash"

	"github.com/webfabric/weft/shared/content"
)

// local returns a block service in memory, and a DAG service over it.
func local(t testing.TB) (blockservice.BlockService, ipld.DAGService) {
	t.Helper()
	bs := blockservice.New(blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore())), nil)
	t.Cleanup(func() { bs.Close() })
	return bs, merkledag.NewDAGService(bs)
}

// noise returns n bytes that do not compress, the same for the same seed.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

func addBytes(t testing.TB, dag ipld.DAGService, data []byte) cid.Cid {
	t.Helper()
	st, err := content.Add(t.Context(), dag, fstest.MapFS{"f": {Data: data}}, "f")
	if err != nil {
		t.Fatal(err)
	}
	return st.Root
}

func readAll(t testing.TB, get content.Getter, c cid.Cid) []byte {
	t.Helper()
	got, err := read(t.Context(), get, c)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func read(ctx context.Context, get content.Getter, c cid.Cid) ([]byte, error) {
	tgt, err := content.Resolve(ctx, get, c, nil)
	if err != nil {
		return nil, err
	}
	r, err := content.Open(ctx, get, tgt)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// TestAddVectors holds Add to CIDs that other implementations give.
func TestAddVectors(t *testing.T) {
	for _, tt := range []struct {
		name string
		fsys fstest.MapFS
		at   string
		want string
	}{
		// The raw CIDs of the empty string and of "hello world\n", as in every
		// implementation with CIDv1 and raw leaves.
		{name: "empty file", fsys: fstest.MapFS{"a": {}}, at: "a", want: "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"},
		{name: "hello", fsys: fstest.MapFS{"a": {Data: []byte("hello world\n")}}, at: "a", want: "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4"},
		// The empty directory: ipfs object new unixfs-dir, as CIDv1.
		{name: "empty directory", fsys: fstest.MapFS{"d": {Mode: fs.ModeDir}}, at: "d", want: "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, dag := local(t)
			st, err := content.Add(t.Context(), dag, tt.fsys, tt.at)
			if err != nil || st.Root.String() != tt.want {
				t.Errorf("Add = %v, %v; want %s", st.Root, err, tt.want)
			}
		})
	}
}

// TestAddLikeBoxo holds directories on both sides of the threshold, and files
// of one, two and three levels, to what boxo's own builders make of the profile.
func TestAddLikeBoxo(t *testing.T) {
	p := uio.UnixFS_v1_2025
	dirOf := func(t *testing.T, dag ipld.DAGService, names []string, leaf ipld.Node) cid.Cid {
		d, err := uio.NewDirectory(dag, uio.WithCidBuilder(p.CidBuilder()),
			uio.WithSizeEstimationMode(p.HAMTSizeEstimation), uio.WithMaxHAMTFanout(p.HAMTShardWidth))
		if err != nil {
			t.Fatal(err)
		}
		d.SetHAMTShardingSize(p.HAMTShardingSize)
		for _, name := range names {
			if err := d.AddChild(t.Context(), name, leaf); err != nil {
				t.Fatal(err)
			}
		}
		nd, err := d.GetNode()
		if err != nil {
			t.Fatal(err)
		}
		return nd.Cid()
	}
	leaf, err := merkledag.NewRawNodeWPrefix([]byte("x"), p.CidBuilder())
	if err != nil {
		t.Fatal(err)
	}
	// A link with a name of 86 bytes takes 2 + 128 + … of the block; the exact
	// number does not matter: 1,900 to 2,100 straddles 256 KiB.
	var names []string
	for i := range 2100 {
		names = append(names, fmt.Sprintf("%086d", i))
	}
	kinds := map[bool]int{}
	for _, n := range []int{0, 1, 1900, 1984, 1985, 1986, 1987, 2000, 2016, 2017, 2048, 2100} {
		_, dag := local(t)
		fsys := fstest.MapFS{"d": {Mode: fs.ModeDir}}
		for _, name := range names[:n] {
			fsys["d/"+name] = &fstest.MapFile{Data: []byte("x")}
		}
		st, err := content.Add(t.Context(), dag, fsys, "d")
		if err != nil {
			t.Fatal(err)
		}
		if want := dirOf(t, dag, names[:n], leaf); st.Root != want {
			t.Errorf("directory of %d: %s, boxo makes %s", n, st.Root, want)
		}
		kinds[st.Blocks > 2]++
	}
	if kinds[true] == 0 || kinds[false] == 0 {
		t.Errorf("%d directories became HAMTs, %d did not: the threshold was not crossed", kinds[true], kinds[false])
	}

	for _, size := range []int{1 << 20, 1<<20 + 1, 5<<20 + 17} {
		_, dag := local(t)
		data := noise(uint64(size), size)
		params := helpers.DagBuilderParams{Maxlinks: p.FileDAGWidth, RawLeaves: p.RawLeaves, CidBuilder: p.CidBuilder(), Dagserv: dag}
		b, err := params.New(chunk.NewSizeSplitter(bytes.NewReader(data), p.ChunkSize))
		if err != nil {
			t.Fatal(err)
		}
		nd, err := balanced.Layout(b)
		if err != nil {
			t.Fatal(err)
		}
		if got := addBytes(t, dag, data); got != nd.Cid() {
			t.Errorf("file of %d bytes: %s, boxo makes %s", size, got, nd.Cid())
		}
	}
}

func TestAddTree(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string]string{
		"index.html": "<p>", "js/a.js": "1", "js/b.js": "1", ".hidden": "h", ".git/config": "c",
	} {
		if err := os.MkdirAll(dir+"/"+name[:strings.LastIndex("/"+name, "/")], 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/"+name, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("js/a.js", dir+"/latest.js"); err != nil {
		t.Fatal(err)
	}
	names := func(get content.Getter, c cid.Cid) (all []string) {
		for e, err := range content.List(t.Context(), get, c) {
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, e.Name)
		}
		slices.Sort(all)
		return all
	}
	bs, dag := local(t)
	var last content.Stat
	st, err := content.Add(t.Context(), dag, os.DirFS(dir), ".", content.WithProgress(func(s content.Stat) { last = s }))
	if err != nil {
		t.Fatal(err)
	}
	if st.Files != 4 || st.Bytes != 5 || st != last {
		t.Errorf("Stat = %+v, the last progress %+v; want 4 files, 5 bytes", st, last)
	}
	// index.html, the two equal files once, the symlink, js and the root.
	if st.Blocks != 5 {
		t.Errorf("%d blocks, want 5", st.Blocks)
	}
	if got := names(bs, st.Root); !slices.Equal(got, []string{"index.html", "js", "latest.js"}) {
		t.Errorf("entries = %q", got)
	}
	link, err := content.Resolve(t.Context(), bs, st.Root, []string{"latest.js"})
	if err != nil || link.Kind != content.Symlink || string(readAll(t, bs, link.Cid)) != "js/a.js" {
		t.Errorf("symlink = %+v, %v", link, err)
	}
	all, err := content.Add(t.Context(), dag, os.DirFS(dir), ".", content.WithHidden())
	if err != nil {
		t.Fatal(err)
	}
	if got := names(bs, all.Root); !slices.Equal(got, []string{".git", ".hidden", "index.html", "js", "latest.js"}) {
		t.Errorf("with hidden entries = %q", got)
	}
	if again, err := content.Add(t.Context(), dag, os.DirFS(dir), ".git"); err != nil || again.Files != 1 {
		t.Errorf("Add of a hidden directory by name = %+v, %v; want its one file", again, err)
	}

	open := func(s string) func() (io.ReadCloser, error) {
		return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(s)), nil }
	}
	tab, err := content.AddFiles(t.Context(), dag, []content.NamedReader{
		{Path: "js/b.js", Open: open("1")}, {Path: "index.html", Open: open("<p>")}, {Path: "js/a.js", Open: open("1")},
		{Path: ".git/config", Open: open("c")}, {Path: ".hidden", Open: open("h")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(dir + "/latest.js"); err != nil {
		t.Fatal(err)
	}
	same, err := content.Add(t.Context(), dag, os.DirFS(dir), ".", content.WithHidden())
	if err != nil || same.Root != tab.Root {
		t.Errorf("AddFiles = %s, Add of the same tree = %s, %v", tab.Root, same.Root, err)
	}
	// A file alone, without a name, is no directory.
	if one, err := content.AddFiles(t.Context(), dag, []content.NamedReader{{Open: open("alone")}}); err != nil || string(readAll(t, bs, one.Root)) != "alone" || one.Files != 1 {
		t.Errorf("AddFiles of a nameless file = %+v, %v", one, err)
	}
	for _, bad := range [][]string{{"../x"}, {"/x"}, {"", "a"}, {"."}, {"a//b"}, {"a", "a"}, {"a", "a/b"}, {"a/b", "a"}} {
		var files []content.NamedReader
		for _, p := range bad {
			files = append(files, content.NamedReader{Path: p, Open: open("")})
		}
		if _, err := content.AddFiles(t.Context(), dag, files); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("AddFiles(%q) = %v, want fs.ErrInvalid", bad, err)
		}
	}
	if _, err := content.Add(t.Context(), dag, os.DirFS(dir), "nothing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Add of nothing = %v", err)
	}
	for _, path := range []string{"bad\xff", "dir/bad\xff"} {
		if _, err := content.AddFiles(t.Context(), dag, []content.NamedReader{{Path: path, Open: open("")}}); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("AddFiles(%q) = %v, want fs.ErrInvalid", path, err)
		}
	}
	_, err = content.Add(t.Context(), dag, latin1{os.DirFS(dir).(fs.ReadDirFS)}, ".")
	if !errors.Is(err, fs.ErrInvalid) || !strings.Contains(err.Error(), `b\xfccher.txt": invalid argument: the name is not UTF-8`) {
		t.Errorf("Add of a name in Latin-1 = %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := content.Add(ctx, dag, os.DirFS(dir), "."); !errors.Is(err, context.Canceled) {
		t.Errorf("Add after cancel = %v", err)
	}
}

// latin1 is a folder with one file more, whose name is not UTF-8: not every
// file system would make it.
type latin1 struct{ fs.ReadDirFS }

func (l latin1) ReadDir(name string) ([]fs.DirEntry, error) {
	list, err := l.ReadDirFS.ReadDir(name)
	return append(list, latin1Entry{list[len(list)-1]}), err
}

type latin1Entry struct{ fs.DirEntry }

func (latin1Entry) Name() string { return "b\xfccher.txt" }

// counter counts batches, and fails after some.
type counter struct {
	ipld.DAGService
	calls, nodes, largest atomic.Int64
	fail                  error
}

func (c *counter) AddMany(ctx context.Context, nds []ipld.Node) error {
	c.calls.Add(1)
	c.nodes.Add(int64(len(nds)))
	c.largest.Store(max(c.largest.Load(), int64(len(nds))))
	if c.fail != nil {
		return c.fail
	}
	return c.DAGService.AddMany(ctx, nds)
}

func TestAddBatches(t *testing.T) {
	fsys := fstest.MapFS{}
	for i := range 1000 {
		fsys[fmt.Sprintf("f%04d", i)] = &fstest.MapFile{Data: fmt.Append(nil, i)}
	}
	_, dag := local(t)
	c := &counter{DAGService: dag}
	st, err := content.Add(t.Context(), c, fsys, ".")
	if err != nil {
		t.Fatal(err)
	}
	if st.Blocks != 1001 || c.nodes.Load() != 1001 || c.calls.Load() > 5 || c.largest.Load() > 256 {
		t.Errorf("%d blocks of 1001 stored in %d calls of at most %d", c.nodes.Load(), c.calls.Load(), c.largest.Load())
	}
	full := errors.New("store is full")
	if _, err := content.Add(t.Context(), &counter{DAGService: dag, fail: full}, fsys, "."); !errors.Is(err, full) {
		t.Errorf("Add into a full store = %v", err)
	}
}

func TestHAMT(t *testing.T) {
	const n = 5000
	fsys := fstest.MapFS{}
	for i := range n {
		fsys[fmt.Sprintf("module-%04d.js", i)] = &fstest.MapFile{Data: fmt.Append(nil, i)}
	}
	bs, dag := local(t)
	st, err := content.Add(t.Context(), dag, fsys, ".")
	if err != nil {
		t.Fatal(err)
	}
	if st.Blocks < n+2 {
		t.Fatalf("%d blocks: not a HAMT", st.Blocks)
	}
	get := content.NewCache(4 << 20).Over(bs)
	for i := 0; i < n; i += 7 {
		tgt, err := content.Resolve(t.Context(), get, st.Root, []string{fmt.Sprintf("module-%04d.js", i)})
		if err != nil {
			t.Fatal(err)
		}
		if got := string(readAll(t, get, tgt.Cid)); got != fmt.Sprint(i) {
			t.Fatalf("file %d = %q", i, got)
		}
	}
	for _, no := range []string{"module-5000.js", "", "00", "A3"} {
		if _, err := content.Resolve(t.Context(), get, st.Root, []string{no}); !errors.Is(err, content.ErrNotFound) {
			t.Errorf("Resolve(%q) = %v, want ErrNotFound", no, err)
		}
	}
	seen := map[string]bool{}
	for e, err := range content.List(t.Context(), bs, st.Root) {
		if err != nil {
			t.Fatal(err)
		}
		seen[e.Name] = true
	}
	if len(seen) != n {
		t.Errorf("listed %d of %d", len(seen), n)
	}
	for range content.List(t.Context(), bs, st.Root) {
		break // must neither hang nor leak
	}
}

func TestResolve(t *testing.T) {
	bs, dag := local(t)
	st, err := content.Add(t.Context(), dag, fstest.MapFS{"a/b/c.txt": {Data: []byte("hi")}}, ".")
	if err != nil {
		t.Fatal(err)
	}
	cbor := cid.NewCidV1(cid.DagCBOR, put(t, bs, cid.DagCBOR, []byte{0xa0}).Hash())
	for _, tt := range []struct {
		name string
		root cid.Cid
		path []string
		kind content.Kind
		size int64
		err  error
	}{
		{name: "root", root: st.Root, kind: content.Dir},
		{name: "directory", root: st.Root, path: []string{"a", "b"}, kind: content.Dir},
		{name: "file", root: st.Root, path: []string{"a", "b", "c.txt"}, kind: content.File, size: 2},
		{name: "nothing", root: st.Root, path: []string{"a", "x"}, err: content.ErrNotFound},
		{name: "below a file", root: st.Root, path: []string{"a", "b", "c.txt", "d"}, err: content.ErrNotDir},
		{name: "another codec", root: cbor, err: content.ErrNotUnixFS},
		{name: "no protobuf", root: put(t, bs, cid.DagProtobuf, []byte{0xff, 0xff}), err: content.ErrBadBlock},
		{name: "no UnixFS", root: put(t, bs, cid.DagProtobuf, nil), err: content.ErrNotUnixFS},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := content.Resolve(t.Context(), bs, tt.root, tt.path)
			if !errors.Is(err, tt.err) || got.Kind != tt.kind || got.Size != tt.size {
				t.Errorf("Resolve = %+v, %v; want kind %d, %d bytes, %v", got, err, tt.kind, tt.size, tt.err)
			}
		})
	}
	// An identity CID carries its block.
	mh, err := multihash.Sum([]byte("inside"), multihash.IDENTITY, -1)
	if err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, bs, cid.NewCidV1(cid.Raw, mh)); string(got) != "inside" {
		t.Errorf("identity CID = %q", got)
	}
}

// put stores data whatever it is, and returns its CID.
func put(t testing.TB, bs blockservice.BlockService, codec uint64, data []byte) cid.Cid {
	t.Helper()
	c, err := cid.V1Builder{Codec: codec, MhType: multihash.SHA2_256}.Sum(data)
	if err != nil {
		t.Fatal(err)
	}
	b, err := blocks.NewBlockWithCid(data, c)
	if err != nil {
		t.Fatal(err)
	}
	if err := bs.Blockstore().Put(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	return c
}

// slow answers only as many requests at once as it must, and remembers how many
// were waiting at once.
type slow struct {
	content.Getter
	mu        sync.Mutex
	now, most int
	asked     int
	release   chan struct{} // one value lets one block go, if not nil
}

func (s *slow) GetBlock(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	s.mu.Lock()
	s.now++
	s.asked++
	s.most = max(s.most, s.now)
	s.mu.Unlock()
	defer func() { s.mu.Lock(); s.now--; s.mu.Unlock() }()
	if s.release != nil {
		select {
		case <-s.release:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return s.Getter.GetBlock(ctx, c)
}

func TestRanges(t *testing.T) {
	const size = 64<<20 + 12345
	data := noise(1, size)
	bs, dag := local(t)
	root := addBytes(t, dag, data)
	s := &slow{Getter: bs}
	tgt, err := content.Resolve(t.Context(), s, root, nil)
	if err != nil || tgt.Size != size {
		t.Fatalf("Resolve = %+v, %v", tgt, err)
	}
	for _, tt := range []struct{ off, n int64 }{
		{0, 10}, {0, size}, {size - 1, 1}, {size - 1, 100}, {size, 5}, {1<<20 - 1, 2}, {10 << 20, 20 << 20}, {33<<20 + 7, 1}, {5, 0}, {1 << 20, 1 << 20},
	} {
		s.asked = 0
		r, err := content.OpenRange(t.Context(), s, tgt, tt.off, tt.n)
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if _, err := io.Copy(&got, r); err != nil {
			t.Fatal(err)
		}
		r.Close()
		want := data[tt.off:min(tt.off+tt.n, size)]
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("range %d+%d: %d bytes that differ", tt.off, tt.n, got.Len())
		}
		if most := len(want)>>20 + 2; s.asked > most {
			t.Errorf("range %d+%d asked for %d blocks, at most %d hold it", tt.off, tt.n, s.asked, most)
		}
	}
	r, err := content.Open(t.Context(), s, tgt)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	buf := make([]byte, 1000)
	for _, off := range []int64{0, 50 << 20, 3, 1<<20 - 500, size - 1000} {
		if _, err := r.Seek(off, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, buf); err != nil || !bytes.Equal(buf, data[off:off+1000]) {
			t.Errorf("Read at %d: %v", off, err)
		}
	}
	if n, err := r.Read(buf); n != 0 || err != io.EOF {
		t.Errorf("Read at the end = %d, %v", n, err)
	}
}

// TestReadAhead: a reader asks for a window of blocks and no more until it is
// read, and asks for them at once.
func TestReadAhead(t *testing.T) {
	data := noise(2, 40<<20)
	bs, dag := local(t)
	root := addBytes(t, dag, data)
	s := &slow{Getter: bs}
	tgt, err := content.Resolve(t.Context(), s, root, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.release = make(chan struct{}, 1000)
	for range 1000 {
		s.release <- struct{}{}
	}
	r, err := content.OpenRange(t.Context(), s, tgt, 0, tgt.Size)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := make([]byte, 20<<20)
	if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, data[:len(got)]) {
		t.Fatalf("ReadFull: %v", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if ahead := s.asked - 20; ahead > 9 {
		t.Errorf("%d blocks of 1 MiB were asked ahead, want at most 9", ahead)
	}
	if s.most > 9 {
		t.Errorf("%d at once", s.most)
	}
}

func TestClosedWhileWaiting(t *testing.T) {
	bs, dag := local(t)
	root := addBytes(t, dag, noise(3, 20<<20))
	s := &slow{Getter: bs}
	tgt, err := content.Resolve(t.Context(), s, root, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.release = make(chan struct{}) // nothing is ever let go
	r, err := content.OpenRange(t.Context(), s, tgt, 0, tgt.Size)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if s.now != 0 {
		t.Errorf("%d requests live on after Close", s.now)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, err = content.OpenRange(ctx, s, tgt, 0, tgt.Size)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cancel()
	if _, err := io.ReadAll(r); !errors.Is(err, context.Canceled) {
		t.Errorf("read after cancel = %v", err)
	}
}

// TestOtherLayouts reads what other importers make: dag-pb leaves, small
// chunks, narrow and trickle DAGs.
func TestOtherLayouts(t *testing.T) {
	data := noise(4, 3<<20+11)
	for _, tt := range []struct {
		name   string
		params helpers.DagBuilderParams
		chunk  int64
		layout func(*helpers.DagBuilderHelper) (ipld.Node, error)
	}{
		{"CIDv0, dag-pb leaves", helpers.DagBuilderParams{Maxlinks: 174}, 256 << 10, balanced.Layout},
		{"narrow", helpers.DagBuilderParams{Maxlinks: 2, RawLeaves: true}, 64 << 10, balanced.Layout},
		{"small chunks", helpers.DagBuilderParams{Maxlinks: 174}, 1 << 10, balanced.Layout},
		{"trickle", helpers.DagBuilderParams{Maxlinks: 10}, 32 << 10, trickle.Layout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bs, dag := local(t)
			tt.params.Dagserv = dag
			b, err := tt.params.New(chunk.NewSizeSplitter(bytes.NewReader(data), tt.chunk))
			if err != nil {
				t.Fatal(err)
			}
			nd, err := tt.layout(b)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(readAll(t, bs, nd.Cid()), data) {
				t.Error("the bytes differ")
			}
			tgt, err := content.Resolve(t.Context(), bs, nd.Cid(), nil)
			if err != nil {
				t.Fatal(err)
			}
			r, err := content.OpenRange(t.Context(), bs, tgt, 1<<20+3, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data[1<<20+3:2<<20+3]) {
				t.Errorf("range: %d bytes, %v", len(got), err)
			}
		})
	}
}

// fileNode makes a file's inner node as an attacker would.
func fileNode(t testing.TB, bs blockservice.BlockService, links []cid.Cid, sizes []uint64) cid.Cid {
	t.Helper()
	nd := new(merkledag.ProtoNode)
	f := unixfs.NewFSNode(unixfs.TFile)
	for i, c := range links {
		if err := nd.AddRawLink("", &ipld.Link{Cid: c}); err != nil {
			t.Fatal(err)
		}
		if i < len(sizes) {
			f.AddBlockSize(sizes[i])
		}
	}
	data, err := f.GetBytes()
	if err != nil {
		t.Fatal(err)
	}
	nd.SetData(data)
	return put(t, bs, cid.DagProtobuf, nd.RawData())
}

func TestBadBlocks(t *testing.T) {
	bs, _ := local(t)
	leaf := put(t, bs, cid.Raw, []byte("0123456789"))
	large := put(t, bs, cid.Raw, make([]byte, content.MaxBlockSize+1))
	deep := leaf
	for range content.MaxFileDepth + 1 {
		deep = fileNode(t, bs, []cid.Cid{deep}, []uint64{10})
	}
	// Every level claims 2 GiB more than there is, so that none looks like a leaf.
	const gib = 1 << 30
	deepLarge := fileNode(t, bs, []cid.Cid{leaf}, []uint64{gib})
	for range content.MaxFileDepth + 1 {
		deepLarge = fileNode(t, bs, []cid.Cid{deepLarge}, []uint64{gib})
	}
	dir := func(names ...string) cid.Cid {
		nd := merkledag.NodeWithData(unixfs.FolderPBData())
		for _, n := range names {
			if err := nd.AddRawLink(n, &ipld.Link{Cid: leaf, Size: 10}); err != nil {
				t.Fatal(err)
			}
		}
		return put(t, bs, cid.DagProtobuf, nd.RawData())
	}
	for _, tt := range []struct {
		name string
		root cid.Cid
		err  error
	}{
		{"too large", large, content.ErrTooLarge},
		{"sizes missing", fileNode(t, bs, []cid.Cid{leaf, leaf}, []uint64{10}), content.ErrBadBlock},
		{"child is shorter", fileNode(t, bs, []cid.Cid{leaf}, []uint64{11}), content.ErrBadBlock},
		{"child is longer", fileNode(t, bs, []cid.Cid{leaf, leaf}, []uint64{9, 10}), content.ErrBadBlock},
		{"more than 8 EiB", fileNode(t, bs, []cid.Cid{leaf, leaf}, []uint64{1 << 62, 1 << 62}), content.ErrBadBlock},
		{"child is a directory", fileNode(t, bs, []cid.Cid{dir("a")}, []uint64{1}), content.ErrBadBlock},
		{"child claims 1 GiB", fileNode(t, bs, []cid.Cid{leaf}, []uint64{gib}), content.ErrBadBlock},
		{"too deep", deep, content.ErrTooDeep},
		{"too deep and large", deepLarge, content.ErrTooDeep},
		{"directory", dir("a"), content.ErrNotFile},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := read(t.Context(), bs, tt.root); !errors.Is(err, tt.err) {
				t.Errorf("read = %v, want %v", err, tt.err)
			}
		})
	}
	for _, name := range []string{"", ".", "..", "../../etc/passwd", "a/b", "a\x00"} {
		var last error
		for _, err := range content.List(t.Context(), bs, dir("good", name)) {
			last = err
		}
		if !errors.Is(last, content.ErrBadBlock) {
			t.Errorf("List with an entry named %q ended with %v", name, last)
		}
	}
	for _, tt := range []struct {
		name         string
		fanout, hash uint64
		link         string
		child        cid.Cid
		again        string
	}{
		{name: "fan-out 3", fanout: 3, hash: 0x22},
		{name: "fan-out 0", fanout: 0, hash: 0x22},
		{name: "fan-out 4096", fanout: 4096, hash: 0x22},
		{name: "another hash", fanout: 256, hash: 0x12},
		{name: "link without slot", fanout: 256, hash: 0x22, link: "A", child: leaf},
		{name: "child is a file", fanout: 256, hash: 0x22, link: "00", child: leaf},
		{name: "a shard twice", fanout: 256, hash: 0x22, link: "00", child: leaf, again: "01"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			data, err := unixfs.HAMTShardData([]byte{1}, tt.fanout, tt.hash)
			if err != nil {
				t.Fatal(err)
			}
			nd := merkledag.NodeWithData(data)
			if tt.link != "" {
				if err := nd.AddRawLink(tt.link, &ipld.Link{Cid: tt.child}); err != nil {
					t.Fatal(err)
				}
			}
			if tt.again != "" {
				if err := nd.AddRawLink(tt.again, &ipld.Link{Cid: tt.child}); err != nil {
					t.Fatal(err)
				}
			}
			c := put(t, bs, cid.DagProtobuf, nd.RawData())
			var last error
			for _, err := range content.List(t.Context(), bs, c) {
				last = err
			}
			if !errors.Is(last, content.ErrBadBlock) {
				t.Errorf("List ended with %v", last)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	bs, _ := local(t)
	c := put(t, bs, cid.Raw, []byte("right"))
	for _, tt := range []struct {
		name string
		data []byte
		err  error
	}{
		{"right", []byte("right"), nil},
		{"flipped bit", []byte("righu"), content.ErrBadBlock},
		{"cut off", []byte("righ"), content.ErrBadBlock},
		{"too large", make([]byte, content.MaxBlockSize+1), content.ErrTooLarge},
	} {
		if err := content.Check(c, tt.data); !errors.Is(err, tt.err) {
			t.Errorf("Check(%s) = %v, want %v", tt.name, err, tt.err)
		}
	}
}

func TestWalk(t *testing.T) {
	fsys := fstest.MapFS{"big": {Data: noise(5, 5<<20)}}
	for i := range 300 {
		fsys[fmt.Sprintf("d%d/f%d", i%7, i)] = &fstest.MapFile{Data: fmt.Append(nil, i%100)}
	}
	bs, dag := local(t)
	st, err := content.Add(t.Context(), dag, fsys, ".")
	if err != nil {
		t.Fatal(err)
	}
	s := &slow{Getter: bs}
	seen := cid.NewSet()
	err = content.Walk(t.Context(), s, st.Root, func(b blocks.Block) error {
		if !seen.Visit(b.Cid()) {
			t.Errorf("%s visited twice", b.Cid())
		}
		return content.Check(b.Cid(), b.RawData())
	}, content.WithParallel(4))
	if err != nil || seen.Len() != st.Blocks {
		t.Errorf("Walk visited %d of %d blocks: %v", seen.Len(), st.Blocks, err)
	}
	if s.most > 4 {
		t.Errorf("%d at once, want at most 4", s.most)
	}
	stop := errors.New("stop")
	if err := content.Walk(t.Context(), s, st.Root, func(blocks.Block) error { return stop }); err != stop {
		t.Errorf("Walk = %v, want visit's error", err)
	}
	if s.now != 0 {
		t.Errorf("%d requests live on", s.now)
	}
	if err := bs.DeleteBlock(t.Context(), addBytes(t, dag, []byte("42"))); err != nil {
		t.Fatal(err)
	}
	if err := content.Walk(t.Context(), s, st.Root, func(blocks.Block) error { return nil }); !ipld.IsNotFound(err) {
		t.Errorf("Walk with a block missing = %v", err)
	}
	if err := content.Walk(t.Context(), bs, put(t, bs, cid.DagCBOR, []byte{0xa0}), func(blocks.Block) error { return nil }); !errors.Is(err, content.ErrNotUnixFS) {
		t.Errorf("Walk of dag-cbor = %v", err)
	}
}
