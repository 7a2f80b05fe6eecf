package gateway

import (
	"context"
	"fmt"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/webfabric/weft/shared/content"
)

const (
	// cacheBytes of decoded directories and file indexes are kept: a directory
	// of 600 modules has 30 KiB, the index of a file of 1 GiB 50 KiB.
	cacheBytes = 4 << 20
	// maxSessions is how many roots without a request keep their session.
	maxSessions = 32
	// maxFetches is how many blocks of one root are asked for at once.
	maxFetches = 64

	// Siblings of modules are fetched once siblingsAfter modules of one
	// directory were asked for: at most siblingsMax files of at most
	// siblingSize each, together siblingsBytes, siblingsAtOnce at a time, for
	// at most siblingDirs directories of a root.
	siblingsAfter  = 2
	siblingsMax    = 1024
	siblingSize    = 256 << 10
	siblingsBytes  = 64 << 20
	siblingsAtOnce = 8
	siblingDirs    = 256
)

// A session is what requests under one root share: a getter, so that Bitswap
// asks the peers that had the last block for the next, and the modules that
// were asked for. It ends when it was idle for a while.
type session struct {
	root   string
	get    content.Getter
	life   func() context.Context
	cancel context.CancelFunc

	// Guarded by Gateway.mu.
	users  int
	used   time.Time
	expiry *time.Timer

	mu   sync.Mutex
	dirs map[string]*siblings
}

// siblings is what was asked for of one directory.
type siblings struct {
	asked   map[string]bool // CIDs
	started bool
}

// acquire returns the session of root, to be released.
func (g *Gateway) acquire(root cid.Cid) *session {
	key := root.KeyString()
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.sessions[key]
	if s == nil {
		ctx, cancel := context.WithCancel(g.background())
		s = &session{
			root:   key,
			get:    g.cache.Over(newPatient(g.src.Session(ctx), g.patience)),
			life:   func() context.Context { return ctx },
			cancel: cancel,
			dirs:   make(map[string]*siblings),
		}
		if g.closed {
			cancel()
			return s
		}
		s.expiry = time.AfterFunc(g.idle, func() { g.expire(s) })
		g.sessions[key] = s
	}
	s.users++
	s.used = time.Now()
	return s
}

func (g *Gateway) release(s *session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sessions[s.root] != s {
		return // closed
	}
	s.users--
	s.used = time.Now()
	if s.users > 0 {
		return
	}
	s.expiry.Reset(g.idle)
	var oldest *session
	unused := 0
	for _, o := range g.sessions {
		if o.users == 0 {
			unused++
			if oldest == nil || o.used.Before(oldest.used) {
				oldest = o
			}
		}
	}
	if unused > maxSessions {
		g.forget(oldest)
	}
}

func (g *Gateway) expire(s *session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sessions[s.root] != s || s.users > 0 {
		return // release sets the timer again
	}
	if rest := g.idle - time.Since(s.used); rest > 0 {
		s.expiry.Reset(rest)
		return
	}
	g.forget(s)
}

// forget ends s; g.mu is held.
func (g *Gateway) forget(s *session) {
	s.expiry.Stop()
	s.cancel()
	delete(g.sessions, s.root)
}

// asked notes that a module of the directory dir was asked for, and has its
// siblings fetched once it was not the first: a module graph is asked for one
// level of imports at a time, each level a round trip, and its files tend to
// lie side by side.
func (g *Gateway) asked(s *session, dir, file cid.Cid) {
	s.mu.Lock() // before Gateway.mu, where both are held
	defer s.mu.Unlock()
	d := s.dirs[dir.KeyString()]
	if d == nil {
		if len(s.dirs) >= siblingDirs {
			return
		}
		d = &siblings{asked: make(map[string]bool)}
		s.dirs[dir.KeyString()] = d
	}
	if d.started {
		return
	}
	d.asked[file.KeyString()] = true
	if len(d.asked) < siblingsAfter {
		return
	}
	d.started = true
	// Close waits for tasks; none may begin after it has begun to.
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return
	}
	ctx := s.life()
	g.tasks.Go(func() {
		n, err := g.fetchSiblings(ctx, s, dir)
		g.log.Debug("siblings fetched", "directory", dir, "blocks", n, "err", err)
	})
}

func (g *Gateway) fetchSiblings(ctx context.Context, s *session, dir cid.Cid) (int64, error) {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(siblingsAtOnce)
	var fetched atomic.Int64
	var bytes int64
	files := 0
	for e, err := range content.List(ctx, s.get, dir) {
		if err != nil {
			group.Go(func() error { return err })
			break
		}
		if !isModule(e.Name) || e.Size > siblingSize {
			continue
		}
		if files, bytes = files+1, bytes+e.Size; files > siblingsMax || bytes > siblingsBytes {
			break
		}
		group.Go(func() error {
			if has, err := g.src.Has(ctx, e.Cid); has || err != nil {
				return err
			}
			fetched.Add(1)
			_, err := content.Block(ctx, s.get, e.Cid)
			return err
		})
	}
	err := group.Wait()
	return fetched.Load(), err
}

func isModule(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".js", ".mjs":
		return true
	}
	return false
}

// A patient getter bounds how many blocks are asked for at once, and gives one
// up when nothing at all has arrived for a while: a slow line that brings one
// block after another is no reason to.
type patient struct {
	get      content.Getter
	patience time.Duration
	slots    *semaphore.Weighted
	arrived  atomic.Int64 // when the last block did, in Unix nanoseconds
}

var _ content.Getter = (*patient)(nil)

func newPatient(get content.Getter, d time.Duration) *patient {
	return &patient{get: get, patience: d, slots: semaphore.NewWeighted(maxFetches)}
}

func (p *patient) GetBlock(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	if err := p.slots.Acquire(ctx, 1); err != nil {
		return nil, context.Cause(ctx)
	}
	defer p.slots.Release(1)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if p.patience > 0 {
		asked := time.Now()
		var timer *time.Timer
		armed := make(chan struct{})
		timer = time.AfterFunc(p.patience, func() {
			<-armed
			last := time.Unix(0, max(p.arrived.Load(), asked.UnixNano()))
			if rest := p.patience - time.Since(last); rest > 0 {
				timer.Reset(rest)
				return
			}
			cancel(fmt.Errorf("%w: %s, nothing for %v", ErrNoProvider, c, p.patience))
		})
		close(armed)
		defer timer.Stop()
	}
	b, err := p.get.GetBlock(ctx, c)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, err
	}
	p.arrived.Store(time.Now().UnixNano())
	return b, nil
}
