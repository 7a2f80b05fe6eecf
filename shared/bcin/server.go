package bcin

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// What a server allows if its ServerConfig does not say otherwise.
const (
	// DefaultMaxRecords is for all origins; at [MaxSize] each it is 64 MiB.
	DefaultMaxRecords = 16_384
	// DefaultPerPeer is how many origins one key may be registered for.
	DefaultPerPeer = 4
	// DefaultPerNetwork is for one /24 of IPv4 or /48 of IPv6. An office, a
	// mobile carrier's gateway and every visitor behind one proxy are one
	// network, so it is high; what it keeps out is one host that fills the
	// relay.
	DefaultPerNetwork = 2048
)

const (
	// maxStreams is how many streams one peer may have open.
	maxStreams = 8
	// Requests on one stream beyond burst are read one each pace.
	burst = 32
	pace  = 100 * time.Millisecond
	// idle is how long a stream without a watch may be silent, and frameTime
	// how long one message may take to come.
	idle      = time.Minute
	frameTime = 10 * time.Second
	// writeTime is how long a client may take to read a message.
	writeTime = 20 * time.Second
	// settle is how long a watcher is told nothing after it was told
	// something: what happens in between is told at once.
	settle = 50 * time.Millisecond
	// sweepEach is how often expired records are looked for.
	sweepEach = time.Second
)

// ServerConfig says what a Server allows. The zero value is good.
type ServerConfig struct {
	// Allow tells whether the peer of a connection may speak for an origin,
	// and ask for its nodes; nil allows all.
	Allow func(c network.Conn, origin string) bool
	// MaxRecords, PerPeer and PerNetwork bound the records kept; 0 means the
	// default of each.
	MaxRecords, PerPeer, PerNetwork int
	// Observe, if set, is called after each request with its operation
	// ("register", "renew", "discover", "watch", "other") and "ok" or
	// "refused".
	Observe func(op, status string)
	Log     *slog.Logger // nil discards
}

// Stats is what a Server holds at one moment.
type Stats struct {
	Records  int
	Origins  int
	Watchers int
}

// A Server keeps the records of the peers that are connected to its host.
type Server struct {
	cfg    ServerConfig
	host   host.Host
	here   func(peer.ID) bool // connected, by more than a circuit
	log    *slog.Logger
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	hears  *network.NotifyBundle
	now    func() time.Time // but for deadlines

	mu       sync.Mutex
	origins  map[string]*origin
	peers    map[peer.ID]*member
	networks map[netip.Prefix]int // records of each
	records  int
	watchers int
}

// member is a peer with a record or a stream.
type member struct {
	records map[string]*entry // by origin
	streams int
	watches int
}

// origin is what is kept of one. It exists while it has entries or watchers.
type origin struct {
	entries  bag
	holders  map[string]*bag // by rootKey; none is empty
	watchers map[*watcher]struct{}
}

// entry is a record that is kept.
type entry struct {
	record  Record // but for the addresses
	sealed  []byte
	network netip.Prefix
}

// Serve answers [Protocol] on h until [Server.Close].
func Serve(h host.Host, cfg ServerConfig) (*Server, error) { return serve(h, cfg, time.Now) }

// serve is Serve by another clock.
func serve(h host.Host, cfg ServerConfig, now func() time.Time) (*Server, error) {
	if cfg.MaxRecords < 0 || cfg.PerPeer < 0 || cfg.PerNetwork < 0 {
		return nil, errors.New("bcin: serve: a limit below zero")
	}
	set := func(n *int, def int) {
		if *n == 0 {
			*n = def
		}
	}
	set(&cfg.MaxRecords, DefaultMaxRecords)
	set(&cfg.PerPeer, DefaultPerPeer)
	set(&cfg.PerNetwork, DefaultPerNetwork)
	if cfg.Allow == nil {
		cfg.Allow = func(network.Conn, string) bool { return true }
	}
	if cfg.Observe == nil {
		cfg.Observe = func(string, string) {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		cfg: cfg, host: h, log: cfg.Log, now: now,
		origins: map[string]*origin{}, peers: map[peer.ID]*member{}, networks: map[netip.Prefix]int{},
	}
	s.here = func(p peer.ID) bool { return h.Network().Connectedness(p) == network.Connected }
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.hears = &network.NotifyBundle{DisconnectedF: func(_ network.Network, c network.Conn) { s.left(c.RemotePeer()) }}
	h.Network().Notify(s.hears)
	h.SetStreamHandler(Protocol, s.accept)
	s.wg.Go(s.sweep)
	return s, nil
}

// Close ends every stream and waits for it. It may be called again.
func (s *Server) Close() error {
	s.host.RemoveStreamHandler(Protocol)
	s.host.Network().StopNotify(s.hears)
	s.mu.Lock()
	s.cancel() // with mu: no stream is accepted after this
	s.mu.Unlock()
	s.wg.Wait()
	return nil
}

// Stats returns what the server holds now.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{Records: s.records, Origins: len(s.origins), Watchers: s.watchers}
}

