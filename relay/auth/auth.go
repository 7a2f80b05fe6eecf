// Package auth signs requests to a relay, and checks them.
//
// A signature covers the method, the path with its query, the SHA-256 of the
// body, the relay's peer ID, the time and a nonce: it says one thing to one
// relay, once. The header is
//
//	Authorization: Weft key=<peer ID>,time=<ms since 1970>,nonce=<base64url, 16 bytes>,sig=<base64url>
//
// and what is signed is the domain "weft-request-v1" and those facts, one a line.
// Keys are Ed25519: their peer ID holds the public key.
package auth

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// MaxSkew is how far the time of a request may be from the relay's clock.
	MaxSkew = 5 * time.Minute
	// MaxHeader is the longest Authorization header read, in bytes; a real
	// one has about 220.
	MaxHeader = 512
	// MaxNonces is how many nonces a [Verifier] remembers. It is reached by
	// more than 100 requests a second over twice [MaxSkew].
	MaxNonces = 1 << 16

	scheme    = "Weft "
	domain    = "weft-request-v1"
	nonceSize = 16
)

var (
	// ErrUnsigned means that the request has no signature of this scheme.
	ErrUnsigned = errors.New("auth: request not signed")
	// ErrMalformed means that the header cannot be read, or that the
	// signature is not one of this request by this key.
	ErrMalformed = errors.New("auth: malformed or wrong signature")
	// ErrExpired means that the request's time is too far from the relay's.
	ErrExpired = errors.New("auth: request expired or from the future")
	// ErrReplayed means that this very request was seen before.
	ErrReplayed = errors.New("auth: request replayed")
	// ErrNotAllowed means that the key is not one the relay obeys.
	ErrNotAllowed = errors.New("auth: key not allowed")
	// ErrBusy means that [MaxNonces] requests came within the time a nonce
	// must be remembered.
	ErrBusy = errors.New("auth: too many requests")
)

// Sign signs req, whose body is body, with key for relay. now is the time of
// the signature.
func Sign(req *http.Request, body []byte, key crypto.PrivKey, relay peer.ID, now time.Time) error {
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return fmt.Errorf("auth: sign: %w", err)
	}
	t := token{key: id, time: now.UnixMilli()}
	if _, err := rand.Read(t.nonce[:]); err != nil {
		return fmt.Errorf("auth: sign: %w", err)
	}
	t.sig, err = key.Sign(t.signed(req, body, relay))
	if err != nil {
		return fmt.Errorf("auth: sign: %w", err)
	}
	req.Header.Set("Authorization", t.String())
	return nil
}

// Status is the HTTP status that tells of err.
func Status(err error) int {
	switch {
	case err == nil:
		return http.StatusOK
	case errors.Is(err, ErrNotAllowed):
		return http.StatusForbidden
	case errors.Is(err, ErrBusy):
		return http.StatusServiceUnavailable
	default:
		return http.StatusUnauthorized
	}
}

// Verifier checks requests for one relay. Relay and Allowed are required.
type Verifier struct {
	Relay   peer.ID
	Allowed func(peer.ID) bool
	// NotBefore refuses what was signed before it. A relay sets it to its
	// start: the nonces of before are forgotten.
	NotBefore time.Time
	// Now is the clock; nil means time.Now.
	Now func() time.Time

	mu     sync.Mutex
	nonces map[nonceKey]time.Time // until when each is remembered
	swept  time.Time
}

type nonceKey struct {
	key   peer.ID
	nonce [nonceSize]byte
}

