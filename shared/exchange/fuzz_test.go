//go:build !js

package exchange_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/ipfs/boxo/bitswap/message"
	pb "github.com/ipfs/boxo/bitswap/message/pb"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/webfabric/weft/shared/exchange"
)

// FuzzReceive gives an exchange, which waits for a block, any message: it does
// not panic, and hands out that block alone, whatever came before.
func FuzzReceive(f *testing.F) {
	want, other := blockOf(f, []byte("wanted")), blockOf(f, []byte("other"))
	seed := func(build func(message.BitSwapMessage)) {
		m := message.New(false)
		build(m)
		var b bytes.Buffer
		if err := m.ToNetV1(&b); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	seed(func(m message.BitSwapMessage) { m.AddBlock(want) })
	seed(func(m message.BitSwapMessage) { m.AddBlock(other); m.AddHave(want.Cid()); m.SetPendingBytes(-1) })
	seed(func(m message.BitSwapMessage) { m.AddDontHave(want.Cid()); m.AddHave(other.Cid()) })
	seed(func(m message.BitSwapMessage) {
		m.AddEntry(want.Cid(), 1, pb.Message_Wantlist_Have, true)
		m.AddEntry(other.Cid(), -1, pb.Message_Wantlist_Block, false)
		m.Cancel(blockOf(f, nil).Cid())
	})
	f.Add([]byte{})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f})

	friend := newParty(f, exchange.Serving{})
	p := newPartyWith(f, exchange.Config{Forgive: 24 * time.Hour}) // so that the friend stays
	connect(f, p, friend)
	p.knows(f, friend.ID())
	senders := []peer.ID{friend.ID(), "a stranger"}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, _, err := message.FromNet(bytes.NewReader(data))
		if err != nil {
			return
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		got, err := p.ex.GetBlocks(ctx, []cid.Cid{want.Cid()})
		if err != nil {
			t.Fatal(err)
		}
		for _, from := range senders {
			p.ex.ReceiveMessage(ctx, from, m)
		}
		sent := false
		for _, b := range m.Blocks() {
			sent = sent || b.Cid() == want.Cid()
		}
		var came blocks.Block
		if sent {
			came = <-got
		} else {
			select {
			case came = <-got:
				t.Errorf("a message without the block gave %s", came.Cid())
			default:
			}
		}
		if sent && !bytes.Equal(came.RawData(), want.RawData()) {
			t.Errorf("other bytes: %q", came.RawData())
		}
		if err := p.ex.NotifyNewBlocks(ctx, want); err != nil { // it need not be remembered
			t.Fatal(err)
		}
	})
}
