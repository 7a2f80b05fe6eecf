// Package multicodec stands in for go-multicodec in the tab: of its table of
// names, go-libp2p needs one code, and go-cidutil its names in an error.
package multicodec

import "strconv"

// A Code is a multicodec.
type Code uint64

// Libp2pKey is the codec of a peer ID in a CID.
const Libp2pKey Code = 0x72

// String returns the code in hexadecimal.
func (c Code) String() string { return "multicodec 0x" + strconv.FormatUint(uint64(c), 16) }
