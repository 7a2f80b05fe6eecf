package owner_test

import (
	"errors"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	mh "github.com/multiformats/go-multihash"

	"github.com/webfabric/weft/shared/identity"
	"github.com/webfabric/weft/shared/owner"
)

func root(t testing.TB, text string) cid.Cid {
	t.Helper()
	h, err := mh.Sum([]byte(text), mh.SHA2_256, -1)
	if err != nil {
		t.Fatal(err)
	}
	return cid.NewCidV1(cid.DagProtobuf, h)
}

func sealed(t testing.TB, r owner.Roots) ([]byte, peer.ID) {
	t.Helper()
	key, err := identity.New()
	if err != nil {
		t.Fatal(err)
	}
	id, err := identity.ID(key)
	if err != nil {
		t.Fatal(err)
	}
	b, err := owner.Seal(r, key)
	if err != nil {
		t.Fatal(err)
	}
	return b, id
}

func TestSealOpen(t *testing.T) {
	a, b := root(t, "a"), root(t, "b")
	want := owner.Roots{Seq: 7, Issued: time.UnixMilli(1_700_000_000_123), Roots: []cid.Cid{a}}
	data, id := sealed(t, want)
	got, err := owner.Open(data, id)
	if err != nil {
		t.Fatal(err)
	}
	if got.Seq != want.Seq || !got.Issued.Equal(want.Issued) || len(got.Roots) != 1 {
		t.Errorf("Open = %+v; want %+v", got, want)
	}
	if !got.Has(a) || !got.Has(cid.NewCidV0(a.Hash())) {
		t.Error("Has(own root) = false, in version 1 or 0")
	}
	if got.Has(b) || got.Has(cid.NewCidV1(cid.Raw, a.Hash())) {
		t.Error("Has(other root) = true")
	}
}

func TestOpenRefuses(t *testing.T) {
	good, id := sealed(t, owner.Roots{Seq: 1, Issued: time.Now(), Roots: []cid.Cid{root(t, "a")}})
	_, other := sealed(t, owner.Roots{})
	flipped := append([]byte(nil), good...)
	flipped[len(flipped)-1] ^= 1
	tests := []struct {
		name string
		in   []byte
		by   peer.ID
		err  error
	}{
		{name: "signed by another", in: good, by: other, err: owner.ErrSignature},
		{name: "flipped bit", in: flipped, by: id, err: owner.ErrSignature},
		{name: "cut off", in: good[:len(good)/2], by: id, err: owner.ErrMalformed},
		{name: "empty", in: nil, by: id, err: owner.ErrMalformed},
		{name: "too large", in: make([]byte, owner.MaxSize+1), by: id, err: owner.ErrTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := owner.Open(tt.in, tt.by); !errors.Is(err, tt.err) {
				t.Errorf("Open = %v; want %v", err, tt.err)
			}
		})
	}
}

func TestSealRefusesTooMany(t *testing.T) {
	key, err := identity.New()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := owner.Seal(owner.Roots{Roots: make([]cid.Cid, owner.MaxRoots+1)}, key); !errors.Is(err, owner.ErrTooLarge) {
		t.Errorf("Seal = %v; want ErrTooLarge", err)
	}
}

func FuzzOpen(f *testing.F) {
	good, id := sealed(f, owner.Roots{Seq: 1, Issued: time.UnixMilli(5), Roots: []cid.Cid{root(f, "a"), root(f, "b")}})
	f.Add(good)
	f.Add(good[:40])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := owner.Open(in, id)
		if err == nil && len(r.Roots) > owner.MaxRoots {
			t.Errorf("a list of %d roots was accepted", len(r.Roots))
		}
		for _, want := range []error{owner.ErrMalformed, owner.ErrSignature, owner.ErrTooLarge} {
			if errors.Is(err, want) {
				return
			}
		}
		if err != nil {
			t.Errorf("Open: an error without a name: %v", err)
		}
	})
}
