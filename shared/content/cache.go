package content

import (
	"container/list"
	"context"
	"sync"

	"github.com/ipfs/go-cid"
)

// A Cache keeps the directories and file indexes that were decoded last, so
// that six hundred requests below one directory decode it once. It is safe for
// concurrent use and may serve many getters; CIDs mean the same everywhere.
type Cache struct {
	max int

	mu    sync.Mutex
	size  int
	nodes map[string]*list.Element // of *cached, by multihash and codec
	order *list.List               // most recently used first
}

type cached struct {
	key  string
	node *node
}

// NewCache makes a cache of at most max bytes of blocks. What is held takes up
// to three times as much memory, decoded.
func NewCache(max int) *Cache {
	return &Cache{max: max, nodes: make(map[string]*list.Element), order: list.New()}
}

// Over returns a getter whose blocks come from get, and which [Resolve], [List]
// and [Open] ask for decoded nodes.
func (c *Cache) Over(get Getter) Getter { return cachedGetter{get, c} }

type cachedGetter struct {
	Getter
	cache *Cache
}

func (g cachedGetter) load(ctx context.Context, c cid.Cid) (*node, error) {
	key := c.KeyString()
	if n := g.cache.get(key); n != nil {
		return n, nil
	}
	data, err := Block(ctx, g.Getter, c)
	if err != nil {
		return nil, err
	}
	n, err := decode(c, data)
	if err == nil && len(n.links) > 0 {
		g.cache.put(key, n)
	}
	return n, err
}

func (c *Cache) get(key string) *node {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.nodes[key]
	if e == nil {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(*cached).node
}

func (c *Cache) put(key string, n *node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.nodes[key] != nil || n.weight > c.max {
		return
	}
	c.nodes[key] = c.order.PushFront(&cached{key, n})
	c.size += n.weight
	for c.size > c.max {
		e := c.order.Back()
		old := c.order.Remove(e).(*cached)
		delete(c.nodes, old.key)
		c.size -= old.node.weight
	}
}