// accept serves one stream in the goroutine that libp2p gives it.
func (s *Server) accept(st network.Stream) {
	p := st.Conn().RemotePeer()
	s.mu.Lock()
	m := s.member(p)
	if s.ctx.Err() != nil || m.streams >= maxStreams {
		s.release(p)
		s.mu.Unlock()
		st.Reset()
		return
	}
	m.streams++
	s.wg.Add(1)
	s.mu.Unlock()
	defer s.wg.Done()
	ctx, cancel := context.WithCancel(s.ctx)
	defer context.AfterFunc(ctx, func() { st.Reset() })()
	c := &conn{s: s, st: st, peer: p, watches: map[string]*watcher{}}
	err := c.serve(ctx)
	cancel()
	st.Reset()
	c.wg.Wait()
	s.mu.Lock()
	m.streams--
	s.release(p)
	s.mu.Unlock()
	s.log.Debug("rendezvous stream ended", "peer", p, "err", err)
}

// member returns p's, a new one if there is none; s.mu is held.
func (s *Server) member(p peer.ID) *member {
	m := s.peers[p]
	if m == nil {
		m = &member{records: map[string]*entry{}}
		s.peers[p] = m
	}
	return m
}

// release forgets p's member if it has nothing; s.mu is held.
func (s *Server) release(p peer.ID) {
	if m := s.peers[p]; m != nil && m.streams == 0 && len(m.records) == 0 {
		delete(s.peers, p)
	}
}

// origin returns that called name, a new one if there is none; s.mu is held.
func (s *Server) origin(name string) *origin {
	o := s.origins[name]
	if o == nil {
		o = &origin{holders: map[string]*bag{}, watchers: map[*watcher]struct{}{}}
		s.origins[name] = o
	}
	return o
}

// put keeps a record that came from an address, or with renew extends the one that is kept. Its error
// wraps [ErrStale], [ErrQuota] or [ErrUnknown]; with the first comes the epoch
// that is kept.
func (s *Server) put(from ma.Multiaddr, r Record, sealed []byte, renew bool) (epoch uint64, err error) {
	p := r.Peer
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.member(p)
	defer s.release(p)
	old := m.records[r.Origin]
	switch {
	case renew && (old == nil || old.record.Epoch != r.Epoch):
		return 0, ErrUnknown
	case old != nil && !r.Newer(old.record):
		if old.record.Epoch == r.Epoch && old.record.Expires.Equal(r.Expires) {
			return 0, nil // said again
		}
		return old.record.Epoch, fmt.Errorf("%w: of epoch %d, which expires at %v", ErrStale, old.record.Epoch, old.record.Expires)
	}
	net := networkOf(from)
	if old == nil {
		switch {
		case len(m.records) >= s.cfg.PerPeer:
			return 0, fmt.Errorf("%w: %d of this peer", ErrQuota, len(m.records))
		case net.IsValid() && s.networks[net] >= s.cfg.PerNetwork:
			return 0, fmt.Errorf("%w: %d of the network", ErrQuota, s.networks[net])
		case s.records >= s.cfg.MaxRecords:
			return 0, fmt.Errorf("%w: %d in all", ErrQuota, s.records)
		}
	} else {
		s.unlink(old)
	}
	r.Addrs = nil // those of sealed are what others read
	e := &entry{record: r, sealed: bytes.Clone(sealed), network: net}
	m.records[r.Origin] = e
	s.link(e)
	// It may have gone since it asked: then nobody tells us again.
	if !s.here(p) {
		s.remove(p, r.Origin)
	}
	s.notify(r.Origin, p)
	return 0, nil
}

