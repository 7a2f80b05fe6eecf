package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/websocket"
	"github.com/multiformats/go-multiaddr"

	"github.com/webfabric/weft/shared/node"
)

// outstanding is how many bytes one peer may have asked for and not yet been
// sent, 16 MiB: boxo's default of 1 MiB is one block of the profile we publish
// with, so that sending would stop after each.
const outstanding = 16 << 20

// Peer is a native libp2p host that serves and fetches blocks by Bitswap, and
// stays connected to one relay.
type Peer struct {
	Host  host.Host
	Relay Relay

	dag    blockservice.BlockService
	log    *slog.Logger
	cancel context.CancelFunc
	work   sync.WaitGroup
}

// Option is a setting of [Connect].
type Option func(*options)

type options struct {
	listen []string
	log    *slog.Logger
}

// WithListen makes the peer reachable at the given multiaddrs. The default is
// none: the relay then uses the connection that the peer has made.
func WithListen(addrs ...string) Option { return func(o *options) { o.listen = addrs } }

// WithLogger sets where the peer logs; the default is nowhere.
func WithLogger(log *slog.Logger) Option { return func(o *options) { o.log = log } }

// Connect starts a peer with key that serves and fetches into bs, and connects
// it to relay; that fails unless the relay proves that it holds relay.ID. The
// peer connects again whenever the connection is lost, until Close. bs stays
// the caller's.
func Connect(ctx context.Context, relay Relay, key crypto.PrivKey, bs blockstore.Blockstore, opts ...Option) (*Peer, error) {
	o := options{log: slog.New(slog.DiscardHandler)}
	for _, opt := range opts {
		opt(&o)
	}
	listen := libp2p.NoListenAddrs
	if len(o.listen) > 0 {
		listen = libp2p.ListenAddrStrings(o.listen...)
	}
	h, err := libp2p.New(
		libp2p.Identity(key),
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Transport(quic.NewTransport),
		libp2p.Transport(websocket.New),
		libp2p.DisableRelay(),
		libp2p.UserAgent("weft"),
		listen,
	)
	if err != nil {
		return nil, fmt.Errorf("client: start a libp2p host: %w", err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	exchange := bitswap.New(ctx, bsnet.NewFromIpfsHost(h), nil, node.ServesEmpty(bs),
		bitswap.MaxOutstandingBytesPerPeer(outstanding),
		// A want can be lost with a connection; by default it is repeated after
		// a minute only.
		bitswap.RebroadcastDelay(5*time.Second))
	p := &Peer{
		Host: h, Relay: relay,
		dag: blockservice.New(bs, node.KnowsEmpty(node.Persistent(exchange))),
		log: o.log, cancel: cancel,
	}
	if err := p.dial(ctx); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	h.ConnManager().Protect(relay.ID, "relay")
	p.work.Go(func() { p.stay(ctx) })
	return p, nil
}

func (p *Peer) dial(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 20*time.Second, errors.New("no connection within 20 seconds"))
	defer cancel()
	// Not by QUIC if there is another way: a publisher that was killed leaves a
	// QUIC connection that its relay believes in for 30 seconds, and the next
	// one, with the same key, waits as long for what is sent into it.
	addrs := slices.DeleteFunc(slices.Clone(p.Relay.Addrs), func(a multiaddr.Multiaddr) bool {
		_, err := a.ValueForProtocol(multiaddr.P_QUIC_V1)
		return err == nil
	})
	if len(addrs) == 0 {
		addrs = p.Relay.Addrs
	}
	err := p.Host.Connect(network.WithForceDirectDial(ctx, "relay"), peer.AddrInfo{ID: p.Relay.ID, Addrs: addrs})
	if err != nil {
		return fmt.Errorf("client: connect to relay %s at %s: %w", p.Relay.ID, p.Relay.URL, err)
	}
	return nil
}

// stay connects again after the relay has gone, waiting from one second up to
// thirty between attempts.
func (p *Peer) stay(ctx context.Context) {
	lost := make(chan struct{}, 1)
	note := &network.NotifyBundle{DisconnectedF: func(_ network.Network, c network.Conn) {
		if c.RemotePeer() == p.Relay.ID {
			select {
			case lost <- struct{}{}:
			default:
			}
		}
	}}
	p.Host.Network().Notify(note)
	defer p.Host.Network().StopNotify(note)
	const first, last = time.Second, 30 * time.Second
	for wait := first; ; {
		select {
		case <-ctx.Done():
			return
		case <-lost:
		}
		for p.Host.Network().Connectedness(p.Relay.ID) != network.Connected {
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
			if err := p.dial(ctx); err != nil {
				wait = min(2*wait, last)
				p.log.Debug("relay not reached", "url", p.Relay.URL, "err", err)
				continue
			}
			wait = first
			p.log.Info("connected to the relay again", "url", p.Relay.URL)
		}
	}
}

// Blocks is the block service over the store that the peer was given and
// Bitswap.
func (p *Peer) Blocks() blockservice.BlockService { return p.dag }

// Session returns a getter for one piece of work: what one peer had is asked of
// that peer first.
func (p *Peer) Session(ctx context.Context) *blockservice.Session {
	return blockservice.NewSession(ctx, p.dag)
}

// Addrs are the addresses at which others can dial this peer, each with its
// peer ID; none without [WithListen].
func (p *Peer) Addrs() []multiaddr.Multiaddr {
	addrs, err := peer.AddrInfoToP2pAddrs(&peer.AddrInfo{ID: p.Host.ID(), Addrs: p.Host.Addrs()})
	if err != nil {
		return nil // a host always has a valid ID
	}
	return addrs
}

// Close stops serving and waits until nothing uses the store any more.
func (p *Peer) Close() error {
	p.cancel()
	p.work.Wait()
	return errors.Join(p.dag.Close(), p.Host.Close())
}
