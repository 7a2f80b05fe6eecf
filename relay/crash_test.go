package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/exchange/offline"
	blocks "github.com/ipfs/go-block-format"

	"github.com/webfabric/weft/relay/store"
	"github.com/webfabric/weft/shared/content"
)

// bench is a relay and a publisher of one user, each a process of its own.
type bench struct {
	home, relayData string
	relay           *process
	url             string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{home: t.TempDir(), relayData: t.TempDir()}
	b.start(t)
	t.Cleanup(func() {
		if err := b.relay.stop(); err != nil && !t.Failed() {
			t.Errorf("relay: %v\n%s", err, b.relay.stderr)
		}
	})
	return b
}

func (b *bench) start(t *testing.T) {
	t.Helper()
	var err error
	b.relay, b.url, err = startRelay(b.command("relay", "--listen", "127.0.0.1:0", "--no-demo", "--data", b.relayData))
	if err != nil {
		t.Fatal(err)
	}
}

func (b *bench) command(args ...string) *exec.Cmd {
	cmd := exec.Command("weft", args...)
	cmd.Env = append(os.Environ(), "WEFT_HOME="+b.home)
	return cmd
}

func (b *bench) publish(t *testing.T, path string) published {
	t.Helper()
	cmd := b.command("publish", "--json", path)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("publish: %v\n%s", err, stderr.Bytes())
	}
	var p published
	if err := json.Unmarshal(out, &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// check opens the store in dir, and wants every block of it to be what its CID
// says and every kept root to be whole. It returns the kept roots.
func check(t *testing.T, dir string) map[string]bool {
	t.Helper()
	s, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	bs := s.Blockstore()
	keys, err := bs.AllKeysChan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for c := range keys {
		b, err := bs.Get(t.Context(), c)
		if err == nil {
			err = content.Check(c, b.RawData())
		}
		if err != nil {
			t.Errorf("%s: block %s: %v", dir, c, err)
		}
	}
	kept := map[string]bool{}
	dag := blockservice.New(bs, offline.Exchange(bs))
	for _, r := range s.Roots() {
		if err := content.Walk(t.Context(), dag, r.Cid, func(blocks.Block) error { return nil }); err != nil {
			t.Errorf("%s: kept root %s: %v", dir, r.Cid, err)
		}
		kept[r.Cid.String()] = true
	}
	return kept
}

// stored counts the files below dir/blocks, half-written ones too.
func stored(t *testing.T, dir string) int {
	t.Helper()
	n := 0
	err := filepath.WalkDir(filepath.Join(dir, "blocks"), func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // being made, or renamed since
		}
		if err == nil && d.Type().IsRegular() {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// site makes n folders of a MiB file and small files each.
func site(t *testing.T, n int, seed byte) string {
	t.Helper()
	dir := t.TempDir()
	for i := range n {
		sub := filepath.Join(dir, fmt.Sprintf("d%02d", i))
		if err := os.Mkdir(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := writeNoise(filepath.Join(sub, "big.bin"), seed+byte(i), 1<<20); err != nil {
			t.Fatal(err)
		}
		for j := range 8 {
			if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("%d.js", j)), fmt.Appendf(nil, "export default %d\n", i*100+j+int(seed)*10000), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// TestKillPublish kills publishers at several moments: what was acknowledged
// before is whole, nothing is corrupt, and the next publish succeeds.
func TestKillPublish(t *testing.T) {
	b := newBench(t)
	own := filepath.Join(b.home, "publisher")
	acknowledged := b.publish(t, site(t, 4, 1)).Root
	dir := site(t, 24, 101)
	base := stored(t, own)
	relayBase := stored(t, b.relayData)
	for _, m := range []struct {
		name string
		at   func() bool
	}{
		{"as it begins", func() bool { return true }},
		{"after the first blocks", func() bool { return stored(t, own) > base }},
		{"half through the add", func() bool { return stored(t, own) > base+120 }},
		{"while the relay fetches", func() bool { return stored(t, b.relayData) > relayBase }},
	} {
		cmd := b.command("publish", dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { _ = cmd.Wait(); close(ended) }()
		poll(t, ended, m.at)
		_ = cmd.Process.Kill() // SIGKILL; a quick one may have ended
		<-ended
		if kept := check(t, own); !kept[acknowledged] {
			t.Errorf("killed %s: the root published before is not kept", m.name)
		}
	}
	again := b.publish(t, dir)
	if kept := check(t, own); !kept[acknowledged] || !kept[again.Root] {
		t.Errorf("kept = %v, want %s and %s", kept, acknowledged, again.Root)
	}
	if err := b.relay.stop(); err != nil {
		t.Fatal(err)
	}
	if kept := check(t, b.relayData); !kept[acknowledged] || !kept[again.Root] {
		t.Errorf("the relay keeps %v, want %s and %s", kept, acknowledged, again.Root)
	}
	b.start(t)
}

// TestKillRelay kills the relay while it fetches: it comes back with what it
// had acknowledged, and takes the rest from a second publish.
func TestKillRelay(t *testing.T) {
	b := newBench(t)
	acknowledged := b.publish(t, site(t, 2, 1)).Root
	dir := site(t, 24, 101)
	base := stored(t, b.relayData)
	cmd := b.command("publish", dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	var failed error
	go func() { failed = cmd.Wait(); close(ended) }()
	poll(t, ended, func() bool { return stored(t, b.relayData) > base })
	_ = b.relay.cmd.Process.Kill()
	<-b.relay.ended
	<-ended
	if failed != nil && cmd.ProcessState.ExitCode() != exitFailed {
		t.Errorf("publish exited with %v\n%s", failed, stderr.Bytes())
	}
	if kept := check(t, b.relayData); !kept[acknowledged] {
		t.Errorf("the relay keeps %v, want %s", kept, acknowledged)
	}
	b.start(t)
	again := b.publish(t, dir)
	if again.New > again.Blocks {
		t.Errorf("new = %d of %d blocks", again.New, again.Blocks)
	}
	out := filepath.Join(t.TempDir(), "out")
	if msg, err := b.command("get", again.Root, "-o", out).CombinedOutput(); err != nil {
		t.Fatalf("get: %v\n%s", err, msg)
	}
	if msg, err := exec.Command("diff", "-r", dir, out).CombinedOutput(); err != nil {
		t.Errorf("what came back differs: %s", msg)
	}
}

// poll waits until done or ended.
func poll(t *testing.T, ended <-chan struct{}, done func() bool) {
	t.Helper()
	limit := time.Now().Add(time.Minute)
	for !done() {
		select {
		case <-ended:
			return
		case <-time.After(time.Millisecond):
		}
		if time.Now().After(limit) {
			t.Fatal("nothing happened within a minute")
		}
	}
}

// TestRepublish edits one file of a 64 MiB tree: only the chunk, its file and
// the folders above are sent.
func TestRepublish(t *testing.T) {
	b := newBench(t)
	dir := t.TempDir()
	for i := range 16 {
		sub := filepath.Join(dir, fmt.Sprintf("d%02d", i))
		if err := os.Mkdir(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := writeNoise(filepath.Join(sub, "f.bin"), byte(i+1), 4<<20); err != nil {
			t.Fatal(err)
		}
	}
	first := b.publish(t, dir)
	if first.New != first.Blocks || first.Bytes != 64<<20 || first.Files != 16 {
		t.Errorf("first = %+v, want 16 files, 64 MiB, all blocks new", first)
	}
	if c, err := cid.Decode(first.Root); err != nil || c.Version() != 1 || !strings.HasSuffix(first.URL, "/ipfs/"+first.Root+"/") {
		t.Errorf("first = %+v: %v", first, err)
	}
	if same := b.publish(t, dir); same.Root != first.Root || same.New != 0 {
		t.Errorf("the same again = %+v, want root %s and nothing new", same, first.Root)
	}
	f, err := os.OpenFile(filepath.Join(dir, "d07", "f.bin"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("edited"), 2<<20); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	// One chunk, its file's node, d07, and the root.
	if edited := b.publish(t, dir); edited.Root == first.Root || edited.New != 4 {
		t.Errorf("edited = %+v, want another root and 4 new blocks", edited)
	}
}

// TestLocked has two publishers on one store.
func TestLocked(t *testing.T) {
	b := newBench(t)
	s, err := store.Open(filepath.Join(b.home, "publisher"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	out, err := b.command("publish", site(t, 1, 1)).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another `weft publish` is using") || !strings.Contains(string(out), "--data") {
		t.Errorf("publish on a locked store = %v\n%s", err, out)
	}
	// The key can be asked for all the same.
	if out, err := b.command("id").CombinedOutput(); err != nil {
		t.Errorf("id beside it: %v\n%s", err, out)
	}
}
