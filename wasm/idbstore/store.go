//go:build js && wasm

package idbstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"syscall/js"
	"time"

	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"

	"github.com/hack-pad/go-indexeddb/idb"

	"github.com/webfabric/weft/wasm/jsbytes"
)

const (
	// batchBlocks and batchBytes bound a transaction: 16 puts of 256 KiB in
	// one transaction were three times as fast as one each, and more gained
	// nothing (DESIGN 5).
	batchBlocks = 16
	batchBytes  = 4 << 20
	// maxQueued bounds what waits to be written, in bytes; Put blocks beyond.
	maxQueued = 16 << 20
	// graceTime keeps blocks from eviction after their last use: longer than
	// the parts of one request are apart.
	graceTime = 15 * time.Second
	// touchTime is how much older than its true value a last use on disk may
	// be: writing each use would turn every read into a write.
	touchTime = 10 * time.Minute
)

// A Store is a blockstore in IndexedDB. It is safe for concurrent use.
type Store struct {
	db  jsDB
	log *slog.Logger
	hot *lru

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	loaded chan struct{} // closed when index and pins have been read
	work   chan struct{} // capacity 1: the writer has something to do

	mu      sync.Mutex
	limit   int64 // of stored bytes; 0 for none but the browser's own
	loadErr error
	index   map[string]*entry   // blocks in the database; complete once loaded
	gone    map[string]struct{} // deleted while loading
	bytes   int64               // sum of sizes in index
	pins    map[string][]string // root → keys
	pinned  map[string]int      // key → number of pins that hold it
	queue   map[string]*put     // not yet in the database
	order   []string            // of queue
	queued  int                 // bytes in queue
	room    chan struct{}       // closed and replaced when the queue got shorter
	lost    error               // first write that failed since the last Flush
	dirty   map[string]struct{} // last use is to be written
}

// entry is what is known of a stored block.
type entry struct {
	size    int
	used    time.Time
	written time.Time // the last use that the database has
	reading int       // readers under way
}

// put is a queued block.
type put struct {
	data []byte
}

var _ blockstore.Blockstore = (*Store)(nil)

// An Option changes a Store.
type Option func(*Store)

// WithLimit sets how many bytes of blocks are kept, pinned ones included; the
// default is what the browser allows.
func WithLimit(n int64) Option { return func(s *Store) { s.limit = n } }

// WithCache sets how many bytes of blocks are kept in memory too; the default
// is 16 MiB.
func WithCache(n int) Option { return func(s *Store) { s.hot = newLRU(n) } }

// WithLogger sets where failures of background work are logged; the default
// is slog.DiscardHandler.
func WithLogger(log *slog.Logger) Option { return func(s *Store) { s.log = log } }

// Open opens the database called name, making it if there is none. Its error
// wraps [ErrVersion] if a later version wrote it.
func Open(ctx context.Context, name string, opts ...Option) (*Store, error) {
	s := &Store{
		log:    slog.New(slog.DiscardHandler),
		hot:    newLRU(16 << 20),
		loaded: make(chan struct{}),
		work:   make(chan struct{}, 1),
		room:   make(chan struct{}),
		index:  map[string]*entry{},
		gone:   map[string]struct{}{},
		pins:   map[string][]string{},
		pinned: map[string]int{},
		queue:  map[string]*put{},
		dirty:  map[string]struct{}{},
	}
	for _, o := range opts {
		o(s)
	}
	db, err := openDB(ctx, name)
	if err != nil {
		return nil, err
	}
	s.db = db
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.wg.Go(s.load)
	s.wg.Go(s.write)
	return s, nil
}

// SetLimit changes what [WithLimit] set.
func (s *Store) SetLimit(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = n
}

// Close writes what is queued, then closes the database.
func (s *Store) Close() error {
	err := s.Flush(context.Background())
	s.cancel()
	s.wg.Wait()
	return errors.Join(err, s.db.db.Close())
}

