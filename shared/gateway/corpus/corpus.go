// Package corpus makes the DAGs, well formed and not, and the requests for them,
// by which those that answer /ipfs/ are held to the same answers: the
// relay's gateway (relay/server), boot.js, and the node (shared/gateway).
// Where they differ on purpose a [Case] says so, and nothing else does.
// It is for tests: relay/server compares the relay and the node, web/test boot.js
// and the node (by scripts/corpus), web/e2e all three in a browser.
//
// The blocks are written by hand where no writer of UnixFS would make them.
package corpus

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"

	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs/hamt"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/multiformats/go-multihash"
)

// A Case is a path that is asked for.
type Case struct {
	Name string
	Path string // /ipfs/<cid>/…
	// Status of a plain GET. All three give it, or what follows says why not.
	// A body that ends by an error counts as 502, whatever came before: who
	// reads further ahead notices sooner. [Any] is for what is not known.
	Status int
	// Relay is the relay's status where boxo's gateway is different; 0: the same,
	// [Different]: not to be compared.
	Relay int
	// Few: no ranges are asked for. boxo's gateway answers a suffix of an empty
	// file by 500, and guesses a type by the range's first bytes.
	Few bool
	// Later means that boot.js leaves it to the node.
	Later bool
}

// Any is the [Case.Status] of a mutant: all that is asked is that boot.js gives
// what the node gives, or leaves it to it.
const Any = -1

// Different is the [Case.Relay] of what boxo does otherwise altogether: its own
// listing, and files whose nodes contradict each other, of which it gives what it
// finds until it finds no more.
const Different = -1

// The codecs of blocks.
const (
	rawCodec = cid.Raw
	pbCodec  = cid.DagProtobuf
)

// A builder writes blocks; its methods panic on errors, which Build returns.
type builder struct {
	ctx context.Context
	bs  blockstore.Blockstore
}

// A part is a node of a DAG with the bytes of the file that are below it.
type part struct {
	cid  cid.Cid
	size int
}

