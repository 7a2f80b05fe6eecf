package server

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"net"
	"net/netip"
	"net/url"
	"time"

	"github.com/pion/stun/v3"
)

const (
	// stunOff as Config.STUN means that STUN is not answered.
	stunOff = "off"
	// stunPerSecond is how many binding requests of one network, an IPv4
	// address or an IPv6 /64, are answered in a second. A page asks once or
	// thrice for each of its addresses when it connects, so an office behind
	// one address may have a hundred connect at once.
	stunPerSecond = 400
	// maxSTUN is the largest request looked at, in bytes: RFC 8489, 6.1 has
	// them fit into an IPv6 packet that no link need cut up.
	maxSTUN = 1280
)

// startSTUN answers STUN binding requests (RFC 8489), by which peers learn the
// address that their NAT gives them. Without being asked for, it takes the
// place of the HTTP listener on UDP if that is free.
func (s *Server) startSTUN(ctx context.Context) error {
	addr := s.cfg.STUN
	switch addr {
	case stunOff:
		return nil
	case "":
		addr = s.listener.Addr().String()
	}
	conn, err := net.ListenPacket("udp", addr)
	if err != nil && s.cfg.STUN == "" {
		s.log.Warn("STUN is not answered: visitors behind NATs will only meet through the relay; --stun takes another port", "err", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("server: STUN: %w", err)
	}
	s.stun = conn.(*net.UDPConn)
	s.work.Go(func() { s.serveSTUN(ctx) })
	return nil
}

// serveSTUN answers what arrives until ctx ends.
func (s *Server) serveSTUN(ctx context.Context) {
	conn := s.stun
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	limit := stunLimit{seed: maphash.MakeSeed()}
	buf := make([]byte, maxSTUN+1)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// An ICMP answer to what was sent before, or a lack of memory.
			s.log.Debug("STUN request not read", "err", err)
			select {
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
				return
			}
			continue
		}
		switch answer := bindingAnswer(buf[:n], from); {
		case answer == nil:
			s.metrics.stun.WithLabelValues("ignored").Inc()
		case !limit.allow(from.Addr(), time.Now()):
			s.metrics.stun.WithLabelValues("limited").Inc()
		default:
			s.metrics.stun.WithLabelValues("answered").Inc()
			conn.WriteToUDPAddrPort(answer, from) // lost as any packet may be
		}
	}
}

// bindingAnswer answers b if it is a binding request without attributes that
// would have to be understood, and is nil for all else: whoever forges a
// sender's address has it get one packet for each of theirs, at most 24 bytes
// larger than the 20 of the smallest request.
func bindingAnswer(b []byte, from netip.AddrPort) []byte {
	if len(b) > maxSTUN || !stun.IsMessage(b) {
		return nil
	}
	req := stun.Message{Raw: b}
	if req.Decode() != nil || req.Type != stun.BindingRequest {
		return nil
	}
	for _, a := range req.Attributes {
		if a.Type.Required() {
			return nil
		}
	}
	if req.Contains(stun.AttrFingerprint) && stun.Fingerprint.Check(&req) != nil {
		return nil
	}
	answer, err := stun.Build(stun.NewTransactionIDSetter(req.TransactionID), stun.BindingSuccess,
		&stun.XORMappedAddress{IP: from.Addr().Unmap().AsSlice(), Port: int(from.Port())})
	if err != nil {
		return nil
	}
	return answer.Raw
}

// stunLimit counts requests by network and second, in a table of one size
// whoever sends: networks that share a place in it share what is allowed.
type stunLimit struct {
	seed   maphash.Seed
	counts [4096]struct {
		second int64
		n      int
	}
}

// allow tells whether a may be answered now.
func (l *stunLimit) allow(a netip.Addr, now time.Time) bool {
	bits := 32
	if a = a.Unmap(); a.Is6() {
		bits = 64
	}
	network, err := a.WithZone("").Prefix(bits)
	if err != nil {
		return false
	}
	c := &l.counts[maphash.Comparable(l.seed, network)%uint64(len(l.counts))]
	if second := now.Unix(); c.second != second {
		c.second, c.n = second, 0
	}
	c.n++
	return c.n <= stunPerSecond
}

// stunURLs are what a node is told to ask. host is the one by which it found the
// relay, which has the same place in the network as STUN unless the operator
// named another.
func (s *Server) stunURLs(host string) []string {
	if s.stun == nil {
		return nil
	}
	at, err := netip.ParseAddrPort(s.stun.LocalAddr().String())
	if err != nil {
		return nil
	}
	if named, _, err := net.SplitHostPort(s.cfg.STUN); err == nil && named != "" {
		if ip, err := netip.ParseAddr(named); err != nil || !ip.IsUnspecified() {
			host = named
		}
	}
	if u := (url.URL{Host: host}); u.Hostname() != "" {
		host = u.Hostname()
	}
	return []string{"stun:" + net.JoinHostPort(host, fmt.Sprint(at.Port()))}
}
