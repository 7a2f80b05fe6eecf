package bcin

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	// DefaultTTL is how long a client's record is good; it is renewed at half
	// of it. A relay sees by itself that a node has gone: this is for what it
	// cannot see.
	DefaultTTL = 2 * time.Minute
	// A lost session is begun again after a pause that starts at minRetry and
	// doubles up to maxRetry, each multiplied by 0.5 to 1.5, or at once when
	// the relay is connected anew.
	minRetry = 250 * time.Millisecond
	maxRetry = 20 * time.Second
	// refused is the first pause after a relay refused a record.
	refused = 2 * time.Second
	// answerTimeout is how long a relay may take to answer.
	answerTimeout = 20 * time.Second
	// look is how often Addrs and Holds are asked whether they have changed
	// without [Client.Refresh].
	look = time.Second
	// maxSkew is by how much a relay's clock is believed to differ from ours.
	maxSkew = 24 * time.Hour
	// maxAsks is how many relays are asked at once; one allows 8 streams.
	maxAsks = 4
	// maxSeen is how many peers' epochs are remembered.
	maxSeen = 4096
)

// ErrNoRelay means that no relay answered.
var ErrNoRelay = errors.New("bcin: no relay answered")

// A Config says who a Client is. Host, Key, Origin and Addrs are required.
type Config struct {
	Host   host.Host
	Key    crypto.PrivKey // the host's
	Origin string
	// Addrs returns the addresses through relays at which the node can be
	// reached, the best first. While it returns none the node is not told of,
	// but finds others.
	Addrs func() []ma.Multiaddr
	// Holds returns the roots that the node serves, the most important first.
	Holds func() []cid.Cid
	// TTL is how long a record is good; 0 means [DefaultTTL].
	TTL time.Duration
	Log *slog.Logger // nil discards
}

// A Client makes a node known at its relays, and knows who else is there. It
// is safe for concurrent use.
type Client struct {
	cfg     Config
	log     *slog.Logger
	id      peer.ID
	changed chan struct{} // capacity 1
	asks    chan struct{} // has a value for each relay being asked

	mu       sync.Mutex
	epoch    uint64
	sessions map[*session]struct{}
	peers    map[peer.ID]*known
	seen     map[peer.ID]version // the newest of each, whether it is there or not
}

// known is a peer that is there now.
type known struct {
	record  Record
	sealed  []byte
	expires time.Time             // by our clock
	at      map[*session]struct{} // that have told of it and not of its end; never empty
}

// New returns a client that has not met a relay yet. Its epoch is the time in
// nanoseconds since 1970, so that a node that starts again replaces itself.
func New(cfg Config) *Client {
	if cfg.TTL <= 0 {
		cfg.TTL = DefaultTTL
	}
	c := &Client{
		cfg: cfg, log: cfg.Log, id: cfg.Host.ID(), changed: make(chan struct{}, 1), asks: make(chan struct{}, maxAsks),
		epoch:    uint64(time.Now().UnixNano()),
		sessions: map[*session]struct{}{}, peers: map[peer.ID]*known{}, seen: map[peer.ID]version{},
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Changed is poked when [Client.Peers] returns others than before, or others
// of their roots or addresses. It has room for one poke.
func (c *Client) Changed() <-chan struct{} { return c.changed }

// Peers returns who is there now and can be dialled, the own node left out, in
// no order. Where relays told of different records, it is the newest. Those
// that only a lost relay told of are not among them: that they are missing says
// nothing about connections to them.
func (c *Client) Peers() []Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	out := make([]Record, 0, len(c.peers))
	for _, k := range c.peers {
		if len(k.record.Addrs) > 0 && k.expires.After(now) {
			out = append(out, k.record)
		}
	}
	return out
}

// Refresh tells the relays at once if what Addrs or Holds return has changed.
// Without it they are told within a second.
func (c *Client) Refresh() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refresh()
}

