//go:build e2e

package e2e

import (
	"context"
	"testing"

	"github.com/ipfs/boxo/bitswap/message"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-msgio"

	"github.com/webfabric/weft/shared/bcin"
)

// lie has a native peer answer every want with something else.
func (n *native) lie() {
	n.host.SetStreamHandler("/ipfs/bitswap/1.2.0", func(s network.Stream) {
		defer s.Close()
		from := s.Conn().RemotePeer()
		r := msgio.NewVarintReaderSize(s, network.MessageSizeMax)
		for {
			in, _, err := message.FromMsgReader(r)
			if err != nil {
				return
			}
			out := message.New(false)
			for _, e := range in.Wantlist() {
				switch {
				case e.Cancel:
				case e.WantType == 1: // WANT_HAVE
					out.AddHave(e.Cid)
				default:
					out.AddBlock(blocks.NewBlock([]byte("not " + e.Cid.String())))
				}
			}
			if out.Empty() {
				continue
			}
			reply, err := n.host.NewStream(context.Background(), from, "/ipfs/bitswap/1.2.0")
			if err != nil {
				return
			}
			if err := out.ToNetV1(reply); err != nil {
				reply.Reset()
				return
			}
			reply.Close()
		}
	})
}

// meet has a native peer announce itself, and that it holds roots.
func (n *native) meet(r *relay, roots ...cid.Cid) {
	n.t.Helper()
	c := bcin.New(bcin.Config{
		Host: n.host, Key: n.host.Peerstore().PrivKey(n.host.ID()), Origin: r.url,
		Addrs: n.node.RelayAddrs, Holds: func() []cid.Cid { return roots },
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx, r.server.ID()) }()
	n.t.Cleanup(func() { cancel(); <-done })
}

// TestLyingVisitor: a visitor that says it has what is wanted, and sends
// something else, is noticed, named and shut out; the bytes come from elsewhere.
func TestLyingVisitor(t *testing.T) {
	t.Parallel()
	r := startRelay(t)
	data := noise(411, 6<<20)
	root := r.publishSite(site{"data.bin": data})
	n := r.native(t)
	n.lie()
	n.meet(r, root)
	v := newVisitor(t)
	p := r.joined(v)
	liar := n.host.ID()
	meets(p, liar.String())
	eval[bool](p, `() => { globalThis.named = []; node.on("error", (e) => { if (e.code === "bad_block") named.push(e.peerId); }); return true; }`)
	if got := eval[string](p, sumOf, root.String(), "data.bin"); got != sum(data) {
		t.Errorf("other bytes came")
	}
	until[bool](p, "the page is told who lied", `(id) => named.includes(id)`, liar.String())
	until[bool](p, "the liar is shut out", `async (id) => {
		const { liars, peers } = await node.status();
		return liars.includes(id) && !peers.some((p) => p.id === id);
	}`, liar.String())
	if s := p.status(); s.Bytes.FromPeers != 0 {
		t.Errorf("%d bytes of a liar's count", s.Bytes.FromPeers)
	}
	until[bool](v.open(r.url+"/"), "the page names the liar", `(id) => [...document.querySelectorAll("#others .liar code")].some((c) => c.title === id)`, liar.String())
}
