package idbstore

import (
	"container/list"
	"sync"
)

// blockOverhead is what holding a block costs beside its bytes, generously: its
// key and its places in the list and the map. Without it small blocks would
// fill a tab's memory before the cache was full.
const blockOverhead = 256

// lru keeps the bytes of blocks that were used last. It is safe for concurrent
// use; its lock is taken last.
type lru struct {
	mu    sync.Mutex
	max   int // bytes, each block counted with its overhead
	size  int
	order *list.List // of *hotBlock, last used first
	items map[string]*list.Element
}

type hotBlock struct {
	key  string
	data []byte
}

func newLRU(max int) *lru {
	return &lru{max: max, order: list.New(), items: map[string]*list.Element{}}
}

func (l *lru) get(key string) ([]byte, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.items[key]
	if !ok {
		return nil, false
	}
	l.order.MoveToFront(e)
	return e.Value.(*hotBlock).data, true
}

func (l *lru) add(key string, data []byte) {
	if len(data)+blockOverhead > l.max {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.items[key]; ok {
		l.order.MoveToFront(e)
		return
	}
	l.items[key] = l.order.PushFront(&hotBlock{key, data})
	l.size += len(data) + blockOverhead
	for l.size > l.max {
		l.drop(l.order.Back())
	}
}

func (l *lru) remove(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.items[key]; ok {
		l.drop(e)
	}
}

// drop removes e; mu is held.
func (l *lru) drop(e *list.Element) {
	b := e.Value.(*hotBlock)
	l.order.Remove(e)
	delete(l.items, b.key)
	l.size -= len(b.data) + blockOverhead
}
