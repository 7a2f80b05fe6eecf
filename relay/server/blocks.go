package server

import (
	"container/list"
	"context"
	"sync"

	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
)

// tiered is the relay's blockstore: what is kept, on disk, and in front of it
// a bounded cache in memory of what passed through. Put writes to the cache:
// only a publish writes to disk, by itself.
type tiered struct {
	kept  blockstore.Blockstore
	cache *cache
	seen  func(where string) // counts where a Get found its block
}

var _ blockstore.Blockstore = (*tiered)(nil)

func (t *tiered) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	if b, ok := t.cache.get(c); ok {
		t.seen("cache")
		return b, nil
	}
	b, err := t.kept.Get(ctx, c)
	switch {
	case err == nil:
		t.seen("kept")
	case ipld.IsNotFound(err):
		t.seen("miss")
	}
	return b, err
}

func (t *tiered) Has(ctx context.Context, c cid.Cid) (bool, error) {
	if _, ok := t.cache.get(c); ok {
		return true, nil
	}
	return t.kept.Has(ctx, c)
}

func (t *tiered) GetSize(ctx context.Context, c cid.Cid) (int, error) {
	if b, ok := t.cache.get(c); ok {
		return len(b.RawData()), nil
	}
	return t.kept.GetSize(ctx, c)
}

func (t *tiered) Put(ctx context.Context, b blocks.Block) error {
	if has, err := t.kept.Has(ctx, b.Cid()); err != nil || has {
		return err
	}
	t.cache.put(b)
	return nil
}

func (t *tiered) PutMany(ctx context.Context, bs []blocks.Block) error {
	for _, b := range bs {
		if err := t.Put(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// DeleteBlock forgets a cached block. What is kept stays.
func (t *tiered) DeleteBlock(_ context.Context, c cid.Cid) error {
	t.cache.drop(c)
	return nil
}

// AllKeysChan lists what is kept.
func (t *tiered) AllKeysChan(ctx context.Context) (<-chan cid.Cid, error) {
	return t.kept.AllKeysChan(ctx)
}

// blockOverhead is what holding a block costs beside its bytes, generously: its
// CID, its places in the list and the map. Without it a stranger's one-byte
// blocks would fill the machine before the cache was full.
const blockOverhead = 512

// cache holds the blocks used last, at most max bytes of them, each counted
// with its overhead.
type cache struct {
	max int64

	mu    sync.Mutex
	size  int64
	order *list.List // of blocks.Block, the one used last in front
	byKey map[string]*list.Element
}

func newCache(max int64) *cache {
	return &cache{max: max, order: list.New(), byKey: make(map[string]*list.Element)}
}

func (c *cache) get(k cid.Cid) (blocks.Block, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byKey[string(k.Hash())]
	if !ok {
		return nil, false
	}
	c.order.MoveToFront(e)
	b := e.Value.(blocks.Block)
	if b.Cid().Equals(k) {
		return b, true
	}
	// The same bytes under another codec or version.
	b, err := blocks.NewBlockWithCid(b.RawData(), k)
	return b, err == nil
}

func (c *cache) put(b blocks.Block) {
	n := cost(b)
	if n > c.max {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	key := string(b.Cid().Hash())
	if e, ok := c.byKey[key]; ok {
		c.order.MoveToFront(e)
		return
	}
	c.byKey[key] = c.order.PushFront(b)
	c.size += n
	for c.size > c.max {
		c.remove(c.order.Back())
	}
}

func (c *cache) drop(k cid.Cid) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.byKey[string(k.Hash())]; ok {
		c.remove(e)
	}
}

// remove forgets e; c.mu is held.
func (c *cache) remove(e *list.Element) {
	b := c.order.Remove(e).(blocks.Block)
	delete(c.byKey, string(b.Cid().Hash()))
	c.size -= cost(b)
}

func cost(b blocks.Block) int64 { return int64(len(b.RawData())) + blockOverhead }
