package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/gofrs/flock"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/webfabric/weft/shared/content"
)

func getCommand() *cobra.Command {
	var relay, out string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "get CID[/path]",
		Short: "Fetch a file or a folder, every block verified",
		Long: `Fetch a file or a folder from a relay, and verify every block of it.

Nothing that exists is overwritten. An interrupted fetch leaves OUT.weft-part;
the same command goes on from there. Links that lead out of the folder are left
out, with a note.`,
		Example: `  weft get bafy…                      # into a folder or file of that name
  weft get bafy…/index.html -o page.html
  weft get bafy…/data.json -o - | jq .`,
		Args: takes("CID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			root, segments, err := parsePath(args[0])
			if err != nil {
				return err
			}
			if out == "" {
				out = root.String()
				if len(segments) > 0 {
					out = segments[len(segments)-1]
				}
			}
			return withRelay(cmd.Context(), relay, func(ctx context.Context, get content.Getter) error {
				target, err := content.Resolve(ctx, get, root, segments)
				if err != nil {
					return err
				}
				if out == "-" {
					return toStdout(ctx, get, target, cmd.OutOrStdout())
				}
				got, err := fetchTo(ctx, get, target, out, cmd.ErrOrStderr())
				if err != nil {
					return err
				}
				if asJSON {
					return json.NewEncoder(cmd.OutOrStdout()).Encode(got)
				}
				fmt.Fprintln(cmd.OutOrStdout(), out)
				return nil
			})
		},
	}
	relayFlag(cmd, &relay)
	cmd.Flags().StringVarP(&out, "out", "o", "", "`path` to write to, - for stdout (default: the last part of CID/path)")
	jsonFlag(cmd, &asJSON)
	return cmd
}

// fetched is the result with --json.
type fetched struct {
	Cid     string   `json:"cid"`
	Out     string   `json:"out"`
	Files   int      `json:"files"`
	Bytes   int64    `json:"bytes"`
	Skipped []string `json:"skipped,omitempty"` // links that lead out of the folder
}

func toStdout(ctx context.Context, get content.Getter, t content.Target, stdout io.Writer) error {
	if t.Kind == content.Dir {
		return fmt.Errorf("%s is a folder: name a file in it, or a folder to write to with -o", t.Cid)
	}
	r, err := content.Open(ctx, get, t)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(stdout, r)
	return err
}

// fetchTo writes t to out, which must not exist. Until it is whole it is in
// out.weft-part/content; what earlier attempts left there is reused, block by
// block, as far as its hashes are right.
func fetchTo(ctx context.Context, get content.Getter, t content.Target, out string, stderr io.Writer) (fetched, error) {
	if t.Kind == content.Symlink {
		return fetched{}, fmt.Errorf("%s is a link: fetch what it leads to, or the folder that it is in", t.Cid)
	}
	absent := func() error {
		if _, err := os.Lstat(out); !errors.Is(err, fs.ErrNotExist) {
			return errors.Join(err, fmt.Errorf("%s exists: remove it, or name another place with -o", out))
		}
		return nil
	}
	if err := absent(); err != nil {
		return fetched{}, err
	}
	part := filepath.Clean(out) + ".weft-part"
	if err := os.MkdirAll(part, 0o755); err != nil {
		return fetched{}, err
	}
	lock := flock.New(filepath.Join(part, "lock"))
	if ok, err := lock.TryLock(); !ok {
		return fetched{}, errors.Join(err, fmt.Errorf("another `weft get` is writing %s: let it end, or name another place with -o", out))
	}
	defer lock.Close()
	root, err := os.OpenRoot(part)
	if err != nil {
		return fetched{}, err
	}
	defer root.Close()
	earlier, err := openEarlier(root, get)
	if err != nil {
		return fetched{}, err
	}
	total := int64(-1) // nobody knows the size of a folder without reading all of it
	if t.Kind == content.File {
		total = t.Size
	}
	w := &writer{ctx: ctx, get: earlier, root: root, bar: newProgress(stderr, "fetching", total)}
	err = w.write(t, "content")
	w.bar.done()
	if err != nil {
		return fetched{}, err
	}
	if err := absent(); err != nil {
		return fetched{}, err
	}
	if err := os.Rename(filepath.Join(part, "content"), out); err != nil {
		return fetched{}, err
	}
	for _, name := range w.skipped {
		fmt.Fprintf(stderr, "weft: left out the link %q: it leads out of the folder\n", name)
	}
	return fetched{Cid: t.Cid.String(), Out: out, Files: int(w.files.Load()), Bytes: w.bytes.Load(), Skipped: w.skipped}, os.RemoveAll(part)
}

// writer writes one DAG below root, which nothing it does can leave.
type writer struct {
	ctx  context.Context
	get  content.Getter
	root *os.Root
	bar  progress

	files   atomic.Int64
	bytes   atomic.Int64
	mu      sync.Mutex // guards skipped
	skipped []string
}

// parallel is how many entries of folders are fetched at once. One after the
// other they would come at 50 a second whatever the line: boxo's Bitswap waits
// 20 ms between two messages to a peer (messagequeue.minSendMessageDelay).
const parallel = 16

// maxDepth bounds how deep folders may nest; paths end at 4,096 bytes anyhow.
const maxDepth = 256

func (w *writer) write(t content.Target, name string) error {
	group, ctx := errgroup.WithContext(w.ctx)
	group.SetLimit(parallel)
	w.ctx = ctx
	err := w.entry(group, t, name, 0)
	if first := group.Wait(); first != nil {
		return first // err then only says that it was cancelled
	}
	return err
}

