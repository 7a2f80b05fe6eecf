// Package asnutil stands in for go-libp2p-asn-util in the tab: a table of 1.6 MB
// by which a circuit relay counts reservations per network. A tab is no relay.
package asnutil

import "net"

// AsnForIPv6 panics: only a circuit relay asks.
func AsnForIPv6(net.IP) uint32 { panic("asnutil: left out of the tab: it is no circuit relay") }
