package server

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockservice"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/x/rate"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/webfabric/weft/shared/exchange"
	"github.com/webfabric/weft/shared/node"
)

// Limits of one relay. go-libp2p's defaults are for a node that serves a few
// strangers; a relay serves all visitors of its sites, of whom an office or a
// mobile carrier has many behind one address.
const (
	maxConns        = 8192
	maxConnsPerIP   = 1024 // go-libp2p: 8
	maxStreams      = 65536
	maxPeerStreams  = 2048
	maxReservations = 4096             // go-libp2p: 128
	maxCircuits     = 64               // per peer; go-libp2p: 16
	circuitBuffer   = 64 << 10         // bytes, per direction; go-libp2p: 2 KiB
	connsLow        = maxConns / 2     // the connection manager trims down to this
	connsHigh       = maxConns * 3 / 4 // when there are more than this
	connsGrace      = time.Minute      // but none younger than this

	// A want of 1 MiB blocks keeps a connection busy only if several are on
	// their way to one peer; boxo's default of 1 MiB is one.
	bitswapOutstanding = 8 << 20
	bitswapWorkers     = 32
)

// newHost makes the libp2p host. announce are addresses to tell beside those
// it listens on.
func newHost(key crypto.PrivKey, listen []ma.Multiaddr, u *upgrades, announce []ma.Multiaddr) (host.Host, error) {
	rm, err := newResourceManager()
	if err != nil {
		return nil, fmt.Errorf("server: resource manager: %w", err)
	}
	cm, err := connmgr.NewConnManager(connsLow, connsHigh, connmgr.WithGracePeriod(connsGrace))
	if err != nil {
		rm.Close()
		return nil, fmt.Errorf("server: connection manager: %w", err)
	}
	h, err := libp2p.New(
		libp2p.Identity(key),
		libp2p.UserAgent("weft-relay"),
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Transport(libp2pquic.NewTransport),
		libp2p.Transport(newWSTransport(u)),
		libp2p.Muxer(yamux.ID, node.NewMuxer()),
		libp2p.ListenAddrs(append(listen, u.addr)...),
		libp2p.ResourceManager(rm),
		libp2p.ConnectionManager(cm),
		// The client side of the circuit relay; the service is started by
		// itself below, since go-libp2p's waits to be reachable from the internet.
		libp2p.DisableRelay(),
		libp2p.DisableMetrics(),
		libp2p.AddrsFactory(func(addrs []ma.Multiaddr) []ma.Multiaddr {
			return append(addrs[:len(addrs):len(addrs)], announce...)
		}),
	)
	if err != nil {
		cm.Close()
		rm.Close()
		return nil, fmt.Errorf("server: start libp2p: %w", err)
	}
	return h, nil
}

func newResourceManager() (network.ResourceManager, error) {
	defaults := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&defaults)
	streams := rcmgr.ResourceLimits{Streams: maxStreams, StreamsInbound: maxStreams, StreamsOutbound: maxStreams}
	peerStreams := rcmgr.ResourceLimits{Streams: maxPeerStreams, StreamsInbound: maxPeerStreams, StreamsOutbound: maxPeerStreams}
	system := streams
	system.Conns, system.ConnsInbound = maxConns, maxConns
	peer := peerStreams
	peer.Conns, peer.ConnsInbound = 64, 64
	limits := rcmgr.PartialLimitConfig{
		System: system,
		Transient: rcmgr.ResourceLimits{
			Conns: 1024, ConnsInbound: 1024,
			Streams: 4096, StreamsInbound: 4096, StreamsOutbound: 4096,
		},
		PeerDefault:         peer,
		ProtocolDefault:     streams,
		ProtocolPeerDefault: peerStreams,
		Service:             map[string]rcmgr.ResourceLimits{circuit.ServiceName: streams},
		ServicePeer:         map[string]rcmgr.ResourceLimits{circuit.ServiceName: peerStreams},
	}.Build(defaults.AutoScale())

	prefix := func(bits, n int) []rcmgr.ConnLimitPerSubnet {
		return []rcmgr.ConnLimitPerSubnet{{PrefixLength: bits, ConnCount: n}}
	}
	burst := rate.Limit{RPS: 20, Burst: maxConnsPerIP}
	return rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits),
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithLimitPerSubnet(prefix(32, maxConnsPerIP), prefix(56, maxConnsPerIP)),
		rcmgr.WithConnRateLimiters(&rate.Limiter{
			NetworkPrefixLimits: []rate.PrefixLimit{
				{Prefix: netip.MustParsePrefix("127.0.0.0/8")}, // no limit
				{Prefix: netip.MustParsePrefix("::1/128")},
			},
			SubnetRateLimiter: rate.SubnetLimiter{
				IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: burst}},
				IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 56, Limit: burst}},
				GracePeriod:      time.Minute,
			},
		}),
	)
}

// newCircuitRelay starts the circuit relay service. A circuit with any limit
// of time or bytes is a "limited" connection, on which Bitswap opens no
// streams: so there is none, and circuits.go bounds what they carry.
func newCircuitRelay(h *circuits, m *metrics) (*circuit.Relay, error) {
	r, err := circuit.New(h,
		circuit.WithACL(h),
		circuit.WithResources(circuit.Resources{
			ReservationTTL:        time.Hour,
			MaxReservations:       maxReservations,
			MaxCircuits:           maxCircuits,
			BufferSize:            circuitBuffer,
			MaxReservationsPerIP:  maxConnsPerIP,
			MaxReservationsPerASN: math.MaxInt32, // a country's largest carrier is one
		}),
		// A relay on localhost or in a LAN tells its addresses too.
		circuit.WithReservationAddressFilter(func(ma.Multiaddr) bool { return true }),
		circuit.WithMetricsTracer(circuitTracer{m}),
	)
	if err != nil {
		return nil, fmt.Errorf("server: start the circuit relay: %w", err)
	}
	return r, nil
}

// startBitswap starts the block exchange. It asks connected peers only: there
// is no routing.
func startBitswap(ctx context.Context, h host.Host, blocks *tiered, m *metrics, f *forwarder) *bitswap.Bitswap {
	return bitswap.New(ctx, bsnet.NewFromIpfsHost(exchange.BoundMessages(h)), nil, node.ServesEmpty(blocks),
		bitswap.MaxOutstandingBytesPerPeer(bitswapOutstanding),
		// A want can be lost with a connection; by default it is repeated after
		// a minute only.
		bitswap.RebroadcastDelay(5*time.Second),
		bitswap.TaskWorkerCount(bitswapWorkers),
		bitswap.EngineTaskWorkerCount(bitswapWorkers),
		bitswap.EngineBlockstoreWorkerCount(bitswapWorkers),
		bitswap.WithTracer(bitswapTracer{m, f.received}),
	)
}

func newBlockService(blocks *tiered, bs *bitswap.Bitswap) blockservice.BlockService {
	return blockservice.New(blocks, node.KnowsEmpty(node.Persistent(bs)))
}
