// Package client is what a command needs of a relay: its configuration, and a
// connection to it that speaks Bitswap.
//
// A relay is named by URL. What it says of itself over HTTP is only believed as
// far as the libp2p connection that follows proves it: the connection is made
// to the peer ID of the configuration, and fails if another key answers.
package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

const (
	// ConfigVersion is the version of /weft/config.json that this package reads.
	ConfigVersion = 1
	// MaxConfigSize bounds a relay's configuration, in bytes: the owner's sealed
	// roots are at most 1 MiB (owner.MaxSize), a third more in base64.
	MaxConfigSize = 2 << 20
	// maxAddrs bounds how many addresses of one relay are tried.
	maxAddrs = 64
)

var (
	// ErrConfig means that what answered is no relay, or one of another version.
	ErrConfig = errors.New("client: not a Weft relay's configuration")
	// ErrUnreachable means that nothing answered at the relay's URL.
	ErrUnreachable = errors.New("client: relay does not answer")
	// ErrWrongRelay means that the relay is not the one that was expected.
	ErrWrongRelay = errors.New("client: another relay answers there")
)

// Relay is where a relay can be reached.
type Relay struct {
	URL   string // scheme and host, without a path
	ID    peer.ID
	Addrs []multiaddr.Multiaddr // without /p2p
}

// Find asks the relay at url for its configuration. If want is not empty, the
// relay must have that ID. The error wraps [ErrUnreachable], [ErrConfig] or
// [ErrWrongRelay].
func Find(ctx context.Context, url string, want peer.ID) (Relay, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 15*time.Second, errors.New("no answer within 15 seconds"))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/weft/config.json", nil)
	if err != nil {
		return Relay{}, fmt.Errorf("%w: %s: %v", ErrUnreachable, url, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return Relay{}, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return Relay{}, fmt.Errorf("%w: %s answered %s", ErrConfig, req.URL, resp.Status)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, MaxConfigSize+1))
	if err != nil {
		return Relay{}, fmt.Errorf("%w: %s: %w", ErrUnreachable, req.URL, err)
	}
	r, err := ParseConfig(b)
	if err != nil {
		return Relay{}, fmt.Errorf("%s: %w", req.URL, err)
	}
	if want != "" && r.ID != want {
		return Relay{}, fmt.Errorf("%w: %s is %s, want %s", ErrWrongRelay, url, r.ID, want)
	}
	r.URL = url
	return r, nil
}

// ParseConfig reads what of a /weft/config.json a native peer needs. Addresses
// that it does not understand, or that name another peer, are left out: a newer
// relay may have some. The error wraps [ErrConfig].
func ParseConfig(b []byte) (Relay, error) {
	if len(b) > MaxConfigSize {
		return Relay{}, fmt.Errorf("%w: over %d bytes", ErrConfig, MaxConfigSize)
	}
	var c struct {
		Version int      `json:"version"`
		PeerID  string   `json:"peerId"`
		Relays  []string `json:"relays"`
		Swarm   []string `json:"swarm"`
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return Relay{}, fmt.Errorf("%w: %v", ErrConfig, err)
	}
	if c.Version != ConfigVersion {
		return Relay{}, fmt.Errorf("%w: version %d, this program reads %d", ErrConfig, c.Version, ConfigVersion)
	}
	id, err := peer.Decode(c.PeerID)
	if err != nil {
		return Relay{}, fmt.Errorf("%w: peerId: %v", ErrConfig, err)
	}
	r := Relay{ID: id}
	for _, s := range append(c.Swarm, c.Relays...) {
		if len(r.Addrs) == maxAddrs {
			break
		}
		m, err := multiaddr.NewMultiaddr(s)
		if err != nil {
			continue
		}
		m, of := peer.SplitAddr(m)
		if m == nil || of != "" && of != id {
			continue
		}
		r.Addrs = append(r.Addrs, m)
	}
	if len(r.Addrs) == 0 {
		return Relay{}, fmt.Errorf("%w: it names no address of the relay", ErrConfig)
	}
	return r, nil
}
