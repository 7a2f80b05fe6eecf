// Package client is what a command needs of a relay: its configuration, and a
// connection to it that speaks Bitswap.
//
// A relay is named by URL. What it says of itself over HTTP is only believed as
// far as the libp2p connection that follows proves it: the connection is made
// to the peer ID of the configuration, and fails if another key answers.
package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/webfabric/weft/shared/config"
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
	b, err := io.ReadAll(io.LimitReader(resp.Body, config.MaxSize+1))
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
// that name another peer are left out. The error wraps [ErrConfig].
func ParseConfig(b []byte) (Relay, error) {
	c, err := config.Parse(b)
	if err != nil {
		return Relay{}, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	r := Relay{ID: c.PeerID}
	for _, info := range append(c.SwarmInfos, c.RelayInfos...) {
		if info.ID == r.ID {
			r.Addrs = append(r.Addrs, info.Addrs...)
		}
	}
	if len(r.Addrs) == 0 {
		return Relay{}, fmt.Errorf("%w: it names no address of the relay", ErrConfig)
	}
	return r, nil
}
