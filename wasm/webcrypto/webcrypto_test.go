//go:build js && wasm

package webcrypto

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/multiformats/go-multihash"
)

func TestSum(t *testing.T) {
	if !Available() {
		t.Fatal("no WebCrypto")
	}
	data := make([]byte, 3*Threshold)
	for i := range data {
		data[i] = byte(i * 7)
	}
	for _, writes := range [][]int{{}, {1}, {Threshold - 1}, {Threshold}, {3 * Threshold}, {10, Threshold}, {Threshold, 10}, {Threshold, 0, Threshold}} {
		h, want := New(), sha256.New()
		at := 0
		for _, n := range writes {
			h.Write(data[at : at+n])
			want.Write(data[at : at+n])
			at += n
		}
		for range 2 { // Sum changes nothing
			if got := h.Sum([]byte("x")); !bytes.Equal(got, want.Sum([]byte("x"))) {
				t.Errorf("writes %v: Sum = %x", writes, got)
			}
		}
	}
}

func TestRegister(t *testing.T) {
	Register()
	data := bytes.Repeat([]byte("weft"), Threshold)
	mh, err := multihash.Sum(data, multihash.SHA2_256, -1)
	if err != nil {
		t.Fatal(err)
	}
	d := sha256.Sum256(data)
	if !bytes.Equal(mh[2:], d[:]) {
		t.Errorf("Sum = %x, want %x", mh[2:], d)
	}
}

// BenchmarkSum shows from which size on the browser is the faster one.
func BenchmarkSum(b *testing.B) {
	for _, size := range []int{1 << 10, 4 << 10, 8 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20} {
		data := make([]byte, size)
		b.Run(fmt.Sprintf("go/%d", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				sha256.Sum256(data)
			}
		})
		b.Run(fmt.Sprintf("browser/%d", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				(&sha{buf: data}).browser()
			}
		})
	}
}
