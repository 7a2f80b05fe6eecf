package content

import (
	"context"
	"fmt"
	"iter"
	"math"
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
		l := lister{get: get, yield: yield, budget: listAhead, seen: make(map[string]bool)}
		l.list(ctx, n, dir, 1)
	}
}

type lister struct {
	get    Getter
	yield  func(Entry, error) bool
	budget int             // shards that may still be fetched ahead
	seen   map[string]bool // multihashes of shards
}

// list yields what is in and below n, and tells whether to go on.
func (ls *lister) list(ctx context.Context, n *node, at cid.Cid, depth int) bool {
	skip := 0
	if n.fanout > 0 {
		skip = n.prefix()
	}
	if depth > MaxShardDepth {
		return ls.yield(Entry{}, fmt.Errorf("%w: shard %s", ErrTooDeep, at)) && false
	}
	var shards []cid.Cid
	for _, l := range n.links {
		name := l.name[skip:]
		if name == "" && skip > 0 {
			// The same shard twice would hold the same names in two places,
			// where their hashes cannot both lead; but a few blocks that say so
			// would have us list for ever.
			if ls.seen[string(l.cid.Hash())] {
				return ls.yield(Entry{}, fmt.Errorf("%w: shard %s is in a directory twice", ErrBadBlock, l.cid)) && false
			}
			ls.seen[string(l.cid.Hash())] = true
			shards = append(shards, l.cid)
			continue
		}
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
			return ls.yield(Entry{}, fmt.Errorf("%w: directory %s has an entry named %q", ErrBadBlock, at, name)) && false
		}
		if !ls.yield(Entry{Name: name, Cid: l.cid, Size: int64(min(l.size, math.MaxInt64))}, nil) {
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
		for ; next < len(shards) && (len(ahead) == 0 || ls.budget > 0); next++ {
			ask := shards[next]
			ls.budget--
			ahead = append(ahead, start(func() (*node, error) { return load(ctx, ls.get, ask) }))
		}
		sub, err := ahead[0].wait()
		ahead = ahead[1:]
		ls.budget++
		if err == nil && sub.fanout == 0 {
			err = fmt.Errorf("%w: %s is no shard, its parent %s is", ErrBadBlock, c, at)
		}
		if err != nil {
			return ls.yield(Entry{}, err) && false
		}
		if !ls.list(ctx, sub, c, depth+1) {
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
