//go:build js && wasm

// Command wasm is the node in the Service Worker: a whole libp2p peer with
// Bitswap, its blocks in IndexedDB, and the gateway that answers the page's
// requests for /ipfs/….
//
// sw.js sets globalThis.weftHost = {config, origin, event(type, detail),
// ready(node)} and runs it. Once requests can be answered, ready is called with
// {fetch(request, signal), call(op, args)}. The program ends only by a panic in
// the background, or when it cannot start; sw.js then starts another.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"syscall/js"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/webfabric/weft/shared/config"
	"github.com/webfabric/weft/shared/gateway"
	"github.com/webfabric/weft/shared/identity"
	"github.com/webfabric/weft/shared/node"
	"github.com/webfabric/weft/wasm/idbstore"
	"github.com/webfabric/weft/wasm/jsapi"
	"github.com/webfabric/weft/wasm/rtcbridge"
	"github.com/webfabric/weft/wasm/swfetch"
	"github.com/webfabric/weft/wasm/webcrypto"
)

// database is the name of the IndexedDB database, one per origin.
const database = "weft"

// forgive is for how long a node whose key was in use before takes a block that
// nobody asked for to be an answer to that life: others notice within half a
// minute that its connections are dead, and drop what they still had to send.
const forgive = 30 * time.Second

// identityRecord is the name under which the node's key is kept.
const identityRecord = "identity"

// quotaShare is the part of the origin's quota that blocks may fill: the rest
// is for the site's own data, and for IndexedDB's overhead.
const quotaShare = 0.8

// memoryLimit is from where the garbage collector works harder, in bytes: the
// heap takes some 30 MB with six files on their way, and a phone kills a
// worker that holds several hundred.
const memoryLimit = 256 << 20

func main() {
	debug.SetMemoryLimit(memoryLimit)
	host := js.Global().Get("weftHost")
	a := &app{
		host:    host,
		started: time.Now(),
		up:      make(chan struct{}),
		log:     slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	jsapi.OnPanic(func(reason string) {
		a.log.Error("panic", "reason", reason)
		a.event("error", map[string]any{"code": "internal", "message": reason})
	})
	ctx := context.Background()
	if err := a.boot(ctx); err != nil {
		a.log.Error("the node could not start", "err", err)
		a.event("error", jsapi.Error(err))
		os.Exit(1)
	}
	host.Call("ready", js.ValueOf(map[string]any{
		"fetch": jsapi.Func(func(args []js.Value) any {
			signal := js.Undefined()
			if len(args) > 1 {
				signal = args[1]
			}
			return swfetch.Fetch(ctx, a.visitors, args[0], signal)
		}),
		"call": jsapi.Func(func(args []js.Value) any {
			op, arg := args[0].String(), js.Undefined()
			if len(args) > 1 {
				arg = args[1]
			}
			return jsapi.Promise(func() (any, error) { return a.call(ctx, op, arg) })
		}),
	}))
	select {}
}

// app is the running node and what its operations work on.
type app struct {
	host    js.Value
	log     *slog.Logger
	started time.Time

	store   *idbstore.Store
	rtc     *rtcbridge.Bridge
	node    *node.Node
	gateway *gateway.Gateway
	keeper  *keeper
	blocks  blockEvents
	// visitors is set once the node is, which calls back before.
	visitors *visitors
	up       chan struct{} // closed then

	mu        sync.Mutex
	config    config.Parsed
	quota     int64 // of the origin, as the browser last told
	usage     int64
	estimated time.Time
}

// boot makes the node. It does not wait for the network.
func (a *app) boot(ctx context.Context) error {
	var err error
	if text := a.host.Get("config"); text.Type() == js.TypeString && text.String() != "" {
		if a.config, err = config.Parse([]byte(text.String())); err != nil {
			// A node without relays still answers from its store.
			a.log.Error("configuration not used", "err", err)
			a.event("error", jsapi.Error(err))
		}
	}
	webcrypto.Register()
	if a.store, err = idbstore.Open(ctx, database, idbstore.WithLogger(a.log)); err != nil {
		return err
	}
	key, again, err := a.identity(ctx)
	if err != nil {
		return err
	}
	a.rtc = rtcbridge.New(rtcbridge.WithLogger(a.log), rtcbridge.WithSTUN(a.stun))
	h, err := newHost(key, a.rtc, a.log)
	if err != nil {
		return err
	}
	cfg := node.Config{
		Host:       h,
		Blockstore: a.store,
		Relays:     a.config.RelayInfos,
		Log:        a.log,
		OnPeer: func(p peer.ID, relay bool, state network.Connectedness) {
			a.peerChanged(p, relay, state)
			if v := a.others(); v != nil && relay {
				v.meet(ctx, p)
			}
		},
		OnBlock: func(_ peer.ID, relay bool, c cid.Cid, size int) { a.blocks.add(relay, c, size) },
		OnRelayAddrs: func() {
			if v := a.others(); v != nil {
				v.bcin.Refresh()
			}
		},
		OnBadBlock: func(p peer.ID, c cid.Cid) {
			if v := a.others(); v != nil {
				v.swarm.Block(p)
			}
			a.event("error", jsapi.Error(&node.BadBlockError{Peer: p, Got: c}))
		},
	}
	if again {
		cfg.Forgive = forgive
	}
	if a.node, err = node.New(ctx, cfg); err != nil {
		return err
	}
	a.visitors = newVisitors(ctx, a, key)
	close(a.up)
	a.visitors.start(ctx)
	a.blocks.send = func(d map[string]any) { a.event("block", d) }
	a.gateway = gateway.New(gateway.FromBlockService(a.node.Blocks()), gateway.WithOwner(a.owned), gateway.WithPatience(0))
	a.keeper = newKeeper(ctx, a)
	go a.estimate(ctx)
	return nil
}

// others is visitors, or nil as long as there is none.
func (a *app) others() *visitors {
	select {
	case <-a.up:
		return a.visitors
	default:
		return nil
	}
}

// identity reads the node's key, making it at the first start; again tells that
// it was made before.
func (a *app) identity(ctx context.Context) (key crypto.PrivKey, again bool, err error) {
	b, err := a.store.Record(ctx, identityRecord)
	if err != nil {
		return nil, false, err
	}
	if b != nil {
		key, err = identity.Unmarshal(b)
		return key, true, err
	}
	if key, err = identity.New(); err != nil {
		return nil, false, err
	}
	if b, err = identity.Marshal(key); err != nil {
		return nil, false, err
	}
	return key, false, a.store.SetRecord(ctx, identityRecord, b)
}

// owned tells whether the origin's owner has published root.
func (a *app) owned(root cid.Cid) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.config.Roots.Has(root)
}

