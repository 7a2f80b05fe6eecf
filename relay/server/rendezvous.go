package server

import (
	"net/url"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/webfabric/weft/shared/bcin"
)

// startRendezvous lets the nodes of the origins that the relay serves find
// each other.
func (s *Server) startRendezvous() error {
	var err error
	s.bcin, err = bcin.Serve(s.host, bcin.ServerConfig{
		Allow:   s.speaksFor,
		Observe: func(op, status string) { s.metrics.rendezvous.WithLabelValues(op, status).Inc() },
		Log:     s.log,
	})
	if err != nil {
		return err
	}
	s.metrics.watchRendezvous(s.bcin.Stats)
	return nil
}

// speaksFor tells whether the peer of c may be found as a node of origin, and
// find those. A browser says at the upgrade which origin its page is of; any
// other peer may be of any origin whose pages may use the relay.
func (s *Server) speaksFor(c network.Conn, origin string) bool {
	if page := s.upgrades.origin(c.RemoteMultiaddr()); page != "" {
		return origin == page
	}
	if s.origins.every || s.origins.named[origin] {
		return true
	}
	own, err := url.Parse(s.URL())
	return err == nil && origin == originOf(own)
}