func (w *writer) entry(group *errgroup.Group, t content.Target, name string, depth int) error {
	switch {
	case t.Kind == content.Symlink:
		return w.link(t, name)
	case t.Kind == content.File:
		return w.file(t, name)
	case depth == maxDepth:
		return fmt.Errorf("%s: folders nested deeper than %d", name, maxDepth)
	}
	// Mkdir, not MkdirAll: a folder that names an entry twice is refused.
	if err := w.root.Mkdir(name, 0o755); err != nil {
		return err
	}
	for e, err := range content.List(w.ctx, w.get, t.Cid) {
		if err != nil {
			return err
		}
		if err := checkName(e.Name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		name := path.Join(name, e.Name)
		one := func() error {
			child, err := content.Resolve(w.ctx, w.get, e.Cid, nil)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return w.entry(group, child, name, depth+1)
		}
		// Waiting for a place from within one could wait for ever.
		if group.TryGo(one) {
			continue
		}
		if err := one(); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) file(t content.Target, name string) error {
	r, err := content.Open(w.ctx, w.get, t)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer r.Close()
	f, err := w.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.MultiWriter(f, counter{w}), r)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	w.files.Add(1)
	return nil
}

// counter counts what is written, for the bar.
type counter struct{ w *writer }

func (c counter) Write(p []byte) (int, error) {
	c.w.bar.at(c.w.bytes.Add(int64(len(p))))
	return len(p), nil
}

// maxLink bounds a symlink's target, in bytes: PATH_MAX on Linux.
const maxLink = 4096

func (w *writer) link(t content.Target, name string) error {
	r, err := content.Open(w.ctx, w.get, t)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxLink+1))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if !linkInside(name, string(b)) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.skipped = append(w.skipped, strings.TrimPrefix(name, "content/"))
		return nil
	}
	w.files.Add(1)
	return w.root.Symlink(string(b), name)
}

// linkInside tells whether a link at name, which begins with "content/", leads
// to somewhere below content whatever other such links are there: ".." may only
// come first, where it steps out of folders that are no links.
func linkInside(name, to string) bool {
	if to == "" || len(to) > maxLink || strings.ContainsAny(to, "\x00\\") || path.IsAbs(to) {
		return false
	}
	up := 0
	steps := strings.Split(to, "/")
	for up < len(steps) && steps[up] == ".." {
		up++
	}
	return up < strings.Count(name, "/") && !slices.Contains(steps[up:], "..")
}

// errName means a directory entry that is no plain file name.
var errName = errors.New("not a plain file name")

// checkName refuses what would mean another place than a file in its folder.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\\\x00") || !filepath.IsLocal(name) {
		return fmt.Errorf("%w: %q", errName, name)
	}
	return nil
}

// earlier is a getter that looks first in what earlier attempts have written.
// Files need no marks of how far they are good: each piece is found, and
// verified, by its hash.
type earlier struct {
	from content.Getter
	root *os.Root
	at   map[[sha256.Size]byte]piece
}

type piece struct {
	file string
	off  int64
	n    int
}

var _ content.Getter = (*earlier)(nil)

// openEarlier moves aside what an earlier attempt has left in root/content, and
// indexes it.
func openEarlier(root *os.Root, from content.Getter) (*earlier, error) {
	e := &earlier{from: from, root: root, at: map[[sha256.Size]byte]piece{}}
	for n := 0; ; n++ {
		name := fmt.Sprintf("earlier-%d", n)
		_, err := root.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			err = root.Rename("content", name)
			if errors.Is(err, fs.ErrNotExist) {
				return e, nil
			}
		}
		if err != nil {
			return nil, err
		}
		err = fs.WalkDir(root.FS(), name, func(p string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			return e.index(p)
		})
		if err != nil {
			return nil, err
		}
	}
}

// index notes the pieces of file: of 1 MiB, as Weft publishes, and of 256 KiB,
// as Kubo does by default. The shorter rest at the end is one too.
func (e *earlier) index(file string) error {
	f, err := e.root.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	const large, small = 1 << 20, 256 << 10
	buf := make([]byte, large)
	for off := int64(0); ; {
		n, err := io.ReadFull(f, buf)
		if n > 0 {
			e.at[sha256.Sum256(buf[:n])] = piece{file, off, n}
		}
		for i := 0; i < n; i += small {
			m := min(small, n-i)
			e.at[sha256.Sum256(buf[i:i+m])] = piece{file, off + int64(i), m}
		}
		off += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (e *earlier) GetBlock(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	if b, ok := e.local(c); ok {
		return b, nil
	}
	return e.from.GetBlock(ctx, c)
}

// local is the block c out of an earlier attempt's files, if it is there.
func (e *earlier) local(c cid.Cid) (blocks.Block, bool) {
	mh, err := multihash.Decode(c.Hash())
	if err != nil || mh.Code != multihash.SHA2_256 || len(mh.Digest) != sha256.Size {
		return nil, false
	}
	p, ok := e.at[[sha256.Size]byte(mh.Digest)]
	if !ok {
		return nil, false
	}
	f, err := e.root.Open(p.file)
	if err != nil {
		return nil, false
	}
	defer f.Close()
	buf := make([]byte, p.n)
	if _, err := f.ReadAt(buf, p.off); err != nil || content.Check(c, buf) != nil {
		return nil, false
	}
	b, err := blocks.NewBlockWithCid(buf, c)
	return b, err == nil
}