// Build puts the corpus into bs.
func Build(ctx context.Context, bs blockstore.Blockstore) (cases []Case, err error) {
	defer func() {
		if r := recover(); r != nil {
			cases, err = nil, fmt.Errorf("corpus: %v", r)
		}
	}()
	b := &builder{ctx, bs}
	cases = make([]Case, 0, 512) // add returns pointers into it
	add := func(name string, c cid.Cid, path string, status int) *Case {
		cases = append(cases, Case{Name: name, Path: "/ipfs/" + c.String() + path, Status: status})
		return &cases[len(cases)-1]
	}

	text := []byte("The quick brown fox jumps over the lazy dog.\n")
	leaves := make([]part, 0, 40)
	for i := range 40 {
		leaves = append(leaves, b.raw(slices.Repeat([]byte{byte('a' + i%26)}, 100+i)))
	}
	var inner []part
	for group := range slices.Chunk(leaves, 8) {
		inner = append(inner, b.file(nil, group))
	}
	levels := func(n int) part {
		p := b.raw(text)
		for range n - 1 {
			p = b.file(nil, []part{p})
		}
		return p
	}
	mebibyte := b.raw(make([]byte, 1<<20))
	files := map[string]part{
		"empty.txt":          b.raw(nil),
		"empty-pb.txt":       b.file(nil, nil),
		"one.txt":            b.raw(text),
		"one.js":             b.raw([]byte("export default 1;\n")),
		"inline.txt":         b.file(text, nil),
		"inline-raw.txt":     b.put(pbCodec, node(meta(0, text, len(text), nil))).of(len(text)),
		"flat.bin":           b.file(nil, leaves),
		"tree.bin":           b.file(nil, inner),
		"data-and-links.txt": b.file(text, leaves[:3]),
		"pb-leaves.txt":      b.file(nil, []part{b.file(text, nil), b.file(text, nil)}),
		"identity.txt":       b.identity(rawCodec, text),
		"of-identity.txt":    b.file(nil, []part{b.identity(rawCodec, text), leaves[0]}),
		"packed-sizes.bin":   b.packed(leaves[:5]),
		"deep.txt":           levels(32),
		"large.bin":          b.file(nil, []part{b.file(nil, []part{mebibyte, mebibyte, mebibyte}), leaves[0]}),
		"data-first.txt":     b.put(pbCodec, append(field(1, meta(2, nil, leaves[0].size, []int{leaves[0].size})), field(2, leaves[0].link(""))...)).of(leaves[0].size),
		"a+b & c;d='e'%.txt": b.raw(text),
		"...":                b.raw(text),
		"gif":                b.raw([]byte("GIF89a----")),
		"name with ü.txt":    b.raw(text),
		"no-name":            b.raw(text),
		"picture":            b.raw([]byte("\x89PNG\r\n\x1a\n----")),
		"binary":             b.raw([]byte{0, 1, 2, 3, 4}),
	}
	root := b.dir(files)
	for _, name := range sorted(files) {
		few := files[name].size == 0 || !strings.Contains(name, ".")
		for _, c := range []*Case{add(name, root, "/"+escape(name), 200), add(name+" by itself", files[name].cid, "?filename=x.bin", 200)} {
			c.Few, c.Later = few, strings.Contains(c.Path, "?") // boot.js leaves such queries alone
			if name == "data-and-links.txt" {
				c.Relay = Different
			}
		}
	}
	add("a file by its CID", files["one.js"].cid, "", 200)
	add("many blocks by their CID", files["tree.bin"].cid, "", 200)
	add("identity by its CID", files["identity.txt"].cid, "", 200)
	for name, data := range map[string]string{
		"markup": "<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", "HTML": "  <!doctype html>", "a mark of byte order": "\xef\xbb\xbftext",
		"an archive": "PK\x03\x04--------", "a vertical tab": "one\vtwo",
	} {
		c := add("a file without a name, "+name, b.raw([]byte(data)).cid, "", 200)
		c.Few, c.Later = true, name != "a vertical tab"
		if name == "markup" {
			c.Relay = Different // boxo says image/svg+xml
		}
	}
	add("small leaves that tell the type together", b.file(nil, []part{b.raw([]byte("\x89PN")), b.raw([]byte("G\r\n\x1a\n----"))}).cid, "", 200).Few = true
	add("a query of no meaning", files["one.js"].cid, "?v=1", 200)
	add("no such name", root, "/nothing.txt", 404)
	add("below a file", root, "/one.txt/x", 404)

	sub := b.dir(map[string]part{"x.css": b.raw([]byte("p{}")), "index.html": b.raw([]byte("<!doctype html><title>x</title>"))})
	nested := b.dir(map[string]part{"a": {cid: b.dir(map[string]part{"b": {cid: sub}})}})
	add("nested", nested, "/a/b/x.css", 200)
	add("a folder's page", nested, "/a/b/", 200)
	add("a folder without its slash", nested, "/a/b", 301)
	add("an empty folder's name", b.dir(nil), "/x", 404)
	add("a listing", nested, "/a/", 200).relay(Different).Later = true

	// Version 0: dag-pb only, and so are its leaves.
	v0 := func(data []byte) part { return part{b.v0(node(meta(2, data, len(data), nil))), len(data)} }
	v0file := b.v0(node(meta(2, nil, 2*len(text), []int{len(text), len(text)}), v0(text).link(""), v0(text).link("")))
	add("version 0", v0file, "", 200)
	v0dir := b.v0(node(meta(1, nil, -1, nil), part{cid: v0file}.link("v0.txt")))
	add("version 0, in a folder", v0dir, "/v0.txt", 200)
	add("version 0, written as version 1", cid.NewCidV1(pbCodec, v0dir.Hash()), "/v0.txt", 200)

	// Directories in identity CIDs, and many of them in each other.
	small := b.raw([]byte("small")).link("s.txt")
	add("a folder in its CID", b.identity(pbCodec, node(meta(1, nil, -1, nil), small)).cid, "/s.txt", 200)
	add("an identity CID that is too long", b.identity(rawCodec, make([]byte, 129)).cid, "", 400).Later = true
	inside, way := b.dir(map[string]part{"x.txt": b.raw(text)}), "/x.txt"
	for range 30 {
		inside, way = b.dir(map[string]part{"d": {cid: inside}}), "/d"+way
	}
	add("a folder in a folder in a folder, 30 times", inside, way, 200)
	add("a name twice", b.put(pbCodec, node(meta(1, nil, -1, nil), b.raw([]byte("first")).link("x.txt"), b.raw([]byte("second")).link("x.txt"))).cid, "/x.txt", 200)

	for _, width := range []int{8, 16, 256, 1024} {
		sharded := map[string]part{}
		for i := range 300 {
			sharded[fmt.Sprintf("file-%03d.txt", i)] = b.raw(fmt.Appendf(nil, "%d of %d", i, width))
		}
		c := b.hamt(sharded, width)
		name := fmt.Sprintf("HAMT of width %d", width)
		add(name, c, "/file-000.txt", 200)
		add(name+", another", c, "/file-299.txt", 200)
		add(name+", no such name", c, "/file-300.txt", 404)
		add(name+", in a folder", b.dir(map[string]part{"h": {cid: c}}), "/h/file-123.txt", 200)
		add(name+", listed", c, "/", 200).relay(Different).Later = true
	}
	shard := func(fanout, hash int, links ...[]byte) cid.Cid {
		return b.put(pbCodec, node(append(append(meta(5, []byte{0xff}, -1, nil), number(5, hash)...), number(6, fanout)...), links...)).cid
	}
	every := func(p part) (links [][]byte) { // whichever slot a name falls into
		for i := range 16 {
			links = append(links, p.link(fmt.Sprintf("%X", i)))
		}
		return links
	}
	add("HAMT of width 4", shard(4, 0x22), "/x", 502).relay(500)
	add("HAMT of width 12", shard(12, 0x22), "/x", 502).relay(500)
	add("HAMT of width 2048", shard(2048, 0x22), "/x", 502).relay(500)
	add("HAMT by another hash", shard(16, 0x12), "/x", 502).relay(500).Later = true
	add("HAMT with a name and no slot", shard(256, 0x22, b.raw(text).link("F")), "/x", 502).relay(Different)
	add("HAMT with more links than slots", shard(8, 0x22, every(b.raw(text))...), "/x", 502).relay(Different)
	add("HAMT whose shards are files", shard(16, 0x22, every(b.raw(text))...), "/x", 502).relay(Different)
	add("HAMT whose shards are folders", shard(16, 0x22, every(part{cid: sub})...), "/x", 502).relay(500)
	bottomless := part{cid: shard(16, 0x22, b.raw(text).link("Ax"))}
	for range 17 { // a level more than the hash has digits
		bottomless = part{cid: shard(16, 0x22, every(bottomless)...)}
	}
	add("HAMT deeper than its hash", bottomless.cid, "/x", 502).relay(Different)

	link := b.put(pbCodec, node(meta(4, []byte("one.txt"), -1, nil)))
	add("symlink", b.dir(map[string]part{"link": {cid: link.cid}}), "/link", 200).Later = true

	add("symlink with children", b.put(pbCodec, node(meta(4, []byte("one.txt"), -1, nil), leaves[0].link(""))).cid, "", 200).relay(Different).Later = true

	// What is neither file nor directory.
	add("dag-cbor", b.put(cid.DagCBOR, []byte{0xa1, 0x61, 'a', 0x01}).cid, "", 406).relay(200).Later = true
	add("dag-json", b.put(cid.DagJSON, []byte(`{"a":1}`)).cid, "", 406).relay(200).Later = true
	add("dag-pb without UnixFS", b.put(pbCodec, node(nil)).cid, "", 406).relay(500).Later = true
	add("metadata", b.put(pbCodec, node(meta(3, nil, -1, nil))).cid, "", 406).relay(500).Later = true

	// Malformed: what verified is still not what it says.
	add("not protobuf", b.put(pbCodec, []byte{0xff, 0xff, 0xff}).cid, "", 502).relay(500)
	add("UnixFS that is not protobuf", b.put(pbCodec, node([]byte{0xff, 0xff})).cid, "", 406).relay(500).Later = true
	add("a field cut off", b.put(pbCodec, []byte{0x0a, 0x7f, 0x08}).cid, "", 502).relay(500)
	add("a link without CID", b.put(pbCodec, append(field(2, field(2, []byte("x"))), field(1, meta(1, nil, -1, nil))...)).cid, "/x", 502).relay(500)

	add("a field of no number", b.put(pbCodec, append(node(meta(1, nil, -1, nil)), 0x02, 0x00)).cid, "/x", 502).relay(500)
	add("two fields of data", b.put(pbCodec, append(node(meta(1, nil, -1, nil)), field(1, meta(1, nil, -1, nil))...)).cid, "/x", 502).relay(500)
	add("links in two places", b.put(pbCodec, append(node(meta(1, nil, -1, nil), small), field(2, small)...)).cid, "/s.txt", 502).relay(500)
	add("a link's name before its CID", b.put(pbCodec, node(meta(1, nil, -1, nil), append(field(2, []byte("x")), field(1, leaves[0].cid.Bytes())...))).cid, "/x", 502).relay(500)
	add("a link's size beyond counting", b.put(pbCodec, node(meta(1, nil, -1, nil), huge(append(field(1, leaves[0].cid.Bytes()), field(2, []byte("h.txt"))...)))).cid, "/h.txt", 200)
	add("UnixFS of an unknown type", b.put(pbCodec, node(meta(9, nil, -1, nil))).cid, "", 406).relay(500).Later = true
	add("UnixFS with a field of another type", b.put(pbCodec, node(append(meta(2, text, len(text), nil), field(1, []byte("x"))...))).cid, "", 200)

	// Files whose nodes contradict each other. The block that gives the lie is
	// as its CID says, so it is nobody's but the publisher's.
	lie := func(size int, sizes []int, below ...part) part {
		var links [][]byte
		for _, p := range below {
			links = append(links, p.link(""))
		}
		return b.put(pbCodec, node(meta(2, nil, size, sizes), links...)).of(size)
	}
	leaf := leaves[0]
	for _, l := range []struct {
		name string
		part
	}{
		{"a child shorter than its parent says", lie(leaf.size+5, []int{leaf.size + 5}, leaf)},
		{"a child longer than its parent says", lie(leaf.size-5, []int{leaf.size - 5}, leaf)},
		{"a file larger than its parts", lie(leaf.size+5, []int{leaf.size}, leaf)},
		{"a file smaller than its parts", lie(leaf.size-5, []int{leaf.size}, leaf)},
		{"more children than sizes", lie(leaf.size, []int{leaf.size}, leaf, leaf)},
		{"more sizes than children", lie(2*leaf.size, []int{leaf.size, leaf.size}, leaf)},
		{"a last child that is shorter", lie(2*leaf.size+5, []int{leaf.size, leaf.size + 5}, leaf, leaf)},
		{"a grandchild that is longer", lie(2*leaf.size-5, []int{leaf.size, leaf.size - 5}, leaf, lie(leaf.size-5, []int{leaf.size - 5}, leaf))},
		{"a child of a terabyte that is a leaf", lie(1<<40, []int{1 << 40}, leaf)},
		{"a folder in a file", lie(leaf.size, []int{leaf.size}, part{cid: sub})},
		{"33 levels", levels(33)},
	} {
		add(l.name, l.cid, "", 502).Relay = Different
	}
	add("a child of more bytes than JavaScript counts", lie(1<<62, []int{1 << 62}, leaf).cid, "", 502).relay(Different).Later = true
	add("a child of another codec", lie(3, []int{3}, b.put(cid.DagCBOR, []byte{0x82, 1, 2})).cid, "", 502).relay(Different).Later = true
	add("a symlink in a file", lie(3, []int{3}, b.put(pbCodec, node(meta(4, []byte("one"), -1, nil)))).cid, "", 502).relay(Different).Later = true
	add("a file that does not say its size", lie(-1, []int{leaf.size}, leaf).cid, "", 200).relay(Different)
	add("a file that says it is empty", lie(0, []int{leaf.size}, leaf).cid, "", 200).relay(Different)

	missing := part{cid.NewCidV1(rawCodec, sum([]byte("nobody has this"))), 15}
	add("a missing entry", b.dir(map[string]part{"gone.txt": missing}), "/gone.txt", 504).Later = true
	return cases, nil
}

