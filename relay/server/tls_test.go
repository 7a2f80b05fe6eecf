package server_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/webfabric/weft/relay/server"
)

// acmeCA is as much of RFC 8555 as one order needs. It trusts whoever asks,
// but does ask the challenge's address as a real one would.
type acmeCA struct {
	*httptest.Server
	t         *testing.T
	cert      *x509.Certificate
	key       *ecdsa.PrivateKey
	challenge string // host:port where it asks for http-01

	mu     sync.Mutex
	thumb  string // of the account's key
	valid  bool
	issued []byte // PEM
	asked  int
}

func newACME(t *testing.T, challenge string) *acmeCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	ca := &acmeCA{t: t, cert: cert, key: key, challenge: challenge}
	ca.Server = httptest.NewTLSServer(ca)
	t.Cleanup(ca.Close)
	return ca
}

const acmeToken = "token-of-the-one-challenge"

func (ca *acmeCA) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	w.Header().Set("Replay-Nonce", fmt.Sprint(time.Now().UnixNano()))
	var jws struct{ Protected, Payload string }
	var header struct {
		JWK json.RawMessage `json:"jwk"`
	}
	var payload []byte
	if r.Method == http.MethodPost {
		json.NewDecoder(r.Body).Decode(&jws)
		b, _ := base64.RawURLEncoding.DecodeString(jws.Protected)
		json.Unmarshal(b, &header)
		payload, _ = base64.RawURLEncoding.DecodeString(jws.Payload)
	}
	answer := func(status int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(v)
	}
	status := map[bool]string{false: "pending", true: "valid"}[ca.valid]
	challenge := map[string]any{"type": "http-01", "url": ca.URL + "/challenge", "token": acmeToken, "status": status}
	order := map[string]any{"status": map[bool]string{false: "pending", true: "ready"}[ca.valid],
		"identifiers": []any{map[string]string{"type": "dns", "value": "relay.test"}}, "authorizations": []string{ca.URL + "/authz"}, "finalize": ca.URL + "/finalize"}
	if ca.issued != nil {
		order["status"], order["certificate"] = "valid", ca.URL+"/cert"
	}
	switch r.URL.Path {
	case "/directory":
		answer(200, map[string]any{"newNonce": ca.URL + "/nonce", "newAccount": ca.URL + "/account", "newOrder": ca.URL + "/order", "revokeCert": ca.URL + "/revoke", "keyChange": ca.URL + "/key", "meta": map[string]any{}})
	case "/nonce":
	case "/account":
		// The thumbprint of RFC 7638; the members are in order already or made so.
		var jwk struct{ Crv, Kty, X, Y string }
		json.Unmarshal(header.JWK, &jwk)
		sum := sha256.Sum256(fmt.Appendf(nil, `{"crv":%q,"kty":%q,"x":%q,"y":%q}`, jwk.Crv, jwk.Kty, jwk.X, jwk.Y))
		ca.thumb = base64.RawURLEncoding.EncodeToString(sum[:])
		w.Header().Set("Location", ca.URL+"/account/1")
		answer(201, map[string]any{"status": "valid"})
	case "/order":
		w.Header().Set("Location", ca.URL+"/order/1")
		answer(201, order)
	case "/order/1":
		answer(200, order)
	case "/authz":
		answer(200, map[string]any{"status": status, "identifier": map[string]string{"type": "dns", "value": "relay.test"}, "challenges": []any{challenge}})
	case "/challenge":
		req, _ := http.NewRequest("GET", "http://"+ca.challenge+"/.well-known/acme-challenge/"+acmeToken, nil)
		req.Host = "relay.test"
		if resp, err := http.DefaultClient.Do(req); err == nil {
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			ca.valid = strings.TrimSpace(string(b)) == acmeToken+"."+ca.thumb
			ca.asked++
		}
		answer(200, challenge)
	case "/finalize":
		var f struct{ CSR string }
		json.Unmarshal(payload, &f)
		b, _ := base64.RawURLEncoding.DecodeString(f.CSR)
		csr, err := x509.ParseCertificateRequest(b)
		if err != nil || !ca.valid {
			answer(403, map[string]any{"type": "urn:ietf:params:acme:error:badCSR", "detail": fmt.Sprint(err)})
			return
		}
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: csr.DNSNames, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * 90 * time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, csr.PublicKey, ca.key)
		if err != nil {
			answer(500, map[string]any{"detail": err.Error()})
			return
		}
		ca.issued = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		order["status"], order["certificate"] = "valid", ca.URL+"/cert"
		w.Header().Set("Location", ca.URL+"/order/1")
		answer(200, order)
	case "/cert":
		w.Header().Set("Content-Type", "application/pem-certificate-chain")
		w.Write(ca.issued)
	default:
		answer(404, map[string]any{"detail": r.URL.Path})
	}
}

// With a domain the relay gets its certificate by itself, speaks HTTP/2 and
// wss, and sends plain HTTP there.
func TestDomain(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port80 := ln.Addr().(*net.TCPAddr).Port
	ln.Close()
	ca := newACME(t, fmt.Sprintf("127.0.0.1:%d", port80))
	trustCA := x509.NewCertPool()
	trustCA.AddCert(ca.Certificate())
	s := start(t, func(c *server.Config) {
		c.Domain, c.Email = "relay.test", "owner@relay.test"
		c.ACME = server.ACME{Directory: ca.URL + "/directory", Roots: trustCA, HTTPPort: port80}
	})
	if s.URL() != "https://relay.test" {
		t.Errorf("URL = %s", s.URL())
	}
	addr := strings.TrimPrefix(localURL(t, s), "http://")
	trust := x509.NewCertPool()
	trust.AddCert(ca.cert)
	var conn *tls.Conn
	for deadline := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		if conn, err = tls.Dial("tcp", addr, &tls.Config{ServerName: "relay.test", RootCAs: trust, NextProtos: []string{"h2", "http/1.1"}}); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no certificate: %v", err)
		}
	}
	if p := conn.ConnectionState().NegotiatedProtocol; p != "h2" {
		t.Errorf("negotiated %q, want h2", p)
	}
	conn.Close()
	if ca.asked == 0 {
		t.Error("the challenge was not asked for")
	}

	tr := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{ServerName: "relay.test", RootCAs: trust}}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Do(request(t, "GET", "https://"+addr+"/weft/config.json", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var c config
	if err := json.NewDecoder(resp.Body).Decode(&c); err != nil || resp.ProtoMajor != 2 || c.Relays[0] != "/dns4/relay.test/tcp/443/tls/ws/p2p/"+s.ID().String() {
		t.Errorf("config over HTTP/%d: %+v, %v", resp.ProtoMajor, c, err)
	}

	plain, _ := do(t, request(t, "GET", fmt.Sprintf("http://127.0.0.1:%d/a?b=c", port80), nil))
	if plain.StatusCode != 301 || plain.Header.Get("Location") != "https://relay.test/a?b=c" {
		t.Errorf("plain HTTP: %s to %s", plain.Status, plain.Header.Get("Location"))
	}
}
