package server

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	bsmsg "github.com/ipfs/boxo/bitswap/message"
	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	// maxForwards is how many wants of tabs the relay looks for at once, and
	// maxForwardsPerPeer how many of one tab. A want beyond them is not
	// forwarded; Bitswap repeats it every minute.
	maxForwards        = 1024
	maxForwardsPerPeer = 64
	// forwardQueue is how many wants may wait to be looked at.
	forwardQueue = 4096
	// forwardTimeout is how long the relay looks for one block.
	forwardTimeout = 30 * time.Second
)

// forwarder looks for blocks that tabs want of the relay and the relay lacks,
// at the other peers connected to it: a tab reaches what only a Kubo beside
// the relay has. What is found goes to the cache, and Bitswap sends it on
// because the want still stands in the tab's ledger.
//
// It serves peers that came over WebSocket, which are those that cannot dial
// other nodes themselves. Two relays that forward to each other end by
// maxForwards and the time-out: a CID that is being looked for is not looked
// for twice.
type forwarder struct {
	host   host.Host
	blocks *tiered
	log    *slog.Logger
	wants  chan want

	// set before run
	service blockservice.BlockService

	mu       sync.Mutex
	inFlight map[string]bool // by multihash
	perPeer  map[peer.ID]int
	sessions map[peer.ID]*forwardSession
	wg       sync.WaitGroup
}

type want struct {
	from peer.ID
	cid  cid.Cid
}

type forwardSession struct {
	*blockservice.Session
	cancel context.CancelFunc
}

func newForwarder(h host.Host, blocks *tiered, log *slog.Logger) *forwarder {
	return &forwarder{
		host: h, blocks: blocks, log: log,
		wants:    make(chan want, forwardQueue),
		inFlight: make(map[string]bool),
		perPeer:  make(map[peer.ID]int),
		sessions: make(map[peer.ID]*forwardSession),
	}
}

// received takes the wants of a message; it never blocks.
func (f *forwarder) received(p peer.ID, m bsmsg.BitSwapMessage) {
	entries := m.Wantlist()
	if len(entries) == 0 || !f.overWebSocket(p) {
		return
	}
	for _, e := range entries {
		if e.Cancel {
			continue
		}
		select {
		case f.wants <- want{p, e.Cid}:
		default:
			return
		}
	}
}

func (f *forwarder) overWebSocket(p peer.ID) bool {
	for _, c := range f.host.Network().ConnsToPeer(p) {
		if _, err := c.LocalMultiaddr().ValueForProtocol(ma.P_WS); err == nil && c.Stat().Direction == network.DirInbound {
			return true
		}
	}
	return false
}

// run works until ctx ends, and returns when all it started has ended.
func (f *forwarder) run(ctx context.Context) {
	defer f.wg.Wait()
	gone := &network.NotifyBundle{DisconnectedF: func(n network.Network, c network.Conn) {
		if n.Connectedness(c.RemotePeer()) != network.Connected {
			f.forget(c.RemotePeer())
		}
	}}
	f.host.Network().Notify(gone)
	defer f.host.Network().StopNotify(gone)
	for {
		select {
		case <-ctx.Done():
			return
		case w := <-f.wants:
			if has, err := f.blocks.Has(ctx, w.cid); err == nil && !has {
				f.start(ctx, w)
			}
		}
	}
}

func (f *forwarder) start(ctx context.Context, w want) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := string(w.cid.Hash())
	if f.inFlight[key] || len(f.inFlight) >= maxForwards || f.perPeer[w.from] >= maxForwardsPerPeer {
		return
	}
	if f.host.Network().Connectedness(w.from) != network.Connected {
		return
	}
	s := f.sessions[w.from]
	if s == nil {
		sctx, cancel := context.WithCancel(ctx)
		s = &forwardSession{blockservice.NewSession(sctx, f.service), cancel}
		f.sessions[w.from] = s
	}
	f.inFlight[key] = true
	f.perPeer[w.from]++
	f.wg.Go(func() {
		ctx, cancel := context.WithTimeoutCause(ctx, forwardTimeout, fmt.Errorf("no connected peer had it within %v", forwardTimeout))
		defer cancel()
		if _, err := s.GetBlock(ctx, w.cid); err != nil {
			f.log.Debug("want not forwarded", "cid", w.cid, "from", w.from, "err", err)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.inFlight, key)
		if f.perPeer[w.from]--; f.perPeer[w.from] <= 0 {
			delete(f.perPeer, w.from)
		}
	})
}

// forget ends the session of a peer that went away.
func (f *forwarder) forget(p peer.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.sessions[p]; s != nil {
		s.cancel()
		delete(f.sessions, p)
	}
}
