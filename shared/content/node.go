package content

import (
	"context"
	"fmt"
	"math"
	"math/bits"
	"strings"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/go-cid"
	"github.com/spaolacci/murmur3"
)

// Kind tells files from directories.
type Kind uint8

const (
	File Kind = iota + 1
	Dir
	Symlink
)

// A node is one decoded block of UnixFS.
type node struct {
	kind   Kind
	data   []byte   // a file's own bytes, which come before its children's; a symlink's target
	links  []link   // a directory's entries, or a file's children
	sizes  []uint64 // bytes of each child of a file
	size   int64    // bytes of a file or symlink
	fanout int      // of a HAMT shard, else 0
	weight int      // bytes of the block
}

type link struct {
	name string
	cid  cid.Cid
	size uint64
}

// load fetches and decodes the block of c.
func load(ctx context.Context, get Getter, c cid.Cid) (*node, error) {
	if cached, ok := get.(cachedGetter); ok {
		return cached.load(ctx, c)
	}
	data, err := Block(ctx, get, c)
	if err != nil {
		return nil, err
	}
	return decode(c, data)
}

// decode reads a block that is not trusted. Its error wraps ErrNotUnixFS or
// ErrBadBlock.
func decode(c cid.Cid, data []byte) (*node, error) {
	switch c.Type() {
	case cid.Raw:
		return &node{kind: File, data: data, size: int64(len(data)), weight: len(data)}, nil
	case cid.DagProtobuf:
	default:
		return nil, fmt.Errorf("%w: %s has codec 0x%x", ErrNotUnixFS, c, c.Type())
	}
	pb, err := merkledag.DecodeProtobuf(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrBadBlock, c, err)
	}
	fs, err := unixfs.FSNodeFromBytes(pb.Data())
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrNotUnixFS, c, err)
	}
	n := &node{data: fs.Data(), weight: len(data)}
	for _, l := range pb.Links() {
		n.links = append(n.links, link{l.Name, l.Cid, l.Size})
	}
	switch fs.Type() {
	case unixfs.TFile, unixfs.TRaw:
		n.kind, n.sizes = File, fs.BlockSizes()
		if len(n.sizes) != len(n.links) {
			return nil, fmt.Errorf("%w: %s has %d children and the sizes of %d", ErrBadBlock, c, len(n.links), len(n.sizes))
		}
		total := uint64(len(n.data))
		for _, s := range n.sizes {
			if s > math.MaxInt64-total {
				return nil, fmt.Errorf("%w: %s claims more bytes than can be counted", ErrBadBlock, c)
			}
			total += s
		}
		if said := fs.FileSize(); said != 0 && said != total {
			return nil, fmt.Errorf("%w: %s claims %d bytes, its parts have %d", ErrBadBlock, c, said, total)
		}
		n.size = int64(total)
	case unixfs.TSymlink:
		// Its target is all there is to it: links of it lead nowhere.
		n.kind, n.size, n.links = Symlink, int64(len(n.data)), nil
	case unixfs.TDirectory:
		n.kind = Dir
	case unixfs.THAMTShard:
		n.kind = Dir
		f := fs.Fanout()
		// boxo's bounds: a power of two, 8 to 1,024.
		if f < 8 || f > 1024 || bits.OnesCount64(f) != 1 {
			return nil, fmt.Errorf("%w: %s is a shard of fan-out %d", ErrBadBlock, c, f)
		}
		if h := fs.HashType(); h != shardHash {
			return nil, fmt.Errorf("%w: %s is a shard by hash 0x%x", ErrBadBlock, c, h)
		}
		if uint64(len(n.links)) > f {
			return nil, fmt.Errorf("%w: %s is a shard of fan-out %d with %d links", ErrBadBlock, c, f, len(n.links))
		}
		n.fanout = int(f)
		for _, l := range n.links {
			if len(l.name) < n.prefix() {
				return nil, fmt.Errorf("%w: %s is a shard with a link named %q", ErrBadBlock, c, l.name)
			}
		}
	default:
		return nil, fmt.Errorf("%w: %s is of UnixFS type %v", ErrNotUnixFS, c, fs.Type())
	}
	return n, nil
}

// shardHash is murmur3-x64-64, the one hash HAMT directories use.
const shardHash = 0x22

// prefix is the length of the slot number, in hexadecimal, before a name in a shard.
func (n *node) prefix() int { return (bits.Len(uint(n.fanout-1)) + 3) / 4 }

// find returns the link of name in the directory n, whose shards it loads.
func (n *node) find(ctx context.Context, get Getter, dir cid.Cid, name string) (link, error) {
	if n.fanout == 0 {
		for _, l := range n.links {
			if l.name == name {
				return l, nil
			}
		}
		return link{}, fmt.Errorf("%w: %q in %s", ErrNotFound, name, dir)
	}
	hash, left := murmur3.Sum64([]byte(name)), 64
	for at := dir; ; {
		width := bits.TrailingZeros(uint(n.fanout))
		if width > left {
			return link{}, fmt.Errorf("%w: shard %s", ErrTooDeep, at)
		}
		slot := fmt.Sprintf("%0*X", n.prefix(), hash>>(64-width))
		hash, left = hash<<width, left-width
		var child cid.Cid
		for _, l := range n.links {
			if !strings.HasPrefix(l.name, slot) {
				continue
			}
			if rest := l.name[len(slot):]; rest == "" {
				child = l.cid
			} else if rest == name {
				return l, nil
			}
		}
		if !child.Defined() {
			return link{}, fmt.Errorf("%w: %q in %s", ErrNotFound, name, dir)
		}
		next, err := load(ctx, get, child)
		if err != nil {
			return link{}, err
		}
		if next.fanout == 0 {
			return link{}, fmt.Errorf("%w: %s is no shard, its parent %s is", ErrBadBlock, child, at)
		}
		n, at = next, child
	}
}
