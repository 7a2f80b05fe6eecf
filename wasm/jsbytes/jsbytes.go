//go:build js && wasm

// Package jsbytes is where bytes cross between Go and JavaScript, and what keeps
// them from piling up there.
package jsbytes

import (
	"runtime"
	"sync/atomic"
	"syscall/js"
)

var array = js.Global().Get("Uint8Array")

// Uint8Array copies b into an array with a buffer of its own, which may be
// transferred, and stored without storing more.
func Uint8Array(b []byte) js.Value {
	v := array.New(len(b))
	js.CopyBytesToJS(v, b)
	Held(len(b))
	return v
}

// Copy copies a Uint8Array.
func Copy(v js.Value) []byte {
	b := make([]byte, v.Length())
	js.CopyBytesToGo(b, v)
	Held(len(b))
	return b
}

// maxHeld is how many bytes of JavaScript's buffers Go may refer to without a
// collection.
const maxHeld = 32 << 20

var (
	held       atomic.Int64 // since the last collection
	collecting atomic.Bool
)

func init() { watchCollections() }

// Held notes that Go refers to a buffer of n bytes that is JavaScript's.
//
// A js.Value lets go of what it refers to when Go's collector finds it unused,
// and in no other way. The collector is paced by Go's own heap, on which such a
// value is a few words: a stream that is only passed on would stay in memory
// whole, as 1 GiB once did. So the collector runs at least every maxHeld bytes.
func Held(n int) {
	if held.Add(int64(n)) < maxHeld || !collecting.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer collecting.Store(false)
		runtime.GC()
	}()
}

// watchCollections has held count from the last collection on, whoever began it.
func watchCollections() {
	type mark struct{ _ *byte }
	runtime.SetFinalizer(new(mark), func(*mark) {
		held.Store(0)
		watchCollections()
	})
}
