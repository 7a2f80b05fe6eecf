package auth

import (
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/webfabric/weft/shared/identity"
)

func newKey(t testing.TB) (crypto.PrivKey, peer.ID) {
	t.Helper()
	key, err := identity.New()
	if err != nil {
		t.Fatal(err)
	}
	id, err := identity.ID(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, id
}

func TestCheck(t *testing.T) {
	_, relay := newKey(t)
	_, otherRelay := newKey(t)
	good, goodID := newKey(t)
	stranger, _ := newKey(t)
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	now := start.Add(10 * time.Minute)
	body := []byte(`{"root":"x"}`)

	tests := []struct {
		name   string
		key    crypto.PrivKey
		relay  peer.ID
		at     time.Time
		change func(r *http.Request, body []byte) []byte
		err    error
		status int
	}{
		{name: "good", err: nil, status: 200},
		{name: "oldest", at: now.Add(-MaxSkew), err: nil, status: 200},
		{name: "too old", at: now.Add(-MaxSkew - time.Millisecond), err: ErrExpired, status: 401},
		{name: "from the future", at: now.Add(MaxSkew + time.Millisecond), err: ErrExpired, status: 401},
		{name: "stranger", key: stranger, err: ErrNotAllowed, status: 403},
		{name: "another relay", relay: otherRelay, err: ErrMalformed, status: 401},
		{name: "unsigned", err: ErrUnsigned, status: 401, change: func(r *http.Request, b []byte) []byte { r.Header.Del("Authorization"); return b }},
		{name: "another scheme", err: ErrUnsigned, status: 401, change: func(r *http.Request, b []byte) []byte { r.Header.Set("Authorization", "Bearer x"); return b }},
		{name: "another body", err: ErrMalformed, status: 401, change: func(_ *http.Request, b []byte) []byte { return append(b[:len(b):len(b)], ' ') }},
		{name: "another method", err: ErrMalformed, status: 401, change: func(r *http.Request, b []byte) []byte { r.Method = "DELETE"; return b }},
		{name: "another path", err: ErrMalformed, status: 401, change: func(r *http.Request, b []byte) []byte { r.URL.Path = "/weft/other"; return b }},
		{name: "another query", err: ErrMalformed, status: 401, change: func(r *http.Request, b []byte) []byte { r.URL.RawQuery = "a=c"; return b }},
		{name: "twice", err: ErrMalformed, status: 401, change: func(r *http.Request, b []byte) []byte {
			r.Header.Add("Authorization", r.Header.Get("Authorization"))
			return b
		}},
		{name: "time changed", err: ErrMalformed, status: 401, change: func(r *http.Request, b []byte) []byte {
			h := r.Header.Get("Authorization")
			r.Header.Set("Authorization", strings.Replace(h, "time=1", "time=2", 1))
			return b
		}},
		{name: "no signature", err: ErrMalformed, status: 401, change: func(r *http.Request, b []byte) []byte {
			h := r.Header.Get("Authorization")
			r.Header.Set("Authorization", h[:strings.LastIndex(h, "sig=")+4])
			return b
		}},
		{name: "stranger's name", key: stranger, err: ErrMalformed, status: 401, change: func(r *http.Request, b []byte) []byte {
			h := r.Header.Get("Authorization")
			_, rest, _ := strings.Cut(h, ",")
			r.Header.Set("Authorization", scheme+"key="+goodID.String()+","+rest)
			return b
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := &Verifier{Relay: relay, Allowed: func(p peer.ID) bool { return p == goodID }, Now: func() time.Time { return now }}
			if tt.key == nil {
				tt.key = good
			}
			if tt.relay == "" {
				tt.relay = relay
			}
			if tt.at.IsZero() {
				tt.at = now
			}
			req := httptest.NewRequest("POST", "http://relay/weft/publish?a=b", nil)
			if err := Sign(req, body, tt.key, tt.relay, tt.at); err != nil {
				t.Fatal(err)
			}
			got := body
			if tt.change != nil {
				got = tt.change(req, body)
			}
			id, err := v.Check(req, got)
			if tt.name == "time changed" && errors.Is(err, ErrExpired) {
				err = ErrMalformed // either is right
			}
			if !errors.Is(err, tt.err) || Status(err) != tt.status {
				t.Fatalf("Check = %s, %v (status %d), want %v (%d)", id, err, Status(err), tt.err, tt.status)
			}
			if err == nil && id != goodID {
				t.Errorf("signed by %s, want %s", id, goodID)
			}
			if err == nil {
				if _, err := v.Check(req, got); !errors.Is(err, ErrReplayed) {
					t.Errorf("again: %v, want ErrReplayed", err)
				}
			} else if len(v.nonces) != 0 {
				t.Errorf("a refused request's nonce is remembered")
			}
		})
	}
}

func TestNotBefore(t *testing.T) {
	_, relay := newKey(t)
	key, id := newKey(t)
	start := time.Now()
	v := &Verifier{Relay: relay, Allowed: func(p peer.ID) bool { return p == id }, NotBefore: start}
	for _, tt := range []struct {
		at  time.Time
		err error
	}{{start.Add(-time.Second), ErrExpired}, {start, nil}, {start.Add(time.Second), nil}} {
		req := httptest.NewRequest("POST", "/weft/publish", nil)
		if err := Sign(req, nil, key, relay, tt.at); err != nil {
			t.Fatal(err)
		}
		if _, err := v.Check(req, nil); !errors.Is(err, tt.err) {
			t.Errorf("signed %v after the start: %v, want %v", tt.at.Sub(start), err, tt.err)
		}
	}
}

// The table of nonces has a bound, is emptied as they expire, and a replay is
// caught for as long as the request could be valid.
func TestNonces(t *testing.T) {
	now := time.Now()
	v := &Verifier{}
	for i := range MaxNonces {
		n := nonceKey{nonce: [nonceSize]byte{byte(i), byte(i >> 8), byte(i >> 16)}}
		if err := v.remember(n, now.Add(MaxSkew), now); err != nil {
			t.Fatal(err)
		}
	}
	more := nonceKey{nonce: [nonceSize]byte{15: 1}}
	if err := v.remember(more, now.Add(MaxSkew), now); !errors.Is(err, ErrBusy) || Status(err) != http.StatusServiceUnavailable {
		t.Errorf("past the bound: %v, want ErrBusy", err)
	}
	if err := v.remember(nonceKey{}, now.Add(MaxSkew), now.Add(MaxSkew)); !errors.Is(err, ErrReplayed) {
		t.Errorf("a nonce was forgotten before it expired: %v", err)
	}
	if err := v.remember(more, now.Add(3*MaxSkew), now.Add(2*MaxSkew)); err != nil {
		t.Errorf("after the others expired: %v", err)
	}
	if len(v.nonces) != 1 {
		t.Errorf("%d nonces remembered, want 1", len(v.nonces))
	}
}

func FuzzParse(f *testing.F) {
	key, relay := newKey(f)
	req := httptest.NewRequest("POST", "/weft/publish", nil)
	if err := Sign(req, nil, key, relay, time.UnixMilli(1)); err != nil {
		f.Fatal(err)
	}
	h := req.Header.Get("Authorization")
	f.Add(h)
	f.Add(strings.ReplaceAll(h, ",", ", "))
	f.Add(scheme)
	f.Add(scheme + "key=,time=,nonce=,sig=")
	f.Add(scheme + "key=Qm,time=-9223372036854775808,nonce=" + base64.RawURLEncoding.EncodeToString(make([]byte, 16)) + ",sig=AA")
	v := &Verifier{Relay: relay, Allowed: func(peer.ID) bool { return true }, Now: func() time.Time { return time.UnixMilli(1) }}
	f.Fuzz(func(t *testing.T, h string) {
		tok, err := parse(h)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("parse(%q): %v, want ErrMalformed", h, err)
			}
			return
		}
		again, err := parse(tok.String())
		if err != nil || again.String() != tok.String() {
			t.Fatalf("parse of String: %v, %v, want %v", again, err, tok)
		}
		req := httptest.NewRequest("GET", "/", nil)
		req.Header.Set("Authorization", h)
		v.Check(req, nil) // must not panic
	})
}