// Mutate puts n blocks into bs that are DAG-PB blocks of the corpus with a few
// bytes changed, the same for the same seed. Each is asked for by its CID, and
// for a name in it.
func Mutate(ctx context.Context, bs blockstore.Blockstore, seed uint64, n int) (cases []Case, err error) {
	defer func() {
		if r := recover(); r != nil {
			cases, err = nil, fmt.Errorf("corpus: %v", r)
		}
	}()
	b := &builder{ctx, bs}
	keys, err := bs.AllKeysChan(ctx)
	must(err)
	var all []cid.Cid
	for c := range keys {
		// The store knows multihashes only: a node is what decodes as one.
		block, err := bs.Get(ctx, c)
		must(err)
		if _, err := merkledag.DecodeProtobuf(block.RawData()); err == nil && len(block.RawData()) < 4<<10 {
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b cid.Cid) int { return strings.Compare(a.KeyString(), b.KeyString()) })
	r := rand.New(rand.NewPCG(seed, seed))
	for i := range n {
		block, err := bs.Get(ctx, all[r.IntN(len(all))])
		must(err)
		data := slices.Clone(block.RawData())
		for range 1 + r.IntN(3) {
			at := r.IntN(len(data) + 1)
			switch r.IntN(4) {
			case 0:
				data = slices.Insert(data, at, byte(r.IntN(256)))
			case 1:
				data = data[:at]
			default:
				if at < len(data) {
					data[at] = byte(r.IntN(256)) >> r.IntN(8)
				}
			}
		}
		path := "/ipfs/" + b.put(pbCodec, data).cid.String()
		if i%2 == 0 {
			path += "/x.txt"
		}
		cases = append(cases, Case{Name: fmt.Sprintf("mutant %d of seed %d", i, seed), Path: path, Status: Any, Relay: Different})
	}
	return cases, nil
}