func (c *Client) refresh() {
	for s := range c.sessions {
		poke(s.wake)
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run keeps the node registered at a relay and watches who else is, until ctx
// ends, whose cause it returns. It waits while the relay is not connected, and
// begins again after a loss. Connecting to the relay is the caller's.
func (c *Client) Run(ctx context.Context, relay peer.ID) error {
	connected := make(chan struct{}, 1)
	hears := &network.NotifyBundle{ConnectedF: func(_ network.Network, conn network.Conn) {
		if conn.RemotePeer() == relay {
			poke(connected)
		}
	}}
	c.cfg.Host.Network().Notify(hears)
	defer c.cfg.Host.Network().StopNotify(hears)
	pause := minRetry
	var skew time.Duration
	var last time.Time
	for ctx.Err() == nil {
		s := &session{c: c, relay: relay, wake: make(chan struct{}, 1), skew: skew, last: last}
		err := s.run(ctx)
		skew, last = s.skew, s.last
		if ctx.Err() != nil {
			break
		}
		if s.answered {
			pause = minRetry
		}
		c.log.Debug("rendezvous lost", "relay", relay, "err", err, "pause", pause)
		t := time.NewTimer(time.Duration((0.5 + rand.Float64()) * float64(pause)))
		select {
		case <-t.C:
			pause = min(2*pause, maxRetry)
		case <-connected:
			pause = minRetry
		case <-ctx.Done():
		}
		t.Stop()
	}
	return context.Cause(ctx)
}

// Discover asks the connected relays for nodes: at most limit of a random
// choice, those that serve want first if it is defined. limit is at most
// [MaxView], which 0 means too. The error wraps [ErrNoRelay] if none answered.
func (c *Client) Discover(ctx context.Context, want cid.Cid, limit int) ([]Record, error) {
	if limit <= 0 || limit > MaxView {
		limit = MaxView
	}
	ctx, cancel := context.WithTimeoutCause(ctx, answerTimeout, fmt.Errorf("bcin: no answer within %v", answerTimeout))
	defer cancel()
	c.mu.Lock()
	relays := map[peer.ID]struct{}{}
	for s := range c.sessions {
		relays[s.relay] = struct{}{}
	}
	c.mu.Unlock()
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
		ok   bool
		best = map[peer.ID]Record{}
		out  []Record
	)
	for relay := range relays {
		wg.Go(func() {
			found, err := c.ask(ctx, relay, want, limit)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, fmt.Errorf("bcin: discover at %s: %w", relay, err))
				return
			}
			ok = true
			for _, r := range found {
				if old, known := best[r.Peer]; !known || r.Newer(old) {
					best[r.Peer] = r
				}
			}
		})
	}
	wg.Wait()
	if !ok {
		return nil, errors.Join(append(errs, ErrNoRelay)...)
	}
	for _, r := range best {
		out = append(out, r)
	}
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	slices.SortStableFunc(out, func(a, b Record) int {
		switch sa, sb := a.Serves(want), b.Serves(want); {
		case sa == sb:
			return 0
		case sa:
			return -1
		default:
			return 1
		}
	})
	return out[:min(limit, len(out))], nil
}

// ask asks one relay.
func (c *Client) ask(ctx context.Context, relay peer.ID, want cid.Cid, limit int) ([]Record, error) {
	select {
	case c.asks <- struct{}{}:
		defer func() { <-c.asks }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	st, err := c.cfg.Host.NewStream(network.WithNoDial(ctx, "bcin"), relay, Protocol)
	if err != nil {
		return nil, err
	}
	defer st.Reset()
	defer context.AfterFunc(ctx, func() { st.Reset() })()
	b, err := request{id: 1, op: opDiscover, origin: c.cfg.Origin, want: want, limit: uint64(limit)}.marshal()
	if err := writeFrame(st, b, err); err != nil {
		return nil, err
	}
	in := bufio.NewReader(st)
	var out []Record
	for {
		r, err := readReply(in)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err != nil:
			return nil, err
		case r.id == 1 && r.kind == kindOK:
			return out, nil
		case r.id == 1 && r.kind == kindError:
			return nil, codeToError(r.code, r.message)
		case r.id != 1 || r.kind != kindRecords || len(out)+len(r.records) > limit:
			return nil, fmt.Errorf("%w: %d more records in a message of kind %.20q", errMessage, len(r.records), r.kind)
		}
		for _, sealed := range r.records {
			rec, err := Open(sealed, c.cfg.Origin, time.Now().Add(skewOf(r.now)))
			if err != nil {
				c.log.Warn("a relay told of a record that is none", "relay", relay, "err", err)
				continue
			}
			if rec.Peer != c.id && len(rec.Addrs) > 0 && !c.older(rec) {
				out = append(out, rec)
			}
		}
	}
}

