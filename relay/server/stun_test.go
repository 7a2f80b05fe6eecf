package server

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pion/stun/v3"
	pion "github.com/pion/webrtc/v4"

	"github.com/webfabric/weft/shared/config"
)

var (
	id      = stun.NewTransactionIDSetter([12]byte{0: 1, 11: 12})
	from4   = netip.MustParseAddrPort("192.0.2.1:32853")
	from6   = netip.MustParseAddrPort("[2001:db8:1234:5678:11:2233:4455:6677]:32853")
	request = build(id, stun.BindingRequest)
)

func build(setters ...stun.Setter) []byte {
	m, err := stun.Build(setters...)
	if err != nil {
		panic(err)
	}
	return m.Raw
}

func TestBindingAnswer(t *testing.T) {
	broken := build(id, stun.BindingRequest, stun.Fingerprint)
	broken[len(broken)-1] ^= 1
	for _, tt := range []struct {
		name string
		in   []byte
		from netip.AddrPort
		want string // address told; "" for no answer
		more int    // bytes more than in
	}{
		{name: "a browser's", in: request, from: from4, want: "192.0.2.1:32853", more: 12},
		{name: "by IPv6", in: request, from: from6, want: "[2001:db8:1234:5678:11:2233:4455:6677]:32853", more: 24},
		{name: "IPv4 on an IPv6 socket", in: request, from: netip.MustParseAddrPort("[::ffff:192.0.2.1]:32853"), want: "192.0.2.1:32853", more: 12},
		{name: "with a name and a checksum", in: build(id, stun.BindingRequest, stun.NewSoftware("x"), stun.Fingerprint), from: from4, want: "192.0.2.1:32853"},
		{name: "with a wrong checksum", in: broken, from: from4},
		{name: "with something to understand", in: build(id, stun.BindingRequest, stun.NewUsername("me")), from: from4},
		{name: "an answer", in: build(id, stun.BindingSuccess), from: from4},
		{name: "an indication", in: build(id, stun.NewType(stun.MethodBinding, stun.ClassIndication)), from: from4},
		{name: "TURN", in: build(id, stun.NewType(stun.MethodAllocate, stun.ClassRequest)), from: from4},
		{name: "cut off", in: request[:19], from: from4},
		{name: "a length that is none", in: append(bytes.Clone(request[:3]), append([]byte{200}, request[4:]...)...), from: from4},
		{name: "too large", in: append(bytes.Clone(request), make([]byte, maxSTUN)...), from: from4},
		{name: "QUIC", in: []byte("\xc0\x00\x00\x00\x01\x08aaaaaaaa\x00\x00\x44\x9e\x00\x00\x00\x01"), from: from4},
		{name: "empty", in: nil, from: from4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := bindingAnswer(tt.in, tt.from)
			if got == nil || tt.want == "" {
				if got != nil || tt.want != "" {
					t.Errorf("answered %x, want %q", got, tt.want)
				}
				return
			}
			m := stun.Message{Raw: got}
			var a stun.XORMappedAddress
			if err := m.Decode(); err != nil || a.GetFrom(&m) != nil {
				t.Fatalf("the answer is %x: %v", got, err)
			}
			if m.Type != stun.BindingSuccess || m.TransactionID != [12]byte(request[8:20]) || a.String() != tt.want {
				t.Errorf("answered %v, %v, %s; want %s", m.Type, m.TransactionID, a, tt.want)
			}
			if more := len(got) - len(tt.in); more > tt.more {
				t.Errorf("the answer has %d bytes more than the request, want %d", more, tt.more)
			}
		})
	}
}

// FuzzBindingAnswer: whatever comes, at most 44 bytes go back, to nobody who
// sent less than a request.
func FuzzBindingAnswer(f *testing.F) {
	f.Add(request, true)
	f.Add(build(id, stun.BindingRequest, stun.NewSoftware("x"), stun.Fingerprint), false)
	f.Add(build(id, stun.BindingRequest, stun.NewUsername("me")), false)
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), true)
	f.Fuzz(func(t *testing.T, b []byte, v6 bool) {
		from, most := from4, 32
		if v6 {
			from, most = from6, 44
		}
		got := bindingAnswer(b, from)
		if got == nil {
			return
		}
		if len(b) < 20 || len(got) > most {
			t.Fatalf("%d bytes for %d", len(got), len(b))
		}
		m := stun.Message{Raw: got}
		var a stun.XORMappedAddress
		if err := m.Decode(); err != nil || a.GetFrom(&m) != nil || a.Port != int(from.Port()) {
			t.Errorf("the answer to %x is %x", b, got)
		}
		if bindingAnswer(got, from) != nil {
			t.Error("an answer is answered: two of these would talk for ever")
		}
	})
}

