// Package identity makes a node's Ed25519 key and turns it into bytes and back.
//
// Where the bytes are kept is the caller's matter: a file on a server
// (relay/store), IndexedDB in a tab (wasm/idbstore).
package identity

import (
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// MaxKeySize bounds what [Unmarshal] reads, in bytes. An Ed25519 key in
// libp2p's protobuf form is 68 bytes long.
const MaxKeySize = 128

// ErrMalformed means that bytes are no Ed25519 private key in libp2p's form.
var ErrMalformed = errors.New("identity: malformed key")

// New makes a key from the platform's secure randomness.
func New() (crypto.PrivKey, error) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("identity: new key: %w", err)
	}
	return key, nil
}

// Marshal returns key as libp2p's PrivateKey protobuf
// (https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md#keys).
func Marshal(key crypto.PrivKey) ([]byte, error) {
	b, err := crypto.MarshalPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("identity: marshal: %w", err)
	}
	return b, nil
}

// Unmarshal is the reverse of [Marshal]. Its error wraps [ErrMalformed].
func Unmarshal(b []byte) (crypto.PrivKey, error) {
	if len(b) > MaxKeySize {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrMalformed, len(b), MaxKeySize)
	}
	key, err := crypto.UnmarshalPrivateKey(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	if key.Type() != crypto.Ed25519 {
		return nil, fmt.Errorf("%w: a %v key, want Ed25519", ErrMalformed, key.Type())
	}
	return key, nil
}

// ID returns the peer ID of key.
func ID(key crypto.PrivKey) (peer.ID, error) {
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return "", fmt.Errorf("identity: peer ID: %w", err)
	}
	return id, nil
}
