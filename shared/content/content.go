// Package content writes and reads UnixFS: files and directories as DAGs of
// blocks.
//
// What [Add] writes has the same CIDs as any other implementation's profile
// unixfs-v1-2025 of IPIP-499 (Kubo 0.43 with --profile=unixfs-v1-2025):
// CIDv1, SHA-256, raw leaves of 1 MiB, 1,024 links per file node, HAMT
// directories of fan-out 256 past a block of 256 KiB. Neither modes nor times
// are kept.
//
// What is read comes from foreign hands. A reader holds a bounded number of
// blocks however large the file is, follows no chain deeper than a real DAG
// needs, and answers every malformed block with an error that wraps
// [ErrBadBlock]. That a block's bytes hash to its CID is the [Getter]'s part
// (Bitswap hashes each block it receives); [Check] is for bytes that come
// another way.
//
// The neighbours: shared/gateway answers requests with it, relay/publish adds
// with it, relay/server pulls with [Walk].
package content

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

const (
	// MaxBlockSize is the largest block accepted, in bytes: 2 MiB, the size every
	// Bitswap peer must handle (https://specs.ipfs.tech/bitswap-protocol/#block-sizes).
	MaxBlockSize = 2 << 20
	// MaxFileDepth is how many levels of nodes a file may have. Two levels of
	// 1,024 links are a TiB; trickle DAGs of 256 KiB chunks stay under 20.
	MaxFileDepth = 32
	// MaxShardDepth is how many levels of nodes a HAMT directory may have: the
	// 64 bits of a name's hash, by the three bits of the smallest fan-out, 8.
	MaxShardDepth = 22
)

var (
	// ErrNotFound means that a directory has no entry of that name.
	ErrNotFound = errors.New("content: no such path")
	// ErrNotDir means that a path goes on below a file.
	ErrNotDir = errors.New("content: not a directory")
	// ErrNotFile means that a directory was to be opened as a file.
	ErrNotFile = errors.New("content: not a file")
	// ErrNotUnixFS means a block of another codec, or dag-pb that is not UnixFS.
	ErrNotUnixFS = errors.New("content: not UnixFS")
	// ErrBadBlock means a block whose bytes do not hash to its CID, or do not
	// decode, or contradict their parent.
	ErrBadBlock = errors.New("content: bad block")
	// ErrTooDeep means a DAG deeper than [MaxFileDepth] or [MaxShardDepth]. It
	// wraps [ErrBadBlock].
	ErrTooDeep = fmt.Errorf("%w: nested too deep", ErrBadBlock)
	// ErrTooLarge means a block over [MaxBlockSize]. It wraps [ErrBadBlock].
	ErrTooLarge = fmt.Errorf("%w: larger than 2 MiB", ErrBadBlock)
)

// A Getter fetches one block. boxo's blockservice.BlockService and its Session
// are Getters. It must be safe for concurrent use: readers ask for many blocks
// at once.
type Getter interface {
	GetBlock(ctx context.Context, c cid.Cid) (blocks.Block, error)
}

// Check tells whether data are the bytes of c: its error wraps [ErrTooLarge] or
// [ErrBadBlock], or is go-multihash's for a hash function that is not linked.
func Check(c cid.Cid, data []byte) error {
	if len(data) > MaxBlockSize {
		return fmt.Errorf("%w: %s has %d bytes", ErrTooLarge, c, len(data))
	}
	want, err := multihash.Decode(c.Hash())
	if err != nil {
		return fmt.Errorf("content: check %s: %w", c, err)
	}
	got, err := multihash.Sum(data, want.Code, want.Length)
	if err != nil {
		return fmt.Errorf("content: check %s: %w", c, err)
	}
	if !bytes.Equal(got, c.Hash()) {
		return fmt.Errorf("%w: the bytes do not hash to %s", ErrBadBlock, c)
	}
	return nil
}

// Block gets the bytes of c and holds them to [MaxBlockSize]. An identity CID carries its
// block in itself.
func Block(ctx context.Context, get Getter, c cid.Cid) ([]byte, error) {
	if c.Prefix().MhType == multihash.IDENTITY {
		mh, err := multihash.Decode(c.Hash())
		if err != nil {
			return nil, fmt.Errorf("%w: identity CID: %w", ErrBadBlock, err)
		}
		return mh.Digest, nil
	}
	b, err := get.GetBlock(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("content: get %s: %w", c, err)
	}
	if n := len(b.RawData()); n > MaxBlockSize {
		return nil, fmt.Errorf("%w: %s has %d bytes", ErrTooLarge, c, n)
	}
	return b.RawData(), nil
}