// relay sets the relay's status.
func (c *Case) relay(status int) *Case {
	c.Relay = status
	return c
}

func (p part) of(size int) part { return part{p.cid, size} }

// link is the link of a DAG-PB node to p.
func (p part) link(name string) []byte {
	out := field(1, p.cid.Bytes())
	out = append(out, field(2, []byte(name))...)
	return append(out, number(3, p.size)...)
}

func sum(data []byte) multihash.Multihash {
	h, err := multihash.Sum(data, multihash.SHA2_256, -1)
	must(err)
	return h
}

func (b *builder) store(c cid.Cid, data []byte) cid.Cid {
	block, err := blocks.NewBlockWithCid(data, c)
	must(err)
	must(b.bs.Put(b.ctx, block))
	return c
}

func (b *builder) put(codec uint64, data []byte) part {
	return part{b.store(cid.NewCidV1(codec, sum(data)), data), 0}
}

func (b *builder) v0(data []byte) cid.Cid { return b.store(cid.NewCidV0(sum(data)), data) }

func (b *builder) raw(data []byte) part { return b.put(rawCodec, data).of(len(data)) }

// identity is a block that is in its CID.
func (b *builder) identity(codec uint64, data []byte) part {
	h, err := multihash.Sum(data, multihash.IDENTITY, -1)
	must(err)
	return part{cid.NewCidV1(codec, h), len(data)}
}

