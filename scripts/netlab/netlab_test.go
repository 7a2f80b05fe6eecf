package netlab

import (
	"context"
	"encoding/binary"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

var (
	inside = netip.MustParseAddrPort("10.0.1.2:5000")
	outer  = netip.MustParseAddr("203.0.113.1")
	one    = netip.MustParseAddrPort("203.0.113.2:6000")
	two    = netip.MustParseAddrPort("203.0.113.3:6000")
)

// build makes a packet as a kernel does, with its checksums.
func build(proto byte, src, dst netip.AddrPort, payload string) []byte {
	size := 8
	if proto == protoTCP {
		size = 20
	}
	b := make([]byte, 20+size, 20+size+len(payload))
	b = append(b, payload...)
	b[0], b[8], b[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	s, d := src.Addr().As4(), dst.Addr().As4()
	copy(b[12:], s[:])
	copy(b[16:], d[:])
	binary.BigEndian.PutUint16(b[20:], src.Port())
	binary.BigEndian.PutUint16(b[22:], dst.Port())
	at := 36
	if proto == protoUDP {
		at = 26
		binary.BigEndian.PutUint16(b[24:], uint16(len(b)-20))
	}
	binary.BigEndian.PutUint16(b[10:], ^fold(b[:20]))
	binary.BigEndian.PutUint16(b[at:], ^transport(b))
	return b
}

// fold is the ones' complement sum of b, of which a right header's is 0xffff.
func fold(b []byte) uint16 {
	var n uint32
	for i := 0; i < len(b); i += 2 {
		if i+1 < len(b) {
			n += uint32(binary.BigEndian.Uint16(b[i:]))
		} else {
			n += uint32(b[i]) << 8
		}
	}
	for n > 0xffff {
		n = n&0xffff + n>>16
	}
	return uint16(n)
}

// transport is the sum of the transport's part and its pseudo header.
func transport(b []byte) uint16 {
	pseudo := append([]byte(nil), b[12:20]...)
	pseudo = append(pseudo, 0, b[9])
	pseudo = binary.BigEndian.AppendUint16(pseudo, uint16(len(b)-20))
	return fold(append(pseudo, b[20:]...))
}

func read(t *testing.T, b []byte) packet {
	t.Helper()
	p, ok := parse(b)
	if !ok {
		t.Fatalf("not parsed: %x", b)
	}
	return p
}

func TestParse(t *testing.T) {
	udp, tcp := build(protoUDP, inside, one, "hello"), build(protoTCP, inside, one, "hello")
	change := func(b []byte, at int, v byte) []byte {
		b = append([]byte(nil), b...)
		b[at] = v
		return b
	}
	for _, tt := range []struct {
		name string
		in   []byte
		ok   bool
	}{
		{"UDP", udp, true},
		{"TCP", tcp, true},
		{"empty", nil, false},
		{"cut off", udp[:27], false},
		{"TCP cut off", change(tcp, 3, 39)[:39], false},
		{"another version", change(udp, 0, 0x65), false},
		{"a header that is too short", change(udp, 0, 0x44), false},
		{"a header beyond the end", change(udp, 0, 0x4f), false},
		{"ICMP", change(udp, 9, 1), false},
		{"the first fragment", change(udp, 6, 0x20), false},
		{"the last fragment", change(udp, 7, 1), false},
		{"not to be fragmented", change(udp, 6, 0x40), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, ok := parse(tt.in)
			if ok != tt.ok || ok && (p.src != inside || p.dst != one) {
				t.Errorf("parse = %v from %v to %v; want %v", ok, p.src, p.dst, tt.ok)
			}
		})
	}
}

// FuzzParse: whatever a node sends, it is not parsed or can be translated.
func FuzzParse(f *testing.F) {
	f.Add(build(protoUDP, inside, one, "hello"))
	f.Add(build(protoTCP, inside, one, "hello"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := parse(b)
		if !ok {
			return
		}
		p.setSrc(two)
		p.setDst(inside)
		if again, ok := parse(b); !ok || again.src != two || again.dst != inside {
			t.Errorf("translated to %v, from %v to %v", ok, again.src, again.dst)
		}
	})
}

func TestTranslation(t *testing.T) {
	for _, proto := range []byte{protoTCP, protoUDP} {
		for _, payload := range []string{"", "odd", "even", "\xff\xff\xff\xff"} {
			b := build(proto, inside, one, payload)
			p := read(t, b)
			p.setSrc(two)
			p.setDst(netip.MustParseAddrPort("255.255.255.255:65535"))
			if h, tr := fold(b[:20]), transport(b); h != 0xffff || tr != 0xffff {
				t.Errorf("protocol %d, %q: checksums are off: %04x, %04x", proto, payload, h, tr)
			}
		}
	}
	b := build(protoUDP, inside, one, "without a checksum")
	b[26], b[27] = 0, 0
	p := read(t, b)
	p.setSrc(two)
	if b[26] != 0 || b[27] != 0 {
		t.Error("a checksum came out of none")
	}
}

// TestRouter sends from one inner port to two places, and from both and a third
// one back.
func TestRouter(t *testing.T) {
	for _, tt := range []struct {
		name string
		nat  NAT
		same bool // both places see the same address
	}{{"cone", Cone, true}, {"symmetric", Symmetric, false}} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRouter(tt.nat, outer)
			leave := func(proto byte, to netip.AddrPort) netip.AddrPort {
				p := read(t, build(proto, inside, to, "x"))
				r.leave(&p)
				if p.src.Addr() != outer || p.dst != to {
					t.Errorf("left from %v to %v", p.src, p.dst)
				}
				return p.src
			}
			enter := func(from, to netip.AddrPort) bool {
				p := read(t, build(protoUDP, from, to, "x"))
				ok := r.enter(&p)
				if ok && p.dst != inside {
					t.Errorf("entered to %v", p.dst)
				}
				return ok
			}
			first := leave(protoUDP, one)
			if enter(two, first) {
				t.Error("one who was not sent to is let in")
			}
			second := leave(protoUDP, two)
			if again := leave(protoUDP, one); again != first {
				t.Errorf("first at %v, then at %v", first, again)
			}
			if (first == second) != tt.same {
				t.Errorf("seen at %v and %v", first, second)
			}
			if !enter(one, first) || !enter(two, second) {
				t.Error("an answer is not let in")
			}
			if !tt.same && (enter(one, second) || enter(two, first)) {
				t.Error("let in by another's port")
			}
			if enter(netip.AddrPortFrom(one.Addr(), one.Port()+1), first) {
				t.Error("let in from another port")
			}
			if tcp := leave(protoTCP, one); enter(one, tcp) && tcp != first {
				t.Error("UDP is let in by TCP's port")
			}
		})
	}
}

