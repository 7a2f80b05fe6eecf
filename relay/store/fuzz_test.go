package store

import (
	"testing"
	"time"

	blocks "github.com/ipfs/go-block-format"
)

func FuzzDecodeRoots(f *testing.F) {
	r := Root{Cid: blocks.NewBlock([]byte("x")).Cid(), Name: "n", Added: time.Unix(1, 0).UTC()}
	seed, err := encodeRoots(7, time.Unix(2, 0).UTC(), []Root{r})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"seq":1,"roots":null}`))
	f.Add([]byte(`{"seq":-1}`))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		seq, at, roots, err := decodeRoots(b)
		if err != nil {
			return
		}
		enc, err := encodeRoots(seq, at, roots)
		if err != nil {
			t.Fatal(err)
		}
		seq2, at2, roots2, err := decodeRoots(enc)
		if err != nil || seq2 != seq || !at2.Equal(at) || len(roots2) != len(roots) {
			t.Fatalf("decode of encode: %d, %v, %d roots, %v; want %d, %v, %d", seq2, at2, len(roots2), err, seq, at, len(roots))
		}
		for i := range roots {
			if !roots2[i].Cid.Equals(roots[i].Cid) || roots2[i].By != roots[i].By || roots2[i].Name != roots[i].Name {
				t.Fatalf("root %d = %v, want %v", i, roots2[i], roots[i])
			}
		}
	})
}