// link and unlink add e to what is found by, and take it away; s.mu is held.
func (s *Server) link(e *entry) {
	o := s.origin(e.record.Origin)
	o.entries.add(e)
	for _, c := range e.record.Holds {
		h := o.holders[rootKey(c)]
		if h == nil {
			h = &bag{}
			o.holders[rootKey(c)] = h
		}
		h.add(e)
	}
	s.records++
	if e.network.IsValid() {
		s.networks[e.network]++
	}
}

func (s *Server) unlink(e *entry) {
	o := s.origins[e.record.Origin]
	o.entries.remove(e.record.Peer)
	for _, c := range e.record.Holds {
		if h := o.holders[rootKey(c)]; h != nil {
			h.remove(e.record.Peer)
			if h.len() == 0 {
				delete(o.holders, rootKey(c))
			}
		}
	}
	s.records--
	if e.network.IsValid() {
		if s.networks[e.network]--; s.networks[e.network] == 0 {
			delete(s.networks, e.network)
		}
	}
}

// remove forgets p's record for an origin; s.mu is held.
func (s *Server) remove(p peer.ID, name string) {
	m := s.peers[p]
	s.unlink(m.records[name])
	delete(m.records, name)
}

// notify tells an origin's watchers that p's record is another or gone, and
// forgets an origin that nobody needs; s.mu is held.
func (s *Server) notify(name string, p peer.ID) {
	o := s.origins[name]
	if o == nil {
		return
	}
	for w := range o.watchers {
		w.changed(o, p)
	}
	if o.entries.len() == 0 && len(o.watchers) == 0 {
		delete(s.origins, name)
	}
}

// left forgets p's records if it is no longer connected: the swarm may report
// the end of one connection after the beginning of the next.
func (s *Server) left(p peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.peers[p]
	if m == nil || s.here(p) {
		return
	}
	for name := range m.records {
		s.remove(p, name)
		s.notify(name, p)
	}
	s.release(p)
}

// sweep forgets expired records until the server closes.
func (s *Server) sweep() {
	t := time.NewTicker(sweepEach)
	defer t.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-t.C:
			s.expire(s.now())
		}
	}
}

func (s *Server) expire(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, m := range s.peers {
		for name, e := range m.records {
			if !e.record.Expires.After(now) {
				s.remove(p, name)
				s.notify(name, p)
			}
		}
		s.release(p)
	}
}

// discover returns at most limit sealed records, those that serve want first,
// asker's left out.
func (s *Server) discover(name string, want cid.Cid, limit int, asker peer.ID) [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.origins[name]
	if o == nil {
		return nil
	}
	skip := map[peer.ID]bool{asker: true}
	var out [][]byte
	take := func(b *bag) {
		for e := range b.sample(limit-len(out), skip) {
			skip[e.record.Peer] = true
			out = append(out, e.sealed)
		}
	}
	if want.Defined() {
		if h := o.holders[rootKey(want)]; h != nil {
			take(h)
		}
	}
	take(&o.entries)
	return out
}

// rootKey is the same for two CIDs of one root.
func rootKey(c cid.Cid) string { return cid.NewCidV1(c.Type(), c.Hash()).KeyString() }

