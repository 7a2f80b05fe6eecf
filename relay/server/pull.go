package server

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/exchange"
	"github.com/ipfs/boxo/ipld/merkledag"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
	"golang.org/x/sync/errgroup"

	"github.com/webfabric/weft/shared/content"
	"github.com/webfabric/weft/shared/node"
)

const (
	// pullParallel is how many blocks of one publish are asked for at once:
	// 64 MiB of the profile's 1 MiB blocks.
	pullParallel = 64
	// A batch is written to disk when it has so many blocks or bytes.
	pullBatchBlocks = 256
	pullBatchBytes  = 16 << 20
)

// errUnsupported means a block of a codec whose links are not known here.
var errUnsupported = errors.New("server: only UnixFS (dag-pb and raw) can be published")

// pull brings every block of a DAG to disk. A leaf that is there already is
// not read, and nothing that is there is asked for.
type pull struct {
	root    cid.Cid
	kept    blockstore.Blockstore
	cache   *cache
	bitswap *bitswap.Bitswap
	stall   time.Duration

	blocks, bytes, fresh atomic.Int64
	last                 atomic.Int64 // when the last block came, in ns

	mu        sync.Mutex
	wake      sync.Cond // on mu: todo or open changed, or the pull ended
	todo      []cid.Cid
	seen      map[string]bool // multihashes
	open      int             // taken from todo and not done
	ended     bool
	batch     []blocks.Block
	batchSize int
}

func (s *Server) newPull(root cid.Cid) *pull {
	p := &pull{root: root, kept: s.store.Blockstore(), cache: s.blocks.cache, bitswap: s.bitswap, stall: s.cfg.Retrieval,
		todo: []cid.Cid{root}, seen: map[string]bool{string(root.Hash()): true}}
	p.wake.L = &p.mu
	return p
}

func (p *pull) progress() Progress {
	return Progress{Blocks: p.blocks.Load(), Bytes: p.bytes.Load(), New: p.fresh.Load()}
}

// run returns when the whole DAG is on disk.
func (p *pull) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// A DAG of any size may take any time; no block for a while is the end.
	p.last.Store(time.Now().UnixNano())
	watch := time.NewTicker(max(p.stall/8, time.Millisecond))
	defer watch.Stop()
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-watch.C:
				if time.Since(time.Unix(0, p.last.Load())) > p.stall {
					cancel(fmt.Errorf("server: no connected peer gave another block of %s within %v", p.root, p.stall))
					return
				}
			}
		}
	}()
	session := node.KnowsEmpty(node.Persistent(p.bitswap)).NewSession(ctx)
	g, gctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(gctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.ended = true
		p.wake.Broadcast()
	})
	defer stop()
	for range pullParallel {
		g.Go(func() error {
			for {
				c, ok := p.next()
				if !ok {
					return gctx.Err()
				}
				links, err := p.block(gctx, session, c)
				if err != nil {
					return err
				}
				p.done(links)
			}
		})
	}
	err := g.Wait()
	if err == nil {
		p.mu.Lock()
		batch := p.takeBatch()
		p.mu.Unlock()
		err = p.write(ctx, batch)
	}
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}

// next waits for a CID to do; false means that there is none and never will be.
func (p *pull) next() (cid.Cid, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.todo) == 0 && p.open > 0 && !p.ended {
		p.wake.Wait()
	}
	if len(p.todo) == 0 || p.ended {
		return cid.Undef, false
	}
	c := p.todo[len(p.todo)-1]
	p.todo = p.todo[:len(p.todo)-1]
	p.open++
	return c, true
}

func (p *pull) done(links []cid.Cid) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// Last first: the stack then yields the first link next.
	for i := len(links) - 1; i >= 0; i-- {
		if key := string(links[i].Hash()); !p.seen[key] {
			p.seen[key] = true
			p.todo = append(p.todo, links[i])
		}
	}
	p.open--
	p.wake.Broadcast()
}

// block sees to it that c is on disk, or in the batch, and returns its links.
func (p *pull) block(ctx context.Context, session exchange.Fetcher, c cid.Cid) ([]cid.Cid, error) {
	codec := c.Type()
	if codec != cid.Raw && codec != cid.DagProtobuf {
		return nil, fmt.Errorf("%w: %s", errUnsupported, c)
	}
	has, err := p.kept.Has(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("server: look for %s: %w", c, err)
	}
	if has && codec == cid.Raw {
		n, err := p.kept.GetSize(ctx, c)
		if err != nil {
			return nil, fmt.Errorf("server: look for %s: %w", c, err)
		}
		p.count(n)
		return nil, nil
	}
	var b blocks.Block
	if has {
		b, err = p.kept.Get(ctx, c)
	} else {
		b, err = p.fetch(ctx, session, c)
	}
	if err != nil {
		return nil, fmt.Errorf("server: get %s: %w", c, err)
	}
	if n := len(b.RawData()); n > content.MaxBlockSize {
		return nil, fmt.Errorf("server: block %s has %d bytes, at most %d", c, n, content.MaxBlockSize)
	}
	var links []cid.Cid
	if codec == cid.DagProtobuf {
		n, err := merkledag.DecodeProtobuf(b.RawData())
		if err != nil {
			return nil, fmt.Errorf("server: decode %s: %w", c, err)
		}
		for _, l := range n.Links() {
			links = append(links, l.Cid)
		}
	}
	if !has && c.Prefix().MhType != multihash.IDENTITY {
		if err := p.add(ctx, b); err != nil {
			return nil, err
		}
	}
	p.count(len(b.RawData()))
	return links, nil
}

func (p *pull) count(n int) {
	p.blocks.Add(1)
	p.bytes.Add(int64(n))
	p.last.Store(time.Now().UnixNano())
}

func (p *pull) fetch(ctx context.Context, session exchange.Fetcher, c cid.Cid) (blocks.Block, error) {
	if b, ok := p.cache.get(c); ok {
		return b, nil
	}
	return session.GetBlock(ctx, c)
}

// add puts b in the batch, and writes the batch if it is full.
func (p *pull) add(ctx context.Context, b blocks.Block) error {
	p.mu.Lock()
	p.batch = append(p.batch, b)
	p.batchSize += len(b.RawData())
	var full []blocks.Block
	if len(p.batch) >= pullBatchBlocks || p.batchSize >= pullBatchBytes {
		full = p.takeBatch()
	}
	p.mu.Unlock()
	return p.write(ctx, full)
}

// takeBatch empties the batch; p.mu is held.
func (p *pull) takeBatch() []blocks.Block {
	b := p.batch
	p.batch, p.batchSize = nil, 0
	return b
}

// write puts a batch on disk, and tells Bitswap, which sends the blocks to
// whoever waits for them.
func (p *pull) write(ctx context.Context, batch []blocks.Block) error {
	if len(batch) == 0 {
		return nil
	}
	if err := p.kept.PutMany(ctx, batch); err != nil {
		return fmt.Errorf("server: write %d blocks: %w", len(batch), err)
	}
	p.fresh.Add(int64(len(batch)))
	p.last.Store(time.Now().UnixNano())
	if err := p.bitswap.NotifyNewBlocks(ctx, batch...); err != nil {
		return fmt.Errorf("server: tell of %d blocks: %w", len(batch), err)
	}
	return nil
}