// Check returns who signed req, whose body is body. Its error wraps
// [ErrUnsigned], [ErrMalformed], [ErrExpired], [ErrNotAllowed], [ErrReplayed]
// or [ErrBusy]; only an allowed key's nonce is remembered, so strangers cannot
// fill the table.
func (v *Verifier) Check(req *http.Request, body []byte) (peer.ID, error) {
	h := req.Header.Values("Authorization")
	if len(h) == 0 || !strings.HasPrefix(h[0], scheme) {
		return "", ErrUnsigned
	}
	if len(h) > 1 {
		return "", fmt.Errorf("%w: %d Authorization headers", ErrMalformed, len(h))
	}
	t, err := parse(h[0])
	if err != nil {
		return "", err
	}
	now := time.Now()
	if v.Now != nil {
		now = v.Now()
	}
	at := time.UnixMilli(t.time)
	if d := now.Sub(at); d > MaxSkew || d < -MaxSkew {
		return "", fmt.Errorf("%w: signed at %s, the relay's clock says %s", ErrExpired, at.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	if at.Before(v.NotBefore.Truncate(time.Millisecond)) {
		return "", fmt.Errorf("%w: signed at %s, before the relay started; sign it again", ErrExpired, at.UTC().Format(time.RFC3339))
	}
	pub, err := t.key.ExtractPublicKey()
	if err != nil {
		return "", fmt.Errorf("%w: key %s: %v", ErrMalformed, t.key, err)
	}
	if ok, err := pub.Verify(t.signed(req, body, v.Relay), t.sig); err != nil || !ok {
		return "", fmt.Errorf("%w: it is not one of this request, for relay %s, by %s", ErrMalformed, v.Relay, t.key)
	}
	if !v.Allowed(t.key) {
		return "", fmt.Errorf("%w: %s", ErrNotAllowed, t.key)
	}
	return t.key, v.remember(nonceKey{t.key, t.nonce}, at.Add(MaxSkew), now)
}

// remember fails where n was remembered before, and otherwise remembers it.
func (v *Verifier) remember(n nonceKey, until, now time.Time) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.nonces == nil {
		v.nonces = make(map[nonceKey]time.Time)
	}
	if _, ok := v.nonces[n]; ok {
		return fmt.Errorf("%w: by %s", ErrReplayed, n.key)
	}
	// Sweep once a minute, so that a full table costs one pass, not one a request.
	if now.Sub(v.swept) > time.Minute {
		v.swept = now
		for k, t := range v.nonces {
			if t.Before(now) {
				delete(v.nonces, k)
			}
		}
	}
	if len(v.nonces) >= MaxNonces {
		return fmt.Errorf("%w: %d within %v", ErrBusy, len(v.nonces), 2*MaxSkew)
	}
	v.nonces[n] = until
	return nil
}

// token is the header.
type token struct {
	key   peer.ID
	time  int64 // ms since 1970
	nonce [nonceSize]byte
	sig   []byte
}

func (t token) String() string {
	return fmt.Sprintf("%skey=%s,time=%d,nonce=%s,sig=%s", scheme, t.key, t.time,
		base64.RawURLEncoding.EncodeToString(t.nonce[:]), base64.RawURLEncoding.EncodeToString(t.sig))
}

// signed is what the signature is over. No field can hold a newline.
func (t token) signed(req *http.Request, body []byte, relay peer.ID) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\n%s\n%s\n%x\n%s\n%d\n%x\n", domain, req.Method, req.URL.RequestURI(), sha256.Sum256(body), relay, t.time, t.nonce)
	return b.Bytes()
}

// parse reads a header. Its error wraps [ErrMalformed].
func parse(h string) (token, error) {
	var t token
	fail := func(why string) (token, error) { return token{}, fmt.Errorf("%w: %s", ErrMalformed, why) }
	if len(h) > MaxHeader {
		return fail("header too long")
	}
	rest, ok := strings.CutPrefix(h, scheme)
	if !ok {
		return fail("another scheme")
	}
	parts := strings.Split(rest, ",")
	if len(parts) != 4 {
		return fail("want key, time, nonce and sig")
	}
	for i, name := range []string{"key=", "time=", "nonce=", "sig="} {
		val, ok := strings.CutPrefix(strings.TrimSpace(parts[i]), name)
		if !ok {
			return fail("want key, time, nonce and sig, in this order")
		}
		var err error
		switch name {
		case "key=":
			t.key, err = peer.Decode(val)
		case "time=":
			t.time, err = strconv.ParseInt(val, 10, 64)
		case "nonce=":
			var n []byte
			n, err = base64.RawURLEncoding.Strict().DecodeString(val)
			if err == nil && len(n) != nonceSize {
				return fail("nonce of the wrong length")
			}
			copy(t.nonce[:], n)
		case "sig=":
			t.sig, err = base64.RawURLEncoding.Strict().DecodeString(val)
			if err == nil && len(t.sig) != 64 { // Ed25519
				return fail("signature of the wrong length")
			}
		}
		if err != nil {
			return fail(name[:len(name)-1] + ": " + err.Error())
		}
	}
	return t, nil
}
