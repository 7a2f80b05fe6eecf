// Package natpmp stands in for go-nat-pmp in the tab, which has no UDP to ask a
// router by.
package natpmp

import (
	"errors"
	"net"
	"time"
)

var errLeftOut = errors.New("natpmp: left out of the tab: it has no UDP")

// A Client asks nobody.
type Client struct{}

// GetExternalAddressResult is never given.
type GetExternalAddressResult struct{ ExternalIPAddress [4]byte }

// AddPortMappingResult is never given.
type AddPortMappingResult struct{}

// NewClient returns a client whose every request fails.
func NewClient(net.IP) *Client { return &Client{} }

// NewClientWithTimeout is like [NewClient].
func NewClientWithTimeout(net.IP, time.Duration) *Client { return &Client{} }

// GetExternalAddress returns an error.
func (*Client) GetExternalAddress() (*GetExternalAddressResult, error) { return nil, errLeftOut }

// AddPortMapping returns an error.
func (*Client) AddPortMapping(string, int, int, int) (*AddPortMappingResult, error) {
	return nil, errLeftOut
}
