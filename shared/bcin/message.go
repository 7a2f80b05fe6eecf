package bcin

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-varint"
)

// Protocol is the libp2p protocol: each side sends messages, a varint of the
// length before each.
const Protocol protocol.ID = "/weft/bcin/1.0.0"

const (
	// MaxMessage is the largest message of a server, in bytes: maxBatch records
	// and [MaxView] peer IDs.
	MaxMessage = 160 << 10
	// MaxRequest is the largest message of a client, in bytes: a record.
	MaxRequest = 8 << 10
	// MaxView is how many records one watcher is told of, and the most that
	// one answer to discover holds. A node has eight neighbours at most; what
	// it knows beyond that is to choose from.
	MaxView = 64
	// maxBatch is how many records one message holds.
	maxBatch = 32
)

// errMessage means that bytes are no message. The stream they came on ends.
var errMessage = errors.New("bcin: malformed message")

// The operations that a client asks for.
const (
	opRegister = "register" // keep record
	opRenew    = "renew"    // record is what is kept already, with a later expiry
	opDiscover = "discover" // answer with at most limit records of origin, those that hold want first
	opWatch    = "watch"    // tell of records of origin, at most limit at a time, from now on
)

// The kinds of a server's messages. Each answers the request of its id; those
// that are told a watcher have the id of its request.
const (
	kindOK      = "ok"
	kindError   = "error"
	kindRecords = "records" // for discover: the answer, in as many messages as it needs, then ok
	kindEvent   = "event"   // for watch: records that joined or changed, peers that left
)

// request is a client's message.
type request struct {
	id     uint64
	op     string
	origin string
	record []byte  // register, renew
	want   cid.Cid // discover; may be undefined
	limit  uint64  // discover, watch; 0 means the server's choice
}

// reply is a server's message.
type reply struct {
	id      uint64
	kind    string
	now     time.Time // by the server's clock, to the millisecond
	code    string    // error
	message string    // error
	epoch   uint64    // error of code "stale": the epoch that is kept
	records [][]byte  // records, event
	left    []peer.ID // event
}

func (r request) marshal() ([]byte, error) {
	return encode(-1, func(m datamodel.MapAssembler) {
		qp.MapEntry(m, "id", qp.Int(int64(r.id)))
		qp.MapEntry(m, "op", qp.String(r.op))
		qp.MapEntry(m, "origin", qp.String(r.origin))
		if r.record != nil {
			qp.MapEntry(m, "record", qp.Bytes(r.record))
		}
		if r.want.Defined() {
			qp.MapEntry(m, "want", qp.Link(cidlink.Link{Cid: r.want}))
		}
		if r.limit != 0 {
			qp.MapEntry(m, "limit", qp.Int(int64(r.limit)))
		}
	})
}

func unmarshalRequest(b []byte) (request, error) {
	f, err := decode(b)
	if err != nil {
		return request{}, fmt.Errorf("%w: %v", errMessage, err)
	}
	r := request{
		id: f.number("id"), op: f.text("op"), origin: f.text("origin"),
		record: f.bytes("record"), want: f.cid("want"), limit: f.number("limit"),
	}
	if f.err != nil {
		return request{}, fmt.Errorf("%w: %v", errMessage, f.err)
	}
	return r, nil
}

func (r reply) marshal() ([]byte, error) {
	return encode(-1, func(m datamodel.MapAssembler) {
		qp.MapEntry(m, "id", qp.Int(int64(r.id)))
		qp.MapEntry(m, "kind", qp.String(r.kind))
		qp.MapEntry(m, "now", qp.Int(r.now.UnixMilli()))
		if r.code != "" {
			qp.MapEntry(m, "code", qp.String(r.code))
			qp.MapEntry(m, "message", qp.String(r.message))
		}
		if r.epoch != 0 {
			qp.MapEntry(m, "epoch", qp.Int(int64(r.epoch)))
		}
		if len(r.records) > 0 {
			qp.MapEntry(m, "records", qp.List(int64(len(r.records)), func(l datamodel.ListAssembler) {
				for _, b := range r.records {
					qp.ListEntry(l, qp.Bytes(b))
				}
			}))
		}
		if len(r.left) > 0 {
			qp.MapEntry(m, "left", qp.List(int64(len(r.left)), func(l datamodel.ListAssembler) {
				for _, p := range r.left {
					qp.ListEntry(l, qp.Bytes([]byte(p)))
				}
			}))
		}
	})
}

func unmarshalReply(b []byte) (reply, error) {
	f, err := decode(b)
	if err != nil {
		return reply{}, fmt.Errorf("%w: %v", errMessage, err)
	}
	r := reply{
		id: f.number("id"), kind: f.text("kind"), now: time.UnixMilli(int64(f.number("now"))),
		code: f.text("code"), message: f.text("message"), epoch: f.number("epoch"),
	}
	for v := range f.list("records", maxBatch) {
		b, err := v.AsBytes()
		f.fail("records", err)
		r.records = append(r.records, b)
	}
	for v := range f.list("left", MaxView) {
		b, err := v.AsBytes()
		f.fail("left", err)
		id, err := peer.IDFromBytes(b)
		f.fail("left", err)
		r.left = append(r.left, id)
	}
	if f.err != nil {
		return reply{}, fmt.Errorf("%w: %v", errMessage, f.err)
	}
	return r, nil
}

// readFrame reads one message's bytes, at most max.
func readFrame(r *bufio.Reader, max uint64) ([]byte, error) {
	n, err := varint.ReadUvarint(r)
	switch {
	case err == io.EOF:
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: length: %w", errMessage, err)
	case n > max:
		return nil, fmt.Errorf("%w: %d bytes, at most %d", errMessage, n, max)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	return b, nil
}

// writeFrame writes one message, as marshal returned it, in one piece.
func writeFrame(w io.Writer, b []byte, err error) error {
	if err != nil {
		return err
	}
	out := make([]byte, 0, varint.MaxLenUvarint63+len(b))
	out = append(out, varint.ToUvarint(uint64(len(b)))...)
	_, err = w.Write(append(out, b...))
	return err
}

// Errors that a server answers with, beside those of records.
var (
	// ErrStale means that the relay keeps a newer record of the peer.
	ErrStale = errors.New("bcin: a newer record is kept")
	// ErrQuota means that the peer, its network or the relay has as many
	// records as it may.
	ErrQuota = errors.New("bcin: as many records as may be")
	// ErrUnknown means that there is no record to renew.
	ErrUnknown = errors.New("bcin: no record to renew")
	// ErrRequest means that the relay does not understand the request.
	ErrRequest = errors.New("bcin: request not understood")
)

// codes are how errors are called on the wire.
var codes = []struct {
	code string
	err  error
}{
	{"malformed", ErrMalformed},
	{"too_large", ErrTooLarge},
	{"signature", ErrSignature},
	{"expired", ErrExpired},
	{"origin", ErrOrigin},
	{"stale", ErrStale},
	{"quota", ErrQuota},
	{"unknown", ErrUnknown},
	{"request", ErrRequest},
}

func errorToCode(err error) string {
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return c.code
		}
	}
	return "request"
}

func codeToError(code, message string) error {
	for _, c := range codes {
		if c.code == code {
			return fmt.Errorf("%w: the relay says %.200q", c.err, message)
		}
	}
	return fmt.Errorf("%w: the relay says %.40q, %.200q", ErrRequest, code, message)
}
