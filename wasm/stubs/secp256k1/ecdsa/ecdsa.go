// Package ecdsa stands in for decred's secp256k1 signatures in the tab.
package ecdsa

import secp256k1 "github.com/decred/dcrd/dcrec/secp256k1/v4"

// A Signature cannot be had here.
type Signature struct{ _ byte }

// Sign panics.
func Sign(*secp256k1.PrivateKey, []byte) *Signature { panic(secp256k1.ErrLeftOut) }

// ParseDERSignature returns [secp256k1.ErrLeftOut].
func ParseDERSignature([]byte) (*Signature, error) { return nil, secp256k1.ErrLeftOut }

// Serialize panics.
func (*Signature) Serialize() []byte { panic(secp256k1.ErrLeftOut) }

// Verify panics.
func (*Signature) Verify([]byte, *secp256k1.PublicKey) bool { panic(secp256k1.ErrLeftOut) }