// load reads index and pins. Until it is done, reads ask the database.
func (s *Store) load() {
	defer close(s.loaded)
	err := s.db.all(s.ctx, storePins, func(root string, v js.Value) error {
		b, err := bytesOf(v)
		if err != nil {
			return err
		}
		keys, err := parseKeys(b)
		if err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if _, ok := s.pins[root]; !ok {
			s.hold(root, keys)
		}
		return nil
	})
	if err == nil {
		err = s.db.all(s.ctx, storeIndex, func(key string, v js.Value) error {
			size, used, err := entryOf(v.Float())
			if err != nil {
				return err
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if _, ok := s.gone[key]; ok || s.index[key] != nil {
				return nil
			}
			s.index[key] = &entry{size: size, used: used, written: used}
			s.bytes += int64(size)
			return nil
		})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = nil
	if err != nil && s.ctx.Err() == nil {
		s.loadErr = fmt.Errorf("idbstore: load: %w", err)
		s.log.Error("block index not read", "err", err)
	}
}

// ready waits until the index is complete.
func (s *Store) ready(ctx context.Context) error {
	select {
	case <-s.loaded:
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.loadErr
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.ctx.Done():
		return ErrClosed
	}
}

// complete tells whether index holds every block; mu is held.
func (s *Store) complete() bool {
	select {
	case <-s.loaded:
		return s.loadErr == nil
	default:
		return false
	}
}

// use notes a use of a stored block; mu is held.
func (s *Store) use(key string, e *entry) {
	e.used = time.Now()
	if e.used.Sub(e.written) >= touchTime {
		s.dirty[key] = struct{}{}
	}
}

// Get returns a block. Its error is ipld.ErrNotFound if the store has it not.
func (s *Store) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	key := keyOf(c.Hash())
	s.mu.Lock()
	if p := s.queue[key]; p != nil {
		s.mu.Unlock()
		return blocks.NewBlockWithCid(p.data, c)
	}
	e := s.index[key]
	if e == nil && s.complete() {
		s.mu.Unlock()
		return nil, ipld.ErrNotFound{Cid: c}
	}
	if e != nil {
		s.use(key, e)
		e.reading++
		defer func() {
			s.mu.Lock()
			e.reading--
			s.mu.Unlock()
		}()
	}
	s.mu.Unlock()
	if b, ok := s.hot.get(key); ok {
		return blocks.NewBlockWithCid(b, c)
	}
	v, err := s.db.get(ctx, storeBlocks, key)
	if err != nil {
		return nil, fmt.Errorf("idbstore: get %s: %w", c, err)
	}
	if v.IsUndefined() {
		s.forget(key)
		return nil, ipld.ErrNotFound{Cid: c}
	}
	b, err := bytesOf(v)
	if err != nil {
		return nil, fmt.Errorf("idbstore: get %s: %w", c, err)
	}
	s.hot.add(key, b)
	return blocks.NewBlockWithCid(b, c)
}

// forget drops what is known of a block that the database has not; mu is not held.
func (s *Store) forget(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(key)
}

// remove is forget for callers that hold mu.
func (s *Store) remove(key string) {
	if e := s.index[key]; e != nil {
		s.bytes -= int64(e.size)
		delete(s.index, key)
	}
	delete(s.dirty, key)
	if s.gone != nil {
		s.gone[key] = struct{}{}
	}
	s.hot.remove(key)
}

// Has tells whether the store has a block.
func (s *Store) Has(ctx context.Context, c cid.Cid) (bool, error) {
	_, err := s.GetSize(ctx, c)
	if ipld.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// GetSize returns a block's size. Its error is ipld.ErrNotFound if the store
// has it not.
func (s *Store) GetSize(ctx context.Context, c cid.Cid) (int, error) {
	key := keyOf(c.Hash())
	s.mu.Lock()
	if p := s.queue[key]; p != nil {
		s.mu.Unlock()
		return len(p.data), nil
	}
	if e := s.index[key]; e != nil {
		s.mu.Unlock()
		return e.size, nil
	}
	known := s.complete()
	s.mu.Unlock()
	if known {
		return 0, ipld.ErrNotFound{Cid: c}
	}
	v, err := s.db.get(ctx, storeIndex, key)
	if err != nil {
		return 0, fmt.Errorf("idbstore: size of %s: %w", c, err)
	}
	if v.IsUndefined() {
		return 0, ipld.ErrNotFound{Cid: c}
	}
	size, _, err := entryOf(v.Float())
	return size, err
}

// Put queues a block, which must hash to its CID.
func (s *Store) Put(ctx context.Context, b blocks.Block) error {
	return s.PutMany(ctx, []blocks.Block{b})
}

// PutMany queues blocks, which must hash to their CIDs. It waits while too much
// is queued.
func (s *Store) PutMany(ctx context.Context, bs []blocks.Block) error {
	for _, b := range bs {
		if len(b.RawData()) > MaxBlockSize {
			return fmt.Errorf("%w: %s has %d bytes", ErrTooLarge, b.Cid(), len(b.RawData()))
		}
	}
	for _, b := range bs {
		if err := s.enqueue(ctx, keyOf(b.Cid().Hash()), b.RawData()); err != nil {
			return fmt.Errorf("idbstore: put %s: %w", b.Cid(), err)
		}
	}
	return nil
}

func (s *Store) enqueue(ctx context.Context, key string, data []byte) error {
	for {
		s.mu.Lock()
		if e := s.index[key]; e != nil {
			s.use(key, e)
			s.mu.Unlock()
			return nil
		}
		if s.queue[key] != nil {
			s.mu.Unlock()
			return nil
		}
		if s.ctx.Err() != nil {
			s.mu.Unlock()
			return ErrClosed
		}
		if s.queued+len(data) <= maxQueued {
			s.queue[key] = &put{data: data}
			s.order = append(s.order, key)
			s.queued += len(data)
			s.mu.Unlock()
			s.poke()
			return nil
		}
		room := s.room
		s.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.ctx.Done():
			return ErrClosed
		}
	}
}

func (s *Store) poke() {
	select {
	case s.work <- struct{}{}:
	default:
	}
}

// Flush waits until every block queued before is in the database, and returns
// the error of the first that could not be written since the last Flush.
func (s *Store) Flush(ctx context.Context) error {
	s.poke()
	for {
		s.mu.Lock()
		if len(s.queue) == 0 {
			err := s.lost
			s.lost = nil
			s.mu.Unlock()
			return err
		}
		room := s.room
		s.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.ctx.Done():
			return ErrClosed
		}
	}
}