func readReply(in *bufio.Reader) (reply, error) {
	b, err := readFrame(in, MaxMessage)
	if err != nil {
		return reply{}, err
	}
	return unmarshalReply(b)
}

// skewOf is how far ahead of ours a relay's clock is that shows now. Records
// are signed and judged by the relays' clocks: visitors' are often wrong, and
// one that is minutes off would make everyone look expired.
func skewOf(now time.Time) time.Duration {
	return max(-maxSkew, min(maxSkew, time.Until(now)))
}

// older tells whether r is older than one that was seen before: a repetition.
func (c *Client) older(r Record) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen[r.Peer].newer(r.version())
}

// add takes over that s told of r.
func (c *Client) add(s *session, r Record, sealed []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, live := c.sessions[s]; !live || r.Peer == c.id || c.seen[r.Peer].newer(r.version()) {
		return
	}
	c.remember(r, s.skew)
	k := c.peers[r.Peer]
	if k == nil {
		k = &known{at: map[*session]struct{}{}}
		c.peers[r.Peer] = k
	}
	k.at[s] = struct{}{}
	if old := k.record; old.Epoch != r.Epoch || !slices.EqualFunc(old.Addrs, r.Addrs, ma.Multiaddr.Equal) || !slices.Equal(old.Holds, r.Holds) {
		poke(c.changed)
	}
	k.record, k.sealed, k.expires = r, bytes.Clone(sealed), r.Expires.Add(-s.skew)
}

// same adds s to those that told of sealed, if that is known as the newest
// record of its peer: it need not be verified again then.
func (c *Client) same(s *session, sealed []byte) (peer.ID, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for p, k := range c.peers {
		if bytes.Equal(k.sealed, sealed) {
			k.at[s] = struct{}{}
			return p, true
		}
	}
	return "", false
}

// remember notes r's epoch, so that an earlier one is known as a repetition.
func (c *Client) remember(r Record, skew time.Duration) {
	if _, known := c.seen[r.Peer]; !known && len(c.seen) >= maxSeen {
		now := time.Now().Add(skew).UnixMilli()
		for id, old := range c.seen {
			if old.expires <= now {
				delete(c.seen, id)
			}
		}
		if len(c.seen) >= maxSeen {
			for id := range c.seen { // any
				delete(c.seen, id)
				break
			}
		}
	}
	c.seen[r.Peer] = r.version()
}

// drop takes over that s told of p's end.
func (c *Client) drop(s *session, p peer.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget(s, p)
}

func (c *Client) forget(s *session, p peer.ID) {
	k := c.peers[p]
	if k == nil {
		return
	}
	delete(k.at, s)
	if len(k.at) == 0 {
		delete(c.peers, p)
		poke(c.changed)
	}
}

// begin and end frame a session that has a stream.
func (c *Client) begin(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sessions[s] = struct{}{}
}

func (c *Client) end(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.sessions, s)
	for p := range c.peers {
		c.forget(s, p)
	}
}

// outdate makes the own record newer than one of epoch.
func (c *Client) outdate(epoch uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if epoch >= c.epoch && epoch < math.MaxInt64-1 {
		c.epoch = epoch + 1
		c.refresh()
	}
}

// own is the own record, without an expiry.
func (c *Client) own() Record {
	r := Record{Origin: c.cfg.Origin, Peer: c.id, Addrs: c.cfg.Addrs()}
	r.Addrs = slices.DeleteFunc(slices.Clone(r.Addrs), func(a ma.Multiaddr) bool { return !throughRelay(a) })
	r.Addrs = r.Addrs[:min(len(r.Addrs), MaxAddrs)]
	if c.cfg.Holds != nil {
		r.Holds = c.cfg.Holds()
		r.Holds = slices.Clone(r.Holds[:min(len(r.Holds), MaxHolds)])
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r.Epoch = c.epoch
	return r
}
