package bcin

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	// Domain separates these signatures from those of other records.
	Domain = "weft-bcin-record"
	// MaxSize is the largest sealed record accepted, in bytes: [MaxAddrs]
	// addresses of 100 bytes and [MaxHolds] roots of 40 are 3 KiB.
	MaxSize = 4 << 10
	// MaxAddrs is how many addresses a record may have: two for each of a
	// node's relays, of which nobody needs more than eight.
	MaxAddrs = 16
	// MaxHolds is how many roots a record may name.
	MaxHolds = 32
	// MaxOrigin is the longest origin, in bytes: a host name is at most 253.
	MaxOrigin = 270
	// MaxTTL is how far ahead a record's expiry may lie.
	MaxTTL = 10 * time.Minute
)

// codec names the payload's type in the envelope.
var codec = []byte("/weft/bcin-record")

var (
	// ErrMalformed means that bytes are no sealed record, or that a record
	// says what none may: addresses that lead through no relay, an expiry more
	// than [MaxTTL] ahead.
	ErrMalformed = errors.New("bcin: malformed record")
	// ErrTooLarge means more than [MaxSize] bytes, [MaxAddrs] or [MaxHolds].
	ErrTooLarge = errors.New("bcin: record too large")
	// ErrSignature means that the record was not signed by the peer it names.
	ErrSignature = errors.New("bcin: record not signed by its peer")
	// ErrExpired means that the record's expiry lies in the past.
	ErrExpired = errors.New("bcin: record expired")
	// ErrOrigin means a record of another origin, or that the relay does not
	// let this node speak for the origin.
	ErrOrigin = errors.New("bcin: another origin")
)

// A Record says that a node of an origin is there, and where.
type Record struct {
	Origin string // "https://example.org", as browsers write it
	Peer   peer.ID
	// Addrs lead to the peer through relays. None of them says where the peer
	// itself is.
	Addrs []ma.Multiaddr
	// Epoch is higher each time the node starts anew.
	Epoch   uint64
	Expires time.Time // to the millisecond
	Holds   []cid.Cid // roots that it serves
}

// Newer tells whether r replaces old, a record of the same peer and origin:
// it is of a later epoch, or of the same one and signed later.
func (r Record) Newer(old Record) bool { return r.version().newer(old.version()) }

// version is what of a record says which of two is the newer.
type version struct {
	epoch   uint64
	expires int64 // ms since 1970
}

func (r Record) version() version { return version{r.Epoch, r.Expires.UnixMilli()} }

func (v version) newer(old version) bool {
	if v.epoch != old.epoch {
		return v.epoch > old.epoch
	}
	return v.expires > old.expires
}

// Serves tells whether c is one of the roots that the node serves. Two CIDs of
// one multihash and codec are the same root.
func (r Record) Serves(c cid.Cid) bool {
	return c.Defined() && slices.ContainsFunc(r.Holds, func(own cid.Cid) bool {
		return own.Type() == c.Type() && bytes.Equal(own.Hash(), c.Hash())
	})
}

// Seal signs r with key, which must be that of r.Peer. Its error wraps
// [ErrTooLarge], [ErrMalformed] or [ErrSignature].
func Seal(r Record, key crypto.PrivKey) ([]byte, error) {
	if !r.Peer.MatchesPrivateKey(key) {
		return nil, fmt.Errorf("%w: seal: the key is not that of %s", ErrSignature, r.Peer)
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	env, err := record.Seal(&payload{r}, key)
	if err != nil {
		return nil, fmt.Errorf("bcin: seal: %w", err)
	}
	b, err := env.Marshal()
	if err != nil {
		return nil, fmt.Errorf("bcin: seal: %w", err)
	}
	if len(b) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(b), MaxSize)
	}
	return b, nil
}

