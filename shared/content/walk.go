package content

import (
	"context"
	"fmt"
	"slices"

	"github.com/ipfs/boxo/ipld/merkledag"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// A WalkOption changes a [Walk].
type WalkOption func(*walk)

type walk struct{ parallel int }

// WithParallel sets how many blocks are fetched, and held, at once; the
// default is 16.
func WithParallel(n int) WalkOption { return func(w *walk) { w.parallel = max(n, 1) } }

// Walk fetches the DAG under root and calls visit for every distinct block of
// it, root too, one call at a time, in no order. A block that CIDs carry in
// themselves (identity) is not visited. visit's error ends the walk and is
// returned. Otherwise the error wraps [ErrBadBlock], [ErrNotUnixFS] (a codec
// other than dag-pb and raw), or is get's.
//
// It holds a CID for every block seen, and only as many blocks as are fetched
// at once.
func Walk(ctx context.Context, get Getter, root cid.Cid, visit func(blocks.Block) error, opts ...WalkOption) error {
	w := walk{parallel: 16}
	for _, o := range opts {
		o(&w)
	}
	ctx, cancel := context.WithCancel(ctx)
	type result struct {
		block blocks.Block
		links []cid.Cid
		err   error
	}
	results := make(chan result)
	running := 0
	defer func() { // in this order: cancel, then wait for what runs
		cancel()
		for ; running > 0; running-- {
			<-results
		}
	}()
	// A stack, so that one file's blocks come after another and what waits
	// stays as small as the DAG is deep.
	seen, todo := cid.NewSet(), []cid.Cid{root}
	seen.Add(root)
	for len(todo) > 0 || running > 0 {
		for len(todo) > 0 && running < w.parallel {
			c := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			running++
			go func() {
				var r result
				var data []byte
				if data, r.err = Block(ctx, get, c); r.err == nil {
					if r.links, r.err = links(c, data); r.err == nil && c.Prefix().MhType != multihash.IDENTITY {
						r.block, r.err = blocks.NewBlockWithCid(data, c)
					}
				}
				results <- r
			}()
		}
		r := <-results
		running--
		if r.err == nil && r.block != nil {
			r.err = visit(r.block)
		}
		if r.err != nil {
			return r.err
		}
		for _, c := range slices.Backward(r.links) {
			if seen.Visit(c) {
				todo = append(todo, c)
			}
		}
	}
	return nil
}

// links returns what the block of c links to.
func links(c cid.Cid, data []byte) ([]cid.Cid, error) {
	switch c.Type() {
	case cid.Raw:
		return nil, nil
	case cid.DagProtobuf:
		pb, err := merkledag.DecodeProtobuf(data)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrBadBlock, c, err)
		}
		var list []cid.Cid
		for _, l := range pb.Links() {
			list = append(list, l.Cid)
		}
		return list, nil
	}
	return nil, fmt.Errorf("%w: %s has codec 0x%x", ErrNotUnixFS, c, c.Type())
}
