package node

import (
	"bytes"
	"context"

	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/exchange"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// boxo's Bitswap server takes a block of size 0, the one of an empty file, for
// one that is absent (v0.42.1, bitswap/server/internal/decision, getBlockSizes),
// and so does every Kubo. So nobody is asked for it, and to others it is served
// as if its size were 1.

// emptyHash is the SHA-256 of no bytes, as a multihash.
var emptyHash = func() multihash.Multihash {
	mh, err := multihash.Sum(nil, multihash.SHA2_256, -1)
	if err != nil {
		panic(err) // the function is always linked
	}
	return mh
}()

// ServesEmpty returns bs in the form to give to a Bitswap server: with it, that
// serves the empty block too. The size only decides how much goes into one
// message.
func ServesEmpty(bs blockstore.Blockstore) blockstore.Blockstore { return servesEmpty{bs} }

type servesEmpty struct{ blockstore.Blockstore }

func (s servesEmpty) GetSize(ctx context.Context, c cid.Cid) (int, error) {
	n, err := s.Blockstore.GetSize(ctx, c)
	if err != nil {
		return n, err
	}
	return max(n, 1), nil
}

// KnowsEmpty returns ex in the form to give to a block service: with it, the
// empty block needs no peer.
func KnowsEmpty(ex exchange.SessionExchange) exchange.SessionExchange {
	return emptyExchange{ex, emptyFetcher{ex}}
}

type emptyExchange struct {
	exchange.SessionExchange
	fetcher emptyFetcher
}

func (e emptyExchange) NewSession(ctx context.Context) exchange.Fetcher {
	return emptyFetcher{e.SessionExchange.NewSession(ctx)}
}

func (e emptyExchange) GetBlock(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	return e.fetcher.GetBlock(ctx, c)
}

func (e emptyExchange) GetBlocks(ctx context.Context, cs []cid.Cid) (<-chan blocks.Block, error) {
	return e.fetcher.GetBlocks(ctx, cs)
}

type emptyFetcher struct{ inner exchange.Fetcher }

func (f emptyFetcher) GetBlock(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	if bytes.Equal(c.Hash(), emptyHash) {
		return blocks.NewBlockWithCid([]byte{}, c)
	}
	return f.inner.GetBlock(ctx, c)
}

func (f emptyFetcher) GetBlocks(ctx context.Context, cs []cid.Cid) (<-chan blocks.Block, error) {
	var known []blocks.Block
	var rest []cid.Cid
	for _, c := range cs {
		if !bytes.Equal(c.Hash(), emptyHash) {
			rest = append(rest, c)
			continue
		}
		b, err := blocks.NewBlockWithCid([]byte{}, c)
		if err != nil {
			return nil, err
		}
		known = append(known, b)
	}
	if len(known) == 0 {
		return f.inner.GetBlocks(ctx, cs)
	}
	in, err := f.inner.GetBlocks(ctx, rest)
	if err != nil {
		return nil, err
	}
	out := make(chan blocks.Block, len(known))
	for _, b := range known {
		out <- b
	}
	go func() { // until ctx ends, or all came
		defer close(out)
		for b := range in {
			select {
			case out <- b:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}
