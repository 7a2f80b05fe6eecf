//go:build js && wasm

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"syscall/js"
	"time"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/ipld/merkledag"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/webfabric/weft/shared/config"
	"github.com/webfabric/weft/shared/content"
	"github.com/webfabric/weft/wasm/jsapi"
)

// call runs one operation of web/types.js.
func (a *app) call(ctx context.Context, op string, args js.Value) (any, error) {
	switch op {
	case "status":
		return a.status(ctx), nil
	case "online":
		return nil, a.node.Online(ctx)
	case "connect":
		return a.connect(ctx, args)
	case "rtc":
		// From the worker: the line to the page that hosts connections, or null.
		if args.Type() != js.TypeObject {
			return nil, fmt.Errorf("rtc: %w: want {port}", jsapi.ErrArguments)
		}
		a.visitors.swarm.Anew() // the connections of the page before end
		a.rtc.Attach(args.Get("port"))
		a.visitors.setHosted(args.Get("port").Type() == js.TypeObject)
		return nil, nil
	case "limits":
		return a.visitors.set(ctx, args)
	case "add":
		return a.add(ctx, args)
	case "pin":
		c, err := cidArg(args)
		if err != nil {
			return nil, err
		}
		return nil, a.pin(ctx, c)
	case "unpin":
		c, err := cidArg(args)
		if err != nil {
			return nil, err
		}
		defer a.visitors.pinsChanged(ctx)
		return nil, a.store.Unpin(ctx, c)
	case "pins":
		roots, err := a.store.Pins(ctx)
		var names []string
		for _, c := range roots {
			names = append(names, c.String())
		}
		return jsapi.Array(names), err
	case "keep":
		paths, err := stringsArg(args, "paths")
		if err != nil {
			return nil, err
		}
		return nil, a.keeper.add(paths)
	case "putBlocks":
		return nil, a.putBlocks(ctx, args)
	case "clear":
		freed, err := a.store.Clear(ctx)
		return map[string]any{"freed": freed}, err
	case "relays":
		addrs, err := stringsArg(args, "addrs")
		if err != nil {
			return nil, err
		}
		infos, err := config.AddrInfos(addrs)
		a.node.AddRelays(infos...)
		if err != nil {
			return nil, fmt.Errorf("%w: %v", jsapi.ErrArguments, err)
		}
		return nil, nil
	case "config":
		if args.Type() != js.TypeObject || args.Get("json").Type() != js.TypeString {
			return nil, fmt.Errorf("config: %w: want {json}", jsapi.ErrArguments)
		}
		return nil, a.setConfig(args.Get("json").String())
	case "stop":
		// The worker is told that it is done; then the program ends.
		time.AfterFunc(stopDelay, func() { os.Exit(0) })
		return nil, errors.Join(a.node.Close(), a.node.Host().Close(), a.rtc.Close(), a.store.Close())
	case "inspect":
		// For the test of what a node holds after a while; as "panic".
		if !forTests() {
			break
		}
		var m runtime.MemStats
		uncollected := a.host.Call("values")
		runtime.GC()
		runtime.ReadMemStats(&m)
		return map[string]any{"goroutines": runtime.NumGoroutine(), "heap": m.HeapAlloc, "values": a.host.Call("values"), "uncollected": uncollected}, nil
	case "panic":
		// For the test of what happens then; only a worker that was registered
		// with ?test has it.
		if !forTests() {
			break
		}
		if args.Type() == js.TypeObject && args.Get("caught").Truthy() {
			panic("asked to panic")
		}
		go panic("asked to panic")
		return nil, nil
	}
	return nil, fmt.Errorf("%w: %q", jsapi.ErrUnknown, op)
}

// forTests tells whether the worker was registered with ?test.
func forTests() bool {
	return strings.Contains(js.Global().Get("location").Get("search").String(), "test")
}

// stopDelay is how long the answer to "stop" has to reach the worker.
const stopDelay = 50 * time.Millisecond

