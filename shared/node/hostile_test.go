//go:build !js

package node_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/boxo/bitswap/message"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/webfabric/weft/shared/content"
	"github.com/webfabric/weft/shared/gateway"
	"github.com/webfabric/weft/shared/node"
)

// slowStreams is how many streams the slow peer keeps open.
const slowStreams = 200

// maxHeld is what one hostile peer may have the node hold, in bytes: the
// messages that it never ends, those being decoded, and the test's own part.
const maxHeld = 128 << 20

// newOpenHost makes a host without a resource manager, as the tab's is.
func newOpenHost(t *testing.T) host.Host {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay(), libp2p.ResourceManager(&network.NullResourceManager{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// A writer opens a stream, writes to it, and returns it.
type writer func(...[]byte) (network.Stream, error)

// newHostile makes a peer that answers the first want it hears of with attack.
func newHostile(t *testing.T, attack func(ctx context.Context, write writer)) host.Host {
	t.Helper()
	h := newOpenHost(t)
	ctx, cancel := context.WithCancel(context.Background())
	var once sync.Once
	var wg sync.WaitGroup
	h.SetStreamHandler("/ipfs/bitswap/1.2.0", func(s network.Stream) {
		once.Do(func() {
			wg.Go(func() {
				attack(ctx, func(bs ...[]byte) (network.Stream, error) {
					out, err := h.NewStream(ctx, s.Conn().RemotePeer(), "/ipfs/bitswap/1.2.0")
					for _, b := range bs {
						if err == nil {
							_, err = out.Write(b)
						}
					}
					return out, err
				})
			})
		})
		io.Copy(io.Discard, s)
	})
	t.Cleanup(func() {
		cancel()
		h.Close()
		wg.Wait()
	})
	return h
}

// framed returns a message of bs as it goes over the wire.
func framed(bs ...blocks.Block) []byte {
	m := message.New(false)
	for _, b := range bs {
		m.AddBlock(b)
	}
	var buf bytes.Buffer
	if err := m.ToNetV1(&buf); err != nil {
		panic(err) // a Buffer takes everything
	}
	return buf.Bytes()
}

// prefixed returns b after a message length, which may be another than its own.
func prefixed(length int, b []byte) []byte {
	return append(binary.AppendUvarint(nil, uint64(length)), b...)
}

// TestHostileStreams: whatever a peer writes, the fetch ends with an error that
// says what happened, the memory held is bounded, and nothing is stored.
func TestHostileStreams(t *testing.T) {
	want := newBlock(t, 100_000)
	noise := newBlock(t, 1<<20).RawData()
	for _, tt := range []struct {
		name    string
		err     error
		attack  func(ctx context.Context, t *testing.T, write writer)
		streams int // that the node has to have open at once
	}{
		{name: "a message cut short", err: gateway.ErrNoProvider, attack: func(ctx context.Context, _ *testing.T, write writer) {
			whole := framed(want)
			if s, err := write(whole[:len(whole)/2]); err == nil {
				s.Close()
			}
		}},
		{name: "a length over the cap", err: gateway.ErrNoProvider, attack: func(ctx context.Context, t *testing.T, write writer) {
			for _, length := range []int{network.MessageSizeMax + 1, 1 << 30, math.MaxInt64} {
				s, err := write(prefixed(length, nil))
				for err == nil { // until the node ends the stream
					_, err = s.Write(noise)
				}
			}
		}},
		{name: "endless noise", err: gateway.ErrNoProvider, attack: func(ctx context.Context, _ *testing.T, write writer) {
			for ctx.Err() == nil {
				s, err := write(noise)
				for err == nil {
					_, err = s.Write(noise)
				}
			}
		}},
		{name: "endless messages of noise", err: gateway.ErrNoProvider, attack: func(ctx context.Context, _ *testing.T, write writer) {
			for ctx.Err() == nil {
				if s, err := write(prefixed(len(noise), noise)); err == nil {
					s.Close()
				}
			}
		}},
		{name: "endless blocks that nobody asked for", err: content.ErrBadBlock, attack: func(ctx context.Context, _ *testing.T, write writer) {
			s, err := write()
			for i := uint64(0); err == nil && ctx.Err() == nil; i++ {
				data := binary.BigEndian.AppendUint64(noise[:len(noise):len(noise)], i)
				_, err = s.Write(framed(blocks.NewBlock(data)))
			}
		}},
		{name: "many small blocks that nobody asked for", err: content.ErrBadBlock, attack: func(ctx context.Context, _ *testing.T, write writer) {
			var many []blocks.Block
			for i := range uint32(50_000) {
				many = append(many, blocks.NewBlock(binary.BigEndian.AppendUint32(nil, i)))
			}
			whole := framed(many...)
			s, err := write()
			for err == nil && ctx.Err() == nil {
				_, err = s.Write(whole)
			}
		}},
		{name: "messages that never end", err: gateway.ErrNoProvider, streams: slowStreams, attack: func(ctx context.Context, t *testing.T, write writer) {
			var open []network.Stream
			for range slowStreams {
				s, err := write(prefixed(network.MessageSizeMax, nil))
				if err != nil {
					t.Errorf("a stream could not be opened: %v", err)
					return
				}
				open = append(open, s)
			}
			for ctx.Err() == nil { // drip
				for _, s := range open {
					if _, err := s.Write([]byte{0}); err != nil {
						return
					}
				}
				select {
				case <-time.After(100 * time.Millisecond):
				case <-ctx.Done():
				}
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := heap()
			hostile := newHostile(t, func(ctx context.Context, write writer) { tt.attack(ctx, t, write) })
			var reports atomic.Int64
			cfg := node.Config{
				Host: newOpenHost(t), Relays: []peer.AddrInfo{info(hostile)}, ProviderTimeout: 2 * time.Second,
				OnBadBlock: func(peer.ID, cid.Cid) { reports.Add(1) },
			}
			if tt.err == content.ErrBadBlock {
				cfg.ProviderTimeout = time.Hour // what ends the fetch is what came
			}
			n, store := newNode(t, cfg)
			online(t, n)
			begun := time.Now()
			_, err := n.Blocks().GetBlock(t.Context(), want.Cid())
			if !errors.Is(err, tt.err) {
				t.Errorf("GetBlock = %v, want %v", err, tt.err)
			}
			waitFor(t, "the streams are open", func() bool { return incoming(n.Host()) >= tt.streams })
			if got := heap(); got > before+maxHeld {
				t.Errorf("%d MiB held, at most %d", (got-before)>>20, maxHeld>>20)
			}
			keys, err := store.AllKeysChan(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for c := range keys {
				t.Errorf("%s was stored", c)
			}
			if got, most := reports.Load(), int64(time.Since(begun)/time.Second)+2; got > most || got == 0 != (tt.err != content.ErrBadBlock) {
				t.Errorf("%d reports of bad blocks", got)
			}

			// The node lives on: an honest peer beside the hostile is enough.
			honest, _ := newNode(t, node.Config{})
			put(t, honest, want)
			waitFor(t, "the block comes from an honest peer", func() bool {
				if err := n.Host().Connect(t.Context(), info(honest.Host())); err != nil {
					return false
				}
				got, err := n.Blocks().GetBlock(t.Context(), want.Cid())
				return err == nil && bytes.Equal(got.RawData(), want.RawData())
			})
		})
	}
}

// incoming counts the Bitswap streams that others opened to h.
func incoming(h host.Host) (count int) {
	for _, c := range h.Network().Conns() {
		for _, s := range c.GetStreams() {
			if s.Stat().Direction == network.DirInbound && s.Protocol() == "/ipfs/bitswap/1.2.0" {
				count++
			}
		}
	}
	return count
}

// heap is what is in use after a collection, in bytes.
func heap() uint64 {
	runtime.GC() // what pools hold goes with the second
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestSlowBlock: a block that is longer on its way than a fetch waits for a
// silent peer still comes; a peer that says a little now and then is silent.
func TestSlowBlock(t *testing.T) {
	want := newBlock(t, 1<<20)
	const silence = 2 * time.Second
	for _, tt := range []struct {
		name  string
		piece int
		err   error
	}{
		{name: "a slow line", piece: 32 << 10},
		{name: "a little now and then", piece: 100, err: gateway.ErrNoProvider},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHostile(t, func(ctx context.Context, write writer) {
				s, err := write()
				for rest := framed(want); err == nil && len(rest) > 0; {
					n := min(tt.piece, len(rest))
					_, err = s.Write(rest[:n])
					rest = rest[n:]
					select {
					case <-time.After(silence / 8): // so in all twice as long as the silence, or longer
					case <-ctx.Done():
						return
					}
				}
				if err == nil {
					s.Close()
				}
			})
			n, _ := newNode(t, node.Config{Host: newOpenHost(t), Relays: []peer.AddrInfo{info(h)}, ProviderTimeout: silence})
			online(t, n)
			_, err := n.Blocks().GetBlock(t.Context(), want.Cid())
			if !errors.Is(err, tt.err) {
				t.Errorf("GetBlock = %v, want %v", err, tt.err)
			}
		})
	}
}