// file is a UnixFS file: data, and then what is below.
func (b *builder) file(data []byte, below []part) part {
	size := len(data)
	var links [][]byte
	var sizes []int
	for _, p := range below {
		size += p.size
		links, sizes = append(links, p.link("")), append(sizes, p.size)
	}
	return b.put(pbCodec, node(meta(2, data, size, sizes), links...)).of(size)
}

// packed is a file whose sizes are written as proto3 writes them.
func (b *builder) packed(below []part) part {
	size := 0
	var sizes []byte
	var links [][]byte
	for _, p := range below {
		size += p.size
		sizes = binary.AppendUvarint(sizes, uint64(p.size))
		links = append(links, p.link(""))
	}
	m := append(number(1, 2), number(3, size)...)
	return b.put(pbCodec, node(append(m, field(4, sizes)...), links...)).of(size)
}

func (b *builder) dir(entries map[string]part) cid.Cid {
	var links [][]byte
	for _, name := range sorted(entries) {
		links = append(links, entries[name].link(name))
	}
	return b.put(pbCodec, node(meta(1, nil, -1, nil), links...)).cid
}

func (b *builder) hamt(entries map[string]part, width int) cid.Cid {
	dag := service{b}
	shard, err := hamt.NewShard(dag, width)
	must(err)
	shard.SetCidBuilder(cid.V1Builder{Codec: pbCodec, MhType: multihash.SHA2_256})
	for _, name := range sorted(entries) {
		data, err := b.bs.Get(b.ctx, entries[name].cid)
		must(err)
		must(shard.Set(b.ctx, name, merkledag.NewRawNode(data.RawData())))
	}
	root, err := shard.Node()
	must(err)
	must(dag.Add(b.ctx, root))
	return root.Cid()
}

