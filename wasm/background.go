//go:build js && wasm

package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/boxo/blockservice"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"

	"github.com/webfabric/weft/shared/content"
	"github.com/webfabric/weft/wasm/jsapi"
)

const (
	// keepers is how many paths are fetched at once in the background, and
	// keepParallel how many blocks of each: few, since the page's own requests
	// come first.
	keepers      = 4
	keepParallel = 8
	// maxKeep bounds the paths that wait, and maxKept those that are remembered
	// as done: a large page's worth each.
	maxKeep = 4096
	maxKept = 16384
)

// keeper fetches into the store what the page has already got another way, so
// that it is there when the relay is not.
type keeper struct {
	a    *app
	work chan string
	mu   sync.Mutex
	done map[string]bool
}

func newKeeper(ctx context.Context, a *app) *keeper {
	k := &keeper{a: a, work: make(chan string, maxKeep), done: map[string]bool{}}
	for range keepers {
		go func() { // until ctx ends, which is with the program
			for {
				select {
				case p := <-k.work:
					jsapi.Guard(func() { k.keep(ctx, p) })
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	return k
}

// add queues paths, /ipfs/<cid>/…, percent-encoded as in a URL. Past the cap
// the rest is left out.
func (k *keeper) add(paths []string) error {
	for _, p := range paths {
		if _, _, err := parsePath(p); err != nil {
			return err
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range paths {
		if k.done[p] {
			continue
		}
		select {
		case k.work <- p:
			if len(k.done) >= maxKept {
				clear(k.done)
			}
			k.done[p] = true
		default:
			k.a.log.Warn("too much to keep at once", "paths", len(paths))
			return nil
		}
	}
	return nil
}

func (k *keeper) keep(ctx context.Context, path string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ctx, _ = content.Ahead(ctx) // nobody waits for it
	root, segments, err := parsePath(path)
	if err == nil {
		get := blockservice.NewSession(ctx, k.a.node.Blocks())
		var t content.Target
		if t, err = content.Resolve(ctx, get, root, segments); err == nil {
			err = content.Walk(ctx, get, t.Cid, func(blocks.Block) error { return nil }, content.WithParallel(keepParallel))
		}
	}
	if err != nil {
		k.a.log.Warn("path not kept", "path", path, "err", err)
		k.mu.Lock()
		delete(k.done, path) // it may be asked for again
		k.mu.Unlock()
	}
}

// parsePath splits /ipfs/<cid>/a/b%20c.
func parsePath(p string) (cid.Cid, []string, error) {
	rest, ok := strings.CutPrefix(p, "/ipfs/")
	if !ok {
		return cid.Undef, nil, fmt.Errorf("%w: %q does not start with /ipfs/", jsapi.ErrArguments, p)
	}
	rest, _, _ = strings.Cut(rest, "?")
	rest, _, _ = strings.Cut(rest, "#")
	parts := strings.Split(rest, "/")
	root, err := parseCID(parts[0])
	if err != nil {
		return cid.Undef, nil, err
	}
	var segments []string
	for _, s := range parts[1:] {
		if s == "" {
			continue
		}
		s, err := url.PathUnescape(s)
		if err != nil {
			return cid.Undef, nil, fmt.Errorf("%w: %q: %v", jsapi.ErrArguments, p, err)
		}
		segments = append(segments, s)
	}
	return root, segments, nil
}

// blockInterval is how often received blocks are reported: a page shows a
// number that moves, not each of some hundred blocks a second.
const blockInterval = 200 * time.Millisecond

// blockEvents gathers received blocks into events {cid, bytes, blocks, from}:
// the last CID of the interval, and the sums.
type blockEvents struct {
	send func(map[string]any)
	mu   sync.Mutex
	sums [2]struct {
		last   cid.Cid
		bytes  int
		blocks int
	}
	armed bool
}

func (e *blockEvents) add(relay bool, c cid.Cid, size int) {
	i := 0
	if relay {
		i = 1
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	s := &e.sums[i]
	s.last, s.bytes, s.blocks = c, s.bytes+size, s.blocks+1
	if !e.armed {
		e.armed = true
		time.AfterFunc(blockInterval, e.flush)
	}
}

func (e *blockEvents) flush() {
	e.mu.Lock()
	sums := e.sums
	e.armed = false
	e.sums[0].blocks, e.sums[0].bytes = 0, 0
	e.sums[1].blocks, e.sums[1].bytes = 0, 0
	e.mu.Unlock()
	for i, s := range sums {
		if s.blocks > 0 {
			e.send(map[string]any{
				"cid": s.last.String(), "bytes": s.bytes, "blocks": s.blocks,
				"from": [...]string{"peer", "relay"}[i],
			})
		}
	}
}
