package client

import (
	"errors"
	"strings"
	"testing"

	"github.com/webfabric/weft/shared/config"
)

const id = "12D3KooWGueVZwC8UccjoDU6Rs5HMi57gmRPAh9r6fFaXGUuaRUD"

const other = "12D3KooWM76ru1b3Uciq33zaaxbtBhnbUzeqK1tzJYPMJ2deKxD4"

var configs = []struct {
	name, in string
	addrs    int
	err      error
}{
	{name: "whole", in: `{"version":1,"peerId":"` + id + `","relays":["/dns4/localhost/tcp/8787/ws/p2p/` + id + `"],"swarm":["/ip4/127.0.0.1/tcp/4001/p2p/` + id + `"]}`, addrs: 2},
	{name: "another peer's address", in: `{"version":1,"peerId":"` + id + `","swarm":["/ip4/127.0.0.1/tcp/4001/p2p/` + id + `","/ip4/127.0.0.1/tcp/4001/p2p/` + other + `"]}`, addrs: 1},
	{name: "an unknown address", in: `{"version":1,"peerId":"` + id + `","swarm":["/ip4/127.0.0.1/tcp/4001/p2p/` + id + `","/teleport/1"]}`, addrs: 1},
	{name: "no address", in: `{"version":1,"peerId":"` + id + `"}`, err: ErrConfig},
	{name: "a peer ID alone", in: `{"version":1,"peerId":"` + id + `","swarm":["/p2p/` + id + `"]}`, err: ErrConfig},
	{name: "no peer ID", in: `{"version":1,"swarm":["/ip4/127.0.0.1/tcp/4001"]}`, err: ErrConfig},
	{name: "another version", in: `{"version":2,"peerId":"` + id + `"}`, err: ErrConfig},
	{name: "not JSON", in: `<!doctype html>`, err: ErrConfig},
	{name: "too large", in: strings.Repeat(" ", config.MaxSize+1), err: ErrConfig},
}

func TestParseConfig(t *testing.T) {
	for _, tt := range configs {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseConfig([]byte(tt.in))
			if !errors.Is(err, tt.err) || len(got.Addrs) != tt.addrs {
				t.Errorf("ParseConfig = %+v, %v; want %d addresses, %v", got, err, tt.addrs, tt.err)
			}
		})
	}
}