// service is as much of a DAG service as a HAMT needs.
type service struct{ b *builder }

var _ ipld.DAGService = service{}

func (s service) Get(ctx context.Context, c cid.Cid) (ipld.Node, error) {
	block, err := s.b.bs.Get(ctx, c)
	if err != nil {
		return nil, err
	}
	if c.Type() == rawCodec {
		return merkledag.NewRawNode(block.RawData()), nil
	}
	return merkledag.DecodeProtobufBlock(block)
}

func (s service) GetMany(context.Context, []cid.Cid) <-chan *ipld.NodeOption { panic("not needed") }
func (s service) Add(ctx context.Context, n ipld.Node) error                 { return s.b.bs.Put(ctx, n) }
func (s service) AddMany(ctx context.Context, ns []ipld.Node) error {
	for _, n := range ns {
		if err := s.Add(ctx, n); err != nil {
			return err
		}
	}
	return nil
}
func (s service) Remove(context.Context, cid.Cid) error       { panic("not needed") }
func (s service) RemoveMany(context.Context, []cid.Cid) error { panic("not needed") }

// meta is a UnixFS message; a size of -1 is left out.
func meta(kind int, data []byte, size int, sizes []int) []byte {
	out := number(1, kind)
	if data != nil {
		out = append(out, field(2, data)...)
	}
	if size >= 0 {
		out = append(out, number(3, size)...)
	}
	for _, s := range sizes {
		out = append(out, number(4, s)...)
	}
	return out
}

// node is a DAG-PB node; without meta it has no data.
func node(meta []byte, links ...[]byte) []byte {
	var out []byte
	for _, l := range links {
		out = append(out, field(2, l)...)
	}
	if meta != nil {
		out = append(out, field(1, meta)...)
	}
	return out
}

// field is a protobuf field of bytes, number one of a number.
func field(n int, data []byte) []byte {
	out := binary.AppendUvarint(nil, uint64(n<<3|2))
	return append(binary.AppendUvarint(out, uint64(len(data))), data...)
}

func number(n, v int) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(nil, uint64(n<<3)), uint64(v))
}

// huge appends the size of a link that no file has, in the most bytes there are.
func huge(link []byte) []byte {
	return append(append(link, 3<<3), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01)
}

func sorted(m map[string]part) []string { return slices.Sorted(maps.Keys(m)) }

// escape is a name in a path.
func escape(name string) string { return url.PathEscape(name) }

func must(err error) {
	if err != nil {
		panic(err)
	}
}
