package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"

	"github.com/webfabric/weft/relay/publish"
	"github.com/webfabric/weft/shared/content"
)

func TestLinkInside(t *testing.T) {
	for _, tt := range []struct {
		name, to string
		want     bool
	}{
		{"content/l", "index.html", true},
		{"content/l", "a/b", true},
		{"content/a/l", "../b", true},
		{"content/a/b/l", "../../x/y", true},
		{"content/l", "..", false},
		{"content/l", "../x", false},
		{"content/a/l", "../../x", false},
		{"content/l", "/etc/passwd", false},
		{"content/l", "", false},
		{"content/l", "a\x00b", false},
		// Through another link, p/q -> ../.., these would lead out.
		{"content/l", "p/q/..", false},
		{"content/a/l", "../p/../..", false},
	} {
		if got := linkInside(tt.name, tt.to); got != tt.want {
			t.Errorf("linkInside(%q, %q) = %v, want %v", tt.name, tt.to, got, tt.want)
		}
	}
}

func memory() blockstore.Blockstore {
	return blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
}

func getter(bs blockstore.Blockstore) content.Getter {
	return blockservice.New(bs, offline.Exchange(bs))
}

// TestHostileNames fetches folders that no file system could have made.
func TestHostileNames(t *testing.T) {
	for _, name := range []string{"../escape", "..", ".", "a/b", "a\\b", "nul\x00", "/abs", ""} {
		t.Run(name, func(t *testing.T) {
			bs := memory()
			dag := merkledag.NewDAGService(blockservice.New(bs, offline.Exchange(bs)))
			leaf := merkledag.NewRawNode([]byte("x"))
			dir := unixfs.EmptyDirNode()
			dir.SetCidBuilder(cid.V1Builder{Codec: cid.DagProtobuf, MhType: 0x12})
			if err := dir.AddNodeLink(name, leaf); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(dag.Add(t.Context(), leaf), dag.Add(t.Context(), dir)); err != nil {
				t.Fatal(err)
			}
			target, err := content.Resolve(t.Context(), getter(bs), dir.Cid(), nil)
			if err != nil {
				t.Fatal(err)
			}
			at := t.TempDir()
			if _, err := fetchTo(t.Context(), getter(bs), target, filepath.Join(at, "in", "out"), io.Discard); err == nil {
				t.Error("fetched without an error")
			}
			entries, err := os.ReadDir(at)
			if err != nil || len(entries) != 1 || entries[0].Name() != "in" {
				t.Errorf("%s has %v, %v; want in alone", at, entries, err)
			}
		})
	}
}

// cutOff is a getter that fails after some blocks, and counts those it gave.
type cutOff struct {
	content.Getter
	left, gave int
}

var errCut = errors.New("cut off")

func (c *cutOff) GetBlock(ctx context.Context, k cid.Cid) (blocks.Block, error) {
	if c.left--; c.left < 0 {
		return nil, errCut
	}
	c.gave++
	return c.Getter.GetBlock(ctx, k)
}

// TestResume goes on with what an earlier attempt left, and with nothing of it
// that is not what its hash says.
func TestResume(t *testing.T) {
	bs, dir := memory(), t.TempDir()
	src := filepath.Join(dir, "src")
	if err := writeNoise(src, 5, 24<<20); err != nil {
		t.Fatal(err)
	}
	stat, err := publish.Add(t.Context(), bs, src)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	target, err := content.Resolve(t.Context(), getter(bs), stat.Root, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = fetchTo(t.Context(), serial(&cutOff{Getter: getter(bs), left: 18}), target, out, io.Discard)
	if !errors.Is(err, errCut) {
		t.Fatalf("first fetch = %v, want %v", err, errCut)
	}
	part := filepath.Join(out+".weft-part", "content")
	b, err := os.ReadFile(part)
	if err != nil || len(b) < 4<<20 {
		t.Fatalf("the first left %d bytes, %v; want some MiB", len(b), err)
	}
	copy(b[1<<20:], "rotten")
	if err := os.WriteFile(part, b, 0o644); err != nil {
		t.Fatal(err)
	}
	again := &cutOff{Getter: getter(bs), left: 1000}
	if _, err := fetchTo(t.Context(), serial(again), target, out, io.Discard); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(src)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("what came back differs")
	}
	if whole := stat.Blocks - len(b)>>20 + 2; again.gave > whole {
		t.Errorf("the second fetch took %d blocks, want at most %d", again.gave, whole)
	}
	if _, err := os.Stat(out + ".weft-part"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the partial fetch is still there: %v", err)
	}
	if _, err := fetchTo(t.Context(), getter(bs), target, out, io.Discard); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("fetching over it = %v, want a refusal", err)
	}
}

// serial lets one call at a time through to c, which counts without a lock.
func serial(c *cutOff) content.Getter {
	one := make(chan struct{}, 1)
	return getterFunc(func(ctx context.Context, k cid.Cid) (blocks.Block, error) {
		one <- struct{}{}
		defer func() { <-one }()
		return c.GetBlock(ctx, k)
	})
}

type getterFunc func(context.Context, cid.Cid) (blocks.Block, error)

func (f getterFunc) GetBlock(ctx context.Context, c cid.Cid) (blocks.Block, error) { return f(ctx, c) }

// paced is a getter that answers all who wait every few milliseconds, as one
// message of Bitswap's does, and counts how often somebody waited.
type paced struct {
	content.Getter
	mu      sync.Mutex
	waiting []chan struct{}
	rounds  int
}

func (p *paced) GetBlock(ctx context.Context, k cid.Cid) (blocks.Block, error) {
	turn := make(chan struct{})
	p.mu.Lock()
	p.waiting = append(p.waiting, turn)
	p.mu.Unlock()
	select {
	case <-turn:
		return p.Getter.GetBlock(ctx, k)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *paced) run(ctx context.Context) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		<-tick.C
		p.mu.Lock()
		if len(p.waiting) > 0 {
			p.rounds++
		}
		for _, turn := range p.waiting {
			close(turn)
		}
		p.waiting = nil
		p.mu.Unlock()
	}
}

// TestRoundTrips fetches many small files in many small folders, which must not
// take a round trip for each.
func TestRoundTrips(t *testing.T) {
	bs, dir := memory(), t.TempDir()
	src, out := filepath.Join(dir, "src"), filepath.Join(dir, "out")
	const folders, files = 24, 9
	for i := range folders {
		sub := filepath.Join(src, fmt.Sprintf("d%02d", i))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		for j := range files {
			if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("%d.js", j)), fmt.Appendf(nil, "%d %d", i, j), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	stat, err := publish.Add(t.Context(), bs, src)
	if err != nil {
		t.Fatal(err)
	}
	target, err := content.Resolve(t.Context(), getter(bs), stat.Root, nil)
	if err != nil {
		t.Fatal(err)
	}
	get := &paced{Getter: getter(bs)}
	go get.run(t.Context())
	got, err := fetchTo(t.Context(), get, target, out, io.Discard)
	if err != nil || got.Files != folders*files {
		t.Fatalf("fetched %d files, %v; want %d", got.Files, err, folders*files)
	}
	// With 16 at once, 240 entries and 24 listings need some 20 round trips.
	if get.rounds > (folders*files)/3 {
		t.Errorf("%d round trips for %d files", get.rounds, folders*files)
	}
}
