// Package netlab is a small internet for tests: nodes in network namespaces of
// their own, between them lines with delay, loss and little bandwidth, and
// routers that translate addresses.
//
// A node's only interface is a TUN device, whose packets this process carries:
// what it does to them needs neither netem nor nf_nat of the kernel. IPv4 only;
// of it TCP and UDP, unfragmented. Nothing leads to networks that are real.
//
// The tests beside it are two kinds: those of this package need nothing, those
// with the tag netlab are `make netlab` and need root.
package netlab

import (
	"errors"
	"time"
)

// ErrNoNamespace means that this process may not make network namespaces or TUN
// devices: it has to be root, and the kernel has to have both.
var ErrNoNamespace = errors.New("netlab: no network namespaces here")

// A Line is what a node's packets go through, each way. The zero value is
// perfect.
type Line struct {
	Delay time.Duration // one way
	Loss  float64       // how many packets are lost, from 0 to 1
	Rate  int           // bits per second; 0 for any number
	// Queue is how many bytes may wait for Rate; what comes on top is lost.
	// 0 is a tenth of a second's worth.
	Queue int
}

// A NAT is how a node's router translates addresses. Whatever its kind, it lets
// a packet in only from an address and port that the node has sent to (RFC 4787,
// 5: address and port-dependent filtering), and takes ports at random.
type NAT int

const (
	// NoNAT gives the node an address that all can reach.
	NoNAT NAT = iota
	// Cone has one outer port for each inner one (endpoint-independent
	// mapping): what STUN tells holds for everyone.
	Cone
	// Symmetric has another outer port for every address and port that is
	// sent to, so nobody can be told where to send.
	Symmetric
)
