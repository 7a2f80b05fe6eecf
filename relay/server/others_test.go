package server_test

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/webfabric/weft/relay/server"
	weftconfig "github.com/webfabric/weft/shared/config"
)

// relaysOf are the relays that s tells visitors of.
func relaysOf(t testing.TB, s *server.Server) []peer.ID {
	t.Helper()
	resp, err := http.Get(s.URL() + "/weft/config.json")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	c, err := weftconfig.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	var ids []peer.ID
	for _, info := range c.RelayInfos {
		ids = append(ids, info.ID)
	}
	return ids
}

// TestOthers has a relay name others, by URL and by multiaddr, itself among
// them; what it was told of one stays when that is away, and when it starts anew.
func TestOthers(t *testing.T) {
	a, b := start(t, nil), start(t, nil)
	var addr string
	for _, m := range b.Addrs() {
		if strings.Contains(m.String(), "/ws/") {
			addr = m.String()
		}
	}
	first := server.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"}
	s, err := server.New(context1(t), first)
	if err != nil {
		t.Fatal(err)
	}
	url := s.URL()
	if err := s.Close(context1(t)); err != nil {
		t.Fatal(err)
	}
	again := func(c *server.Config) {
		c.Dir, c.Listen = first.Dir, strings.TrimPrefix(strings.Replace(url, "localhost", "127.0.0.1", 1), "http://")
		c.Relays = []string{a.URL() + "/", url, addr}
	}
	s = start(t, again)
	want := []peer.ID{s.ID(), b.ID(), a.ID()}
	waitFor(t, "the others are named", func() bool { return slices.Equal(relaysOf(t, s), want) })
	a.Close(context1(t))
	if got := relaysOf(t, s); !slices.Equal(got, want) {
		t.Errorf("relays = %v; want %v", got, want)
	}
	s.Close(context1(t))
	s = start(t, again)
	if got := relaysOf(t, s); !slices.Equal(got, want) {
		t.Errorf("after it was started anew, relays = %v; want %v", got, want)
	}
}

func TestOthersRefused(t *testing.T) {
	for _, name := range []string{"", "relay.example", "ftp://relay.example", "https://relay.example/x", "/ip4/192.0.2.1/tcp/1/ws", "/ip4/192.0.2.1/tcp/1/p2p/12D3KooWGzxzKZYveHXtpG6AsrUJBcWxHBFS2HsEoGTxrMLvKXtf", "/x"} {
		s, err := server.New(context1(t), server.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", Relays: []string{name}})
		if err == nil {
			t.Errorf("a relay named %q is accepted", name)
			s.Close(context.Background())
		}
	}
}
