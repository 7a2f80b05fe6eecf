package bcin_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	ma "github.com/multiformats/go-multiaddr"
	mh "github.com/multiformats/go-multihash"

	"github.com/webfabric/weft/shared/bcin"
	"github.com/webfabric/weft/shared/identity"
)

const (
	site  = "https://site.example"
	other = "https://other.example"
)

// at is when the records of these tests are read.
var at = time.UnixMilli(1_700_000_000_000)

func newKey(t testing.TB) (crypto.PrivKey, peer.ID) {
	t.Helper()
	key, err := identity.New()
	if err != nil {
		t.Fatal(err)
	}
	id, err := identity.ID(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, id
}

func root(t testing.TB, text string) cid.Cid {
	t.Helper()
	h, err := mh.Sum([]byte(text), mh.SHA2_256, -1)
	if err != nil {
		t.Fatal(err)
	}
	return cid.NewCidV1(cid.DagProtobuf, h)
}

// through is an address through a relay.
func through(t testing.TB, relay peer.ID) ma.Multiaddr {
	t.Helper()
	a, err := ma.NewMultiaddr("/dns4/relay.example/tcp/443/tls/ws/p2p/" + relay.String() + "/p2p-circuit/webrtc")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// good is a record that nothing is wrong with, and the key of its peer.
func good(t testing.TB) (bcin.Record, crypto.PrivKey) {
	t.Helper()
	key, id := newKey(t)
	_, relay := newKey(t)
	return bcin.Record{
		Origin: site, Peer: id, Addrs: []ma.Multiaddr{through(t, relay)},
		Epoch: 7, Expires: at.Add(time.Minute), Holds: []cid.Cid{root(t, "a"), root(t, "b")},
	}, key
}

func seal(t testing.TB, r bcin.Record, key crypto.PrivKey) []byte {
	t.Helper()
	b, err := bcin.Seal(r, key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSealOpen(t *testing.T) {
	want, key := good(t)
	got, err := bcin.Open(seal(t, want, key), site, at)
	if err != nil {
		t.Fatal(err)
	}
	if got.Origin != want.Origin || got.Peer != want.Peer || got.Epoch != want.Epoch || !got.Expires.Equal(want.Expires) ||
		len(got.Addrs) != 1 || !got.Addrs[0].Equal(want.Addrs[0]) || len(got.Holds) != 2 {
		t.Errorf("Open = %+v; want %+v", got, want)
	}
	a := root(t, "a")
	if !got.Serves(a) || !got.Serves(cid.NewCidV0(a.Hash())) {
		t.Error("Serves(a root of it) = false, in version 1 or 0")
	}
	if got.Serves(root(t, "c")) || got.Serves(cid.NewCidV1(cid.Raw, a.Hash())) || got.Serves(cid.Undef) {
		t.Error("Serves(another root) = true")
	}
}

// TestSealFull holds the bounds to each other: a record that is full fits.
func TestSealFull(t *testing.T) {
	r, key := good(t)
	for len(r.Addrs) < bcin.MaxAddrs {
		r.Addrs = append(r.Addrs, r.Addrs[0])
	}
	r.Holds = nil
	for i := range bcin.MaxHolds {
		r.Holds = append(r.Holds, root(t, string(rune('a'+i))))
	}
	if _, err := bcin.Open(seal(t, r, key), site, at); err != nil {
		t.Error(err)
	}
}

func TestSealRefuses(t *testing.T) {
	_, stranger := newKey(t)
	direct := ma.StringCast("/ip4/192.0.2.1/tcp/4001/p2p/" + stranger.String())
	tests := []struct {
		name   string
		change func(*bcin.Record)
		err    error
	}{
		{"too many addresses", func(r *bcin.Record) { r.Addrs = make([]ma.Multiaddr, bcin.MaxAddrs+1) }, bcin.ErrTooLarge},
		{"too many roots", func(r *bcin.Record) { r.Holds = make([]cid.Cid, bcin.MaxHolds+1) }, bcin.ErrTooLarge},
		{"of another peer", func(r *bcin.Record) { r.Peer = stranger }, bcin.ErrSignature},
		{"no origin", func(r *bcin.Record) { r.Origin = "" }, bcin.ErrMalformed},
		{"a long origin", func(r *bcin.Record) { r.Origin = strings.Repeat("x", bcin.MaxOrigin+1) }, bcin.ErrMalformed},
		{"a line in the origin", func(r *bcin.Record) { r.Origin = "https://a\n" }, bcin.ErrMalformed},
		{"where it is", func(r *bcin.Record) { r.Addrs = []ma.Multiaddr{direct} }, bcin.ErrMalformed},
		{"an epoch past int64", func(r *bcin.Record) { r.Epoch = 1 << 63 }, bcin.ErrMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, key := good(t)
			tt.change(&r)
			if _, err := bcin.Seal(r, key); !errors.Is(err, tt.err) {
				t.Errorf("Seal = %v; want %v", err, tt.err)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	r, key := good(t)
	data := seal(t, r, key)
	flipped := append([]byte(nil), data...)
	flipped[len(flipped)-1] ^= 1
	far := r
	far.Expires = at.Add(bcin.MaxTTL + time.Millisecond)
	stolen, err := record.ConsumeTypedEnvelope(data, &anyRecord{domain: bcin.Domain})
	if err != nil {
		t.Fatal(err)
	}
	forger, _ := newKey(t)
	tests := []struct {
		name   string
		in     []byte
		origin string
		now    time.Time
		err    error
	}{
		{name: "flipped bit", in: flipped, err: bcin.ErrSignature},
		{name: "signed by another", in: sealAny(t, &anyRecord{bcin.Domain, "/weft/bcin-record", stolen.RawPayload}, forger), err: bcin.ErrSignature},
		{name: "another domain", in: sealAny(t, &anyRecord{"weft-owner-roots", "/weft/bcin-record", stolen.RawPayload}, key), err: bcin.ErrSignature},
		{name: "another type", in: sealAny(t, &anyRecord{bcin.Domain, "/weft/x", stolen.RawPayload}, key), err: bcin.ErrMalformed},
		{name: "no map", in: sealAny(t, &anyRecord{bcin.Domain, "/weft/bcin-record", []byte{0x80}}, key), err: bcin.ErrMalformed},
		{name: "an empty map", in: sealAny(t, &anyRecord{bcin.Domain, "/weft/bcin-record", []byte{0xa0}}, key), err: bcin.ErrMalformed},
		{name: "another origin", in: data, origin: other, err: bcin.ErrOrigin},
		{name: "at its expiry", in: data, now: r.Expires, err: bcin.ErrExpired},
		{name: "too far ahead", in: seal(t, far, key), err: bcin.ErrMalformed},
		{name: "cut off", in: data[:len(data)/2], err: bcin.ErrMalformed},
		{name: "empty", in: nil, err: bcin.ErrMalformed},
		{name: "too large", in: make([]byte, bcin.MaxSize+1), err: bcin.ErrTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			origin, now := site, at
			if tt.origin != "" {
				origin = tt.origin
			}
			if !tt.now.IsZero() {
				now = tt.now
			}
			if _, err := bcin.Open(tt.in, origin, now); !errors.Is(err, tt.err) {
				t.Errorf("Open = %v; want %v", err, tt.err)
			}
		})
	}
}

func TestNewer(t *testing.T) {
	old := bcin.Record{Epoch: 5, Expires: at}
	tests := []struct {
		name string
		r    bcin.Record
		want bool
	}{
		{"a later epoch that expires sooner", bcin.Record{Epoch: 6, Expires: at.Add(-time.Minute)}, true},
		{"an earlier epoch that expires later", bcin.Record{Epoch: 4, Expires: at.Add(time.Minute)}, false},
		{"renewed", bcin.Record{Epoch: 5, Expires: at.Add(time.Millisecond)}, true},
		{"the same", old, false},
	}
	for _, tt := range tests {
		if got := tt.r.Newer(old); got != tt.want {
			t.Errorf("%s: Newer = %v; want %v", tt.name, got, tt.want)
		}
	}
}

// anyRecord signs whatever it is told to.
type anyRecord struct {
	domain, codec string
	payload       []byte
}

func (r *anyRecord) Domain() string                 { return r.domain }
func (r *anyRecord) Codec() []byte                  { return []byte(r.codec) }
func (r *anyRecord) MarshalRecord() ([]byte, error) { return r.payload, nil }
func (r *anyRecord) UnmarshalRecord([]byte) error   { return nil }

func sealAny(t testing.TB, r *anyRecord, key crypto.PrivKey) []byte {
	t.Helper()
	env, err := record.Seal(r, key)
	if err != nil {
		t.Fatal(err)
	}
	b, err := env.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// fixedKey makes records that are the same in every run of a fuzz target.
func fixedKey(t testing.TB) crypto.PrivKey {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(strings.NewReader(strings.Repeat("seed", 16)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// FuzzOpen has payloads signed, since hardly any change of an envelope leaves
// its signature good; as envelopes they are opened too.
func FuzzOpen(f *testing.F) {
	key := fixedKey(f)
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		f.Fatal(err)
	}
	data := seal(f, bcin.Record{Origin: site, Peer: id, Addrs: []ma.Multiaddr{through(f, id)}, Epoch: 1, Expires: at.Add(time.Minute), Holds: []cid.Cid{root(f, "a")}}, key)
	env, err := record.ConsumeTypedEnvelope(data, &anyRecord{domain: bcin.Domain})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(env.RawPayload)
	f.Add(data[:40])
	f.Add([]byte{0xa1, 0x65, 'a', 'd', 'd', 'r', 's', 0x9b, 0, 0, 0, 1, 0, 0, 0, 0})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, b := range [][]byte{in, sealAny(t, &anyRecord{bcin.Domain, "/weft/bcin-record", in}, key)} {
			r, err := bcin.Open(b, site, at)
			if err == nil {
				if len(r.Addrs) > bcin.MaxAddrs || len(r.Holds) > bcin.MaxHolds || r.Peer != id || r.Origin != site {
					t.Errorf("accepted: %+v", r)
				}
				again, err := bcin.Open(seal(t, r, key), site, at)
				if err != nil || again.Newer(r) || r.Newer(again) {
					t.Errorf("what was opened cannot be sealed and opened: %v", err)
				}
				continue
			}
			named := false
			for _, want := range []error{bcin.ErrMalformed, bcin.ErrSignature, bcin.ErrTooLarge, bcin.ErrExpired, bcin.ErrOrigin} {
				named = named || errors.Is(err, want)
			}
			if !named {
				t.Errorf("Open: an error without a name: %v", err)
			}
		}
	})
}
