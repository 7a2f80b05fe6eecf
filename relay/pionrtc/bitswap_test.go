//go:build !race

package pionrtc_test

import (
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"

	"github.com/webfabric/weft/shared/content"
	weftnode "github.com/webfabric/weft/shared/node"
)

// random is what cannot be guessed, and is the same for the same seed.
func random(seed byte) io.Reader { return rand.NewChaCha8([32]byte{seed}) }

// TestBitswap has two nodes fetch 64 MiB from each other, one after the other
// and then at once.
func TestBitswap(t *testing.T) {
	const size = 64 << 20
	a, b, _, addrB := pair(t)
	connect(t, a, b, addrB)
	type end struct {
		*weftnode.Node
		store blockstore.Blockstore
	}
	var ends [2]end
	for i, n := range []*node{a, b} {
		e := &ends[i]
		e.store = blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
		var err error
		if e.Node, err = weftnode.New(t.Context(), weftnode.Config{Host: n, Blockstore: e.store}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { e.Close() })
	}
	add := func(e end, seed byte) cid.Cid {
		dag := merkledag.NewDAGService(blockservice.New(e.store, offline.Exchange(e.store)))
		stat, err := content.AddFiles(t.Context(), dag, []content.NamedReader{{Open: func() (io.ReadCloser, error) {
			return io.NopCloser(io.LimitReader(random(seed), size)), nil
		}}})
		if err != nil {
			t.Fatal(err)
		}
		return stat.Root
	}
	fetch := func(e end, root cid.Cid, seed byte) {
		get := blockservice.NewSession(t.Context(), e.Blocks())
		target, err := content.Resolve(t.Context(), get, root, nil)
		if err != nil {
			t.Error(err)
			return
		}
		f, err := content.Open(t.Context(), get, target)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		got, want := sha256.New(), sha256.New()
		io.Copy(want, io.LimitReader(random(seed), size)) // hashes take everything
		if n, err := io.Copy(got, f); err != nil || n != size || string(got.Sum(nil)) != string(want.Sum(nil)) {
			t.Errorf("%d bytes, %v; want %d, and the right ones", n, err, size)
		}
	}
	fetch(ends[1], add(ends[0], 1), 1)
	fetch(ends[0], add(ends[1], 2), 2)
	x, y := add(ends[0], 3), add(ends[1], 4)
	done := make(chan struct{})
	go func() {
		defer close(done)
		fetch(ends[1], x, 3)
	}()
	fetch(ends[0], y, 4)
	<-done
	for i, e := range ends {
		if s := e.Stats(); s.FromPeers < 2*size || s.Unwanted != 0 {
			t.Errorf("node %d: %d bytes from peers, %d that it had not asked for", i, s.FromPeers, s.Unwanted)
		}
	}
}
