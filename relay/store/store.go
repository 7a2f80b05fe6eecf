// Package store keeps blocks and the list of kept roots in a folder on disk.
//
// A folder belongs to one process at a time: Open takes a lock that the kernel
// drops when the process ends, however it ends. A block or a root that was
// acknowledged is on disk (fsync), and what a crash leaves half written is
// never seen again: blocks and the list of roots appear by rename.
//
//	DIR/VERSION     the layout's version, a decimal number
//	DIR/LOCK        held by flock while the store is open
//	DIR/blocks/     flatfs, one file a block
//	DIR/roots.json  the kept roots and the list's sequence number
//	DIR/identity.key  the node's key, see [Key]
//
// The store of the relay is beside relay/server, that of the publisher beside
// relay/publish.
package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/go-cid"
	flatfs "github.com/ipfs/go-ds-flatfs"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/webfabric/weft/shared/identity"
	"github.com/webfabric/weft/shared/owner"
)

// Version is the layout this package reads and writes.
const Version = 1

// maxRootsFile bounds what is read of roots.json, in bytes: [owner.MaxRoots]
// roots with names of 1 KiB.
const maxRootsFile = 16 << 20

// MaxNameLen is the longest name of a root, in bytes.
const MaxNameLen = 256

var (
	// ErrLocked means that another process has the store open.
	ErrLocked = errors.New("store: in use by another process")
	// ErrVersion means that another version of the layout wrote the store.
	ErrVersion = errors.New("store: layout of another version")
	// ErrCorrupt means that a file of the store does not hold what was written.
	ErrCorrupt = errors.New("store: corrupt")
	// ErrFull means that the list of roots has reached [owner.MaxRoots].
	ErrFull = errors.New("store: too many roots")
	// ErrUnknown means that a root is not kept.
	ErrUnknown = errors.New("store: root not kept")
)

// Root is a DAG that is kept whole.
type Root struct {
	Cid   cid.Cid   `json:"-"`
	Name  string    `json:"name,omitempty"`
	By    peer.ID   `json:"-"` // who had it kept
	Added time.Time `json:"added"`
}

// Store is an open store. Its methods may be called from many goroutines.
type Store struct {
	dir    string
	lock   *flock.Flock
	flat   *flatfs.Datastore
	blocks blockstore.Blockstore

	mu      sync.Mutex
	seq     uint64
	changed time.Time
	roots   []Root // oldest first
}

// Open opens the store in dir and makes it where there is none. Its error
// wraps [ErrLocked], [ErrVersion] or [ErrCorrupt] where they apply.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("store: open %s: %w", dir, err)
	}
	lock := flock.New(filepath.Join(dir, "LOCK"))
	ok, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("store: lock %s: %w", dir, err)
	}
	if !ok {
		return nil, fmt.Errorf("%w: %s", ErrLocked, dir)
	}
	s := &Store{dir: dir, lock: lock}
	if err := s.open(); err != nil {
		return nil, errors.Join(err, lock.Unlock())
	}
	return s, nil
}

func (s *Store) open() error {
	if err := s.checkVersion(); err != nil {
		return err
	}
	if err := s.readRoots(); err != nil {
		return err
	}
	dir := filepath.Join(s.dir, "blocks")
	flat, err := flatfs.CreateOrOpen(dir, flatfs.NextToLast(2), true)
	if err != nil {
		return fmt.Errorf("store: open %s: %w", dir, err)
	}
	s.flat = flat
	// NoPrefix: flatfs takes flat keys.
	s.blocks = blockstore.NewIdStore(blockstore.NewBlockstore(flat, blockstore.NoPrefix()))
	return nil
}

func (s *Store) checkVersion() error {
	name := filepath.Join(s.dir, "VERSION")
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return writeFile(name, []byte(strconv.Itoa(Version)+"\n"), 0o600)
	}
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	v := strings.TrimSpace(string(b))
	if v != strconv.Itoa(Version) {
		return fmt.Errorf("%w: %s says %q, this program reads %d", ErrVersion, name, v, Version)
	}
	return nil
}

