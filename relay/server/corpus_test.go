package server_test

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/boxo/blockservice"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/webfabric/weft/relay/server"
	"github.com/webfabric/weft/shared/gateway"
	"github.com/webfabric/weft/shared/gateway/corpus"
)

// TestCorpus holds the relay's gateway and the node's to the same answers.
func TestCorpus(t *testing.T) {
	n := newNode(t)
	cases, err := corpus.Build(context1(t), n.bs.Blockstore())
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, func(c *server.Config) { c.Retrieval = 5 * time.Second })
	n.connect(t, s, ma.P_TCP)
	g := gateway.New(gateway.FromBlockService(blockservice.New(n.bs.Blockstore(), nil)))
	t.Cleanup(func() { g.Close() })
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			for i, r := range c.Of() {
				req := request(t, r.Method, s.URL()+c.Path, nil, "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty", "Accept: */*")
				for k, v := range r.Header {
					req.Header.Set(k, v)
				}
				var relay corpus.Answer
				if c.Relay != corpus.Different {
					resp, data := do(t, req)
					relay = corpus.NewAnswer(resp.StatusCode, resp.Header, []byte(data))
				}

				path, query, _ := strings.Cut(c.Path, "?")
				mine := g.Serve(t.Context(), gateway.Request{Method: r.Method, Path: path, RawQuery: query, Header: req.Header})
				body, bodyErr := []byte(nil), error(nil)
				if mine.Body != nil {
					body, bodyErr = io.ReadAll(mine.Body)
					mine.Body.Close()
				}
				node := corpus.NewAnswer(mine.Status, mine.Header, body)
				name := fmt.Sprint(r.Method, " ", c.Path, " ", r.Header)
				if bodyErr != nil {
					node = corpus.Broken()
				}
				if i == 0 && node.Status != c.Status {
					t.Errorf("%s: the node answers %d, want %d", name, node.Status, c.Status)
				}
				switch {
				case c.Relay == 0:
					if d := node.Diff(relay); d != "" {
						t.Errorf("%s: the node gives %s as the relay", name, d)
					}
				case c.Relay == corpus.Different:
				case relay.Status != c.Relay:
					t.Errorf("%s: the relay answers %d, want %d", name, relay.Status, c.Relay)
				}
			}
		})
	}
}
