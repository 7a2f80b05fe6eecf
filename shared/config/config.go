// Package config is `/weft/config.json`: what a relay says of itself, and all
// that a node must know to join.
//
// relay/server writes it, the tab (wasm) and the command line (relay/client)
// read it with [Parse], web/config.js keeps it for when the relay is away. It
// is only a claim, but for the owner's roots, which are signed: a connection
// to a relay fails if another key answers than the one in its address.
package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/webfabric/weft/shared/owner"
)

const (
	// Version is that of the document which this package reads and writes.
	Version = 1
	// MaxSize is the largest document accepted, in bytes: a sealed list of
	// roots ([owner.MaxSize]) in base64 is 1.4 MB of it.
	MaxSize = 2 << 20
	// MaxAddrs is how many addresses of each list are looked at.
	MaxAddrs = 64
	// MaxRelays is how many relays the addresses of one list may lead to: a
	// node stays connected to all of them.
	MaxRelays = 16
	// MaxSTUN is how many STUN servers are kept: browsers ask all they are
	// given, and warn from five on.
	MaxSTUN = 4
)

var (
	// ErrTooLarge means a document over [MaxSize].
	ErrTooLarge = errors.New("config: larger than 2 MiB")
	// ErrMalformed means that a document is no configuration.
	ErrMalformed = errors.New("config: malformed")
	// ErrVersion means a document of another version than [Version].
	ErrVersion = errors.New("config: another version")
	// ErrAddr means an address that cannot be used: not a multiaddr, without a
	// peer ID or without a place, or one too many.
	ErrAddr = errors.New("config: address not usable")
)

// Config is the document. web/types.js has the same as a typedef.
type Config struct {
	Version int      `json:"version"`
	PeerID  peer.ID  `json:"peerId,omitempty"` // the relay's; always there, but not in what a page merged of several
	Relays  []string `json:"relays"`           // WebSocket multiaddrs with peer IDs, for browsers
	Swarm   []string `json:"swarm,omitempty"`  // the same for native peers
	STUN    []string `json:"stun,omitempty"`   // URLs, "stun:host:port"
	Owner   Owner    `json:"owner,omitzero"`
	Demo    string   `json:"demo,omitempty"` // CID of the relay's example site
	Limits  Limits   `json:"limits,omitzero"`
	Node    Node     `json:"node,omitzero"`
}

// Owner is the signed list of the origin's own roots, see shared/owner.
type Owner struct {
	PeerID peer.ID `json:"peerId,omitempty"` // who signed
	Roots  []byte  `json:"roots"`            // sealed; base64 in JSON
}

// Limits are what the relay lets pass.
type Limits struct {
	MaxBlockSize   int `json:"maxBlockSize"`   // bytes
	MaxReservation int `json:"maxReservation"` // seconds
}

// Node is the program for a browser to run.
type Node struct {
	Wasm  string `json:"wasm"`  // URL path; "" in a relay that was built without one
	Exec  string `json:"exec"`  // URL path of Go's wasm_exec.js
	Bytes int    `json:"bytes"` // to download, compressed
}

// Parsed is a configuration that [Parse] has read.
type Parsed struct {
	Config
	RelayInfos []peer.AddrInfo // Relays, at most [MaxRelays]
	SwarmInfos []peer.AddrInfo // Swarm, at most [MaxRelays]
	Roots      owner.Roots     // verified: signed by Owner.PeerID; empty if there is none
}

// Parse reads and verifies a configuration. Addresses that mean nothing to this
// version are left out: a newer relay may have some. The error wraps
// [ErrTooLarge], [ErrMalformed], [ErrVersion], or one of shared/owner's for a
// list of roots that its key did not sign.
func Parse(data []byte) (Parsed, error) {
	if len(data) > MaxSize {
		return Parsed{}, fmt.Errorf("%w: %d bytes", ErrTooLarge, len(data))
	}
	var p Parsed
	if err := json.Unmarshal(data, &p.Config); err != nil {
		return Parsed{}, fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	if p.Version != Version {
		return Parsed{}, fmt.Errorf("%w: %d, this program reads %d", ErrVersion, p.Version, Version)
	}
	p.RelayInfos, _ = AddrInfos(p.Relays)
	p.SwarmInfos, _ = AddrInfos(p.Swarm)
	p.STUN = STUNServers(p.STUN)
	if p.Owner.PeerID != "" && len(p.Owner.Roots) > 0 {
		var err error
		if p.Roots, err = owner.Open(p.Owner.Roots, p.Owner.PeerID); err != nil {
			return Parsed{}, fmt.Errorf("config: owner: %w", err)
		}
	}
	return p, nil
}

// STUNServers returns those of urls that have the form "stun:host:port", at most
// [MaxSTUN].
func STUNServers(urls []string) []string {
	var out []string
	for _, u := range urls {
		rest, ok := strings.CutPrefix(u, "stun:")
		if !ok || len(out) == MaxSTUN {
			continue
		}
		host, port, err := net.SplitHostPort(rest)
		if n, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil || n == 0 || !isHost(host) {
			continue
		}
		out = append(out, u)
	}
	return out
}

// isHost tells whether s has but the letters of names and IP addresses.
func isHost(s string) bool {
	return s != "" && len(s) <= 253 && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(".-:", r))
	})
}

// AddrInfos reads multiaddrs that end in /p2p/ID, by peer, in their order. Of
// an address that cannot be used, or that is past [MaxAddrs] or [MaxRelays],
// the error says so, wrapping [ErrAddr]; the others are returned all the same.
func AddrInfos(addrs []string) ([]peer.AddrInfo, error) {
	var infos []peer.AddrInfo
	var bad error
	at := map[peer.ID]int{}
	for i, s := range addrs {
		if i == MaxAddrs {
			return infos, fmt.Errorf("%w: %d addresses, at most %d", ErrAddr, len(addrs), MaxAddrs)
		}
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			bad = fmt.Errorf("%w: %.200q: %v", ErrAddr, s, err)
			continue
		}
		place, id := peer.SplitAddr(a)
		if place == nil || id == "" {
			bad = fmt.Errorf("%w: %.200q: want a place and /p2p/ID", ErrAddr, s)
			continue
		}
		if _, known := at[id]; !known {
			if len(infos) == MaxRelays {
				bad = fmt.Errorf("%w: %.200q: more than %d peers", ErrAddr, s, MaxRelays)
				continue
			}
			at[id] = len(infos)
			infos = append(infos, peer.AddrInfo{ID: id})
		}
		infos[at[id]].Addrs = append(infos[at[id]].Addrs, place)
	}
	return infos, bad
}