// networkOf is the network that quotas count by, invalid where a has no IP.
func networkOf(a ma.Multiaddr) netip.Prefix {
	ip, err := manet.ToIP(a)
	if err != nil {
		return netip.Prefix{}
	}
	addr, ok := netip.AddrFromSlice(ip)
	if !ok {
		return netip.Prefix{}
	}
	addr = addr.Unmap()
	bits := 48
	if addr.Is4() {
		bits = 24
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// bag holds entries, one of each peer, for choosing some at random.
type bag struct {
	list []*entry
	at   map[peer.ID]int
}

func (b *bag) len() int { return len(b.list) }

func (b *bag) get(p peer.ID) *entry {
	if i, ok := b.at[p]; ok {
		return b.list[i]
	}
	return nil
}

// add adds e, whose peer has none in b, or has this one.
func (b *bag) add(e *entry) {
	if _, ok := b.at[e.record.Peer]; ok {
		return
	}
	if b.at == nil {
		b.at = map[peer.ID]int{}
	}
	b.at[e.record.Peer] = len(b.list)
	b.list = append(b.list, e)
}

func (b *bag) remove(p peer.ID) {
	i, ok := b.at[p]
	if !ok {
		return
	}
	last := len(b.list) - 1
	b.list[i] = b.list[last]
	b.at[b.list[i].record.Peer] = i
	b.list[last] = nil
	b.list = b.list[:last]
	delete(b.at, p)
}

// sample yields at most n entries, each at most once, chosen at random among
// those whose peer is not in skip.
func (b *bag) sample(n int, skip map[peer.ID]bool) func(func(*entry) bool) {
	return func(yield func(*entry) bool) {
		if n <= 0 {
			return
		}
		for _, i := range picks(len(b.list), n+len(skip)) {
			e := b.list[i]
			if skip[e.record.Peer] {
				continue
			}
			if !yield(e) {
				return
			}
			if n--; n == 0 {
				return
			}
		}
	}
}

// picks are n different numbers below size in random order, or all of them.
func picks(size, n int) []int {
	if n*2 >= size {
		all := rand.Perm(size)
		return all[:min(n, size)]
	}
	out := make([]int, 0, n)
	had := make(map[int]bool, n)
	for len(out) < n {
		if i := rand.IntN(size); !had[i] {
			had[i] = true
			out = append(out, i)
		}
	}
	return out
}

// conn is one stream.
type conn struct {
	s       *Server
	st      network.Stream
	peer    peer.ID
	wg      sync.WaitGroup // its watchers
	watches map[string]*watcher

	writing sync.Mutex
}

// serve reads requests until the stream ends or says what makes no sense.
func (c *conn) serve(ctx context.Context) error {
	in := bufio.NewReaderSize(c.st, 4<<10)
	tokens, filled := burst, time.Now()
	defer c.unwatch()
	for {
		deadline := time.Time{}
		if len(c.watches) == 0 {
			deadline = time.Now().Add(idle)
		}
		c.st.SetReadDeadline(deadline)
		if _, err := in.Peek(1); err != nil {
			return err
		}
		c.st.SetReadDeadline(time.Now().Add(frameTime))
		b, err := readFrame(in, MaxRequest)
		if err != nil {
			return err
		}
		r, err := unmarshalRequest(b)
		if err != nil {
			return err
		}
		if err := c.answer(ctx, r); err != nil {
			return err
		}
		if gained := int(time.Since(filled) / pace); gained > 0 {
			tokens = min(burst, tokens+gained)
			filled = filled.Add(time.Duration(gained) * pace)
		}
		if tokens--; tokens <= 0 {
			t := time.NewTimer(pace)
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
				return ctx.Err()
			}
		}
	}
}

// answer does what r asks for. An error ends the stream.
func (c *conn) answer(ctx context.Context, r request) error {
	op, out := r.op, reply{id: r.id, kind: kindOK}
	refuse := func(err error) {
		out.kind, out.code, out.message = kindError, errorToCode(err), err.Error()
		if len(out.message) > 200 {
			out.message = out.message[:200]
		}
	}
	limit := MaxView
	if r.limit > 0 && r.limit < MaxView {
		limit = int(r.limit)
	}
	switch {
	case op != opRegister && op != opRenew && op != opDiscover && op != opWatch:
		op = "other"
		refuse(fmt.Errorf("%w: operation %.20q", ErrRequest, r.op))
	case !validOrigin(r.origin) || !c.s.cfg.Allow(c.st.Conn(), r.origin):
		refuse(fmt.Errorf("%w: not one that this relay serves to this node: %.100s", ErrOrigin, r.origin))
	case op == opDiscover:
		for found := c.s.discover(r.origin, r.want, limit, c.peer); len(found) > 0; {
			n := min(len(found), maxBatch)
			if err := c.send(reply{id: r.id, kind: kindRecords, records: found[:n]}); err != nil {
				return err
			}
			found = found[n:]
		}
	case op == opWatch:
		w, err := c.newWatch(r.origin, limit)
		if err != nil {
			refuse(err)
			break
		}
		c.s.cfg.Observe(op, "ok")
		if err := c.send(out); err != nil {
			return err
		}
		c.wg.Go(func() { c.watch(ctx, r, w) })
		return nil
	default:
		rec, err := Open(r.record, r.origin, c.s.now())
		if err == nil && rec.Peer != c.peer {
			err = fmt.Errorf("%w: of %s, sent by %s", ErrSignature, rec.Peer, c.peer)
		}
		if err == nil {
			out.epoch, err = c.s.put(c.st.Conn().RemoteMultiaddr(), rec, r.record, op == opRenew)
		}
		if err != nil {
			refuse(err)
		}
	}
	status := "ok"
	if out.kind == kindError {
		status = "refused"
	}
	c.s.cfg.Observe(op, status)
	return c.send(out)
}

// send writes one message.
func (c *conn) send(r reply) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	r.now = c.s.now()
	c.st.SetWriteDeadline(time.Now().Add(writeTime))
	b, err := r.marshal()
	return writeFrame(c.st, b, err)
}

