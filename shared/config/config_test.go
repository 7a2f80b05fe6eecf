package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/webfabric/weft/shared/identity"
	"github.com/webfabric/weft/shared/owner"
)

const (
	relayID = "12D3KooWGueVZwC8UccjoDU6Rs5HMi57gmRPAh9r6fFaXGUuaRUD"
	otherID = "12D3KooWM76ru1b3Uciq33zaaxbtBhnbUzeqK1tzJYPMJ2deKxD4"
	ws      = "/dns4/localhost/tcp/8787/ws/p2p/"
)

func sealed(t testing.TB) (Owner, owner.Roots) {
	t.Helper()
	key, err := identity.New()
	if err != nil {
		t.Fatal(err)
	}
	id, err := identity.ID(key)
	if err != nil {
		t.Fatal(err)
	}
	roots := owner.Roots{Seq: 3, Issued: time.UnixMilli(1e12), Roots: []cid.Cid{cid.MustParse("bafkqabdumvzxi")}}
	b, err := owner.Seal(roots, key)
	if err != nil {
		t.Fatal(err)
	}
	return Owner{PeerID: id, Roots: b}, roots
}

func document(t testing.TB, c Config) string {
	t.Helper()
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestParse(t *testing.T) {
	own, roots := sealed(t)
	tampered := Owner{own.PeerID, slices.Clone(own.Roots)}
	tampered.Roots[len(tampered.Roots)-1] ^= 1
	foreign, err := peer.Decode(otherID)
	if err != nil {
		t.Fatal(err)
	}
	var crowd, repeated []string
	for i := range MaxAddrs + 1 {
		repeated = append(repeated, fmt.Sprintf("/ip4/127.0.0.1/tcp/%d/ws/p2p/%s", i+1, relayID))
	}
	for range MaxRelays + 1 {
		o, _ := sealed(t)
		crowd = append(crowd, ws+o.PeerID.String())
	}
	for _, tt := range []struct {
		name, in      string
		relays, addrs int // peers and their addresses in RelayInfos
		seq           uint64
		err           error
	}{
		{name: "whole", in: document(t, Config{Version: 1, PeerID: own.PeerID, Relays: []string{ws + relayID}, Owner: own}), relays: 1, addrs: 1, seq: roots.Seq},
		{name: "of several relays", in: `{"version":1,"relays":["` + ws + relayID + `","` + ws + otherID + `"]}`, relays: 2, addrs: 2},
		{name: "no owner", in: `{"version":1,"relays":[],"owner":null}`},
		{name: "no list", in: document(t, Config{Version: 1, Owner: Owner{PeerID: own.PeerID}})},
		{name: "unknown addresses", in: `{"version":1,"relays":["` + ws + relayID + `","/teleport/1","/ip4/127.0.0.1/tcp/1/ws","/p2p/` + otherID + `",""]}`, relays: 1, addrs: 1},
		{name: "unknown fields", in: `{"version":1,"relays":[],"extra":{"a":[1]}}`},
		{name: "too many addresses", in: document(t, Config{Version: 1, Relays: repeated}), relays: 1, addrs: MaxAddrs},
		{name: "too many relays", in: document(t, Config{Version: 1, Relays: crowd}), relays: MaxRelays, addrs: MaxRelays},
		{name: "a list of another's", in: document(t, Config{Version: 1, Owner: Owner{foreign, own.Roots}}), err: owner.ErrSignature},
		{name: "a list with a flipped bit", in: document(t, Config{Version: 1, Owner: tampered}), err: owner.ErrSignature},
		{name: "a list that is none", in: document(t, Config{Version: 1, Owner: Owner{foreign, []byte("roots")}}), err: owner.ErrMalformed},
		{name: "a list too large", in: document(t, Config{Version: 1, Owner: Owner{foreign, make([]byte, owner.MaxSize+1)}}), err: owner.ErrTooLarge},
		{name: "not base64", in: `{"version":1,"owner":{"peerId":"` + relayID + `","roots":"!"}}`, err: ErrMalformed},
		{name: "no peer ID", in: `{"version":1,"peerId":"nobody"}`, err: ErrMalformed},
		{name: "another version", in: `{"version":2,"relays":[]}`, err: ErrVersion},
		{name: "null", in: `null`, err: ErrVersion},
		{name: "cut off", in: `{"version":1,"relays":["`, err: ErrMalformed},
		{name: "another page", in: `<!doctype html>`, err: ErrMalformed},
		{name: "empty", in: ``, err: ErrMalformed},
		{name: "too large", in: strings.Repeat(" ", MaxSize) + "{}", err: ErrTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse([]byte(tt.in))
			addrs := 0
			for _, info := range got.RelayInfos {
				addrs += len(info.Addrs)
			}
			if !errors.Is(err, tt.err) || len(got.RelayInfos) != tt.relays || addrs != tt.addrs || got.Roots.Seq != tt.seq {
				t.Errorf("Parse = %d relays, %d addresses, roots %v, %v; want %d, %d, seq %d, %v", len(got.RelayInfos), addrs, got.Roots, err, tt.relays, tt.addrs, tt.seq, tt.err)
			}
		})
	}
}

