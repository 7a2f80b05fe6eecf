//go:build js && wasm

package idbstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall/js"

	"github.com/hack-pad/go-indexeddb/idb"
	"github.com/ipfs/go-cid"

	"github.com/webfabric/weft/wasm/jsbytes"
)

// Pin keeps the blocks of root's DAG from eviction, in this and in later
// instances. blocks lists all of them; they must have been put. When Pin
// returns nil they and the pin are in the database.
func (s *Store) Pin(ctx context.Context, root cid.Cid, blocks []cid.Cid) error {
	keys := make([]string, len(blocks))
	for i, c := range blocks {
		keys[i] = keyOf(c.Hash())
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	b, err := appendKeys(nil, keys)
	if err != nil {
		return fmt.Errorf("idbstore: pin %s: %w", root, err)
	}
	if err := s.ready(ctx); err != nil {
		return err
	}
	name := root.String()
	s.mu.Lock()
	s.release(name)
	s.hold(name, keys) // first: nothing of it is evicted from here on
	s.mu.Unlock()
	// A write that failed may have been another's block: what counts is held.
	if err = s.Flush(ctx); err == nil || errors.Is(err, ErrQuota) {
		err = s.held(keys)
	}
	if err == nil {
		err = s.db.write(ctx, func(open func(string) *idb.ObjectStore) error {
			_, err := open(storePins).PutKey(js.ValueOf(name), jsbytes.Uint8Array(b))
			return err
		}, storePins)
	}
	if err != nil {
		s.mu.Lock()
		s.release(name)
		s.mu.Unlock()
		return fmt.Errorf("idbstore: pin %s: %w", root, err)
	}
	return nil
}

// held tells whether the database has all of keys.
func (s *Store) held(keys []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	missing := 0
	for _, k := range keys {
		if s.index[k] == nil {
			missing++
		}
	}
	if missing > 0 {
		return fmt.Errorf("%d of %d blocks are not stored: %w", missing, len(keys), ErrQuota)
	}
	return nil
}

// hold counts a pin in; mu is held.
func (s *Store) hold(root string, keys []string) {
	s.pins[root] = keys
	for _, k := range keys {
		s.pinned[k]++
	}
}

// release counts a pin out; mu is held.
func (s *Store) release(root string) {
	for _, k := range s.pins[root] {
		if s.pinned[k]--; s.pinned[k] <= 0 {
			delete(s.pinned, k)
		}
	}
	delete(s.pins, root)
}

// Unpin takes a pin back; one that is not there is no error.
func (s *Store) Unpin(ctx context.Context, root cid.Cid) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	err := s.db.write(ctx, func(open func(string) *idb.ObjectStore) error {
		_, err := open(storePins).Delete(js.ValueOf(root.String()))
		return err
	}, storePins)
	if err != nil {
		return fmt.Errorf("idbstore: unpin %s: %w", root, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.release(root.String())
	return nil
}

// Pins returns the pinned roots, sorted by their text.
func (s *Store) Pins(ctx context.Context) ([]cid.Cid, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name := range s.pins {
		names = append(names, name)
	}
	slices.Sort(names)
	roots := make([]cid.Cid, 0, len(names))
	for _, name := range names {
		c, err := cid.Decode(name)
		if err != nil {
			return nil, fmt.Errorf("idbstore: pins: %w: %w", ErrMalformed, err)
		}
		roots = append(roots, c)
	}
	return roots, nil
}

// Record returns the small record called name, nil if there is none.
func (s *Store) Record(ctx context.Context, name string) ([]byte, error) {
	v, err := s.db.get(ctx, storeMeta, name)
	if err != nil {
		return nil, fmt.Errorf("idbstore: record %q: %w", name, err)
	}
	if v.IsUndefined() {
		return nil, nil
	}
	b, err := bytesOf(v)
	if err != nil {
		return nil, fmt.Errorf("idbstore: record %q: %w", name, err)
	}
	return b, nil
}

// SetRecord keeps a small record; when it returns nil it is in the database.
func (s *Store) SetRecord(ctx context.Context, name string, b []byte) error {
	err := s.db.write(ctx, func(open func(string) *idb.ObjectStore) error {
		_, err := open(storeMeta).PutKey(js.ValueOf(name), jsbytes.Uint8Array(b))
		return err
	}, storeMeta)
	if err != nil {
		return fmt.Errorf("idbstore: set record %q: %w", name, err)
	}
	return nil
}
