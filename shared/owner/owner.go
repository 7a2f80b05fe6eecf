// Package owner holds the signed list of the roots that an origin's owner has
// published: what a node may show as a page of that origin.
//
// Verified bytes are not trusted bytes (RATIONALE.md, "Why is a verified page
// not simply shown?"): a document under a root that is not in the list never
// runs on the origin. The list is signed by the origin's key, so that a node
// can keep it and believe it while its relay is away.
//
// On the wire a list is a libp2p signed envelope (core/record, domain
// [Domain]) around dag-cbor: {"issued": ms since 1970, "roots": [link…],
// "seq": n}.
package owner

import (
	"bytes"
	"errors"
	"fmt"
	"math"
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
)

const (
	// Domain separates these signatures from those of other records.
	Domain = "weft-owner-roots"
	// MaxSize is the largest sealed list accepted, in bytes: 1 MiB holds
	// [MaxRoots] links with room to spare.
	MaxSize = 1 << 20
	// MaxRoots is the longest list accepted.
	MaxRoots = 10_000
)

// codec names the payload's type in the envelope: "/weft/owner-roots".
var codec = []byte("/weft/owner-roots")

var (
	// ErrMalformed means that bytes are no sealed list.
	ErrMalformed = errors.New("owner: malformed list of roots")
	// ErrTooLarge means more than [MaxSize] bytes or [MaxRoots] roots.
	ErrTooLarge = errors.New("owner: list of roots too large")
	// ErrSignature means that the list was not signed by the wanted key.
	ErrSignature = errors.New("owner: list of roots not signed by its owner")
)

// Roots is the list. The one with the higher Seq is the newer.
type Roots struct {
	Seq    uint64
	Issued time.Time // to the millisecond
	Roots  []cid.Cid
}

// Has tells whether c is one of the roots. Two CIDs of one multihash and codec
// are the same root, whatever their version and base.
func (r Roots) Has(c cid.Cid) bool {
	for _, own := range r.Roots {
		if own.Type() == c.Type() && bytes.Equal(own.Hash(), c.Hash()) {
			return true
		}
	}
	return false
}

// Seal signs r with key. Its error wraps [ErrTooLarge] where r has too many roots.
func Seal(r Roots, key crypto.PrivKey) ([]byte, error) {
	if len(r.Roots) > MaxRoots {
		return nil, fmt.Errorf("%w: %d roots, at most %d", ErrTooLarge, len(r.Roots), MaxRoots)
	}
	env, err := record.Seal(&payload{r}, key)
	if err != nil {
		return nil, fmt.Errorf("owner: seal: %w", err)
	}
	b, err := env.Marshal()
	if err != nil {
		return nil, fmt.Errorf("owner: seal: %w", err)
	}
	return b, nil
}

// Open verifies that by signed data, and returns the list. Its error wraps
// [ErrMalformed], [ErrTooLarge] or [ErrSignature].
func Open(data []byte, by peer.ID) (Roots, error) {
	if len(data) > MaxSize {
		return Roots{}, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(data), MaxSize)
	}
	var p payload
	env, err := record.ConsumeTypedEnvelope(data, &p)
	switch {
	case errors.Is(err, record.ErrInvalidSignature):
		return Roots{}, fmt.Errorf("%w: %v", ErrSignature, err)
	case errors.Is(err, ErrTooLarge):
		return Roots{}, err
	case err != nil:
		return Roots{}, fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	if !bytes.Equal(env.PayloadType, codec) {
		return Roots{}, fmt.Errorf("%w: payload type %q", ErrMalformed, env.PayloadType)
	}
	if !by.MatchesPublicKey(env.PublicKey) {
		return Roots{}, fmt.Errorf("%w: want %s", ErrSignature, by)
	}
	return p.Roots, nil
}

// payload makes Roots a libp2p record.
type payload struct{ Roots }

var _ record.Record = (*payload)(nil)

func (*payload) Domain() string { return Domain }
func (*payload) Codec() []byte  { return codec }

func (p *payload) MarshalRecord() ([]byte, error) {
	n, err := qp.BuildMap(basicnode.Prototype.Map, 3, func(m datamodel.MapAssembler) {
		qp.MapEntry(m, "seq", qp.Int(int64(p.Seq)))
		qp.MapEntry(m, "issued", qp.Int(p.Issued.UnixMilli()))
		qp.MapEntry(m, "roots", qp.List(int64(len(p.Roots.Roots)), func(l datamodel.ListAssembler) {
			for _, c := range p.Roots.Roots {
				qp.ListEntry(l, qp.Link(cidlink.Link{Cid: c}))
			}
		}))
	})
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	if err := dagcbor.Encode(n, &buf); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func (p *payload) UnmarshalRecord(b []byte) error {
	nb := basicnode.Prototype.Map.NewBuilder()
	// The budget bounds what a hostile length prefix can allocate.
	opts := dagcbor.DecodeOptions{AllowLinks: true, AllocationBudget: 4 * MaxSize}
	if err := opts.Decode(nb, bytes.NewReader(b)); err != nil {
		return err
	}
	n := nb.Build()
	seq, err := intField(n, "seq")
	if err != nil {
		return err
	}
	issued, err := intField(n, "issued")
	if err != nil {
		return err
	}
	list, err := n.LookupByString("roots")
	if err != nil {
		return err
	}
	if list.Kind() != datamodel.Kind_List {
		return fmt.Errorf("roots is a %v", list.Kind())
	}
	if list.Length() > MaxRoots {
		return fmt.Errorf("%w: %d roots, at most %d", ErrTooLarge, list.Length(), MaxRoots)
	}
	roots := make([]cid.Cid, 0, list.Length())
	for it := list.ListIterator(); !it.Done(); {
		_, v, err := it.Next()
		if err != nil {
			return err
		}
		l, err := v.AsLink()
		if err != nil {
			return err
		}
		cl, ok := l.(cidlink.Link)
		if !ok {
			return fmt.Errorf("a link of type %T", l)
		}
		roots = append(roots, cl.Cid)
	}
	p.Roots = Roots{Seq: uint64(seq), Issued: time.UnixMilli(issued), Roots: roots}
	return nil
}

func intField(n datamodel.Node, name string) (int64, error) {
	v, err := n.LookupByString(name)
	if err != nil {
		return 0, err
	}
	i, err := v.AsInt()
	if err != nil {
		return 0, err
	}
	if i < 0 || i > math.MaxInt64/2 {
		return 0, fmt.Errorf("%s is %d", name, i)
	}
	return i, nil
}
