package server_test

import (
	"context"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/webfabric/weft/relay/server"
	"github.com/webfabric/weft/shared/bcin"
)

// meets has n be a node of origin until the test ends.
func (n *node) meets(t testing.TB, s *server.Server, origin string) *bcin.Client {
	t.Helper()
	c := bcin.New(bcin.Config{Host: n, Key: n.key, Origin: origin, Addrs: func() []ma.Multiaddr {
		return []ma.Multiaddr{s.Addrs()[0].Encapsulate(ma.StringCast("/p2p-circuit/webrtc"))}
	}})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.Run(ctx, s.ID())
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return c
}

// asPage connects n as a page of origin would: browsers name it at the upgrade.
func (n *node) asPage(t testing.TB, s *server.Server, origin string) {
	t.Helper()
	target, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = target.Host
		r.Out.Header.Set("Origin", origin)
	}})
	t.Cleanup(front.Close)
	a, err := manet.FromNetAddr(front.Listener.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() }) // before the front, which waits for its connections
	if err := n.Connect(context1(t), peer.AddrInfo{ID: s.ID(), Addrs: []ma.Multiaddr{a.Encapsulate(ma.StringCast("/ws"))}}); err != nil {
		t.Fatal(err)
	}
}

func waitFor(t testing.TB, what string, good func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !good(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, limit)
		}
	}
}

func metric(t testing.TB, s *server.Server, line string) bool {
	t.Helper()
	_, body := do(t, request(t, "GET", s.URL()+"/metrics", nil))
	return strings.Contains(body, line+"\n")
}

// TestRendezvous has nodes of the relay's own origin and of an allowed one
// meet, each their like.
func TestRendezvous(t *testing.T) {
	const allowed = "https://site.example"
	s := start(t, func(c *server.Config) { c.AllowOrigins = []string{allowed} })
	native, own, elsewhere, liar := newNode(t), newNode(t), newNode(t), newNode(t)
	native.connect(t, s, ma.P_TCP)
	own.asPage(t, s, s.URL())
	elsewhere.asPage(t, s, allowed)
	liar.asPage(t, s, allowed)
	a, b := native.meets(t, s, s.URL()), own.meets(t, s, s.URL())
	c := elsewhere.meets(t, s, allowed)
	waitFor(t, "the nodes of the relay's origin see each other", func() bool { return len(a.Peers()) == 1 && len(b.Peers()) == 1 })
	waitFor(t, "three records", func() bool { return metric(t, s, "weft_bcin_records 3") })

	// A page of one origin finds, and is found as, none of another.
	d := liar.meets(t, s, s.URL())
	waitFor(t, "a refused watch", func() bool {
		_, body := do(t, request(t, "GET", s.URL()+"/metrics", nil))
		return strings.Contains(body, `weft_bcin_requests_total{op="watch",status="refused"}`)
	})
	if len(d.Peers()) != 0 || len(c.Peers()) != 0 || !metric(t, s, "weft_bcin_records 3") {
		t.Errorf("peers of another origin: %v, %v", d.Peers(), c.Peers())
	}
	if ps := a.Peers(); len(ps) != 1 || ps[0].Peer != own.ID() {
		t.Errorf("peers = %v; want %s", ps, own.ID())
	}
	e := newNode(t)
	e.connect(t, s, ma.P_TCP)
	f := e.meets(t, s, allowed)
	waitFor(t, "a native node of the allowed origin is there", func() bool { return len(c.Peers()) == 1 && len(f.Peers()) == 1 })
}

// TestEgress has every byte counted where it belongs.
func TestEgress(t *testing.T) {
	s := start(t, func(c *server.Config) { c.Demo = site })
	for path, want := range map[string]string{
		"/sw.js": "static", "/ipfs/" + s.Demo().String() + "/sub/x.txt": "gateway", "/weft/config.json": "api",
	} {
		resp, body := do(t, request(t, "GET", s.URL()+path, nil))
		if resp.StatusCode != 200 {
			t.Fatalf("%s: %s", path, resp.Status)
		}
		if want != "api" && !metric(t, s, `weft_relay_egress_bytes_total{path="`+want+`"} `+strconv.Itoa(len(body))) {
			t.Errorf("%s: %d bytes are not counted under %s", path, len(body), want)
		}
	}
	n := newNode(t)
	n.connect(t, s, ma.P_WS)
	n.get(t, s.Demo(), "data.bin")
	for _, path := range []string{"api", "bitswap"} {
		if metric(t, s, `weft_relay_egress_bytes_total{path="`+path+`"} 0`) {
			t.Errorf("nothing is counted under %s", path)
		}
	}
	if !metric(t, s, `weft_relay_egress_bytes_total{path="circuit"} 0`) {
		t.Error("circuits are said to have carried something")
	}
}
