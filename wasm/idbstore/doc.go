// Package idbstore keeps blocks, pins and small records in IndexedDB, behind
// boxo's Blockstore.
//
// A block is keyed by its multihash. Put returns once the block is queued: it
// can be read from then on, and a writer puts the queue into the database, up
// to [batchBlocks] blocks or [batchBytes] bytes a transaction. [Store.Flush]
// waits until everything is durable. A block given to Put must be verified
// already: nothing is hashed here.
//
// What does not fit is made room for by deleting the blocks that were used
// longest ago, never one that is pinned, being read, still queued, or used
// within [graceTime]. A block that then still does not fit is dropped, which
// the reader of a fetched block need not notice; Flush reports it with
// [ErrQuota].
//
// One instance of a Service Worker owns the database. While the browser
// replaces it by another, two may have it open: each then finds the other's
// blocks in the database, and takes a block the other evicted for absent.
package idbstore

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"time"

	"github.com/multiformats/go-multihash"
)

var (
	// ErrQuota means that the browser gives no more room.
	ErrQuota = errors.New("idbstore: storage quota exceeded")
	// ErrTooLarge means a block over [MaxBlockSize].
	ErrTooLarge = errors.New("idbstore: block too large")
	// ErrVersion means a database that a later version of Weft wrote.
	ErrVersion = errors.New("idbstore: database of a later version")
	// ErrClosed means that the store was closed.
	ErrClosed = errors.New("idbstore: closed")
	// ErrMalformed means a record that this package did not write.
	ErrMalformed = errors.New("idbstore: malformed record")
)

// MaxBlockSize is the largest block kept, in bytes: 2 MiB, the size every
// Bitswap peer must handle (https://specs.ipfs.tech/bitswap-protocol/#block-sizes).
const MaxBlockSize = 2 << 20

func keyOf(mh multihash.Multihash) string { return base64.RawURLEncoding.EncodeToString(mh) }

func hashOf(key string) (multihash.Multihash, error) {
	b, err := base64.RawURLEncoding.DecodeString(key)
	if err != nil {
		return nil, errors.Join(ErrMalformed, err)
	}
	mh, err := multihash.Cast(b)
	if err != nil {
		return nil, errors.Join(ErrMalformed, err)
	}
	return mh, nil
}

// entryCode packs a block's size, under 2^22, and the minute of its last use
// since 1970 in one number that a float64 holds exactly: JavaScript's only kind.
func entryCode(size int, used time.Time) float64 {
	return float64(used.Unix()/60<<22 | int64(size))
}

// entryOf is the reverse of entryCode.
func entryOf(code float64) (size int, used time.Time, err error) {
	if !(code >= 0 && code < 1<<53) || code != float64(int64(code)) {
		return 0, time.Time{}, ErrMalformed
	}
	n := int64(code)
	if size = int(n & (1<<22 - 1)); size > MaxBlockSize {
		return 0, time.Time{}, ErrMalformed
	}
	return size, time.Unix(n>>22*60, 0), nil
}

// appendKeys appends keys to b, each as the length and bytes of its multihash.
func appendKeys(b []byte, keys []string) ([]byte, error) {
	for _, k := range keys {
		mh, err := hashOf(k)
		if err != nil {
			return nil, err
		}
		b = binary.AppendUvarint(b, uint64(len(mh)))
		b = append(b, mh...)
	}
	return b, nil
}

// parseKeys is the reverse of appendKeys. Its error wraps [ErrMalformed].
func parseKeys(b []byte) ([]string, error) {
	var keys []string
	for len(b) > 0 {
		n, w := binary.Uvarint(b)
		if w <= 0 || n > uint64(len(b)-w) {
			return nil, ErrMalformed
		}
		mh, err := multihash.Cast(b[w : w+int(n)])
		if err != nil {
			return nil, errors.Join(ErrMalformed, err)
		}
		keys = append(keys, keyOf(mh))
		b = b[w+int(n):]
	}
	return keys, nil
}
