//go:build js && wasm

package idbstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hack-pad/go-indexeddb/idb"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/multiformats/go-multihash"
)

func open(t *testing.T, opts ...Option) *Store {
	t.Helper()
	s, err := Open(t.Context(), t.Name(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newBlock(t *testing.T, size int) blocks.Block {
	t.Helper()
	data := make([]byte, size)
	rand.Read(data)
	mh, err := multihash.Sum(data, multihash.SHA2_256, -1)
	if err != nil {
		t.Fatal(err)
	}
	b, err := blocks.NewBlockWithCid(data, cid.NewCidV1(cid.Raw, mh))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantBlock(t *testing.T, s *Store, want blocks.Block) {
	t.Helper()
	got, err := s.Get(t.Context(), want.Cid())
	if err != nil || !bytes.Equal(got.RawData(), want.RawData()) {
		t.Errorf("Get(%s): %v, or other bytes", want.Cid(), err)
	}
	if n, err := s.GetSize(t.Context(), want.Cid()); n != len(want.RawData()) || err != nil {
		t.Errorf("GetSize(%s) = %d, %v; want %d", want.Cid(), n, err, len(want.RawData()))
	}
}

func wantNone(t *testing.T, s *Store, c cid.Cid) {
	t.Helper()
	if _, err := s.Get(t.Context(), c); !ipld.IsNotFound(err) {
		t.Errorf("Get(%s) = %v, want not found", c, err)
	}
	if has, err := s.Has(t.Context(), c); has || err != nil {
		t.Errorf("Has(%s) = %v, %v", c, has, err)
	}
}

func TestStore(t *testing.T) {
	s := open(t, WithCache(0))
	var all []blocks.Block
	for i := range 40 {
		all = append(all, newBlock(t, i*5000))
	}
	check(t, s.PutMany(t.Context(), all))
	check(t, s.Put(t.Context(), all[3])) // again
	for _, b := range all {
		wantBlock(t, s, b) // queued or written
	}
	check(t, s.Flush(t.Context()))
	for _, b := range all {
		wantBlock(t, s, b)
	}
	wantNone(t, s, newBlock(t, 1).Cid())
	check(t, s.Put(t.Context(), newBlock(t, MaxBlockSize)))
	if err := s.Put(t.Context(), newBlock(t, MaxBlockSize+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Put of a large block = %v, want %v", err, ErrTooLarge)
	}
	check(t, s.Close())
	if err := s.Put(t.Context(), newBlock(t, 1)); !errors.Is(err, ErrClosed) {
		t.Errorf("Put after Close = %v, want %v", err, ErrClosed)
	}

	// Another instance finds the same, before and after its index is read.
	s = open(t, WithCache(0))
	for _, b := range all {
		wantBlock(t, s, b)
	}
	check(t, s.ready(t.Context()))
	for _, b := range all {
		wantBlock(t, s, b)
	}
	keys, err := s.AllKeysChan(t.Context())
	check(t, err)
	n := 0
	for range keys {
		n++
	}
	if u := s.Usage(); n != 41 || u.Blocks != 41 || u.Bytes != 5000*40*39/2+MaxBlockSize {
		t.Errorf("%d keys, Usage() = %+v", n, u)
	}
	check(t, s.DeleteBlock(t.Context(), all[7].Cid()))
	check(t, s.DeleteBlock(t.Context(), all[7].Cid()))
	wantNone(t, s, all[7].Cid())
	check(t, s.Put(t.Context(), all[7]))
	wantBlock(t, s, all[7])
	check(t, s.Close())
}

func TestConcurrent(t *testing.T) {
	s := open(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10 {
				b := newBlock(t, 300_000) // 24 MB in all: more than the queue takes
				if err := s.Put(t.Context(), b); err != nil {
					t.Error(err)
				}
				wantBlock(t, s, b)
			}
		})
	}
	wg.Wait()
	check(t, s.Flush(t.Context()))
	if u := s.Usage(); u.Blocks != 80 || u.Bytes != 80*300_000 {
		t.Errorf("Usage() = %+v", u)
	}
	check(t, s.Close())
}

// age makes a block look unused for d.
func age(s *Store, b blocks.Block, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index[keyOf(b.Cid().Hash())].used = time.Now().Add(-d)
}

func TestEviction(t *testing.T) {
	s := open(t, WithLimit(1_000_000), WithCache(0))
	var old []blocks.Block
	for range 9 {
		b := newBlock(t, 100_000)
		old = append(old, b)
	}
	check(t, s.PutMany(t.Context(), old))
	check(t, s.Flush(t.Context()))
	for i, b := range old {
		age(s, b, time.Hour-time.Duration(i)*time.Minute)
	}
	check(t, s.Pin(t.Context(), old[0].Cid(), []cid.Cid{old[0].Cid()}))
	fresh := newBlock(t, 300_000)
	s.mu.Lock()
	s.index[keyOf(old[1].Cid().Hash())].reading++ // as Get does
	s.mu.Unlock()
	check(t, s.Put(t.Context(), fresh))
	check(t, s.Flush(t.Context()))
	// 200,000 too many and a sixteenth: three of the oldest that are free go.
	for i, b := range old {
		if gone := i >= 2 && i <= 4; gone {
			wantNone(t, s, b.Cid())
		} else {
			wantBlock(t, s, b)
		}
	}
	wantBlock(t, s, fresh)
	check(t, s.Close())
}

func TestPins(t *testing.T) {
	s := open(t)
	a, b, shared := newBlock(t, 10), newBlock(t, 20), newBlock(t, 30)
	check(t, s.PutMany(t.Context(), []blocks.Block{a, b, shared}))
	check(t, s.Pin(t.Context(), a.Cid(), []cid.Cid{a.Cid(), shared.Cid()}))
	check(t, s.Pin(t.Context(), b.Cid(), []cid.Cid{b.Cid(), shared.Cid(), shared.Cid()}))
	absent := newBlock(t, 1)
	if err := s.Pin(t.Context(), absent.Cid(), []cid.Cid{absent.Cid()}); !errors.Is(err, ErrQuota) {
		t.Errorf("Pin of what is not stored = %v", err)
	}
	check(t, s.Close())

	s = open(t)
	pins, err := s.Pins(t.Context())
	check(t, err)
	if len(pins) != 2 || !slices.Contains(pins, a.Cid()) || !slices.Contains(pins, b.Cid()) {
		t.Errorf("Pins() = %v", pins)
	}
	check(t, s.Unpin(t.Context(), a.Cid()))
	if u := s.Usage(); u.Pinned != 50 {
		t.Errorf("Usage() = %+v", u)
	}
	freed, err := s.Clear(t.Context())
	if freed != 10 || err != nil {
		t.Errorf("Clear() = %d, %v", freed, err)
	}
	wantNone(t, s, a.Cid())
	wantBlock(t, s, b)
	wantBlock(t, s, shared)
	check(t, s.Close())
}

func TestRecord(t *testing.T) {
	s := open(t)
	b, err := s.Record(t.Context(), "identity")
	if b != nil || err != nil {
		t.Errorf("Record = %v, %v", b, err)
	}
	check(t, s.SetRecord(t.Context(), "identity", []byte("key")))
	check(t, s.Close())
	s = open(t)
	if b, err := s.Record(t.Context(), "identity"); string(b) != "key" || err != nil {
		t.Errorf("Record = %q, %v", b, err)
	}
	check(t, s.Close())
}

func TestLaterVersion(t *testing.T) {
	ctx := t.Context()
	req, err := idb.Global().Open(ctx, t.Name(), schema+1, func(*idb.Database, uint, uint) error { return nil })
	check(t, err)
	db, err := req.Await(ctx)
	check(t, err)
	check(t, db.Close())
	if _, err := Open(ctx, t.Name()); !errors.Is(err, ErrVersion) {
		t.Errorf("Open = %v, want %v", err, ErrVersion)
	}
}

func BenchmarkPut(b *testing.B) {
	s, err := Open(context.Background(), b.Name(), WithCache(0))
	if err != nil {
		b.Fatal(err)
	}
	const size = 256 << 10
	b.SetBytes(size)
	data := make([]byte, size)
	for i := 0; b.Loop(); i++ {
		mh, _ := multihash.Encode(binaryKey(i), multihash.SHA2_256) // no hashing: it is not what is measured
		blk, _ := blocks.NewBlockWithCid(data, cid.NewCidV1(cid.Raw, mh))
		if err := s.Put(context.Background(), blk); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}

func binaryKey(i int) []byte {
	k := make([]byte, 32)
	for j := range 8 {
		k[j] = byte(i >> (8 * j))
	}
	return k
}