func TestSTUNLimit(t *testing.T) {
	var l stunLimit
	now := time.Unix(1_000_000, 0)
	count := func(a string, at time.Time) (n int) {
		for range 2 * stunPerSecond {
			if l.allow(netip.MustParseAddr(a), at) {
				n++
			}
		}
		return
	}
	for _, tt := range []struct {
		addr string
		at   time.Time
		want int
	}{
		{"192.0.2.1", now, stunPerSecond},
		{"::ffff:192.0.2.1", now, 0}, // the same
		{"192.0.2.1", now.Add(time.Second), stunPerSecond},
		{"2001:db8::1", now, stunPerSecond},
		{"2001:db8::ffff:2", now, 0}, // the same network
		{"2001:db8:0:1::1", now, stunPerSecond},
	} {
		if n := count(tt.addr, tt.at); n != tt.want {
			t.Errorf("%s at %v: %d allowed, want %d", tt.addr, tt.at.Unix(), n, tt.want)
		}
	}
}

// stunRelay starts a relay and reads its configuration.
func stunRelay(t *testing.T, listen, stunAt string) (*Server, config.Config) {
	t.Helper()
	s, err := New(t.Context(), Config{Dir: t.TempDir(), Listen: listen, STUN: stunAt})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	resp, err := http.Get("http://" + s.listener.Addr().String() + "/weft/config.json")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var c config.Config
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	if got := config.STUNServers(c.STUN); len(got) != len(c.STUN) {
		t.Errorf("the relay announces %q, of which only %q can be used", c.STUN, got)
	}
	return s, c
}

// TestSTUN has pion find its address by the relay's.
func TestSTUN(t *testing.T) {
	s, c := stunRelay(t, "127.0.0.1:0", "")
	if want := "stun:" + s.listener.Addr().String(); len(c.STUN) != 1 || c.STUN[0] != want {
		t.Fatalf("announced %q, want %s", c.STUN, want)
	}
	// What is no request is ignored, and the next one answered.
	conn, err := net.Dial("udp", s.stun.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, b := range [][]byte{{}, []byte("hello"), make([]byte, 9000), build(id, stun.BindingSuccess), request} {
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	buf := make([]byte, 100)
	if n, err := conn.Read(buf); err != nil || n != 32 || !bytes.Equal(buf[8:20], request[8:20]) {
		t.Errorf("answered %x, %v", buf[:n], err)
	}

	var set pion.SettingEngine
	set.SetNetworkTypes([]pion.NetworkType{pion.NetworkTypeUDP4})
	pc, err := pion.NewAPI(pion.WithSettingEngine(set)).NewPeerConnection(pion.Configuration{ICEServers: []pion.ICEServer{{URLs: c.STUN}}})
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	if _, err := pc.CreateDataChannel("", nil); err != nil {
		t.Fatal(err)
	}
	gathered := pion.GatheringCompletePromise(pc)
	offer, err := pc.CreateOffer(nil)
	if err == nil {
		err = pc.SetLocalDescription(offer)
	}
	if err != nil {
		t.Fatal(err)
	}
	<-gathered
	if sdp := pc.LocalDescription().SDP; !strings.Contains(sdp, "typ srflx") {
		t.Errorf("no server reflexive candidate in\n%s", sdp)
	}
}

func TestSTUNPlaces(t *testing.T) {
	if s, c := stunRelay(t, "127.0.0.1:0", "off"); s.stun != nil || len(c.STUN) > 0 {
		t.Errorf("off: announced %q", c.STUN)
	}
	s, _ := stunRelay(t, "127.0.0.1:0", "127.0.0.1:0")
	_, port, _ := net.SplitHostPort(s.stun.LocalAddr().String())
	for _, tt := range []struct{ at, host, want string }{
		{"", "localhost:8787", "localhost"},
		{"", "Site.Example", "Site.Example"},
		{":3478", "[2001:db8::1]:8787", "[2001:db8::1]"},
		{"0.0.0.0:3478", "site.example:443", "site.example"},
		{"192.0.2.7:3478", "site.example", "192.0.2.7"},
		{"stun.site.example:3478", "site.example", "stun.site.example"},
	} {
		s.cfg.STUN = tt.at
		if got := s.stunURLs(tt.host); len(got) != 1 || got[0] != "stun:"+tt.want+":"+port || len(config.STUNServers(got)) != 1 {
			t.Errorf("--stun %q asked for at %s: announced %q, want stun:%s:%s", tt.at, tt.host, got, tt.want, port)
		}
	}
	// A place that was asked for must be had; one that was not need not be.
	taken := s.stun.LocalAddr().String()
	if other, err := New(t.Context(), Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", STUN: taken}); err == nil {
		other.Close(t.Context())
		t.Error("started at a place that was taken")
	}
	if other, c := stunRelay(t, taken, ""); other.stun != nil || len(c.STUN) > 0 {
		t.Errorf("the listener's place was taken: announced %q", c.STUN)
	}
}
