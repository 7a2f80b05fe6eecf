package server_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/coder/websocket"
	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	circuitclient "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/webfabric/weft/relay/auth"
	"github.com/webfabric/weft/relay/server"
	"github.com/webfabric/weft/shared/content"
	"github.com/webfabric/weft/shared/identity"
	"github.com/webfabric/weft/shared/owner"
)

// limit is how long a test waits for what should come at once.
const limit = 60 * time.Second

var pages = fstest.MapFS{
	"index.html":   {Data: []byte("<!doctype html><script type=importmap>{}</script><p>weft")},
	"sw.js":        {Data: []byte("// worker\n" + strings.Repeat("self;\n", 400))},
	"ui/a.css":     {Data: []byte("p{}")},
	"node.wasm":    {Data: []byte("\x00asm\x01\x00\x00\x00")},
	"node.wasm.br": {Data: []byte("\x0b\x03\x80\x00asm\x01\x00\x00\x00\x03")},
}

var site = fstest.MapFS{
	"index.html":  {Data: []byte("<!doctype html><title>site</title>")},
	"app.js":      {Data: []byte("export default 1;\n")},
	"data.bin":    {Data: bytes.Repeat([]byte("0123456789"), 200_000)},
	"pic.svg":     {Data: []byte(`<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>`)},
	"page.xhtml":  {Data: []byte(`<html xmlns="http://www.w3.org/1999/xhtml"/>`)},
	"sub/x.txt":   {Data: []byte("text")},
	"noext":       {Data: []byte("<!doctype html><script>1</script>")},
	"empty/.keep": {Data: nil},
}

