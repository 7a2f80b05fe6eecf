//go:build js && wasm

package main

import (
	"encoding/json"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/webfabric/weft/shared/owner"
)

// maxConfig bounds the configuration, in bytes: the owner's roots are most of
// it, in base64.
const maxConfig = 2*owner.MaxSize + 64<<10

// config is what the tab reads of /weft/config.json.
type config struct {
	Relays []string `json:"relays"`
	Owner  struct {
		PeerID string `json:"peerId"`
		Roots  []byte `json:"roots"`
	} `json:"owner"`

	relays []peer.AddrInfo
	signer peer.ID     // of owned; empty if the origin names none
	owned  owner.Roots // verified
}

// parseConfig reads and verifies a configuration; an empty one is allowed. A
// relay whose address means nothing to this version is left out, an owner's
// list that its key did not sign is an error.
func parseConfig(text string) (config, error) {
	var c config
	if len(text) > maxConfig {
		return config{}, fmt.Errorf("config: %d bytes, at most %d", len(text), maxConfig)
	}
	if text == "" {
		return config{}, nil
	}
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return config{}, fmt.Errorf("config: %w", err)
	}
	c.relays, _ = parseRelays(c.Relays)
	if c.Owner.PeerID != "" && len(c.Owner.Roots) > 0 {
		id, err := peer.Decode(c.Owner.PeerID)
		if err != nil {
			return config{}, fmt.Errorf("config: owner: %w", err)
		}
		if c.owned, err = owner.Open(c.Owner.Roots, id); err != nil {
			return config{}, fmt.Errorf("config: owner: %w", err)
		}
		c.signer = id
	}
	return c, nil
}

// parseRelays reads addresses that end in /p2p/ID. The error is that of the
// last one that could not be used; the others are returned all the same.
func parseRelays(addrs []string) ([]peer.AddrInfo, error) {
	var mas []ma.Multiaddr
	var bad error
	for _, s := range addrs {
		a, err := ma.NewMultiaddr(s)
		if err == nil {
			_, err = peer.AddrInfoFromP2pAddr(a)
		}
		if err != nil {
			bad = fmt.Errorf("relay %q: %w", s, err)
			continue
		}
		mas = append(mas, a)
	}
	infos, err := peer.AddrInfosFromP2pAddrs(mas...)
	if err != nil {
		return nil, fmt.Errorf("relays: %w", err)
	}
	return infos, bad
}
