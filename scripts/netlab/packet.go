package netlab

import (
	"encoding/binary"
	"net/netip"
)

const (
	protoTCP = 6
	protoUDP = 17
)

// A packet is an IPv4 packet of TCP or UDP with its ends. They are changed in
// place.
type packet struct {
	b        []byte
	transp   int // where the transport's header begins
	sum      int // where its checksum is
	proto    byte
	src, dst netip.AddrPort
}

// parse reads b, which it does not copy. It is false for all that is not passed
// on: other protocols, fragments, and what is cut off.
func parse(b []byte) (p packet, ok bool) {
	if len(b) < 20 || b[0]>>4 != 4 {
		return p, false
	}
	p = packet{b: b, transp: int(b[0]&15) * 4, proto: b[9]}
	if p.transp < 20 || int(binary.BigEndian.Uint16(b[2:])) != len(b) || binary.BigEndian.Uint16(b[6:])&0x3fff != 0 {
		return p, false
	}
	size := 8
	p.sum = p.transp + 6
	switch p.proto {
	case protoUDP:
	case protoTCP:
		size, p.sum = 20, p.transp+16
	default:
		return p, false
	}
	if len(b) < p.transp+size {
		return p, false
	}
	p.src = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[12:16])), binary.BigEndian.Uint16(b[p.transp:]))
	p.dst = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[16:20])), binary.BigEndian.Uint16(b[p.transp+2:]))
	return p, true
}

// setSrc and setDst put another end in.
func (p *packet) setSrc(a netip.AddrPort) { p.src = a; p.set(12, p.transp, a) }
func (p *packet) setDst(a netip.AddrPort) { p.dst = a; p.set(16, p.transp+2, a) }

func (p *packet) set(addr, port int, a netip.AddrPort) {
	ip := a.Addr().As4()
	noSum := p.proto == protoUDP && binary.BigEndian.Uint16(p.b[p.sum:]) == 0
	for i := 0; i < 4; i += 2 {
		p.put(addr+i, binary.BigEndian.Uint16(ip[i:]), 10, p.sum)
	}
	p.put(port, a.Port(), p.sum)
	if noSum {
		binary.BigEndian.PutUint16(p.b[p.sum:], 0)
	} else if p.proto == protoUDP && binary.BigEndian.Uint16(p.b[p.sum:]) == 0 {
		binary.BigEndian.PutUint16(p.b[p.sum:], 0xffff)
	}
}

// put writes a word, and what that changes in the checksums at sums
// (RFC 1624, 3).
func (p *packet) put(at int, word uint16, sums ...int) {
	old := binary.BigEndian.Uint16(p.b[at:])
	binary.BigEndian.PutUint16(p.b[at:], word)
	for _, s := range sums {
		n := uint32(^binary.BigEndian.Uint16(p.b[s:])) + uint32(^old) + uint32(word)
		n = n&0xffff + n>>16
		n = n&0xffff + n>>16
		binary.BigEndian.PutUint16(p.b[s:], ^uint16(n))
	}
}
