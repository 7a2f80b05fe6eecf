//go:build js && wasm

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall/js"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/webfabric/weft/shared/bcin"
	"github.com/webfabric/weft/shared/exchange"
	"github.com/webfabric/weft/shared/gateway"
	"github.com/webfabric/weft/shared/swarm"
	"github.com/webfabric/weft/wasm/jsapi"
)

const (
	// choicesRecord is the name under which the visitor's choices are kept.
	choicesRecord = "choices"
	// wantedFor is for how long after the last request a root is one whose
	// holders are worth being neighbours.
	wantedFor = time.Minute
	// maxConnections is the most a page may ask for: each connection costs the
	// page that hosts it memory and time.
	maxConnections = 32
	// statsAge is how old the peers' figures may be that the swarm judges by.
	statsAge = 500 * time.Millisecond
)

// choices are what the visitor and the page have said about giving. They are
// kept, since a worker that was stopped starts before any page tells it again.
type choices struct {
	// Give is what the visitor decided, nil for nothing: then a node gives
	// unless the browser is asked to save data.
	Give     *bool `json:"give,omitempty"`
	SaveData bool  `json:"saveData,omitempty"` // as the browser says
	// Upload is the most given in a second, in bytes, and Connections the most
	// neighbours; 0 for no limit and for the usual number.
	Upload      int `json:"upload,omitempty"`
	Connections int `json:"connections,omitempty"`
}

func (c choices) gives() bool {
	if c.Give != nil {
		return *c.Give
	}
	return !c.SaveData
}

// visitors is the node among the other nodes of its origin.
type visitors struct {
	a     *app
	bcin  *bcin.Client
	swarm *swarm.Swarm

	mu      sync.Mutex
	choices choices
	hosted  bool // a page makes WebRTC connections for us
	met     map[peer.ID]bool
	pinned  []cid.Cid
	visited []visit // the last one first, at most bcin.MaxHolds
	counted map[peer.ID]exchange.PeerStats
	at      time.Time // of counted
}

type visit struct {
	root cid.Cid
	at   time.Time
}

// newVisitors needs the app's node and store. Nothing runs before start.
func newVisitors(ctx context.Context, a *app, key crypto.PrivKey) *visitors {
	v := &visitors{a: a, met: map[peer.ID]bool{}}
	if b, err := a.store.Record(ctx, choicesRecord); err != nil {
		a.log.Warn("choices not read", "err", err)
	} else if b != nil {
		if err := json.Unmarshal(b, &v.choices); err != nil {
			a.log.Warn("choices not read", "err", err)
		}
	}
	if c := js.Global().Get("navigator").Get("connection"); c.Type() == js.TypeObject && c.Get("saveData").Type() == js.TypeBoolean {
		v.choices.SaveData = c.Get("saveData").Bool()
	}
	h, x := a.node.Host(), a.node.Exchange()
	v.bcin = bcin.New(bcin.Config{
		Host: h, Key: key, Origin: a.host.Get("origin").String(), Addrs: v.addrs, Holds: v.holds, Log: a.log,
	})
	v.swarm = swarm.New(swarm.Config{
		Host: h, BCIN: v.bcin, IsRelay: a.node.IsRelay, Log: a.log,
		Score: x.Score, Wants: v.wants,
		Moved: func(p peer.ID) uint64 {
			s := v.stats(statsAge)[p]
			return s.BytesIn + s.BytesOut
		},
	})
	v.apply()
	return v
}

// stats is what is known of each connected peer, at most as old as age.
func (v *visitors) stats(age time.Duration) map[peer.ID]exchange.PeerStats {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.counted == nil || time.Since(v.at) > age {
		v.counted, v.at = map[peer.ID]exchange.PeerStats{}, time.Now()
		for _, s := range v.a.node.Exchange().Peers() {
			v.counted[s.ID] = s
		}
	}
	return v.counted
}

// start meets the others, until ctx ends.
func (v *visitors) start(ctx context.Context) {
	go jsapi.Guard(func() { v.swarm.Run(ctx) })
	for _, r := range v.a.node.Relays() {
		v.meet(ctx, r)
	}
	v.pinsChanged(ctx)
}

// meet makes the node known at a relay, from now on.
func (v *visitors) meet(ctx context.Context, relay peer.ID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.met[relay] {
		return
	}
	v.met[relay] = true
	go jsapi.Guard(func() { v.bcin.Run(ctx, relay) })
}

// apply puts the choices into effect.
func (v *visitors) apply() {
	v.mu.Lock()
	c := v.choices
	v.mu.Unlock()
	v.a.node.Exchange().SetServing(exchange.Serving{Off: !c.gives(), Limit: c.Upload})
	v.swarm.SetMaxPeers(c.Connections)
	v.swarm.SetDataSaver(!c.gives())
	v.bcin.Refresh()
}

// addrs are where others may find the node: nowhere if it gives nothing, or
// there is no page to make connections.
func (v *visitors) addrs() []ma.Multiaddr {
	v.mu.Lock()
	open := v.hosted && v.choices.gives()
	v.mu.Unlock()
	if !open {
		return nil
	}
	return v.a.node.RelayAddrs()
}

// setHosted says whether a page makes connections.
func (v *visitors) setHosted(hosted bool) {
	v.mu.Lock()
	v.hosted = hosted
	v.mu.Unlock()
	v.bcin.Refresh()
	v.swarm.Anew()
}