// watcher tells one stream of at most limit records of an origin. It keeps who
// it has told of and who has changed since, not what happened: memory is
// bounded by limit however slowly the stream is read, and nothing is told that
// is no longer so.
type watcher struct {
	self  peer.ID
	limit int
	wake  chan struct{} // capacity 1

	// Guarded by Server.mu.
	told    map[peer.ID]version // as last told; at most limit
	pending map[peer.ID]struct{}
}

// changed notes that p's record is another or gone, if the watcher knows of it
// or has room to; Server.mu is held.
func (w *watcher) changed(o *origin, p peer.ID) {
	_, told := w.told[p]
	if p == w.self || !told && len(w.told)+len(w.pending) >= w.limit {
		return
	}
	w.pending[p] = struct{}{}
	poke(w.wake)
}

// newWatch begins a watch. Its error wraps [ErrQuota].
func (c *conn) newWatch(name string, limit int) (*watcher, error) {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.peers[c.peer]
	switch {
	case c.watches[name] != nil:
		return nil, fmt.Errorf("%w: this stream watches already", ErrQuota)
	case m.watches >= s.cfg.PerPeer:
		return nil, fmt.Errorf("%w: %d watches of this peer", ErrQuota, m.watches)
	case s.watchers >= s.cfg.MaxRecords:
		return nil, fmt.Errorf("%w: %d watches in all", ErrQuota, s.watchers)
	}
	w := &watcher{self: c.peer, limit: limit, wake: make(chan struct{}, 1), told: map[peer.ID]version{}, pending: map[peer.ID]struct{}{}}
	poke(w.wake)
	s.origin(name).watchers[w] = struct{}{}
	s.watchers++
	m.watches++
	c.watches[name] = w
	return w, nil
}

// unwatch ends all watches of c.
func (c *conn) unwatch() {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, w := range c.watches {
		o := s.origins[name]
		delete(o.watchers, w)
		s.watchers--
		s.peers[c.peer].watches--
		if o.entries.len() == 0 && len(o.watchers) == 0 {
			delete(s.origins, name)
		}
	}
}

// watch tells c what there is for w, until ctx ends.
func (c *conn) watch(ctx context.Context, r request, w *watcher) {
	for {
		select {
		case <-w.wake:
		case <-ctx.Done():
			return
		}
		for {
			ev := c.s.news(r.origin, w)
			if len(ev.records) == 0 && len(ev.left) == 0 {
				break
			}
			ev.id, ev.kind = r.id, kindEvent
			if err := c.send(ev); err != nil {
				c.st.Reset() // the reader ends
				return
			}
		}
		t := time.NewTimer(settle)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// news is the next message for w; an empty one means that there is none now.
func (s *Server) news(name string, w *watcher) reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ev reply
	o := s.origins[name]
	if o == nil {
		return ev // the watch has ended
	}
	tell := func(e *entry) {
		w.told[e.record.Peer] = e.record.version()
		ev.records = append(ev.records, e.sealed)
	}
	for p := range w.pending {
		if len(ev.records) == maxBatch || len(ev.left) == MaxView {
			return ev
		}
		delete(w.pending, p)
		e := o.entries.get(p)
		old, told := w.told[p]
		switch {
		case e == nil && told:
			delete(w.told, p)
			ev.left = append(ev.left, p)
		case e == nil || told && e.record.version() == old:
		case told || len(w.told) < w.limit:
			tell(e)
		}
	}
	// Where there is room, others take it.
	if room := min(w.limit-len(w.told), maxBatch-len(ev.records)); room > 0 && o.entries.len() > len(w.told) {
		skip := map[peer.ID]bool{w.self: true}
		for p := range w.told {
			skip[p] = true
		}
		for e := range o.entries.sample(room, skip) {
			tell(e)
		}
	}
	return ev
}
