// Command corpus writes shared/gateway/corpus as JSON, its blocks and what the
// node's gateway answers: web/test holds boot.js to the same answers.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"

	"github.com/webfabric/weft/shared/gateway"
	"github.com/webfabric/weft/shared/gateway/corpus"
)

// document is what is written.
type document struct {
	// Blocks are by the hexadecimal key that blocks.js gives a CID.
	Blocks map[string][]byte `json:"blocks"`
	// Headers are those that are compared, by status.
	Headers map[int][]string `json:"headers"`
	Asked   []asked          `json:"asked"`
}

// asked is a request and its answer.
type asked struct {
	Name   string            `json:"name"`
	Path   string            `json:"path"`
	Method string            `json:"method"`
	Header map[string]string `json:"header"`
	Later  bool              `json:"later"`
	Any    bool              `json:"any"`
	Answer corpus.Answer     `json:"answer"`
}

func main() {
	mutants := flag.Int("mutants", 2000, "how many blocks with changed bytes to add")
	seed := flag.Uint64("seed", 1, "of the changes")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: corpus [-mutants N] [-seed N] FILE")
		os.Exit(2)
	}
	if err := run(context.Background(), flag.Arg(0), *seed, *mutants); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, path string, seed uint64, mutants int) error {
	bs := blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
	cases, err := corpus.Build(ctx, bs)
	if err != nil {
		return err
	}
	more, err := corpus.Mutate(ctx, bs, seed, mutants)
	if err != nil {
		return err
	}
	g := gateway.New(gateway.FromBlockService(blockservice.New(bs, nil)))
	defer g.Close()
	doc := document{Blocks: map[string][]byte{}, Headers: corpus.Headers}
	for _, c := range append(cases, more...) {
		for _, r := range c.Of() {
			doc.Asked = append(doc.Asked, asked{c.Name, c.Path, r.Method, r.Header, c.Later, c.Status == corpus.Any, answer(ctx, g, c, r)})
		}
	}
	keys, err := bs.AllKeysChan(ctx)
	if err != nil {
		return err
	}
	for c := range keys {
		if err := doc.add(ctx, bs, c); err != nil {
			return err
		}
	}
	out, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, out, 0o644)
}

func (d *document) add(ctx context.Context, bs blockstore.Blockstore, c cid.Cid) error {
	b, err := bs.Get(ctx, c)
	if err != nil {
		return err
	}
	d.Blocks[c.Hash().HexString()] = append([]byte{}, b.RawData()...) // never null
	return nil
}

// answer is what the gateway answers to a page's fetch.
func answer(ctx context.Context, g *gateway.Gateway, c corpus.Case, r corpus.Request) corpus.Answer {
	path, query, _ := strings.Cut(c.Path, "?")
	header := map[string][]string{"Sec-Fetch-Mode": {"cors"}, "Sec-Fetch-Dest": {"empty"}, "Accept": {"*/*"}}
	for k, v := range r.Header {
		header[k] = []string{v}
	}
	resp := g.Serve(ctx, gateway.Request{Method: r.Method, Path: path, RawQuery: query, Header: header})
	if resp.Body == nil {
		return corpus.NewAnswer(resp.Status, resp.Header, nil)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return corpus.Broken()
	}
	return corpus.NewAnswer(resp.Status, resp.Header, body)
}
