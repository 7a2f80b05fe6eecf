package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/webfabric/weft/relay/store"
)

func open(t *testing.T, dir string) *store.Store {
	t.Helper()
	s, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func block(s string) blocks.Block { return blocks.NewBlock([]byte(s)) }

func TestReopen(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "new", "store")
	s := open(t, dir)
	var want []blocks.Block
	for i := range 300 {
		want = append(want, block(fmt.Sprint("block ", i)))
	}
	if err := s.Blockstore().PutMany(ctx, want); err != nil {
		t.Fatal(err)
	}
	key, err := store.Key(dir)
	if err != nil {
		t.Fatal(err)
	}
	by, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	a, b, c := want[0].Cid(), want[1].Cid(), want[2].Cid()
	for _, r := range []store.Root{{Cid: a, Name: "a", By: by}, {Cid: b}, {Cid: c, Name: "c"}, {Cid: a, Name: "again", By: by}} {
		if err := s.Keep(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Drop(ctx, b); err != nil {
		t.Fatal(err)
	}
	if err := s.Drop(ctx, b); !errors.Is(err, store.ErrUnknown) {
		t.Errorf("second Drop: %v, want ErrUnknown", err)
	}
	roots := s.Roots()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = open(t, dir)
	got := s.Roots()
	if len(got) != 2 || !got[0].Cid.Equals(c) || !got[1].Cid.Equals(a) || got[1].Name != "again" || got[1].By != by {
		t.Errorf("roots = %v", got)
	}
	if !slices.EqualFunc(got, roots, func(x, y store.Root) bool { return x.Cid.Equals(y.Cid) && x.Added.Equal(y.Added) }) {
		t.Errorf("roots = %v, want %v", got, roots)
	}
	if seq, at := s.Seq(); seq != 5 || at.IsZero() {
		t.Errorf("Seq = %d, %v, want 5 changes", seq, at)
	}
	for _, b := range want {
		got, err := s.Blockstore().Get(ctx, b.Cid())
		if err != nil || !bytes.Equal(got.RawData(), b.RawData()) {
			t.Fatalf("Get = %v, %v", got, err)
		}
	}
	again, err := store.Key(dir)
	if err != nil || !again.Equals(key) {
		t.Errorf("Key changed: %v", err)
	}
}

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if _, err := store.Open(dir); !errors.Is(err, store.ErrLocked) {
		t.Errorf("Open twice: %v, want ErrLocked", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
}

func TestDamaged(t *testing.T) {
	good := block("x").Cid().String()
	tests := []struct {
		name, file, text string
		err              error
	}{
		{name: "later version", file: "VERSION", text: "2\n", err: store.ErrVersion},
		{name: "no version", file: "VERSION", text: "", err: store.ErrVersion},
		{name: "roots cut off", file: "roots.json", text: `{"seq":3,"roots":[{"cid":"` + good, err: store.ErrCorrupt},
		{name: "roots empty", file: "roots.json", text: "", err: store.ErrCorrupt},
		{name: "bad CID", file: "roots.json", text: `{"seq":3,"roots":[{"cid":"Qm"}]}`, err: store.ErrCorrupt},
		{name: "bad peer", file: "roots.json", text: `{"seq":3,"roots":[{"cid":"` + good + `","by":"x"}]}`, err: store.ErrCorrupt},
		{name: "no seq", file: "roots.json", text: `{"roots":[{"cid":"` + good + `"}]}`, err: store.ErrCorrupt},
		{name: "good", file: "roots.json", text: `{"seq":3,"roots":[{"cid":"` + good + `"}]}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			open(t, dir).Close()
			name := filepath.Join(dir, tt.file)
			if err := os.WriteFile(name, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := store.Open(dir)
			if !errors.Is(err, tt.err) || (tt.err != nil && !strings.Contains(err.Error(), name)) {
				t.Fatalf("Open = %v, want %v and the file's name", err, tt.err)
			}
			if err == nil {
				s.Close()
			}
			// A failed Open leaves nothing behind: the repaired store opens.
			if tt.file == "VERSION" {
				err = os.WriteFile(name, []byte("1\n"), 0o600)
			} else {
				err = os.Remove(name)
			}
			if err != nil {
				t.Fatal(err)
			}
			open(t, dir)
		})
	}
}

// What a crash leaves of an unfinished write is never taken for a finished one.
func TestLeftovers(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	s := open(t, dir)
	b := block("kept")
	if err := errors.Join(s.Blockstore().Put(ctx, b), s.Keep(ctx, store.Root{Cid: b.Cid()}), s.Close()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"roots.json.tmp123", "blocks/.temp/batch-1/HALF.data"} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte("{half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, dir)
	if len(s.Roots()) != 1 {
		t.Errorf("roots = %v", s.Roots())
	}
	keys, err := s.Blockstore().AllKeysChan(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var got []cid.Cid
	for k := range keys {
		got = append(got, k)
	}
	if len(got) != 1 {
		t.Errorf("blocks = %v, want one", got)
	}
}

func TestKey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "k")
	// Many at once make one key.
	var wg sync.WaitGroup
	ids := make([]peer.ID, 8)
	for i := range ids {
		wg.Go(func() {
			key, err := store.Key(dir)
			if err != nil {
				t.Error(err)
				return
			}
			ids[i], _ = peer.IDFromPrivateKey(key)
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id == "" || id != ids[0] {
			t.Errorf("keys of one directory differ: %v", ids)
		}
	}
	name := filepath.Join(dir, "identity.key")
	if st, err := os.Stat(name); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v, want mode 0600", st, err)
	}
	if err := os.WriteFile(name, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Key(dir); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("Key of a damaged file: %v, want ErrCorrupt", err)
	}
}

func TestKeepRefuses(t *testing.T) {
	s := open(t, t.TempDir())
	ctx := context.Background()
	if err := s.Keep(ctx, store.Root{}); err == nil {
		t.Error("Keep took an undefined CID")
	}
	if err := s.Keep(ctx, store.Root{Cid: block("x").Cid(), Name: strings.Repeat("n", store.MaxNameLen+1)}); err == nil {
		t.Error("Keep took a long name")
	}
	if seq, _ := s.Seq(); seq != 0 {
		t.Errorf("Seq = %d after nothing changed", seq)
	}
}
