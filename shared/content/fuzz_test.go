package content

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/fstest"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/multiformats/go-multihash"
)

// one is a getter that answers every CID with the same bytes: a DAG as deep,
// as cyclic and as contradictory as bytes can say.
type one struct{ data []byte }

func (o one) GetBlock(_ context.Context, c cid.Cid) (blocks.Block, error) {
	return blocks.NewBlockWithCid(o.data, c)
}

// FuzzBlock gives a foreign block to everything that decodes one. Nothing
// panics, goes on for ever, or reads more or less than the size it announced.
func FuzzBlock(f *testing.F) {
	bs := blockservice.New(blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore())), nil)
	dag := merkledag.NewDAGService(bs)
	many := fstest.MapFS{"large": {Data: make([]byte, 3<<20)}, "small": {Data: []byte("x")}}
	st, err := Add(f.Context(), dag, many, ".")
	if err != nil {
		f.Fatal(err)
	}
	err = Walk(f.Context(), bs, st.Root, func(b blocks.Block) error {
		if b.Cid().Type() == cid.DagProtobuf {
			f.Add(b.RawData(), "small")
		}
		return nil
	})
	if err != nil {
		f.Fatal(err)
	}
	for _, fanout := range []uint64{8, 256, 1024, 3} {
		shard, err := unixfs.HAMTShardData([]byte{1}, fanout, shardHash)
		if err != nil {
			f.Fatal(err)
		}
		nd := merkledag.NodeWithData(shard)
		for _, name := range []string{"00", "0", "000", "0Asmall", "../x"} {
			if err := nd.AddNodeLink(name, merkledag.NewRawNode(nil)); err != nil {
				f.Fatal(err)
			}
		}
		f.Add(nd.RawData(), "small")
	}
	link, err := unixfs.SymlinkData("../x")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(merkledag.NodeWithData(link).RawData(), "a")
	// A symlink with children, as if it were a file: reading it panicked.
	children := merkledag.NodeWithData(link)
	if err := children.AddNodeLink("", merkledag.NewRawNode([]byte("x"))); err != nil {
		f.Fatal(err)
	}
	f.Add(children.RawData(), "a")
	f.Add([]byte{}, "")
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		if len(data) > 64<<10 {
			return
		}
		ctx, get := t.Context(), one{data}
		mh, err := multihash.Sum(data, multihash.SHA2_256, -1)
		if err != nil {
			t.Fatal(err)
		}
		c := cid.NewCidV1(cid.DagProtobuf, mh)
		known := func(err error) {
			if err != nil && !errors.Is(err, ErrBadBlock) && !errors.Is(err, ErrNotUnixFS) && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrNotDir) {
				t.Errorf("an error without a name: %v", err)
			}
		}
		_, err = Resolve(ctx, get, c, []string{name})
		known(err)
		entries := 0
		for _, err := range List(ctx, get, c) {
			known(err)
			if entries++; entries > 1000 {
				break
			}
		}
		found, err := Resolve(ctx, get, c, nil)
		known(err)
		if err != nil || found.Kind == Dir {
			return
		}
		r, err := OpenRange(ctx, get, found, 0, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		n, err := io.Copy(io.Discard, r)
		known(err)
		if err == nil && n != min(found.Size, 1<<20) {
			t.Errorf("read %d bytes of %d", n, found.Size)
		}
	})
}

// FuzzCheck: only the very bytes pass.
func FuzzCheck(f *testing.F) {
	f.Add([]byte("a"), []byte("b"), uint64(multihash.SHA2_256))
	f.Add([]byte("a"), []byte("a"), uint64(multihash.IDENTITY))
	f.Add([]byte{}, []byte("a"), uint64(0x9999))
	f.Fuzz(func(t *testing.T, right, other []byte, code uint64) {
		mh, err := multihash.Sum(right, code, -1)
		if err != nil {
			return
		}
		c := cid.NewCidV1(cid.Raw, mh)
		if err := Check(c, right); err != nil {
			t.Errorf("the right bytes: %v", err)
		}
		if err := Check(c, other); err == nil && string(right) != string(other) {
			t.Error("other bytes passed")
		}
	})
}
