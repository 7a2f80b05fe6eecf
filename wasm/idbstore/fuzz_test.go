//go:build !js

package idbstore

import (
	"bytes"
	"testing"
)

func FuzzKeys(f *testing.F) {
	b, err := appendKeys(nil, testKeys)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		keys, err := parseKeys(b)
		if err != nil {
			return
		}
		again, err := appendKeys(nil, keys)
		if err != nil {
			t.Fatal(err)
		}
		// A longer form of the same length is read, never written.
		if len(again) > len(b) || len(again) == len(b) && !bytes.Equal(again, b) {
			t.Errorf("%x became %x", b, again)
		}
	})
}
