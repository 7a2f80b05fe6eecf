// Package goupnp stands in for goupnp in the tab, which finds no router: it has
// neither UDP nor HTTP to other hosts.
package goupnp

import (
	"context"
	"errors"
	"net/url"
)

// ErrLeftOut is what every search returns.
var ErrLeftOut = errors.New("goupnp: left out of the tab: it has no UDP")

// What a router would be described by; none is ever found.
type (
	RootDevice struct {
		Device     Device
		URLBase    url.URL
		URLBaseStr string
	}
	Device          struct{ DeviceType, FriendlyName string }
	Service         struct{ ServiceType string }
	MaybeRootDevice struct {
		Root *RootDevice
		Err  error
	}
	ServiceClient struct {
		SOAPClient *SOAPClient
		RootDevice *RootDevice
		Service    *Service
	}
	SOAPClient struct{}
)

// NewSOAPClient panics: no service is ever found.
func (*Service) NewSOAPClient() *SOAPClient { panic(ErrLeftOut) }

// VisitServices panics: no device is ever found.
func (*Device) VisitServices(func(*Service)) { panic(ErrLeftOut) }

// DiscoverDevicesCtx returns [ErrLeftOut].
func DiscoverDevicesCtx(context.Context, string) ([]MaybeRootDevice, error) { return nil, ErrLeftOut }

// DeviceByURLCtx returns [ErrLeftOut].
func DeviceByURLCtx(context.Context, *url.URL) (*RootDevice, error) { return nil, ErrLeftOut }