// Open verifies that data is a record of origin, signed by the peer that it
// names, and good at the time now. Its error wraps [ErrTooLarge],
// [ErrMalformed], [ErrSignature], [ErrOrigin] or [ErrExpired].
func Open(data []byte, origin string, now time.Time) (Record, error) {
	if len(data) > MaxSize {
		return Record{}, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(data), MaxSize)
	}
	var p payload
	env, err := record.ConsumeTypedEnvelope(data, &p)
	switch {
	case errors.Is(err, record.ErrInvalidSignature):
		return Record{}, fmt.Errorf("%w: %v", ErrSignature, err)
	case errors.Is(err, ErrTooLarge), errors.Is(err, ErrMalformed):
		return Record{}, err
	case err != nil:
		return Record{}, fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	r := p.Record
	switch {
	case !bytes.Equal(env.PayloadType, codec):
		return Record{}, fmt.Errorf("%w: payload type %.40q", ErrMalformed, env.PayloadType)
	case !r.Peer.MatchesPublicKey(env.PublicKey):
		return Record{}, fmt.Errorf("%w: %s", ErrSignature, r.Peer)
	case r.Origin != origin:
		return Record{}, fmt.Errorf("%w: %s, want %s", ErrOrigin, r.Origin, origin)
	case !r.Expires.After(now):
		return Record{}, fmt.Errorf("%w: %v ago", ErrExpired, now.Sub(r.Expires))
	case r.Expires.After(now.Add(MaxTTL)):
		return Record{}, fmt.Errorf("%w: it expires in %v, more than %v ahead", ErrMalformed, r.Expires.Sub(now), MaxTTL)
	}
	return r, nil
}

// check holds r to what may be in a record.
func (r Record) check() error {
	switch {
	case len(r.Addrs) > MaxAddrs:
		return fmt.Errorf("%w: %d addresses, at most %d", ErrTooLarge, len(r.Addrs), MaxAddrs)
	case len(r.Holds) > MaxHolds:
		return fmt.Errorf("%w: %d roots, at most %d", ErrTooLarge, len(r.Holds), MaxHolds)
	case !validOrigin(r.Origin):
		return fmt.Errorf("%w: origin %.40q", ErrMalformed, r.Origin)
	case r.Epoch > math.MaxInt64:
		return fmt.Errorf("%w: epoch %d", ErrMalformed, r.Epoch)
	}
	for _, a := range r.Addrs {
		if !throughRelay(a) {
			return fmt.Errorf("%w: %v leads through no relay", ErrMalformed, a)
		}
	}
	return nil
}

// validOrigin tells whether s is short and printable; whether it is an origin
// that is served is for whoever serves it.
func validOrigin(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return s != "" && len(s) <= MaxOrigin
}

// throughRelay tells whether a has a circuit in it, at a relay that is named.
func throughRelay(a ma.Multiaddr) bool {
	relay := false
	for _, c := range a {
		switch c.Protocol().Code {
		case ma.P_P2P:
			relay = true
		case ma.P_CIRCUIT:
			return relay
		}
	}
	return false
}

// payload makes Record a libp2p record.
type payload struct{ Record }

var _ record.Record = (*payload)(nil)

func (*payload) Domain() string { return Domain }
func (*payload) Codec() []byte  { return codec }

func (p *payload) MarshalRecord() ([]byte, error) {
	return encode(6, func(m datamodel.MapAssembler) {
		qp.MapEntry(m, "addrs", qp.List(int64(len(p.Addrs)), func(l datamodel.ListAssembler) {
			for _, a := range p.Addrs {
				qp.ListEntry(l, qp.Bytes(a.Bytes()))
			}
		}))
		qp.MapEntry(m, "epoch", qp.Int(int64(p.Epoch)))
		qp.MapEntry(m, "expires", qp.Int(p.Expires.UnixMilli()))
		qp.MapEntry(m, "holds", qp.List(int64(len(p.Holds)), func(l datamodel.ListAssembler) {
			for _, c := range p.Holds {
				qp.ListEntry(l, qp.Link(cidlink.Link{Cid: c}))
			}
		}))
		qp.MapEntry(m, "origin", qp.String(p.Origin))
		qp.MapEntry(m, "peer", qp.Bytes([]byte(p.Peer)))
	})
}

