package gateway

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"

	"github.com/webfabric/weft/shared/content"
)

// after gives a block after as many seconds as its only byte says; 0 is never.
type after struct{}

func (after) GetBlock(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	n := c.Hash()[len(c.Hash())-1]
	late := time.NewTimer(time.Duration(n) * time.Second)
	defer late.Stop()
	if n == 0 {
		late.Stop()
	}
	select {
	case <-late.C:
		return blocks.NewBlockWithCid([]byte{n}, c)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (after) Session(context.Context) content.Getter     { return after{} }
func (after) Has(context.Context, cid.Cid) (bool, error) { return false, nil }
func lateBy(t testing.TB, seconds byte) cid.Cid {
	t.Helper()
	mh := append([]byte{0x12, 0x20}, make([]byte, 32)...)
	mh[33] = seconds
	return cid.NewCidV1(cid.Raw, mh)
}

// TestPatience: a block may be long in coming while others do come.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPatient(after{}, 30*time.Second)
		began := time.Now()
		results := make(chan error)
		for _, late := range []byte{20, 45, 70} {
			go func() {
				_, err := p.GetBlock(t.Context(), lateBy(t, late))
				results <- err
			}()
		}
		for range 3 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		_, err := p.GetBlock(t.Context(), lateBy(t, 0))
		if took := time.Since(began); !errors.Is(err, ErrNoProvider) || took != 100*time.Second {
			t.Errorf("a block that never comes: %v after %v; want ErrNoProvider after 70 s and 30", err, took)
		}
	})
}

// TestSessionsEnd: one is kept while it is used and for a while after, and no
// more than maxSessions are.
func TestSessionsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(after{})
		defer g.Close()
		root := lateBy(t, 1)
		s := g.acquire(root)
		time.Sleep(time.Hour)
		if s.life().Err() != nil || g.acquire(root) != s {
			t.Fatal("a session in use ended")
		}
		g.release(s)
		g.release(s)
		time.Sleep(g.idle - time.Second)
		if again := g.acquire(root); again != s || s.life().Err() != nil {
			t.Fatal("the session did not outlive its request")
		}
		g.release(s)
		time.Sleep(g.idle - time.Second)
		synctest.Wait()
		if s.life().Err() != nil {
			t.Error("the session ended early")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if s.life().Err() == nil || len(g.sessions) != 0 {
			t.Error("the idle session lives on")
		}
		first := g.acquire(root)
		g.release(first)
		for i := range byte(maxSessions) {
			time.Sleep(time.Millisecond)
			g.release(g.acquire(lateBy(t, 100+i)))
		}
		if first.life().Err() == nil || len(g.sessions) != maxSessions {
			t.Errorf("%d sessions are kept, the oldest: %v", len(g.sessions), first.life().Err())
		}
	})
}