func context1(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

func start(t testing.TB, change func(*server.Config)) *server.Server {
	t.Helper()
	cfg := server.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", Assets: pages}
	if change != nil {
		change(&cfg)
	}
	s, err := server.New(context1(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// node is a native peer with a memory of its own.
type node struct {
	host.Host
	key crypto.PrivKey
	bs  blockservice.BlockService
}

func newNode(t testing.TB) *node {
	t.Helper()
	key, err := identity.New()
	if err != nil {
		t.Fatal(err)
	}
	h, err := libp2p.New(libp2p.Identity(key), libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableMetrics(), libp2p.ResourceManager(&network.NullResourceManager{}))
	if err != nil {
		t.Fatal(err)
	}
	store := blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
	ex := bitswap.New(context.Background(), bsnet.NewFromIpfsHost(h), nil, store)
	t.Cleanup(func() { ex.Close(); h.Close() })
	return &node{Host: h, key: key, bs: blockservice.New(store, ex)}
}

func (n *node) add(t testing.TB, fsys fs.FS) cid.Cid {
	t.Helper()
	st, err := content.Add(context1(t), merkledag.NewDAGService(n.bs), fsys, ".")
	if err != nil {
		t.Fatal(err)
	}
	return st.Root
}

func (n *node) addrs() []string {
	var out []string
	for _, a := range n.Addrs() {
		out = append(out, a.String())
	}
	return out
}

// connect dials s over the transport that has the named protocol.
func (n *node) connect(t testing.TB, s *server.Server, proto int) {
	t.Helper()
	info := peer.AddrInfo{ID: s.ID()}
	for _, a := range s.Host().Addrs() {
		_, wsErr := a.ValueForProtocol(ma.P_WS)
		_, err := a.ValueForProtocol(proto)
		if err == nil && (proto != ma.P_TCP || wsErr != nil) {
			info.Addrs = append(info.Addrs, a)
		}
	}
	if len(info.Addrs) == 0 {
		t.Fatalf("no address with protocol %d in %v", proto, s.Addrs())
	}
	if err := n.Connect(context1(t), info); err != nil {
		t.Fatal(err)
	}
}

func (n *node) get(t testing.TB, root cid.Cid, path ...string) []byte {
	t.Helper()
	ctx := context1(t)
	get := blockservice.NewSession(ctx, n.bs)
	target, err := content.Resolve(ctx, get, root, path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := content.Open(ctx, get, target)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// request makes a request; headers are "Name: value".
func request(t testing.TB, method, url string, body []byte, headers ...string) *http.Request {
	t.Helper()
	var rd io.Reader
	if body != nil {
		rd = bytes.NewReader(body)
	}
	r, err := http.NewRequestWithContext(context1(t), method, url, rd)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		k, v, _ := strings.Cut(h, ": ")
		r.Header.Add(k, v)
	}
	return r
}

// client follows no redirect and decodes nothing.
var client = &http.Client{
	Transport:     &http.Transport{DisableCompression: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func do(t testing.TB, r *http.Request) (*http.Response, string) {
	t.Helper()
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

// publish has s keep root, signed by n.
func publish(t testing.TB, s *server.Server, n *node, root cid.Cid, addrs []string) (server.Published, error) {
	t.Helper()
	body, err := json.Marshal(map[string]any{"root": root.String(), "name": "site", "addrs": addrs})
	if err != nil {
		t.Fatal(err)
	}
	r := request(t, "POST", s.URL()+"/weft/publish", body)
	if err := auth.Sign(r, body, n.key, s.ID(), time.Now()); err != nil {
		t.Fatal(err)
	}
	resp, text := do(t, r)
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/x-ndjson" {
		t.Fatalf("publish: %s %s", resp.Status, text)
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	var last struct {
		server.Published
		Error string `json:"error"`
	}
	for _, l := range lines {
		if err := json.Unmarshal([]byte(l), &last); err != nil {
			t.Fatalf("line %q: %v", l, err)
		}
	}
	if last.Error != "" {
		return server.Published{}, errors.New(last.Error)
	}
	return last.Published, nil
}

type config struct {
	PeerID string
	Relays []string
	Swarm  []string
	Owner  struct{ PeerID, Roots string }
	Demo   string
	Node   struct {
		Wasm, Exec string
		Bytes      int
	}
}

func getConfig(t testing.TB, s *server.Server, headers ...string) (config, owner.Roots) {
	t.Helper()
	return configAt(t, s.URL(), headers...)
}

func configAt(t testing.TB, base string, headers ...string) (config, owner.Roots) {
	t.Helper()
	r := request(t, "GET", base+"/weft/config.json", nil, headers...)
	if h := r.Header.Get("Host"); h != "" {
		r.Host = h
	}
	resp, text := do(t, r)
	var c config
	if err := json.Unmarshal([]byte(text), &c); err != nil || resp.StatusCode != 200 {
		t.Fatalf("config: %s %s: %v", resp.Status, text, err)
	}
	sealed, err := base64.StdEncoding.DecodeString(c.Owner.Roots)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.Decode(c.Owner.PeerID)
	if err != nil {
		t.Fatal(err)
	}
	roots, err := owner.Open(sealed, id)
	if err != nil {
		t.Fatal(err)
	}
	return c, roots
}

func TestPublish(t *testing.T) {
	n := newNode(t)
	dir := t.TempDir()
	change := func(c *server.Config) { c.Dir, c.Publishers = dir, []peer.ID{n.ID()} }
	s := start(t, change)
	root := n.add(t, site)
	_, before := getConfig(t, s)

	got, err := publish(t, s, n, root, n.addrs())
	if err != nil {
		t.Fatal(err)
	}
	if got.Cid != root.String() || got.URL != s.URL()+"/ipfs/"+root.String()+"/" && !strings.HasSuffix(got.URL, "/ipfs/"+root.String()+"/") || got.New != got.Blocks || got.Bytes < 2_000_000 {
		t.Errorf("published %+v", got)
	}
	_, after := getConfig(t, s)
	if !after.Has(root) || after.Seq <= before.Seq {
		t.Errorf("owner's roots = %v, before %v", after, before)
	}
	// Again: nothing new. An edit: only what changed, the root and the file.
	again, err := publish(t, s, n, root, n.addrs())
	if err != nil || again.New != 0 || again.Blocks != got.Blocks {
		t.Errorf("published again: %+v, %v", again, err)
	}
	edited := fstest.MapFS{}
	for k, v := range site {
		edited[k] = v
	}
	edited["app.js"] = &fstest.MapFile{Data: []byte("export default 2;\n")}
	root2 := n.add(t, edited)
	second, err := publish(t, s, n, root2, n.addrs())
	if err != nil || second.New != 2 {
		t.Errorf("published an edit: %+v, %v, want 2 new blocks", second, err)
	}

	// All of it is served without the publisher, after a restart too.
	n.Close()
	ctx := context1(t)
	if err := s.Close(ctx); err != nil {
		t.Fatal(err)
	}
	s = start(t, change)
	_, kept := getConfig(t, s)
	if !kept.Has(root) || !kept.Has(root2) || kept.Seq <= after.Seq {
		t.Errorf("roots after a restart = %v", kept)
	}
	for name, f := range site {
		if strings.HasPrefix(name, "empty/") {
			continue
		}
		resp, body := do(t, request(t, "GET", s.URL()+"/ipfs/"+root.String()+"/"+name, nil))
		if resp.StatusCode != 200 || body != string(f.Data) {
			t.Errorf("%s: %s, %d bytes, want %d", name, resp.Status, len(body), len(f.Data))
		}
	}
}

// A publisher behind a NAT cannot be dialled: it connects itself, as a tab does.
func TestPublishOverOwnConnection(t *testing.T) {
	n := newNode(t)
	s := start(t, func(c *server.Config) { c.Publishers = []peer.ID{n.ID()} })
	n.connect(t, s, ma.P_WS)
	if _, err := publish(t, s, n, n.add(t, site), nil); err != nil {
		t.Fatal(err)
	}
}

func TestPublishFails(t *testing.T) {
	n := newNode(t)
	s := start(t, func(c *server.Config) {
		c.Publishers = []peer.ID{n.ID()}
		c.Retrieval = time.Second
	})
	root := n.add(t, site)
	// Nobody there: the answer says so, and nothing is kept.
	_, err := publish(t, s, n, root, []string{"/ip4/127.0.0.1/tcp/1"})
	if err == nil || !strings.Contains(err.Error(), "no connected peer") || !strings.Contains(err.Error(), "not reached") {
		t.Errorf("publish without a source: %v", err)
	}
	_, roots := getConfig(t, s)
	if len(roots.Roots) != 0 {
		t.Errorf("roots = %v", roots)
	}
}

func TestUnpublish(t *testing.T) {
	n := newNode(t)
	s := start(t, func(c *server.Config) { c.Publishers = []peer.ID{n.ID()} })
	root := n.add(t, site)
	if _, err := publish(t, s, n, root, n.addrs()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{204, 404} {
		r := request(t, "DELETE", s.URL()+"/weft/publish/"+root.String(), nil)
		if err := auth.Sign(r, nil, n.key, s.ID(), time.Now()); err != nil {
			t.Fatal(err)
		}
		if resp, text := do(t, r); resp.StatusCode != want {
			t.Errorf("DELETE: %s %s, want %d", resp.Status, text, want)
		}
	}
	if _, roots := getConfig(t, s); roots.Has(root) {
		t.Error("an unpublished root is still the owner's")
	}
}

func TestPublishRefused(t *testing.T) {
	n, stranger := newNode(t), newNode(t)
	s := start(t, func(c *server.Config) { c.Publishers = []peer.ID{n.ID()} })
	good := []byte(`{"root":"bafkqaaa","name":"x"}`)
	tests := []struct {
		name   string
		method string
		path   string
		body   []byte
		key    crypto.PrivKey
		status int
		hint   string
	}{
		{name: "unsigned", body: good, status: 401, hint: "not signed"},
		{name: "stranger", body: good, key: stranger.key, status: 403, hint: "not allowed"},
		{name: "no JSON", body: []byte("{"), key: n.key, status: 400, hint: "JSON"},
		{name: "no CID", body: []byte(`{"root":"../x"}`), key: n.key, status: 400, hint: "../x"},
		{name: "no multiaddr", body: []byte(`{"root":"bafkqaaa","addrs":["http://x"]}`), key: n.key, status: 400, hint: "http://x"},
		{name: "large body", body: bytes.Repeat([]byte(" "), 1<<20), key: n.key, status: 413, hint: "too large"},
		{name: "GET", method: "GET", status: 405, hint: "POST"},
		{name: "DELETE unsigned", method: "DELETE", path: "/bafkqaaa", status: 401, hint: "not signed"},
		{name: "DELETE stranger", method: "DELETE", path: "/bafkqaaa", key: stranger.key, status: 403, hint: "not allowed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.method == "" {
				tt.method = "POST"
			}
			r := request(t, tt.method, s.URL()+"/weft/publish"+tt.path, tt.body, "Accept: application/json")
			if tt.key != nil {
				if err := auth.Sign(r, tt.body, tt.key, s.ID(), time.Now()); err != nil {
					t.Fatal(err)
				}
			}
			resp, text := do(t, r)
			var e struct {
				Error struct {
					Status  int
					Message string
				}
			}
			err := json.Unmarshal([]byte(text), &e)
			if resp.StatusCode != tt.status || err != nil || e.Error.Status != tt.status || !strings.Contains(e.Error.Message, tt.hint) {
				t.Errorf("%s %s (%v), want %d and %q", resp.Status, text, err, tt.status, tt.hint)
			}
		})
	}
	t.Run("replay", func(t *testing.T) {
		r := request(t, "DELETE", s.URL()+"/weft/publish/bafkqaaa", nil)
		if err := auth.Sign(r, nil, n.key, s.ID(), time.Now()); err != nil {
			t.Fatal(err)
		}
		for _, want := range []int{404, 401} {
			if resp, text := do(t, r); resp.StatusCode != want {
				t.Errorf("%s %s, want %d", resp.Status, text, want)
			}
		}
	})
}

// Blocks come by every transport.
func TestBitswap(t *testing.T) {
	s := start(t, func(c *server.Config) { c.Demo = site })
	for _, tt := range []struct {
		name  string
		proto int
	}{{"tcp", ma.P_TCP}, {"quic", ma.P_QUIC_V1}, {"ws", ma.P_WS}} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(t)
			n.connect(t, s, tt.proto)
			if got := n.get(t, s.Demo(), "data.bin"); !bytes.Equal(got, site["data.bin"].Data) {
				t.Errorf("got %d bytes", len(got))
			}
		})
	}
}

// A tab fetches through the relay what only another peer of the relay has.
func TestForward(t *testing.T) {
	s := start(t, nil)
	kubo, tab := newNode(t), newNode(t)
	kubo.connect(t, s, ma.P_TCP)
	tab.connect(t, s, ma.P_WS)
	if tab.Network().Connectedness(kubo.ID()) == network.Connected {
		t.Fatal("the peers are connected")
	}
	data := make([]byte, 3<<20)
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(data)
	root := kubo.add(t, fstest.MapFS{"a.bin": {Data: data}, "b.txt": {Data: []byte("b")}})
	if got := tab.get(t, root, "a.bin"); !bytes.Equal(got, data) {
		t.Errorf("got %d bytes, want %d", len(got), len(data))
	}
	// The gateway finds it too, and the relay keeps none of it.
	resp, body := do(t, request(t, "GET", s.URL()+"/ipfs/"+root.String()+"/b.txt", nil))
	if resp.StatusCode != 200 || body != "b" {
		t.Errorf("gateway: %s %q", resp.Status, body)
	}
	if _, roots := getConfig(t, s); len(roots.Roots) != 0 {
		t.Errorf("roots = %v", roots)
	}
}

// Two tabs meet by a circuit through the relay, and it is not "limited":
// Bitswap works over it.
func TestCircuit(t *testing.T) {
	s := start(t, nil)
	a, b := newNode(t), newNode(t)
	a.connect(t, s, ma.P_WS)
	b.connect(t, s, ma.P_WS)
	if _, err := circuitclient.Reserve(context1(t), a, peer.AddrInfo{ID: s.ID(), Addrs: s.Host().Addrs()}); err != nil {
		t.Fatal(err)
	}
	circuit := ma.StringCast("/p2p/" + s.ID().String() + "/p2p-circuit")
	if err := b.Connect(context1(t), peer.AddrInfo{ID: a.ID(), Addrs: []ma.Multiaddr{circuit}}); err != nil {
		t.Fatal(err)
	}
	conns := b.Network().ConnsToPeer(a.ID())
	if len(conns) == 0 || conns[0].Stat().Limited {
		t.Fatalf("conns = %v, want one without limits", conns)
	}
	root := a.add(t, fstest.MapFS{"x": {Data: bytes.Repeat([]byte("x"), 1<<20)}})
	if got := b.get(t, root, "x"); len(got) != 1<<20 {
		t.Errorf("got %d bytes", len(got))
	}
}

func TestOrigins(t *testing.T) {
	s := start(t, func(c *server.Config) { c.AllowOrigins = []string{"https://friend.example"} })
	tests := []struct {
		name, origin string
		ok           bool
	}{
		{"native", "", true},
		{"own", s.URL(), true},
		{"named", "https://friend.example", true},
		{"named, default port", "https://friend.example:443", true},
		{"named, other scheme", "http://friend.example", false},
		{"other", "https://evil.example", false},
		{"other port", "http://localhost:1", false},
		{"suffix", "https://friend.example.evil.example", false},
		{"opaque", "null", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := http.Header{}
			if tt.origin != "" {
				h.Set("Origin", tt.origin)
			}
			c, resp, err := websocket.Dial(context1(t), strings.Replace(s.URL(), "http", "ws", 1)+"/", &websocket.DialOptions{HTTPHeader: h})
			if (err == nil) != tt.ok {
				t.Errorf("upgrade: %v, want ok = %v", err, tt.ok)
			}
			if err == nil {
				c.CloseNow()
			} else if resp == nil || resp.StatusCode != 403 {
				t.Errorf("upgrade refused by %v, want 403", resp)
			}
			if tt.origin == "" {
				resp, _ := do(t, request(t, "GET", s.URL()+"/weft/config.json", nil))
				if got := resp.Header.Values("Vary"); !slices.Contains(got, "Origin") {
					t.Errorf("without an Origin: Vary %q", got)
				}
				return
			}
			for _, path := range []string{"/weft/config.json", "/ipfs/bafkqaaa", "/sw.js"} {
				for _, method := range []string{"GET", "OPTIONS"} {
					resp, _ := do(t, request(t, method, s.URL()+path, nil, "Origin: "+tt.origin))
					want := ""
					if tt.ok {
						want = tt.origin
					}
					if got := resp.Header.Get("Access-Control-Allow-Origin"); got != want || !strings.Contains(strings.Join(resp.Header.Values("Vary"), ","), "Origin") {
						t.Errorf("%s %s: Access-Control-Allow-Origin %q, want %q", method, path, got, want)
					}
				}
			}
		})
	}
	if _, err := server.New(context1(t), server.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", AllowOrigins: []string{"friend.example/x"}}); err == nil {
		t.Error("New took a malformed origin")
	}
}

func TestConfig(t *testing.T) {
	dir := t.TempDir()
	s := start(t, func(c *server.Config) { c.Demo, c.Dir = site, dir })
	port := s.URL()[strings.LastIndex(s.URL(), ":")+1:]
	tests := []struct{ host, want string }{
		{"localhost:" + port, "/dns4/localhost/tcp/" + port + "/ws"},
		{"127.0.0.1:" + port, "/ip4/127.0.0.1/tcp/" + port + "/ws"},
		{"[::1]:" + port, "/ip6/::1/tcp/" + port + "/ws"},
		{"Site.Example", "/dns4/site.example/tcp/80/ws"},
		{"a_b", "/ip4/127.0.0.1/tcp/" + port + "/ws"},
	}
	for _, tt := range tests {
		c, roots := getConfig(t, s, "Host: "+tt.host)
		if len(c.Relays) != 1 || c.Relays[0] != tt.want+"/p2p/"+s.ID().String() {
			t.Errorf("Host %s: relays %v, want %s", tt.host, c.Relays, tt.want)
		}
		if c.PeerID != s.ID().String() || c.Demo != s.Demo().String() || !roots.Has(s.Demo()) || len(c.Swarm) < 2 {
			t.Errorf("config = %+v, roots %v", c, roots)
		}
	}
	_, first := getConfig(t, s)
	if err := s.Close(context1(t)); err != nil {
		t.Fatal(err)
	}
	// A restart changes nothing in the list: the demo is the same.
	s = start(t, func(c *server.Config) { c.Demo, c.Dir = site, dir; c.PublicURL = "https://site.example" })
	c, roots := configAt(t, localURL(t, s), "Host: whatever")
	if roots.Seq != first.Seq || c.Relays[0] != "/dns4/site.example/tcp/443/tls/ws/p2p/"+s.ID().String() {
		t.Errorf("after a restart: seq %d, want %d; relays %v", roots.Seq, first.Seq, c.Relays)
	}
}

func TestStatic(t *testing.T) {
	s := start(t, nil)
	c, _ := getConfig(t, s)
	if c.Node.Bytes != len(pages["node.wasm.br"].Data) || !strings.HasPrefix(c.Node.Wasm, "/node.") {
		t.Fatalf("node = %+v", c.Node)
	}
	tests := []struct {
		path, accept   string
		status         int
		ctype, coding  string
		body           []byte
		cache, hasInCS string
	}{
		{path: "/", status: 200, ctype: "text/html", body: pages["index.html"].Data, cache: "no-cache", hasInCS: "sha256-"},
		{path: "/index.html", status: 200, ctype: "text/html", body: pages["index.html"].Data, cache: "no-cache"},
		{path: "/sw.js", status: 200, ctype: "text/javascript", body: pages["sw.js"].Data, cache: "no-cache", hasInCS: "'wasm-unsafe-eval'"},
		{path: "/sw.js", accept: "gzip, br", status: 200, ctype: "text/javascript", coding: "br", cache: "no-cache"},
		{path: "/sw.js", accept: "br;q=0", status: 200, ctype: "text/javascript", body: pages["sw.js"].Data, cache: "no-cache"},
		{path: "/ui/a.css", status: 200, ctype: "text/css", body: pages["ui/a.css"].Data, cache: "no-cache"},
		{path: c.Node.Wasm, status: 200, ctype: "application/wasm", body: pages["node.wasm"].Data, cache: "immutable"},
		{path: c.Node.Wasm, accept: "br", status: 200, ctype: "application/wasm", coding: "br", body: pages["node.wasm.br"].Data, cache: "immutable"},
		{path: "/node.0000000000000000.wasm", status: 404},
		{path: "/node.wasm", status: 404},
		{path: "/../go.mod", status: 404},
		{path: "/ui/", status: 404},
		{path: "/assets.json", status: 200, ctype: "application/json", cache: "no-cache"},
	}
	for _, tt := range tests {
		r := request(t, "GET", s.URL()+tt.path, nil)
		if tt.accept != "" {
			r.Header.Set("Accept-Encoding", tt.accept)
		}
		resp, body := do(t, r)
		h := resp.Header
		if resp.StatusCode != tt.status || h.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %s %v", tt.path, resp.Status, h)
			continue
		}
		if tt.status != 200 {
			continue
		}
		if !strings.HasPrefix(h.Get("Content-Type"), tt.ctype) || h.Get("Content-Encoding") != tt.coding || !strings.Contains(h.Get("Cache-Control"), tt.cache) || !strings.Contains(h.Get("Content-Security-Policy"), tt.hasInCS) {
			t.Errorf("%s: %v", tt.path, h)
		}
		if tt.body != nil && body != string(tt.body) {
			t.Errorf("%s: body %q", tt.path, body)
		}
		if etag := h.Get("ETag"); etag != "" {
			if resp, _ := do(t, request(t, "GET", s.URL()+tt.path, nil, "If-None-Match: "+etag)); resp.StatusCode != 304 {
				t.Errorf("%s: If-None-Match: %s", tt.path, resp.Status)
			}
		}
	}
	var list struct{ Files map[string]string }
	_, body := do(t, request(t, "GET", s.URL()+"/assets.json", nil))
	if err := json.Unmarshal([]byte(body), &list); err != nil || list.Files["/"] == "" || list.Files["/sw.js"] == "" || list.Files[c.Node.Wasm] == "" || len(list.Files) != 4 {
		t.Errorf("assets.json = %s (%v)", body, err)
	}
}

func TestHealthAndMetrics(t *testing.T) {
	s := start(t, func(c *server.Config) { c.Demo = site })
	n := newNode(t)
	n.connect(t, s, ma.P_WS)
	n.get(t, s.Demo(), "app.js")
	resp, body := do(t, request(t, "GET", s.URL()+"/healthz", nil))
	if resp.StatusCode != 200 || body != "ok\n" {
		t.Errorf("healthz: %s %q", resp.Status, body)
	}
	_, body = do(t, request(t, "GET", s.URL()+"/metrics", nil))
	for _, want := range []string{
		`weft_relay_connections 1`, `weft_relay_roots 1`, `weft_relay_publishes_total{status="done"} 0`,
		`weft_relay_websocket_upgrades_total{status="accepted"} 1`, `weft_relay_http_requests_total{status="2xx"} 1`, `go_goroutines`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if strings.Contains(body, "weft_relay_bitswap_sent_bytes_total 0\n") {
		t.Error("no bytes counted as sent by Bitswap")
	}
	if strings.Contains(body, n.ID().String()) || strings.Contains(body, s.Demo().String()) {
		t.Error("metrics name a peer or a CID")
	}
}

func TestServeDrains(t *testing.T) {
	s := start(t, func(c *server.Config) { c.Demo = site })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	// A response being read when the relay is told to end comes whole.
	resp, err := client.Do(request(t, "GET", s.URL()+"/ipfs/"+s.Demo().String()+"/data.bin", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	cancel()
	b, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Equal(b, site["data.bin"].Data) {
		t.Errorf("read %d bytes, %v", len(b), err)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("Serve: %v", err)
		}
	case <-time.After(limit):
		t.Fatal("Serve did not return")
	}
	if _, err := net.Dial("tcp", strings.TrimPrefix(s.URL(), "http://")); err == nil {
		t.Error("the listener is still open")
	}
}

func TestNewFails(t *testing.T) {
	s := start(t, nil)
	busy := strings.TrimPrefix(s.URL(), "http://")
	notDir := t.TempDir() + "/file"
	if err := os.WriteFile(notDir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		cfg  server.Config
	}{
		{"port in use", server.Config{Dir: t.TempDir(), Listen: busy}},
		{"no directory", server.Config{Dir: notDir, Listen: "127.0.0.1:0"}},
		{"bad swarm address", server.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", Swarm: []string{"x"}}},
		{"bad public URL", server.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", PublicURL: "site.example"}},
	}
	for _, tt := range tests {
		if s, err := server.New(context1(t), tt.cfg); err == nil {
			t.Errorf("%s: New succeeded", tt.name)
			s.Close(context1(t))
		}
	}
}

// localURL is where s listens, when its URL is a public one.
func localURL(t testing.TB, s *server.Server) string {
	t.Helper()
	for _, a := range s.Host().Network().ListenAddresses() {
		if _, err := a.ValueForProtocol(ma.P_WS); err != nil {
			continue
		}
		port, err := a.ValueForProtocol(ma.P_TCP)
		if err != nil {
			t.Fatal(err)
		}
		return "http://127.0.0.1:" + port
	}
	t.Fatal("no WebSocket address")
	return ""
}