func (p *payload) UnmarshalRecord(b []byte) error {
	f, err := decode(b)
	if err != nil {
		return err
	}
	r := Record{
		Origin:  f.text("origin"),
		Epoch:   f.number("epoch"),
		Expires: time.UnixMilli(int64(f.number("expires"))),
	}
	id := f.bytes("peer")
	for v := range f.list("addrs", MaxAddrs) {
		b, err := v.AsBytes()
		if err != nil {
			return err
		}
		a, err := ma.NewMultiaddrBytes(b)
		if err != nil {
			return fmt.Errorf("address: %w", err)
		}
		r.Addrs = append(r.Addrs, a)
	}
	for v := range f.list("holds", MaxHolds) {
		c, err := asCid(v)
		if err != nil {
			return err
		}
		r.Holds = append(r.Holds, c)
	}
	if f.err != nil {
		return f.err
	}
	if r.Peer, err = peer.IDFromBytes(id); err != nil {
		return err
	}
	p.Record = r
	return r.check()
}

// encode is a map as dag-cbor.
func encode(size int64, fill func(datamodel.MapAssembler)) ([]byte, error) {
	n, err := qp.BuildMap(basicnode.Prototype.Map, size, fill)
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	if err := dagcbor.Encode(n, &buf); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// maxDepth is how deep lists and maps nest in what this package reads: a map,
// a list in it, and what that has.
const maxDepth = 3

// decode reads a map of dag-cbor. What it allocates is bounded by the length
// of b, which the caller has bounded.
func decode(b []byte) (*fields, error) {
	nb := basicnode.Prototype.Map.NewBuilder()
	opts := dagcbor.DecodeOptions{AllowLinks: true, AllocationBudget: int64(8*len(b)) + 64, MaxDepth: maxDepth, MaxCollectionPrealloc: 64}
	if err := opts.Decode(nb, bytes.NewReader(b)); err != nil {
		return nil, err
	}
	return &fields{n: nb.Build()}, nil
}

// fields reads the entries of a map and keeps the first error, after which
// everything is zero. Entries of other names are left alone: a later version
// may have some.
type fields struct {
	n   datamodel.Node
	err error
}

// get returns the entry called name, nil if there is none.
func (f *fields) get(name string) datamodel.Node {
	if f.err != nil {
		return nil
	}
	v, err := f.n.LookupByString(name)
	if err != nil {
		var none datamodel.ErrNotExists
		if !errors.As(err, &none) {
			f.err = err
		}
		return nil
	}
	return v
}

func (f *fields) fail(name string, err error) {
	if err != nil && f.err == nil {
		f.err = fmt.Errorf("%s: %w", name, err)
	}
}

func (f *fields) number(name string) uint64 {
	v := f.get(name)
	if v == nil {
		return 0
	}
	i, err := v.AsInt()
	if err == nil && i < 0 {
		err = fmt.Errorf("is %d", i)
	}
	f.fail(name, err)
	if err != nil {
		return 0
	}
	return uint64(i)
}

func (f *fields) text(name string) string {
	v := f.get(name)
	if v == nil {
		return ""
	}
	s, err := v.AsString()
	f.fail(name, err)
	return s
}

func (f *fields) bytes(name string) []byte {
	v := f.get(name)
	if v == nil {
		return nil
	}
	b, err := v.AsBytes()
	f.fail(name, err)
	return b
}

func (f *fields) cid(name string) cid.Cid {
	v := f.get(name)
	if v == nil {
		return cid.Undef
	}
	c, err := asCid(v)
	f.fail(name, err)
	return c
}

// list yields the entries of a list that has at most max of them.
func (f *fields) list(name string, max int64) func(func(datamodel.Node) bool) {
	return func(yield func(datamodel.Node) bool) {
		v := f.get(name)
		if v == nil {
			return
		}
		if v.Kind() != datamodel.Kind_List {
			f.fail(name, fmt.Errorf("is a %v", v.Kind()))
			return
		}
		if v.Length() > max {
			f.fail(name, fmt.Errorf("%w: %d entries, at most %d", ErrTooLarge, v.Length(), max))
			return
		}
		for it := v.ListIterator(); !it.Done(); {
			_, e, err := it.Next()
			f.fail(name, err)
			if err != nil || !yield(e) {
				return
			}
		}
	}
}

func asCid(v datamodel.Node) (cid.Cid, error) {
	l, err := v.AsLink()
	if err != nil {
		return cid.Undef, err
	}
	cl, ok := l.(cidlink.Link)
	if !ok || !cl.Cid.Defined() {
		return cid.Undef, fmt.Errorf("a link of type %T", l)
	}
	return cl.Cid, nil
}
