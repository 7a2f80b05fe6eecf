// Package secp256k1 stands in for decred's in the tab, whose tables weigh 0.5 MB
// compressed. Nodes have Ed25519 keys; a peer with a secp256k1 key is refused by
// an error where its key is read.
package secp256k1

import "errors"

// ErrLeftOut means that a key of this kind was met.
var ErrLeftOut = errors.New("secp256k1: keys of this kind are left out of the tab")

// PrivKeyBytesLen is the length of a private key, in bytes.
const PrivKeyBytesLen = 32

// A PrivateKey cannot be had here.
type PrivateKey struct{ _ byte }

// A PublicKey cannot be had here.
type PublicKey struct{ _ byte }

// GeneratePrivateKey returns [ErrLeftOut].
func GeneratePrivateKey() (*PrivateKey, error) { return nil, ErrLeftOut }

// PrivKeyFromBytes panics: the node's own key is Ed25519, and no other private
// key is ever read.
func PrivKeyFromBytes([]byte) *PrivateKey { panic(ErrLeftOut) }

// ParsePubKey returns [ErrLeftOut].
func ParsePubKey([]byte) (*PublicKey, error) { return nil, ErrLeftOut }

// PubKey panics.
func (*PrivateKey) PubKey() *PublicKey { panic(ErrLeftOut) }

// Serialize panics.
func (*PrivateKey) Serialize() []byte { panic(ErrLeftOut) }

// SerializeCompressed panics.
func (*PublicKey) SerializeCompressed() []byte { panic(ErrLeftOut) }

// IsEqual panics.
func (*PublicKey) IsEqual(*PublicKey) bool { panic(ErrLeftOut) }