func cidArg(args js.Value) (cid.Cid, error) {
	if args.Type() != js.TypeObject || args.Get("cid").Type() != js.TypeString {
		return cid.Undef, fmt.Errorf("%w: want {cid}", jsapi.ErrArguments)
	}
	return parseCID(args.Get("cid").String())
}

func parseCID(s string) (cid.Cid, error) {
	c, err := cid.Decode(s)
	if err != nil {
		return cid.Undef, fmt.Errorf("%w: %q: %v", jsapi.ErrCID, s, err)
	}
	return c, nil
}

func stringsArg(args js.Value, name string) ([]string, error) {
	if args.Type() != js.TypeObject || args.Get(name).Type() != js.TypeObject {
		return nil, fmt.Errorf("%w: want {%s: []}", jsapi.ErrArguments, name)
	}
	list := args.Get(name)
	out := make([]string, list.Length())
	for i := range out {
		if list.Index(i).Type() != js.TypeString {
			return nil, fmt.Errorf("%w: %s[%d] is no string", jsapi.ErrArguments, name, i)
		}
		out[i] = list.Index(i).String()
	}
	return out, nil
}

// estimateAge is how old the browser's account of the quota may be in a status.
const estimateAge = 10 * time.Second

// status describes the node as it is now, without waiting for anything.
func (a *app) status(ctx context.Context) any {
	var relays []any
	for _, id := range a.node.Relays() {
		relays = append(relays, id.String())
	}
	a.mu.Lock()
	quota := a.quota
	if time.Since(a.estimated) > estimateAge {
		a.estimated = time.Now()
		go a.estimate(ctx)
	}
	a.mu.Unlock()
	s, u := a.node.Stats(), a.store.Usage()
	return map[string]any{
		"peerId": a.node.Host().ID().String(),
		"relays": relays,
		"peers":  a.visitors.peers(),
		"liars":  a.visitors.liars(),
		"limits": a.visitors.giving(),
		"blocks": u.Blocks,
		"bytes": map[string]any{
			"fromRelay": s.FromRelay,
			"fromPeers": s.FromPeers,
			"fromDisk":  s.FromDisk,
			"served":    s.Served,
		},
		"storage": map[string]any{"used": u.Bytes, "quota": quota, "pinned": u.Pinned},
		"started": a.started.UnixMilli(),
	}
}

// connectTimeout is how long connecting to a peer may take: what WebRTC takes
// to give up on one way, and then some.
const connectTimeout = 30 * time.Second

// connect connects to the peer at a multiaddr.
func (a *app) connect(ctx context.Context, args js.Value) (any, error) {
	if args.Type() != js.TypeObject || args.Get("addr").Type() != js.TypeString {
		return nil, fmt.Errorf("connect: %w: want {addr}", jsapi.ErrArguments)
	}
	info, err := peer.AddrInfoFromString(args.Get("addr").String())
	if err != nil {
		return nil, fmt.Errorf("connect: %w: %v", jsapi.ErrArguments, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, connectTimeout, fmt.Errorf("not connected within %v: %w", connectTimeout, context.DeadlineExceeded))
	defer cancel()
	if err := a.node.Host().Connect(ctx, *info); err != nil {
		return nil, err
	}
	return map[string]any{"peerId": info.ID.String()}, nil
}

// pin fetches the whole DAG under root and keeps it.
func (a *app) pin(ctx context.Context, root cid.Cid) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ctx, _ = content.Ahead(ctx) // no reader waits: visitors who pin the same spare the relay
	var all []cid.Cid
	err := content.Walk(ctx, blockservice.NewSession(ctx, a.node.Blocks()), root, func(b blocks.Block) error {
		all = append(all, b.Cid())
		return nil
	})
	if err != nil {
		return err
	}
	defer a.visitors.pinsChanged(ctx)
	return a.store.Pin(ctx, root, all)
}