func TestAddrInfos(t *testing.T) {
	infos, err := AddrInfos([]string{"nonsense", ws + relayID, "/ip4/127.0.0.1/tcp/1/ws/p2p/" + relayID})
	if !errors.Is(err, ErrAddr) || len(infos) != 1 || len(infos[0].Addrs) != 2 {
		t.Errorf("AddrInfos = %v, %v; want one peer with two addresses, %v", infos, err, ErrAddr)
	}
	if infos, err := AddrInfos([]string{ws + relayID}); err != nil || len(infos) != 1 {
		t.Errorf("AddrInfos = %v, %v", infos, err)
	}
}

// fields lists v's names in JSON, those of inner objects after their own.
func fields(v reflect.Type) (names []string) {
	for i := range v.NumField() {
		f := v.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		names = append(names, name)
		if f.Type.Kind() == reflect.Struct {
			for _, inner := range fields(f.Type) {
				names = append(names, name+"."+inner)
			}
		}
	}
	return names
}

// The typedef that pages and the worker use has the same names.
func TestTypedef(t *testing.T) {
	b, err := os.ReadFile("../../web/types.js")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(b), "@typedef {object} Config\n")
	text, _, found := strings.Cut(text, "*/")
	if !found {
		t.Fatal("web/types.js has no typedef Config")
	}
	var got []string
	for _, m := range regexp.MustCompile(`@property \{(.*)\} \[?(\w+)`).FindAllStringSubmatch(text, -1) {
		got = append(got, m[2])
		for _, inner := range regexp.MustCompile(`(\w+)\??:`).FindAllStringSubmatch(m[1], -1) {
			got = append(got, m[2]+"."+inner[1])
		}
	}
	if want := fields(reflect.TypeFor[Config]()); !slices.Equal(got, want) {
		t.Errorf("web/types.js has  %q\nthis package has %q", got, want)
	}
}

func TestSTUNServers(t *testing.T) {
	for _, tt := range []struct {
		name     string
		in, want []string
	}{
		{name: "all forms", in: []string{"stun:site.example:3478", "stun:192.0.2.1:1", "stun:[2001:db8::1]:65535"}, want: []string{"stun:site.example:3478", "stun:192.0.2.1:1", "stun:[2001:db8::1]:65535"}},
		{name: "nothing else", in: []string{"", "turn:a:1", "stuns:a:1", "stun:a", "stun::1", "stun:a:0", "stun:a:65536", "stun:a:http", "stun:a b:1", "stun:a/b:1", "stun:a?:1", "stun:" + strings.Repeat("a", 254) + ":1"}},
		{name: "not too many", in: slices.Repeat([]string{"stun:a:1"}, MaxSTUN+1), want: slices.Repeat([]string{"stun:a:1"}, MaxSTUN)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := STUNServers(tt.in); !slices.Equal(got, tt.want) {
				t.Errorf("STUNServers(%q) = %q, want %q", tt.in, got, tt.want)
			}
			p, err := Parse([]byte(document(t, Config{Version: Version, STUN: tt.in})))
			if err != nil || !slices.Equal(p.STUN, tt.want) {
				t.Errorf("Parse: %q, %v; want %q", p.STUN, err, tt.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	own, _ := sealed(f)
	id := own.PeerID
	f.Add([]byte(document(f, Config{Version: 1, PeerID: id, Relays: []string{ws + relayID}, Swarm: []string{"/ip6/::1/udp/1/quic-v1/p2p/" + relayID}, STUN: []string{"stun:[::1]:3478", "turn:x"}, Owner: own, Demo: "bafkqaaa", Node: Node{Wasm: "/node.wasm"}})))
	f.Add([]byte(`{"version":1,"relays":["` + ws + relayID + `/p2p-circuit/p2p/` + otherID + `","/teleport/1"],"owner":null}`))
	f.Add([]byte(`{"version":1,"relays":[],"owner":{"peerId":"` + relayID + `","roots":"CiQIARIg"}}`))
	f.Add([]byte(`{"version":1,"swarm":["/p2p/` + relayID + `"]}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Parse(b)
		if err != nil {
			for _, named := range []error{ErrTooLarge, ErrMalformed, ErrVersion, owner.ErrMalformed, owner.ErrTooLarge, owner.ErrSignature} {
				if errors.Is(err, named) {
					return
				}
			}
			t.Fatalf("error of another kind: %v", err)
		}
		for _, infos := range [][]peer.AddrInfo{p.RelayInfos, p.SwarmInfos} {
			if len(infos) > MaxRelays {
				t.Errorf("%d peers", len(infos))
			}
			for _, info := range infos {
				if info.ID.Validate() != nil || len(info.Addrs) == 0 || len(info.Addrs) > MaxAddrs {
					t.Errorf("accepted %v", info)
				}
			}
		}
		if len(p.Roots.Roots) > 0 && p.Owner.PeerID == "" {
			t.Error("roots that nobody signed")
		}
		// What was read can be written, and read again.
		out, err := json.Marshal(p.Config)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(out)
		if err != nil && !errors.Is(err, ErrTooLarge) || err == nil && (again.PeerID != p.PeerID || len(again.RelayInfos) != len(p.RelayInfos) || again.Roots.Seq != p.Roots.Seq) {
			t.Errorf("read again: %+v, %v; want %+v", again, err, p)
		}
	})
}