// write moves the queue into the database until the store closes.
func (s *Store) write() {
	touch := time.NewTicker(touchTime / 4)
	defer touch.Stop()
	for {
		select {
		case <-s.work:
		case <-touch.C:
		case <-s.ctx.Done():
			return
		}
		for s.writeBatch() {
		}
	}
}

// writeBatch writes one transaction and tells whether there was anything to
// write.
func (s *Store) writeBatch() bool {
	s.mu.Lock()
	var keys []string
	size := 0
	for _, k := range s.order {
		n := len(s.queue[k].data)
		if len(keys) == batchBlocks || len(keys) > 0 && size+n > batchBytes {
			break
		}
		keys = append(keys, k)
		size += n
	}
	data := make([][]byte, len(keys))
	for i, k := range keys {
		data[i] = s.queue[k].data
	}
	touched := map[string]float64{}
	for k := range s.dirty {
		if e := s.index[k]; e != nil && len(touched) < pageSize {
			touched[k] = entryCode(e.size, e.used)
			e.written = e.used
		}
		delete(s.dirty, k)
	}
	over := int64(0)
	if s.limit > 0 {
		// Some more than is needed, so that it is not done for every batch.
		if over = s.bytes + int64(size) - s.limit; over > 0 {
			over += s.limit / 16
		}
	}
	s.mu.Unlock()
	if len(keys) == 0 && len(touched) == 0 {
		return false
	}
	if over > 0 {
		if _, err := s.evict(s.ctx, over); err != nil {
			s.log.Warn("blocks not evicted", "err", err)
		}
	}
	now := time.Now()
	put := func() error {
		return s.db.write(s.ctx, func(open func(string) *idb.ObjectStore) error {
			index := open(storeIndex)
			for k, code := range touched {
				if _, err := index.PutKey(js.ValueOf(k), js.ValueOf(code)); err != nil {
					return err
				}
			}
			blocks := open(storeBlocks)
			var array js.Value // the database copies it at once: blocks of one size can share it
			for i, k := range keys {
				if i > 0 && len(data[i]) == len(data[i-1]) {
					js.CopyBytesToJS(array, data[i])
				} else {
					array = jsbytes.Uint8Array(data[i])
				}
				if _, err := blocks.PutKey(js.ValueOf(k), array); err != nil {
					return err
				}
				if _, err := index.PutKey(js.ValueOf(k), js.ValueOf(entryCode(len(data[i]), now))); err != nil {
					return err
				}
			}
			return nil
		}, storeBlocks, storeIndex)
	}
	err := put()
	for errors.Is(err, ErrQuota) {
		freed, eerr := s.evict(s.ctx, max(4*int64(size), 4<<20))
		if eerr != nil || freed == 0 {
			break
		}
		err = put()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, k := range keys {
		delete(s.queue, k)
		s.queued -= len(data[i])
		if err == nil {
			if s.index[k] == nil {
				s.bytes += int64(len(data[i]))
			}
			s.index[k] = &entry{size: len(data[i]), used: now, written: now}
			s.hot.add(k, data[i])
			delete(s.gone, k)
		}
	}
	s.order = slices.Delete(s.order, 0, len(keys))
	close(s.room)
	s.room = make(chan struct{})
	if err != nil && s.ctx.Err() == nil {
		if s.lost == nil {
			s.lost = fmt.Errorf("idbstore: write %d blocks: %w", len(keys), err)
		}
		s.log.Warn("blocks not stored", "blocks", len(keys), "bytes", size, "err", err)
	}
	return true
}

// evict deletes unpinned blocks, longest unused first, until want bytes are
// free, and returns how many are.
func (s *Store) evict(ctx context.Context, want int64) (freed int64, err error) {
	if err := s.ready(ctx); err != nil {
		return 0, err
	}
	s.mu.Lock()
	before := time.Now().Add(-graceTime)
	free := slices.DeleteFunc(slices.Collect(maps.Keys(s.index)), func(k string) bool {
		e := s.index[k]
		return s.pinned[k] > 0 || e.reading > 0 || e.used.After(before)
	})
	slices.SortFunc(free, func(a, b string) int { return s.index[a].used.Compare(s.index[b].used) })
	var keys []string
	for _, k := range free {
		if freed >= want {
			break
		}
		freed += int64(s.index[k].size)
		keys = append(keys, k)
	}
	s.mu.Unlock()
	if err := s.delete(ctx, keys); err != nil {
		return 0, err
	}
	if len(keys) > 0 {
		s.log.Info("blocks evicted", "blocks", len(keys), "bytes", freed)
	}
	return freed, nil
}

// delete removes blocks from the database, those that are read meanwhile too.
func (s *Store) delete(ctx context.Context, keys []string) error {
	for chunk := range slices.Chunk(keys, pageSize) {
		err := s.db.write(ctx, func(open func(string) *idb.ObjectStore) error {
			blocks, index := open(storeBlocks), open(storeIndex)
			for _, k := range chunk {
				if _, err := blocks.Delete(js.ValueOf(k)); err != nil {
					return err
				}
				if _, err := index.Delete(js.ValueOf(k)); err != nil {
					return err
				}
			}
			return nil
		}, storeBlocks, storeIndex)
		if err != nil {
			return fmt.Errorf("idbstore: delete %d blocks: %w", len(chunk), err)
		}
		s.mu.Lock()
		for _, k := range chunk {
			s.remove(k)
		}
		s.mu.Unlock()
	}
	return nil
}

// DeleteBlock removes a block, pinned or not; one that is absent is no error.
func (s *Store) DeleteBlock(ctx context.Context, c cid.Cid) error {
	if err := s.Flush(ctx); err != nil && !errors.Is(err, ErrQuota) {
		return err
	}
	return s.delete(ctx, []string{keyOf(c.Hash())})
}

// Clear deletes every block that is neither pinned nor being read, and returns
// how many bytes that freed.
func (s *Store) Clear(ctx context.Context) (int64, error) {
	if err := s.Flush(ctx); err != nil && !errors.Is(err, ErrQuota) {
		return 0, err
	}
	if err := s.ready(ctx); err != nil {
		return 0, err
	}
	s.mu.Lock()
	var keys []string
	freed := int64(0)
	for k, e := range s.index {
		if s.pinned[k] == 0 && e.reading == 0 {
			keys = append(keys, k)
			freed += int64(e.size)
		}
	}
	s.mu.Unlock()
	return freed, s.delete(ctx, keys)
}

// AllKeysChan yields the CID of every block, as raw CIDs, since only the
// multihash is kept.
func (s *Store) AllKeysChan(ctx context.Context) (<-chan cid.Cid, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	keys := slices.Collect(maps.Keys(s.index))
	for k := range s.queue {
		if s.index[k] == nil {
			keys = append(keys, k)
		}
	}
	s.mu.Unlock()
	out := make(chan cid.Cid)
	go func() { // ends with ctx, or when all were taken
		defer close(out)
		for _, k := range keys {
			mh, err := hashOf(k)
			if err != nil {
				continue // a key that something else wrote
			}
			select {
			case out <- cid.NewCidV1(cid.Raw, mh):
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

// Usage counts what is stored.
type Usage struct {
	Blocks int
	Bytes  int64
	Pinned int64 // bytes of pinned blocks
}

// Usage returns what is known to be stored, at once: while the index is still
// being read that is less than there is.
func (s *Store) Usage() Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := Usage{Blocks: len(s.index), Bytes: s.bytes}
	for k, p := range s.queue {
		if s.index[k] == nil {
			u.Blocks++
			u.Bytes += int64(len(p.data))
		}
	}
	for k := range s.pinned {
		if e := s.index[k]; e != nil {
			u.Pinned += int64(e.size)
		}
	}
	return u
}
