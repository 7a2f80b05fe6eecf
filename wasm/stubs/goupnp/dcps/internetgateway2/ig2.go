// Package internetgateway2 stands in for goupnp's in the tab.
package internetgateway2

import (
	"context"

	"github.com/huin/goupnp"
)

// Names of routers and of their services.
const (
	URN_WANConnectionDevice_1 = "urn:schemas-upnp-org:device:WANConnectionDevice:1"
	URN_WANConnectionDevice_2 = "urn:schemas-upnp-org:device:WANConnectionDevice:2"
	URN_WANIPConnection_1     = "urn:schemas-upnp-org:service:WANIPConnection:1"
	URN_WANIPConnection_2     = "urn:schemas-upnp-org:service:WANIPConnection:2"
	URN_WANPPPConnection_1    = "urn:schemas-upnp-org:service:WANPPPConnection:1"
)

// A connection of each kind; its methods panic, as no router is ever found.
type (
	WANIPConnection1 struct {
		goupnp.ServiceClient
		leftOut
	}
	WANIPConnection2 struct {
		goupnp.ServiceClient
		leftOut
	}
	WANPPPConnection1 struct {
		goupnp.ServiceClient
		leftOut
	}
)

type leftOut struct{}

func (leftOut) GetNATRSIPStatusCtx(context.Context) (string, bool, error) { panic(goupnp.ErrLeftOut) }
func (leftOut) GetExternalIPAddress() (string, error)                     { panic(goupnp.ErrLeftOut) }
func (leftOut) AddPortMappingCtx(context.Context, string, uint16, string, uint16, string, bool, string, uint32) error {
	panic(goupnp.ErrLeftOut)
}
func (leftOut) DeletePortMappingCtx(context.Context, string, uint16, string) error {
	panic(goupnp.ErrLeftOut)
}