// Blockstore is where the blocks are. PutMany writes a batch with fewer
// fsyncs than as many Puts.
func (s *Store) Blockstore() blockstore.Blockstore { return s.blocks }

// Roots returns the kept roots, oldest first.
func (s *Store) Roots() []Root {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Root(nil), s.roots...)
}

// Seq returns the sequence number of the list of roots and when it last
// changed. It rises with every change, across restarts.
func (s *Store) Seq() (uint64, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seq, s.changed
}

// Keep adds r to the list. The caller has put all blocks of the DAG before.
// A root that is kept already moves to the end, with its new name and owner.
func (s *Store) Keep(ctx context.Context, r Root) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("store: keep %s: %w", r.Cid, err)
	}
	if !r.Cid.Defined() || len(r.Name) > MaxNameLen {
		return fmt.Errorf("store: keep %q: the CID is undefined or the name longer than %d bytes", r.Name, MaxNameLen)
	}
	if r.Added.IsZero() {
		r.Added = time.Now()
	}
	r.Added = r.Added.UTC().Truncate(time.Millisecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	roots := without(s.roots, r.Cid)
	if len(roots) >= owner.MaxRoots {
		return fmt.Errorf("%w: %d", ErrFull, len(roots))
	}
	return s.setRoots(append(roots, r))
}

// Drop takes c off the list; its blocks stay. Its error wraps [ErrUnknown].
func (s *Store) Drop(ctx context.Context, c cid.Cid) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("store: drop %s: %w", c, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	roots := without(s.roots, c)
	if len(roots) == len(s.roots) {
		return fmt.Errorf("%w: %s", ErrUnknown, c)
	}
	return s.setRoots(roots)
}

// Close releases the store. Calls after it fail.
func (s *Store) Close() error {
	return errors.Join(s.flat.Close(), s.lock.Unlock())
}

// without returns a copy of roots that lacks c.
func without(roots []Root, c cid.Cid) []Root {
	out := make([]Root, 0, len(roots)+1)
	for _, r := range roots {
		if !r.Cid.Equals(c) {
			out = append(out, r)
		}
	}
	return out
}

// setRoots writes the list and then takes it over; s.mu is held.
func (s *Store) setRoots(roots []Root) error {
	seq, now := s.seq+1, time.Now().UTC().Truncate(time.Millisecond)
	b, err := encodeRoots(seq, now, roots)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(s.dir, "roots.json"), b, 0o600); err != nil {
		return err
	}
	s.seq, s.changed, s.roots = seq, now, roots
	return nil
}

func (s *Store) readRoots() error {
	name := filepath.Join(s.dir, "roots.json")
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxRootsFile+1))
	if err != nil {
		return fmt.Errorf("store: read %s: %w", name, err)
	}
	s.seq, s.changed, s.roots, err = decodeRoots(b)
	if err != nil {
		return fmt.Errorf("%w: %s: %v; restore it from a copy, or delete it to start with no roots", ErrCorrupt, name, err)
	}
	return nil
}

// rootsFile is roots.json.
type rootsFile struct {
	Seq     uint64      `json:"seq"`
	Changed time.Time   `json:"changed"`
	Roots   []rootEntry `json:"roots"`
}

type rootEntry struct {
	Cid string `json:"cid"`
	By  string `json:"by,omitempty"`
	Root
}

func encodeRoots(seq uint64, changed time.Time, roots []Root) ([]byte, error) {
	f := rootsFile{Seq: seq, Changed: changed, Roots: make([]rootEntry, len(roots))}
	for i, r := range roots {
		f.Roots[i] = rootEntry{Cid: r.Cid.String(), By: r.By.String(), Root: r}
	}
	b, err := json.MarshalIndent(f, "", "\t")
	if err != nil {
		return nil, fmt.Errorf("store: encode roots: %w", err)
	}
	return append(b, '\n'), nil
}

