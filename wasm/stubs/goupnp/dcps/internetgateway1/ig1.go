// Package internetgateway1 stands in for goupnp's in the tab.
package internetgateway1

// URN_WANConnectionDevice_1 names a router.
const URN_WANConnectionDevice_1 = "urn:schemas-upnp-org:device:WANConnectionDevice:1"