// TestPipe counts what comes through lines, and when.
func TestPipe(t *testing.T) {
	for _, tt := range []struct {
		name     string
		line     Line
		packets  int // of 1,000 bytes
		min, max int // how many arrive
		last     time.Duration
	}{
		{name: "perfect", packets: 1000, min: 1000, max: 1000},
		{name: "long", line: Line{Delay: 50 * time.Millisecond}, packets: 100, min: 100, max: 100, last: 50 * time.Millisecond},
		{name: "lossy", line: Line{Loss: 0.5}, packets: 10000, min: 4500, max: 5500},
		{name: "slow", line: Line{Rate: 8_000_000, Queue: 1 << 20}, packets: 100, min: 100, max: 100, last: 100 * time.Millisecond},
		{name: "slow and long", line: Line{Rate: 8_000_000, Queue: 1 << 20, Delay: time.Second}, packets: 100, min: 100, max: 100, last: 1100 * time.Millisecond},
		{name: "a queue that is full", line: Line{Rate: 8000, Queue: 10_000}, packets: 100, min: 10, max: 10, last: 10 * time.Second},
		{name: "the usual queue", line: Line{Rate: 800_000}, packets: 100, min: 10, max: 10, last: 100 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got []int
				var last time.Time
				p := newPipe(tt.line, func(b []byte) {
					got, last = append(got, int(binary.BigEndian.Uint32(b))), time.Now()
				})
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() { defer close(done); p.run(ctx) }()
				begun := time.Now()
				for i := range tt.packets {
					b := make([]byte, 1000)
					binary.BigEndian.PutUint32(b, uint32(i))
					p.send(b)
				}
				time.Sleep(time.Minute)
				cancel()
				<-done
				if len(got) < tt.min || len(got) > tt.max || last.Sub(begun) != tt.last {
					t.Errorf("%d of %d packets, the last after %v; want %d to %d, after %v", len(got), tt.packets, last.Sub(begun), tt.min, tt.max, tt.last)
				}
				for i := 1; i < len(got); i++ {
					if got[i] <= got[i-1] {
						t.Fatalf("packet %d came after %d", got[i], got[i-1])
					}
				}
			})
		})
	}
}