func decodeRoots(b []byte) (uint64, time.Time, []Root, error) {
	var f rootsFile
	fail := func(err error) (uint64, time.Time, []Root, error) { return 0, time.Time{}, nil, err }
	if len(b) > maxRootsFile {
		return fail(fmt.Errorf("longer than %d bytes", maxRootsFile))
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return fail(err)
	}
	if len(f.Roots) > owner.MaxRoots {
		return fail(fmt.Errorf("%d roots, at most %d", len(f.Roots), owner.MaxRoots))
	}
	if len(f.Roots) > 0 && f.Seq == 0 {
		return fail(errors.New("no sequence number"))
	}
	roots := make([]Root, len(f.Roots))
	for i, e := range f.Roots {
		c, err := cid.Decode(e.Cid)
		if err != nil {
			return fail(fmt.Errorf("root %d: %w", i, err))
		}
		e.Root.Cid = c
		if e.By != "" {
			if e.Root.By, err = peer.Decode(e.By); err != nil {
				return fail(fmt.Errorf("root %d: %w", i, err))
			}
		}
		roots[i] = e.Root
	}
	return f.Seq, f.Changed, roots, nil
}

// Key returns the key kept in dir, and makes one where there is none. The file
// is readable by its user alone. Its error wraps [ErrCorrupt] where the file
// holds something else.
func Key(dir string) (crypto.PrivKey, error) {
	name := filepath.Join(dir, "identity.key")
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return newKey(dir, name)
	}
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, identity.MaxKeySize+1))
	if err != nil {
		return nil, fmt.Errorf("store: read %s: %w", name, err)
	}
	key, err := identity.Unmarshal(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrCorrupt, name, err)
	}
	return key, nil
}

func newKey(dir, name string) (crypto.PrivKey, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("store: new key: %w", err)
	}
	key, err := identity.New()
	if err != nil {
		return nil, err
	}
	b, err := identity.Marshal(key)
	if err != nil {
		return nil, err
	}
	tmp, err := writeTemp(name, b, 0o600)
	if err != nil {
		return nil, err
	}
	defer os.Remove(tmp)
	// Link, unlike rename, does not replace: of two processes that make the
	// key at once, both go on with the one that came first.
	if err := os.Link(tmp, name); errors.Is(err, fs.ErrExist) {
		return Key(dir)
	} else if err != nil {
		return nil, fmt.Errorf("store: new key: %w", err)
	}
	return key, syncDir(dir)
}

// maxNote bounds a note, in bytes.
const maxNote = 1 << 20

// Note returns what [Store.SetNote] kept under name last, nil for nothing.
func (s *Store) Note(name string) ([]byte, error) {
	f, err := os.Open(s.note(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxNote+1))
	if err != nil {
		return nil, fmt.Errorf("store: read %s: %w", f.Name(), err)
	}
	if len(b) > maxNote {
		return nil, fmt.Errorf("%w: %s: more than %d bytes", ErrCorrupt, f.Name(), maxNote)
	}
	return b, nil
}

// SetNote keeps b, of at most 1 MiB, under name: something that the relay can
// do without, and starts better with.
func (s *Store) SetNote(name string, b []byte) error {
	if len(b) > maxNote {
		return fmt.Errorf("store: note %s of %d bytes, at most %d", name, len(b), maxNote)
	}
	return writeFile(s.note(name), b, 0o600)
}

func (s *Store) note(name string) string { return filepath.Join(s.dir, name+".json") }

// writeFile replaces the file name by b: whole or not at all, and on disk when
// it returns.
func writeFile(name string, b []byte, mode fs.FileMode) error {
	tmp, err := writeTemp(name, b, mode)
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, name); err != nil {
		return fmt.Errorf("store: %w", errors.Join(err, os.Remove(tmp)))
	}
	return syncDir(filepath.Dir(name))
}

func writeTemp(name string, b []byte, mode fs.FileMode) (tmp string, err error) {
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".tmp")
	if err != nil {
		return "", fmt.Errorf("store: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("store: write %s: %w", name, errors.Join(err, os.Remove(f.Name())))
		}
	}()
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	return f.Name(), err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("store: sync %s: %w", dir, err)
	}
	return nil
}
