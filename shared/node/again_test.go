//go:build !js

package node_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/message"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dsync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/webfabric/weft/shared/node"
)

// wantlog keeps what a Bitswap server was asked for.
type wantlog struct {
	mu    sync.Mutex
	wants map[cid.Cid]bool
}

func (l *wantlog) MessageReceived(_ peer.ID, m message.BitSwapMessage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range m.Wantlist() {
		l.wants[e.Cid] = true
	}
}

func (l *wantlog) MessageSent(peer.ID, message.BitSwapMessage) {}

func (l *wantlog) has(c cid.Cid) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.wants[c]
}

// TestPersistent cancels a fetch of a block that another one of the session
// waits for, and has the block appear only then.
func TestPersistent(t *testing.T) {
	log := &wantlog{wants: map[cid.Cid]bool{}}
	store := blockstore.NewBlockstore(dsync.MutexWrap(datastore.NewMapDatastore()))
	h := newHost(t)
	relay := bitswap.New(t.Context(), bsnet.NewFromIpfsHost(h), nil, store, bitswap.WithTracer(log))
	t.Cleanup(func() { relay.Close() })
	n, _ := newNode(t, node.Config{Relays: []peer.AddrInfo{info(h)}, ProviderTimeout: 20 * time.Second})
	online(t, n)

	for _, later := range []bool{false, true} { // the second fetch begins after the first's end
		b := newBlock(t, 100_000)
		session := blockservice.NewSession(t.Context(), n.Blocks())
		get := func(ctx context.Context) <-chan error {
			done := make(chan error, 1)
			go func() { _, err := session.GetBlock(ctx, b.Cid()); done <- err }()
			return done
		}
		ctx, cancel := context.WithCancel(t.Context())
		first := get(ctx)
		var second <-chan error
		if !later {
			second = get(t.Context())
		}
		waitFor(t, "a want", func() bool { return log.has(b.Cid()) })
		cancel()
		if err := <-first; err == nil {
			t.Fatal("a cancelled fetch succeeded")
		}
		if later {
			second = get(t.Context())
		}
		// Messages keep their order: when these have come, a cancel has too.
		for range 3 {
			other := newBlock(t, 10)
			if err := store.Put(t.Context(), other); err != nil {
				t.Fatal(err)
			}
			if _, err := session.GetBlock(t.Context(), other.Cid()); err != nil {
				t.Fatal(err)
			}
		}
		if err := store.Put(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if err := relay.NotifyNewBlocks(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if err := <-second; err != nil {
			t.Errorf("the other fetch (begun later: %v): %v", later, err)
		}
	}
}

// TestPersistentWithoutStore asks one session twice in a row for each of many
// blocks, and keeps none of them: some second wants come while the session has
// yet to note that the first was satisfied.
func TestPersistentWithoutStore(t *testing.T) {
	relay, _ := newNode(t, node.Config{})
	h := newHost(t)
	null := blockstore.NewBlockstore(datastore.NewNullDatastore())
	swap := bitswap.New(t.Context(), bsnet.NewFromIpfsHost(h), nil, null, bitswap.RebroadcastDelay(time.Hour))
	t.Cleanup(func() { swap.Close() })
	if err := h.Connect(t.Context(), info(relay.Host())); err != nil {
		t.Fatal(err)
	}
	session := node.Persistent(swap).NewSession(t.Context())
	jobs := make(chan blocks.Block)
	var workers sync.WaitGroup
	for range 16 {
		workers.Go(func() {
			for b := range jobs {
				for range 2 {
					ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
					if _, err := session.GetBlock(ctx, b.Cid()); err != nil {
						t.Errorf("%s: %v", b.Cid(), err)
					}
					cancel()
				}
			}
		})
	}
	for i := range 800 {
		b := blockOf(t, fmt.Append(nil, i))
		put(t, relay, b)
		jobs <- b
	}
	close(jobs)
	workers.Wait()
}

// TestManyAtOnce fetches 600 small blocks in one session at once, each three
// times, with one of the three cancelled on the way; and all again.
func TestManyAtOnce(t *testing.T) {
	relay, _ := newNode(t, node.Config{})
	var all []blocks.Block
	for i := range 600 {
		all = append(all, blockOf(t, fmt.Append(nil, "module ", i)))
	}
	put(t, relay, all...)
	n, _ := newNode(t, node.Config{Relays: []peer.AddrInfo{info(relay.Host())}, ProviderTimeout: 30 * time.Second})
	online(t, n)
	session := blockservice.NewSession(t.Context(), n.Blocks())
	for range 2 {
		var fetches sync.WaitGroup
		for i, b := range all {
			for range 2 {
				fetches.Go(func() {
					if _, err := session.GetBlock(t.Context(), b.Cid()); err != nil {
						t.Error(err)
					}
				})
			}
			fetches.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%40)*time.Millisecond)
				defer cancel()
				_, _ = session.GetBlock(ctx, b.Cid()) // it may come or not
			})
		}
		fetches.Wait()
	}
}