// stun tells the STUN servers that the relays name.
func (a *app) stun() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.config.STUN
}

// setConfig takes a new configuration over. A list of roots that is older than
// the one the same owner signed is not taken: a cache may still have it.
func (a *app) setConfig(text string) error {
	c, err := config.Parse([]byte(text))
	if err != nil {
		return fmt.Errorf("%w: %v", jsapi.ErrArguments, err)
	}
	a.mu.Lock()
	if c.Owner.PeerID == a.config.Owner.PeerID && c.Roots.Seq < a.config.Roots.Seq {
		c.Roots = a.config.Roots
	}
	a.config = c
	a.mu.Unlock()
	a.node.AddRelays(c.RelayInfos...)
	return nil
}

// event tells the worker, which tells the pages.
func (a *app) event(kind string, detail any) {
	jsapi.Guard(func() { a.host.Call("event", kind, js.ValueOf(detail)) })
}

func (a *app) peerChanged(p peer.ID, relay bool, state network.Connectedness) {
	connected := state == network.Connected
	a.event("peer", map[string]any{"peerId": p.String(), "connected": connected, "relay": relay})
	if relay {
		a.event("relay", map[string]any{"peerId": p.String(), "connected": connected})
	}
}

// estimate asks the browser for the origin's quota.
func (a *app) estimate(ctx context.Context) {
	jsapi.Guard(func() {
		storage := js.Global().Get("navigator").Get("storage")
		if storage.Type() != js.TypeObject {
			return
		}
		v, err := jsapi.Await(ctx, storage.Call("estimate"))
		if err != nil {
			a.log.Warn("storage quota unknown", "err", err)
			return
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		a.quota, a.usage = int64(v.Get("quota").Float()), int64(v.Get("usage").Float())
		a.store.SetLimit(int64(quotaShare * float64(a.quota)))
	})
}
