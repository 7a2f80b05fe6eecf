package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ipfs/boxo/exchange"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

const (
	// askAgain is after how long a want is expressed a second time.
	askAgain = time.Second
	// linger is for how long a want stands that nobody waits for any more.
	linger = 2 * time.Second
)

// Persistent returns ex with sessions that lose no want.
//
// Those of boxo 0.42.1 lose some, and a fetch then waits for ever:
//
//   - A cancelled fetch takes another's want along, if that is of the same
//     block in the same session and came before, or shortly after:
//     Session.GetBlocks counts nobody, and tells of a cancelled fetch only when
//     the call has returned. sessionWantSender.onChange may then even send the
//     second's want after having declared (CancelSessionWants) that what comes
//     is of no interest.
//   - A want is dropped that comes just after its block: onChange applies the
//     new wants of a batch of changes before the blocks received, whichever
//     was first.
//
// So fetches of one block share one of boxo's, which is cancelled only when
// nobody has waited for a while; until that has surely been done, whoever wants
// the block has a session of its own. And what has not come within a second is
// asked for by another session too: the want goes to every peer that has none
// of that block standing, hence nowhere when nothing was lost.
func Persistent(ex exchange.SessionExchange) exchange.SessionExchange { return persistent{ex} }

type persistent struct{ exchange.SessionExchange }

// NewSession returns a fetcher whose fetches belong together until ctx ends.
func (p persistent) NewSession(ctx context.Context) exchange.Fetcher {
	return &persistentSession{
		ctx:     ctx,
		inner:   p.SessionExchange.NewSession(ctx),
		alone:   p.SessionExchange,
		flights: map[cid.Cid]*flight{},
	}
}

type persistentSession struct {
	ctx   context.Context // the session's life
	inner exchange.Fetcher
	alone exchange.Fetcher // a session for each call

	mu      sync.Mutex
	flights map[cid.Cid]*flight
}

// A flight is one fetch of a block, for all who want it.
type flight struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when block and err are set
	block  blocks.Block
	err    error

	// Guarded by persistentSession.mu.
	waiting   int
	cancelled bool
}

func (s *persistentSession) GetBlock(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f := s.join(c)
	if f == nil {
		return s.alone.GetBlock(ctx, c)
	}
	defer s.leave(ctx, c, f)
	t := time.AfterFunc(askAgain, func() {
		// What comes reaches the flight too; so would what is wrong.
		_, _ = s.alone.GetBlock(ctx, c)
	})
	defer t.Stop()
	select {
	case <-f.done:
		return f.block, f.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// join returns the flight of c, a new one if there is none, or nil if there is
// one that was cancelled a moment ago.
func (s *persistentSession) join(c cid.Cid) *flight {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.flights[c]
	if f == nil {
		ctx, cancel := context.WithCancel(s.ctx)
		f = &flight{cancel: cancel, done: make(chan struct{})}
		s.flights[c] = f
		go func() { // ends with the session, or when nobody waits any more
			defer cancel()
			defer close(f.done)
			f.block, f.err = s.inner.GetBlock(ctx, c)
			s.mu.Lock()
			defer s.mu.Unlock()
			if !f.cancelled {
				delete(s.flights, c)
			}
		}()
	}
	if f.cancelled {
		return nil
	}
	f.waiting++
	return f
}

// leave ends a wait for f, for the reason that ctx gives if it has ended. When
// nobody else waits, f is cancelled: after a while if it was the caller who left,
// and at once for any other reason. A peer that lied is not asked again before.
func (s *persistentSession) leave(ctx context.Context, c cid.Cid, f *flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.waiting--; f.waiting > 0 || s.flights[c] != f {
		return
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		s.drop(c, f)
		return
	}
	time.AfterFunc(linger, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if f.waiting == 0 && !f.cancelled && s.flights[c] == f {
			s.drop(c, f)
		}
	})
}

// drop cancels f; s.mu is held.
func (s *persistentSession) drop(c cid.Cid, f *flight) {
	f.cancelled = true
	f.cancel()
	time.AfterFunc(askAgain, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.flights, c)
	})
}

// GetBlocks fetches cs side by side. The channel is closed when all came, or
// ctx or the session has ended.
func (s *persistentSession) GetBlocks(ctx context.Context, cs []cid.Cid) (<-chan blocks.Block, error) {
	out := make(chan blocks.Block)
	var fetches sync.WaitGroup
	for _, c := range cs {
		fetches.Go(func() {
			b, err := s.GetBlock(ctx, c)
			if err != nil {
				return // the caller sees that it did not come
			}
			select {
			case out <- b:
			case <-ctx.Done():
			}
		})
	}
	go func() { // the caller's, as the fetches
		fetches.Wait()
		close(out)
	}()
	return out, nil
}
