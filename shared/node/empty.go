package node

import (
	"context"

	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/go-cid"
)

// ServesEmpty returns bs in the form to give to a Bitswap server: with it, that
// serves the empty block too, the one of an empty file. boxo's server takes a
// block of size 0 for one that is absent (v0.42.1, bitswap/server/internal/
// decision, getBlockSizes); here its size is 1. The size only decides how much
// goes into one message.
func ServesEmpty(bs blockstore.Blockstore) blockstore.Blockstore { return servesEmpty{bs} }

type servesEmpty struct{ blockstore.Blockstore }

func (s servesEmpty) GetSize(ctx context.Context, c cid.Cid) (int, error) {
	n, err := s.Blockstore.GetSize(ctx, c)
	if err != nil {
		return n, err
	}
	return max(n, 1), nil
}