// holds are the roots that the node has or is getting.
func (v *visitors) holds() []cid.Cid {
	v.mu.Lock()
	defer v.mu.Unlock()
	var out []cid.Cid
	for _, s := range v.visited {
		out = append(out, s.root)
	}
	for _, c := range v.pinned {
		if len(out) < bcin.MaxHolds && !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	// In an order that does not change with each request.
	slices.SortFunc(out, func(a, b cid.Cid) int { return strings.Compare(a.KeyString(), b.KeyString()) })
	return out
}

// wants are the roots asked for lately, the last one first.
func (v *visitors) wants() []cid.Cid {
	v.mu.Lock()
	defer v.mu.Unlock()
	var out []cid.Cid
	for _, s := range v.visited {
		if time.Since(s.at) < wantedFor {
			out = append(out, s.root)
		}
	}
	return out
}

// visit notes that root is asked for.
func (v *visitors) visit(root cid.Cid) {
	now := time.Now()
	v.mu.Lock()
	i := slices.IndexFunc(v.visited, func(s visit) bool { return s.root == root })
	fresh := i < 0 || now.Sub(v.visited[i].at) > wantedFor
	if i >= 0 {
		v.visited = slices.Delete(v.visited, i, i+1)
	}
	v.visited = slices.Insert(v.visited, 0, visit{root, now})
	v.visited = v.visited[:min(len(v.visited), bcin.MaxHolds)]
	v.mu.Unlock()
	if fresh {
		v.bcin.Refresh()
		v.swarm.Refresh()
	}
}

// pinsChanged looks at what is pinned.
func (v *visitors) pinsChanged(ctx context.Context) {
	roots, err := v.a.store.Pins(ctx)
	if err != nil {
		v.a.log.Warn("pins not read", "err", err)
		return
	}
	v.mu.Lock()
	v.pinned = roots
	v.mu.Unlock()
	v.bcin.Refresh()
}

// Serve is the gateway's, and notes the roots asked for.
func (v *visitors) Serve(ctx context.Context, r gateway.Request) *gateway.Response {
	if root, _, err := parsePath(r.Path); err == nil {
		v.visit(root)
	}
	return v.a.gateway.Serve(ctx, r)
}

// set takes over what a page says of {give, saveData, upload, connections},
// keeps it, and returns what holds now. Where give is null the visitor has not
// decided.
func (v *visitors) set(ctx context.Context, args js.Value) (any, error) {
	if args.Type() != js.TypeObject {
		return nil, fmt.Errorf("limits: %w: want {give, saveData, upload, connections}", jsapi.ErrArguments)
	}
	v.mu.Lock()
	c := v.choices
	v.mu.Unlock()
	before := c
	switch give := args.Get("give"); give.Type() {
	case js.TypeBoolean:
		b := give.Bool()
		c.Give = &b
	case js.TypeNull:
		c.Give = nil
	}
	if s := args.Get("saveData"); s.Type() == js.TypeBoolean {
		c.SaveData = s.Bool()
	}
	for _, n := range []struct {
		name string
		to   *int
		most float64
	}{{"upload", &c.Upload, 1 << 40}, {"connections", &c.Connections, maxConnections}} {
		a := args.Get(n.name)
		if a.Type() == js.TypeUndefined {
			continue
		}
		if a.Type() != js.TypeNumber || !(a.Float() >= 0) {
			return nil, fmt.Errorf("limits: %w: %s is no number of 0 or more", jsapi.ErrArguments, n.name)
		}
		*n.to = int(min(a.Float(), n.most))
	}
	if same := c.SaveData == before.SaveData && c.Upload == before.Upload && c.Connections == before.Connections && c.gives() == before.gives() && (c.Give == nil) == (before.Give == nil); !same {
		v.mu.Lock()
		v.choices = c
		v.mu.Unlock()
		v.apply()
		b, err := json.Marshal(c)
		if err != nil {
			return nil, err
		}
		if err := v.a.store.SetRecord(ctx, choicesRecord, b); err != nil {
			return nil, err
		}
	}
	return v.giving(), nil
}

// giving describes the choices.
func (v *visitors) giving() map[string]any {
	v.mu.Lock()
	defer v.mu.Unlock()
	return map[string]any{
		"giving": v.choices.gives(), "saveData": v.choices.SaveData,
		"upload": v.choices.Upload, "connections": v.choices.Connections,
	}
}

// peers describes who is connected: each once, by its best connection.
func (v *visitors) peers() []any {
	type found struct {
		rank      int
		transport string
		addr      string
	}
	best := map[peer.ID]found{}
	var order []peer.ID
	for _, c := range v.a.node.Host().Network().Conns() {
		f := found{1, "websocket", c.RemoteMultiaddr().String()}
		for _, part := range c.RemoteMultiaddr() {
			switch part.Protocol().Code {
			case ma.P_CIRCUIT:
				f.rank, f.transport = 0, "circuit"
			case ma.P_WEBRTC:
				f.rank, f.transport = 2, "webrtc"
			}
		}
		p := c.RemotePeer()
		if old, known := best[p]; !known || f.rank > old.rank {
			if !known {
				order = append(order, p)
			}
			best[p] = f
		}
	}
	slices.Sort(order)
	stats := v.stats(0)
	var out []any
	for _, p := range order {
		s := stats[p]
		out = append(out, map[string]any{
			"id": p.String(), "peerId": p.String(), "addr": best[p].addr, "transport": best[p].transport,
			"relay": v.a.node.IsRelay(p), "bytesIn": s.BytesIn, "bytesOut": s.BytesOut,
		})
	}
	return out
}

// liars are those that were blocked.
func (v *visitors) liars() any {
	var out []string
	for _, p := range v.swarm.Blocked() {
		out = append(out, p.String())
	}
	return jsapi.Array(out)
}
