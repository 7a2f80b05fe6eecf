package idbstore

import (
	"errors"
	"slices"
	"testing"
	"time"
)

var testKeys = []string{
	"EiC5TSe5k00-CKUuUtfafav6xITv43pTgO6QiPes4u_N6Q", // SHA-256
	"AAVoZWxsbw", // identity
}

func TestEntryCode(t *testing.T) {
	for _, size := range []int{0, 1, MaxBlockSize} {
		for _, used := range []time.Time{time.Unix(0, 0), time.Date(2100, 1, 2, 3, 4, 0, 0, time.UTC)} {
			gotSize, gotUsed, err := entryOf(entryCode(size, used))
			if err != nil || gotSize != size || !gotUsed.Equal(used) {
				t.Errorf("entryOf(entryCode(%d, %v)) = %d, %v, %v", size, used, gotSize, gotUsed, err)
			}
		}
	}
	for _, bad := range []float64{-1, 0.5, 1 << 60, MaxBlockSize + 1} {
		if _, _, err := entryOf(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("entryOf(%v): %v, want %v", bad, err, ErrMalformed)
		}
	}
}

func TestKeys(t *testing.T) {
	b, err := appendKeys(nil, testKeys)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := parseKeys(b); err != nil || !slices.Equal(got, testKeys) {
		t.Errorf("parseKeys(appendKeys(%v)) = %v, %v", testKeys, got, err)
	}
	for i := 1; i < len(b); i++ {
		if i == 35 {
			continue // the end of the first key
		}
		if _, err := parseKeys(b[:i]); !errors.Is(err, ErrMalformed) {
			t.Errorf("parseKeys of the first %d bytes: %v, want %v", i, err, ErrMalformed)
		}
	}
	if _, err := appendKeys(nil, []string{"!"}); !errors.Is(err, ErrMalformed) {
		t.Errorf("appendKeys of no key: %v, want %v", err, ErrMalformed)
	}
}

func TestLRU(t *testing.T) {
	l := newLRU(10 + 2*blockOverhead)
	l.add("a", make([]byte, 4))
	l.add("b", make([]byte, 4))
	l.get("a")
	l.add("c", make([]byte, 4))
	l.add("huge", make([]byte, 11+blockOverhead))
	for key, want := range map[string]bool{"a": true, "b": false, "c": true, "huge": false} {
		if _, got := l.get(key); got != want {
			t.Errorf("get(%q) = %v, want %v", key, got, want)
		}
	}
	l.remove("a")
	if _, ok := l.get("a"); ok || l.size != 4+blockOverhead {
		t.Errorf("after remove: held %v, size %d", ok, l.size)
	}
}
