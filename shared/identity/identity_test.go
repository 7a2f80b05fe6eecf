package identity_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/webfabric/weft/shared/identity"
)

func TestRoundTrip(t *testing.T) {
	key, err := identity.New()
	if err != nil {
		t.Fatal(err)
	}
	b, err := identity.Marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	back, err := identity.Unmarshal(b)
	if err != nil {
		t.Fatal(err)
	}
	if !key.Equals(back) {
		t.Error("the key came back as another")
	}
	want, err := identity.ID(key)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := identity.ID(back); err != nil || got != want {
		t.Errorf("ID = %v, %v; want %v", got, err, want)
	}
}

func FuzzUnmarshal(f *testing.F) {
	key, err := identity.New()
	if err != nil {
		f.Fatal(err)
	}
	b, err := identity.Marshal(key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:20])
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{8}, 200))
	f.Fuzz(func(t *testing.T, in []byte) {
		key, err := identity.Unmarshal(in)
		if err != nil {
			if !errors.Is(err, identity.ErrMalformed) {
				t.Errorf("Unmarshal: %v, want ErrMalformed", err)
			}
			return
		}
		if _, err := identity.Marshal(key); err != nil {
			t.Errorf("a key that was read can't be written: %v", err)
		}
	})
}
