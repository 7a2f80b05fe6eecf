package content

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/ipfs/go-cid"
)

// A Target is what a path leads to.
type Target struct {
	Cid  cid.Cid
	Kind Kind
	Size int64 // bytes of a file or of a symlink's target; 0 for directories
	node *node
}

// Resolve follows segments, names as they are in the directories, from root.
// Symlinks are not followed: one at the end is the target, one before it is
// [ErrNotDir]. Its error wraps [ErrNotFound], [ErrNotDir], [ErrNotUnixFS],
// [ErrBadBlock] or what get returned.
func Resolve(ctx context.Context, get Getter, root cid.Cid, segments []string) (Target, error) {
	n, err := load(ctx, get, root)
	if err != nil {
		return Target{}, err
	}
	at := root
	for _, name := range segments {
		if n.kind != Dir {
			return Target{}, fmt.Errorf("%w: %s, of which %q was asked", ErrNotDir, at, name)
		}
		l, err := n.find(ctx, get, at, name)
		if err != nil {
			return Target{}, err
		}
		if n, err = load(ctx, get, l.cid); err != nil {
			return Target{}, err
		}
		at = l.cid
	}
	return Target{Cid: at, Kind: n.kind, Size: n.size, node: n}, nil
}

// An Entry is one name in a directory.
type Entry struct {
	Name string // never empty, "." or "..", without slash and NUL
	Cid  cid.Cid
	Size int64 // bytes of the blocks below, as the directory's maker says; not verified
}

// listAhead is how many shards of a HAMT directory are fetched ahead.
const listAhead = 32

// List yields the entries of the directory dir, in the order in which it has
// them (a HAMT's is none that a person would recognise). A non-nil error is
// the last pair: the listing is then incomplete. A name that no file system
// would accept ends it with an error that wraps [ErrBadBlock], so a caller may
// join names to paths.
func List(ctx context.Context, get Getter, dir cid.Cid) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		n, err := load(ctx, get, dir)
		if err == nil && n.kind != Dir {
			err = fmt.Errorf("%w: %s", ErrNotDir, dir)
		}
		if err != nil {
			yield(Entry{}, err)
			return
		}
		budget := listAhead
		n.list(ctx, get, dir, 1, &budget, yield)
	}
}

func (n *node) list(ctx context.Context, get Getter, at cid.Cid, depth int, budget *int, yield func(Entry, error) bool) bool {
	skip := 0
	if n.fanout > 0 {
		skip = n.prefix()
	}
	if depth > MaxShardDepth {
		return yield(Entry{}, fmt.Errorf("%w: shard %s", ErrTooDeep, at)) && false
	}
	var shards []cid.Cid
	for _, l := range n.links {
		name := l.name[skip:]
		if name == "" && skip > 0 {
			shards = append(shards, l.cid)
			continue
		}
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
			return yield(Entry{}, fmt.Errorf("%w: directory %s has an entry named %q", ErrBadBlock, at, name)) && false
		}
		if !yield(Entry{Name: name, Cid: l.cid, Size: int64(l.size)}, nil) {
			return false
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	var ahead []*future[*node]
	defer func() {
		cancel()
		for _, f := range ahead {
			f.wait()
		}
	}()
	next := 0
	for _, c := range shards {
		for ; next < len(shards) && (len(ahead) == 0 || *budget > 0); next++ {
			ask := shards[next]
			*budget--
			ahead = append(ahead, start(func() (*node, error) { return load(ctx, get, ask) }))
		}
		sub, err := ahead[0].wait()
		ahead = ahead[1:]
		*budget++
		if err == nil && sub.fanout == 0 {
			err = fmt.Errorf("%w: %s is no shard, its parent %s is", ErrBadBlock, c, at)
		}
		if err != nil {
			return yield(Entry{}, err) && false
		}
		if !sub.list(ctx, get, c, depth+1, budget, yield) {
			return false
		}
	}
	return true
}

// A future is a value being made by a goroutine of its own.
type future[T any] struct {
	done chan struct{}
	v    T
	err  error
}

func start[T any](f func() (T, error)) *future[T] {
	p := &future[T]{done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.v, p.err = f()
	}()
	return p
}

func (p *future[T]) wait() (T, error) {
	<-p.done
	return p.v, p.err
}
