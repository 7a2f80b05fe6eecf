package exchange

import (
	"sync"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// maxPeerMessages is how many Bitswap messages of one peer are read at once;
// further streams wait for their turn. boxo's peers send with 8 workers, a
// relay with 32, a stream for each message.
//
// boxo makes room for a whole message once it has read its length: up to
// network.MessageSizeMax, 4 MiB (boxo v0.42.1, bitswap/network/bsnet,
// handleNewStream; a larger length resets the stream, go-msgio's
// ErrMsgTooLarge). So four bytes on a stream cost 4 MiB until the stream ends,
// and boxo waits for the rest as long as it takes. go-libp2p leaves the number
// of streams to the resource manager, which the tab does not have and whose
// limit on a relay is in the thousands. With this bound a peer that never ends its messages has the node hold 64 MiB, and its
// own further messages wait.
const maxPeerMessages = 16

// inbound is a host whose stream handlers run at most maxPeerMessages at a time
// for each peer, and which counts what they read.
type inbound struct {
	host.Host
	count func(peer.ID) *atomic.Uint64
	mu    sync.Mutex
	peers map[peer.ID]*turns
}

// turns are the streams of one peer; inbound.mu guards held.
type turns struct {
	free chan struct{} // holds a value for each stream being read
	held int           // streams being read or waiting
}

// BoundMessages returns h with a bound on the Bitswap messages that are read of
// one peer at once. Give it to what speaks Bitswap, and to nothing else.
func BoundMessages(h host.Host) host.Host {
	var nobody atomic.Uint64
	return newInbound(h, func(peer.ID) *atomic.Uint64 { return &nobody })
}

func newInbound(h host.Host, count func(peer.ID) *atomic.Uint64) *inbound {
	return &inbound{Host: h, count: count, peers: map[peer.ID]*turns{}}
}

// SetStreamHandler gives f to the host, with the bound.
func (in *inbound) SetStreamHandler(id protocol.ID, f network.StreamHandler) {
	in.Host.SetStreamHandler(id, func(s network.Stream) {
		p := s.Conn().RemotePeer()
		defer in.enter(p)()
		f(counted{s, in.count(p)})
	})
}

// enter waits until a stream of p may be read, and returns what ends that. The
// streams of a peer that is gone end by themselves, one after the other.
func (in *inbound) enter(p peer.ID) (leave func()) {
	in.mu.Lock()
	t := in.peers[p]
	if t == nil {
		t = &turns{free: make(chan struct{}, maxPeerMessages)}
		in.peers[p] = t
	}
	t.held++
	in.mu.Unlock()
	t.free <- struct{}{}
	return func() {
		<-t.free
		in.mu.Lock()
		defer in.mu.Unlock()
		if t.held--; t.held == 0 {
			delete(in.peers, p)
		}
	}
}

// counted is a stream whose bytes are counted as they are read.
type counted struct {
	network.Stream
	read *atomic.Uint64
}

func (c counted) Read(b []byte) (int, error) {
	n, err := c.Stream.Read(b)
	c.read.Add(uint64(n))
	return n, err
}