// add makes a directory of files and pins it: this tab may hold the only copy.
func (a *app) add(ctx context.Context, args js.Value) (any, error) {
	if args.Type() != js.TypeObject || args.Get("files").Type() != js.TypeObject {
		return nil, fmt.Errorf("add: %w: want {files: [{path, data}]}", jsapi.ErrArguments)
	}
	list := args.Get("files")
	files := make([]content.NamedReader, list.Length())
	for i := range files {
		f := list.Index(i)
		if f.Type() != js.TypeObject || f.Get("path").Type() != js.TypeString || f.Get("data").Type() != js.TypeObject {
			return nil, fmt.Errorf("add: %w: files[%d] is no {path, data}", jsapi.ErrArguments, i)
		}
		data := f.Get("data")
		files[i] = content.NamedReader{
			Path: f.Get("path").String(),
			Open: func() (io.ReadCloser, error) { return open(ctx, data) },
		}
	}
	stat, err := content.AddFiles(ctx, merkledag.NewDAGService(a.node.Blocks()), files)
	if err != nil {
		return nil, err
	}
	if err := a.pin(ctx, stat.Root); err != nil {
		return nil, err
	}
	return map[string]any{"cid": stat.Root.String(), "files": stat.Files, "blocks": stat.Blocks, "bytes": stat.Bytes}, nil
}

// open reads a Uint8Array, an ArrayBuffer or a Blob.
func open(ctx context.Context, data js.Value) (io.ReadCloser, error) {
	if blob := js.Global().Get("Blob"); data.InstanceOf(blob) {
		return &blobReader{ctx: ctx, blob: data, size: data.Get("size").Int()}, nil
	}
	b, err := jsapi.Bytes(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", jsapi.ErrArguments, err)
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

// blobReader reads a Blob in pieces, so that a large file is never whole in
// memory. ctx is the operation's: io.Reader has no place for it.
type blobReader struct {
	ctx  context.Context
	blob js.Value
	at   int
	size int
	buf  []byte
}

func (r *blobReader) Read(p []byte) (int, error) {
	if len(r.buf) == 0 {
		if r.at >= r.size {
			return 0, io.EOF
		}
		end := min(r.at+1<<20, r.size)
		v, err := jsapi.Await(r.ctx, r.blob.Call("slice", r.at, end).Call("arrayBuffer"))
		if err != nil {
			return 0, err
		}
		if r.buf, err = jsapi.Bytes(v); err != nil {
			return 0, err
		}
		if len(r.buf) != end-r.at {
			return 0, io.ErrUnexpectedEOF
		}
		r.at = end
	}
	n := copy(p, r.buf)
	r.buf = r.buf[n:]
	return n, nil
}

func (r *blobReader) Close() error { return nil }

// putBlocks stores blocks that the worker fetched itself, once their bytes hash
// to their CIDs. Those that do not are left out, and are the error.
func (a *app) putBlocks(ctx context.Context, args js.Value) error {
	if args.Type() != js.TypeObject || args.Get("blocks").Type() != js.TypeObject {
		return fmt.Errorf("putBlocks: %w: want {blocks: [{cid, data}]}", jsapi.ErrArguments)
	}
	list := args.Get("blocks")
	var good []blocks.Block
	var bad []error
	for i := range list.Length() {
		v := list.Index(i)
		b, err := blockArg(v)
		if err != nil {
			bad = append(bad, fmt.Errorf("putBlocks: blocks[%d]: %w", i, err))
			continue
		}
		good = append(good, b)
	}
	if err := a.node.Blocks().AddBlocks(ctx, good); err != nil {
		bad = append(bad, err)
	}
	return errors.Join(bad...)
}

func blockArg(v js.Value) (blocks.Block, error) {
	if v.Type() != js.TypeObject {
		return nil, jsapi.ErrArguments
	}
	c, err := cidArg(v)
	if err != nil {
		return nil, err
	}
	data, err := jsapi.Bytes(v.Get("data"))
	if err != nil {
		return nil, fmt.Errorf("%w: %v", jsapi.ErrArguments, err)
	}
	if err := content.Check(c, data); err != nil {
		return nil, err
	}
	return blocks.NewBlockWithCid(data, c)
}
