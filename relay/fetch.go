package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"

	"github.com/webfabric/weft/relay/client"
	"github.com/webfabric/weft/shared/content"
	"github.com/webfabric/weft/shared/identity"
)

// idle is how long a fetch waits for the next block. A variable for tests.
var idle = 30 * time.Second

// errNoProvider means that a block did not come within [idle].
var errNoProvider = errors.New("nobody sent the next block")

// parsePath reads CID[/path], with or without /ipfs/ or ipfs:// before it.
func parsePath(arg string) (cid.Cid, []string, error) {
	s := strings.TrimPrefix(strings.TrimPrefix(arg, "ipfs://"), "/ipfs/")
	first, rest, _ := strings.Cut(s, "/")
	root, err := cid.Decode(first)
	if err != nil {
		return cid.Undef, nil, usagef("%q does not begin with a CID: %v", arg, err)
	}
	var segments []string
	for name := range strings.SplitSeq(rest, "/") {
		if name == "" {
			continue
		}
		if err := checkName(name); err != nil {
			return cid.Undef, nil, usagef("%q: %v", arg, err)
		}
		segments = append(segments, name)
	}
	return root, segments, nil
}

// withRelay runs do with a getter of blocks from the relay, with an identity
// for this once and no store: what is fetched is verified and handed on.
func withRelay(ctx context.Context, relay string, do func(context.Context, content.Getter) error) error {
	at, err := findRelay(relay)
	if err != nil {
		return err
	}
	r, err := client.Find(ctx, at.URL, at.PeerID)
	if err != nil {
		return explain(err, at)
	}
	key, err := identity.New()
	if err != nil {
		return err
	}
	p, err := client.Connect(ctx, r, key, blockstore.NewBlockstore(datastore.NewNullDatastore()))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watched{from: p.Session(ctx), cancel: cancel, pending: map[cid.Cid]int{}}
	err = do(ctx, w)
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, errNoProvider) {
		err = fmt.Errorf("%w within %v: the relay at %s does not hold it, and knows nobody who does", cause, idle, at.URL)
	}
	cancel(nil)
	return errors.Join(err, p.Close())
}

// recent is how many blocks [watched] remembers: a folder's is asked for twice
// in a row, to see what it is and then to list it, and there is no store.
const recent = 4 * parallel

// watched cancels the whole fetch when blocks are wanted and none has come for
// [idle]: one slow block among many is no reason to give up.
type watched struct {
	from   content.Getter
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	pending map[cid.Cid]int
	timer   *time.Timer // runs while something is pending
	recent  []blocks.Block
}

var _ content.Getter = (*watched)(nil)

func (w *watched) GetBlock(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	w.mu.Lock()
	for _, b := range w.recent {
		if b.Cid().Equals(c) {
			w.mu.Unlock()
			return b, nil
		}
	}
	if len(w.pending) == 0 {
		w.timer = time.AfterFunc(idle, w.giveUp)
	}
	w.pending[c]++
	w.mu.Unlock()
	b, err := w.from.GetBlock(ctx, c)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		if len(w.recent) == recent {
			w.recent = w.recent[1:]
		}
		w.recent = append(w.recent, b)
	}
	if w.pending[c]--; w.pending[c] == 0 {
		delete(w.pending, c)
	}
	if len(w.pending) == 0 {
		w.timer.Stop()
	} else if err == nil {
		w.timer.Reset(idle)
	}
	return b, err
}

// giveUp names one of the blocks that did not come.
func (w *watched) giveUp() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.pending {
		w.cancel(fmt.Errorf("%w (%s)", errNoProvider, c))
		return
	}
}
