// Package node is a peer's working parts on a given libp2p host: Bitswap over a
// blockstore, the connections to its relays, and what is counted of both.
//
// Every block that [Node.Blocks] returns hashes to its CID: Bitswap computes the
// CID of each payload it receives, so a forged block is simply one that nobody
// asked for. A fetch ends with an error rather than waiting for ever: one
// wrapping [gateway.ErrNoProvider] when no peer gives the block in time, one
// wrapping [content.ErrBadBlock], and naming the peer, when what came instead
// was something else (see watch.go).
//
// The host, the store and the relays' addresses are the caller's: the tab
// (wasm) brings IndexedDB and WebSockets, a native peer whatever it has.
// The neighbours: shared/gateway answers requests from [Node.Blocks].
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/webfabric/weft/shared/exchange"
)

// ErrClosed means that the node was closed.
var ErrClosed = errors.New("node: closed")

// A Config says what a Node is made of. Host and Blockstore are required.
type Config struct {
	// Host is used, not owned: Close leaves it open.
	Host host.Host
	// Blockstore keeps what is fetched. It is not owned either.
	Blockstore blockstore.Blockstore
	// Relays are connected to, and connected again when they are lost.
	Relays []peer.AddrInfo
	// ProviderTimeout is how long a fetch waits while its session receives
	// nothing; the default is 15 s.
	ProviderTimeout time.Duration
	// OfflineTimeout takes its place while no peer at all is connected; the
	// default is 4 s, enough for a first connection.
	OfflineTimeout time.Duration
	// BadBlockTimeout takes its place once every connected peer has sent
	// blocks that nobody asked for; the default is 2 s.
	BadBlockTimeout time.Duration
	// Serving is how much is given to others; the default is all there is.
	Serving exchange.Serving
	// Forgive is the exchange's: for how long a stray block is no lie.
	Forgive time.Duration
	// Log defaults to slog.DiscardHandler.
	Log *slog.Logger

	// OnPeer, if set, is called when a peer is connected or lost; OnBlock when
	// a wanted block came from a peer; OnBadBlock when a peer lied: it sent one
	// that nobody had asked for, and is not asked any more unless it is a relay.
	// At most once a second for each peer. They must return at once.
	OnPeer     func(p peer.ID, relay bool, state network.Connectedness)
	OnBlock    func(p peer.ID, relay bool, c cid.Cid, size int)
	OnBadBlock func(p peer.ID, c cid.Cid)
	// OnRelayAddrs, if set, is called when what RelayAddrs returns has changed.
	// It must return at once.
	OnRelayAddrs func()
}

// Stats counts bytes of blocks since the node started.
type Stats struct {
	FromRelay uint64 // wanted blocks received from relays
	FromPeers uint64 // wanted blocks received from any other peer
	FromDisk  uint64 // read from the blockstore for [Node.Blocks]
	Served    uint64 // sent to peers
	Duplicate uint64 // received again, or when nobody waited any more
	Unwanted  uint64 // received though nobody had asked
}

// A Node fetches, keeps and serves blocks. It is safe for concurrent use.
type Node struct {
	cfg      Config
	exchange *exchange.Exchange
	blocks   blockservice.BlockService
	watch    *watch
	ctx      context.Context // ends with Close; the parent of background work only
	cancel   context.CancelFunc
	wg       sync.WaitGroup

	fromDisk atomic.Uint64

	mu      sync.Mutex
	relays  map[peer.ID]*relay
	changed chan struct{} // closed and replaced when a relay is connected or lost
}

// New starts a node, which works until ctx ends or [Node.Close].
func New(ctx context.Context, cfg Config) (*Node, error) {
	if cfg.Host == nil || cfg.Blockstore == nil {
		return nil, errors.New("node: new: a host and a blockstore are required")
	}
	if cfg.ProviderTimeout == 0 {
		cfg.ProviderTimeout = 15 * time.Second
	}
	if cfg.OfflineTimeout == 0 {
		cfg.OfflineTimeout = 4 * time.Second
	}
	if cfg.BadBlockTimeout == 0 {
		cfg.BadBlockTimeout = 2 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	n := &Node{cfg: cfg, relays: map[peer.ID]*relay{}, changed: make(chan struct{})}
	n.ctx, n.cancel = context.WithCancel(ctx)
	n.watch = newWatch(n)
	// Relays are known before Bitswap meets the first peer, so that every byte
	// is counted where it belongs.
	n.cfg.Host.Network().Notify((*notifiee)(n))
	n.exchange = exchange.New(n.ctx, exchange.Config{
		Host: cfg.Host, Blockstore: ServesEmpty(cfg.Blockstore), IsRelay: n.IsRelay, Serving: cfg.Serving, Forgive: cfg.Forgive, Log: cfg.Log,
		OnBlock: func(p peer.ID, c cid.Cid, size int) {
			if cfg.OnBlock != nil {
				cfg.OnBlock(p, n.IsRelay(p), c, size)
			}
		},
		OnBadBlock: n.badBlock,
	})
	n.blocks = blockservice.New(counted{cfg.Blockstore, &n.fromDisk}, KnowsEmpty((*exchanger)(n)), blockservice.WriteThrough(true))
	n.wg.Go(func() { n.watch.run(n.ctx) })
	n.AddRelays(cfg.Relays...)
	return n, nil
}

// Close ends what runs in the background and waits for it.
func (n *Node) Close() error {
	n.cancel()
	n.cfg.Host.Network().StopNotify((*notifiee)(n))
	n.wg.Wait()
	if err := n.exchange.Close(); err != nil {
		return fmt.Errorf("node: close: %w", err)
	}
	return nil
}

// Host returns the host that the node works on.
func (n *Node) Host() host.Host { return n.cfg.Host }

// Blocks returns the block service: the store first, then peers. Use
// [blockservice.NewSession] for fetches that belong together.
func (n *Node) Blocks() blockservice.BlockService { return n.blocks }

// Stats returns the counts as they are now.
func (n *Node) Stats() Stats {
	s := n.exchange.Stats()
	return Stats{
		FromRelay: s.FromRelay,
		FromPeers: s.FromPeers,
		FromDisk:  n.fromDisk.Load(),
		Served:    s.Served,
		Duplicate: s.Duplicate,
		Unwanted:  s.Unwanted,
	}
}

// Exchange returns what the node asks peers with, for what is known of them.
func (n *Node) Exchange() *exchange.Exchange { return n.exchange }

// IsRelay tells whether p is one of the node's relays.
func (n *Node) IsRelay(p peer.ID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.relays[p] != nil
}

// Relays returns the relays that are connected now, sorted.
func (n *Node) Relays() []peer.ID {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.connected()
}

// connected is Relays for callers that hold mu.
func (n *Node) connected() []peer.ID {
	var ids []peer.ID
	for id, r := range n.relays {
		if r.connected {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Online returns when a relay is connected, or ctx ends, or with [ErrClosed].
func (n *Node) Online(ctx context.Context) error {
	for {
		n.mu.Lock()
		up, changed := len(n.connected()) > 0, n.changed
		n.mu.Unlock()
		if up {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("node: online: %w", context.Cause(ctx))
		case <-n.ctx.Done():
			return ErrClosed
		}
	}
}

// counted counts what is read for the node's own use, not for peers.
type counted struct {
	blockstore.Blockstore
	read *atomic.Uint64
}

func (s counted) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	b, err := s.Blockstore.Get(ctx, c)
	if err == nil {
		s.read.Add(uint64(len(b.RawData())))
	}
	return b, err
}
