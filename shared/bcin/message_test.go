package bcin

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	mh "github.com/multiformats/go-multihash"
)

func messages(t testing.TB) ([]request, []reply) {
	t.Helper()
	h, err := mh.Sum([]byte("a"), mh.SHA2_256, -1)
	if err != nil {
		t.Fatal(err)
	}
	id := peer.ID(h)
	at := time.UnixMilli(1_700_000_000_000)
	return []request{
			{id: 1, op: opWatch, origin: "https://site.example", limit: 64},
			{id: 2, op: opRegister, origin: "https://site.example", record: []byte("sealed")},
			{id: 3, op: opDiscover, origin: "https://site.example", want: cid.NewCidV1(cid.Raw, h)},
		}, []reply{
			{id: 1, kind: kindOK, now: at},
			{id: 2, kind: kindError, now: at, code: "stale", message: "older", epoch: 9},
			{id: 1, kind: kindEvent, now: at, records: [][]byte{[]byte("a"), []byte("b")}, left: []peer.ID{id}},
		}
}

func TestMessages(t *testing.T) {
	requests, replies := messages(t)
	for _, want := range requests {
		b, err := want.marshal()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := unmarshalRequest(b); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("request = %+v, %v; want %+v", got, err, want)
		}
	}
	for _, want := range replies {
		b, err := want.marshal()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := unmarshalReply(b); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("reply = %+v, %v; want %+v", got, err, want)
		}
	}
}

// TestFullMessages holds the bounds to each other.
func TestFullMessages(t *testing.T) {
	full := reply{id: 1 << 60, kind: kindEvent, now: time.Now()}
	for range maxBatch {
		full.records = append(full.records, make([]byte, MaxSize))
	}
	_, replies := messages(t)
	for range MaxView {
		full.left = append(full.left, replies[2].left[0])
	}
	if b, err := full.marshal(); err != nil || len(b) > MaxMessage {
		t.Errorf("a full event is of %d bytes, %v; at most %d", len(b), err, MaxMessage)
	}
	r := request{id: 1 << 60, op: opRegister, origin: string(bytes.Repeat([]byte("o"), MaxOrigin)), record: make([]byte, MaxSize)}
	if b, err := r.marshal(); err != nil || len(b) > MaxRequest {
		t.Errorf("a full request is of %d bytes, %v; at most %d", len(b), err, MaxRequest)
	}
}

func TestFrames(t *testing.T) {
	tests := []struct {
		name string
		in   []byte
		ok   bool
	}{
		{"whole", []byte{2, 'o', 'k'}, true},
		{"cut off", []byte{3, 'o', 'k'}, false},
		{"nothing", nil, false},
		{"too long", []byte{0xff, 0xff, 0xff, 0x7f}, false},
		{"no length", bytes.Repeat([]byte{0xff}, 20), false},
		{"a length in more bytes than it needs", []byte{0x82, 0x00, 'o', 'k'}, false},
	}
	for _, tt := range tests {
		b, err := readFrame(bufio.NewReader(bytes.NewReader(tt.in)), MaxRequest)
		if (err == nil) != tt.ok {
			t.Errorf("%s: %q, %v", tt.name, b, err)
		}
	}
}

// TestCodes has every error cross the wire as itself.
func TestCodes(t *testing.T) {
	for _, c := range codes {
		if got := codeToError(errorToCode(fmt.Errorf("x: %w", c.err)), "x"); !errors.Is(got, c.err) {
			t.Errorf("%v came as %v", c.err, got)
		}
	}
	if err := codeToError("of a later version", ""); !errors.Is(err, ErrRequest) {
		t.Errorf("an unknown code: %v", err)
	}
}

// FuzzMessage reads whatever comes as both kinds of message; what is read is
// written as it was.
func FuzzMessage(f *testing.F) {
	requests, replies := messages(f)
	for _, r := range requests {
		b, err := r.marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, r := range replies {
		b, err := r.marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add(bytes.Repeat([]byte{0x81}, 2000))
	f.Add([]byte{0xa1, 0x67, 'r', 'e', 'c', 'o', 'r', 'd', 's', 0x9b, 0, 0, 0, 1, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		if q, err := unmarshalRequest(in); err == nil {
			b, err := q.marshal()
			if err != nil {
				t.Fatal(err)
			}
			if again, err := unmarshalRequest(b); err != nil || again.id != q.id || again.op != q.op || !again.want.Equals(q.want) || !bytes.Equal(again.record, q.record) {
				t.Errorf("%+v came back as %+v, %v", q, again, err)
			}
		} else if !errors.Is(err, errMessage) {
			t.Errorf("request: an error without a name: %v", err)
		}
		if r, err := unmarshalReply(in); err == nil {
			if len(r.records) > maxBatch || len(r.left) > MaxView {
				t.Errorf("%d records, %d left", len(r.records), len(r.left))
			}
			b, err := r.marshal()
			if err != nil {
				t.Fatal(err)
			}
			if again, err := unmarshalReply(b); err != nil || again.id != r.id || len(again.records) != len(r.records) || len(again.left) != len(r.left) {
				t.Errorf("%+v came back as %+v, %v", r, again, err)
			}
		} else if !errors.Is(err, errMessage) {
			t.Errorf("reply: an error without a name: %v", err)
		}
		_, _ = readFrame(bufio.NewReader(bytes.NewReader(in)), MaxRequest) // no panic
	})
}
