package main

import (
	"context"
	"fmt"
	"testing/fstest"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dsync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p"
	routinghelpers "github.com/libp2p/go-libp2p-routing-helpers"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"

	"github.com/webfabric/weft/shared/content"
)

// fixtureSize is the length of data.bin, in bytes: some chunks and a part.
const fixtureSize = 5<<20 + 12345

// fixtureByte is byte i of data.bin; wasm's test computes the same.
func fixtureByte(i int) byte { return byte(i*i>>8 ^ i>>16) }

// fixture is a native peer that serves one directory.
type fixture struct {
	host host.Host
	swap *bitswap.Bitswap
	addr string
	root cid.Cid
}

func newFixture(ctx context.Context) (*fixture, error) {
	data := make([]byte, fixtureSize)
	for i := range data {
		data[i] = fixtureByte(i)
	}
	store := blockstore.NewBlockstore(dsync.MutexWrap(datastore.NewMapDatastore()))
	dag := merkledag.NewDAGService(blockservice.New(store, nil))
	stat, err := content.Add(ctx, dag, fstest.MapFS{
		"data.bin":   {Data: data},
		"index.html": {Data: []byte("<!doctype html><title>fixture</title>")},
		"app.js":     {Data: []byte("export const answer = 42;\n")},
	}, ".")
	if err != nil {
		return nil, fmt.Errorf("fixture: %w", err)
	}
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0/ws"), libp2p.DisableRelay(), libp2p.ResourceManager(&network.NullResourceManager{}))
	if err != nil {
		return nil, fmt.Errorf("fixture: %w", err)
	}
	return &fixture{
		host: h,
		swap: bitswap.New(ctx, bsnet.NewFromIpfsHost(h), routinghelpers.Null{}, store),
		addr: fmt.Sprintf("%s/p2p/%s", h.Addrs()[0], h.ID()),
		root: stat.Root,
	}, nil
}

// Close stops the peer.
func (f *fixture) Close() {
	f.swap.Close()
	f.host.Close()
}
