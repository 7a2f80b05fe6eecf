//go:build js && wasm

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall/js"
	"testing"
	"time"

	"github.com/webfabric/weft/wasm/jsapi"
	"github.com/webfabric/weft/wasm/jsbytes"
)

// The far end is scripts/wasmexec's native peer.

// fixtureByte is byte i of its data.bin.
func fixtureByte(i int) byte { return byte(i*i>>8 ^ i>>16) }

// boot starts a node as sw.js does and returns what it hands over.
func boot(t *testing.T, config string) (node js.Value, events chan string) {
	t.Helper()
	ready := make(chan js.Value, 1)
	events = make(chan string, 4096)
	js.Global().Set("weftHost", js.ValueOf(map[string]any{
		"config": config,
		"origin": js.Global().Get("location").Get("origin"),
		"event": jsapi.Func(func(args []js.Value) any {
			select {
			case events <- args[0].String() + " " + js.Global().Get("JSON").Call("stringify", args[1]).String():
			default:
			}
			return nil
		}),
		"ready": jsapi.Func(func(args []js.Value) any {
			ready <- args[0]
			return nil
		}),
	}))
	go main()
	select {
	case n := <-ready:
		return n, events
	case <-time.After(time.Minute):
		t.Fatal("the node is not ready after a minute")
		panic("unreachable")
	}
}

func testConfig(t *testing.T) string {
	t.Helper()
	b, err := json.Marshal(map[string]any{"version": 1, "relays": []string{os.Getenv("WEFT_TEST_PEER")}})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func await(t *testing.T, p js.Value) js.Value {
	t.Helper()
	v, err := awaitErr(p)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func awaitErr(p js.Value) (js.Value, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return jsapi.Await(ctx, p)
}

// body reads a ReadableStream to its end.
func body(t *testing.T, stream js.Value) []byte {
	t.Helper()
	buf := await(t, js.Global().Get("Response").New(stream).Call("arrayBuffer"))
	b, err := jsapi.Bytes(buf)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func get(t *testing.T, node js.Value, url string, headers ...any) js.Value {
	t.Helper()
	return await(t, node.Call("fetch", map[string]any{"method": "GET", "url": "http://localhost" + url, "headers": headers, "navigation": false}))
}

func TestNode(t *testing.T) {
	root := os.Getenv("WEFT_TEST_ROOT")
	node, events := boot(t, testConfig(t))
	await(t, node.Call("call", "online", map[string]any{}))

	t.Run("file", func(t *testing.T) {
		r := get(t, node, "/ipfs/"+root+"/data.bin")
		if got := r.Get("status").Int(); got != 200 {
			t.Fatalf("status %d", got)
		}
		b := body(t, r.Get("body"))
		if len(b) != 5<<20+12345 {
			t.Fatalf("%d bytes", len(b))
		}
		for i := range b {
			if b[i] != fixtureByte(i) {
				t.Fatalf("byte %d is %d", i, b[i])
			}
		}
	})
	t.Run("range", func(t *testing.T) {
		r := get(t, node, "/ipfs/"+root+"/data.bin", []any{"range", "bytes=1048570-1048579"})
		if got := r.Get("status").Int(); got != 206 {
			t.Fatalf("status %d", got)
		}
		if b := body(t, r.Get("body")); len(b) != 10 || b[0] != fixtureByte(1048570) {
			t.Errorf("body %v", b)
		}
	})
	t.Run("malformed", func(t *testing.T) {
		for _, url := range []string{"/ipfs/" + root + "/%zz", "/ipfs/" + root + "/100%", "/ipfs/" + root + "/?filename=%zz", "/ipfs/%zz/a"} {
			if got := get(t, node, url).Get("status").Int(); got != 400 {
				t.Errorf("GET %s: status %d, want 400", url, got)
			}
		}
	})
	t.Run("cancel", func(t *testing.T) {
		r := get(t, node, "/ipfs/"+root+"/data.bin")
		reader := r.Get("body").Call("getReader")
		await(t, reader.Call("read"))
		await(t, reader.Call("cancel"))
		if v := await(t, reader.Call("read")); !v.Get("done").Bool() {
			t.Error("the stream goes on after its cancellation")
		}
	})
	t.Run("abort", func(t *testing.T) {
		ac := js.Global().Get("AbortController").New()
		// Nobody has this block.
		p := node.Call("fetch", map[string]any{"method": "GET", "navigation": false, "headers": []any{},
			"url": "http://localhost/ipfs/bafkreiemqpndzewx4bioklzfvhtiegsfny5fxuc3nkjk2vmcpjxiammsti"}, ac.Get("signal"))
		ac.Call("abort")
		if _, err := awaitErr(p); err == nil {
			t.Error("an aborted request was answered")
		}
	})
	t.Run("status", func(t *testing.T) {
		s := await(t, node.Call("call", "status"))
		if s.Get("relays").Length() != 1 || s.Get("peers").Length() != 1 || !s.Get("peers").Index(0).Get("relay").Bool() {
			t.Errorf("status %s", js.Global().Get("JSON").Call("stringify", s))
		}
		if got := s.Get("bytes").Get("fromRelay").Int(); got < 5<<20 {
			t.Errorf("%d bytes from the relay", got)
		}
		if s.Get("blocks").Int() < 6 {
			t.Errorf("%d blocks", s.Get("blocks").Int())
		}
	})
	t.Run("pin and clear", func(t *testing.T) {
		await(t, node.Call("call", "pin", map[string]any{"cid": root}))
		if v := await(t, node.Call("call", "pins")); v.Length() != 1 || v.Index(0).String() != root {
			t.Errorf("pins %v", v)
		}
		held := await(t, node.Call("call", "status")).Get("storage").Get("pinned").Int()
		if held < 5<<20 {
			t.Errorf("%d bytes pinned", held)
		}
		await(t, node.Call("call", "clear"))
		if got := await(t, node.Call("call", "status")).Get("storage").Get("used").Int(); got != held {
			t.Errorf("%d bytes left, %d are pinned", got, held)
		}
		await(t, node.Call("call", "unpin", map[string]any{"cid": root}))
		await(t, node.Call("call", "clear"))
		if got := await(t, node.Call("call", "status")).Get("blocks").Int(); got != 0 {
			t.Errorf("%d blocks left", got)
		}
	})
	t.Run("add", func(t *testing.T) {
		blob := js.Global().Get("Blob").New([]any{jsbytes.Uint8Array(make([]byte, 3<<20))})
		v := await(t, node.Call("call", "add", map[string]any{"files": []any{
			map[string]any{"path": "a/index.html", "data": jsbytes.Uint8Array([]byte("<p>hello"))},
			map[string]any{"path": "b/zeros", "data": blob},
		}}))
		r := get(t, node, "/ipfs/"+v.Get("cid").String()+"/a/index.html?weft=off", []any{"sec-fetch-dest", "empty"})
		if got := string(body(t, r.Get("body"))); got != "<p>hello" {
			t.Errorf("body %q", got)
		}
		if got := len(body(t, get(t, node, "/ipfs/"+v.Get("cid").String()+"/b/zeros").Get("body"))); got != 3<<20 {
			t.Errorf("%d bytes", got)
		}
		// One file without a name is itself, as weft.js sends a string or a Blob.
		v = await(t, node.Call("call", "add", map[string]any{"files": []any{map[string]any{"path": "", "data": jsbytes.Uint8Array([]byte("alone"))}}}))
		if got := string(body(t, get(t, node, "/ipfs/"+v.Get("cid").String()).Get("body"))); got != "alone" {
			t.Errorf("a nameless file: body %q", got)
		}
	})
	t.Run("put blocks", func(t *testing.T) {
		good := map[string]any{"cid": "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e", "data": jsbytes.Uint8Array([]byte("hello world"))}
		bad := map[string]any{"cid": "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku", "data": jsbytes.Uint8Array([]byte("hello world!"))}
		code := func(blocks ...any) string {
			return thrown(t, node.Call("call", "putBlocks", map[string]any{"blocks": blocks}))
		}
		if got := code(bad); got != "bad_block" {
			t.Errorf("a forged block: code %q", got)
		}
		if got := code(good); got != "" {
			t.Errorf("a good block: code %q", got)
		}
		if got := code(good, "x"); got != "bad_request" {
			t.Errorf("a block of another type: code %q", got)
		}
		if got := string(body(t, get(t, node, "/ipfs/bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e").Get("body"))); got != "hello world" {
			t.Errorf("body %q", got)
		}
	})
	t.Run("bad calls", func(t *testing.T) {
		for _, tt := range []struct {
			op   string
			args any
			code string
		}{
			{"nothing", nil, "bad_request"},
			{"panic", nil, "bad_request"}, // not a test's worker
			{"pin", nil, "bad_request"},
			{"pin", map[string]any{"cid": "x"}, "bad_cid"},
			{"keep", map[string]any{"paths": []any{"/x"}}, "bad_request"},
			{"add", map[string]any{"files": []any{1}}, "bad_request"},
			{"relays", map[string]any{"addrs": []any{"x"}}, "bad_request"},
			{"config", map[string]any{"json": "{"}, "bad_request"},
		} {
			if got := thrown(t, node.Call("call", tt.op, tt.args)); got != tt.code {
				t.Errorf("call(%q, %v): code %q, want %q", tt.op, tt.args, got, tt.code)
			}
		}
	})
	t.Run("keep", func(t *testing.T) {
		await(t, node.Call("call", "keep", map[string]any{"paths": []any{"/ipfs/" + root + "/data.bin"}}))
		waitFor(t, func() error {
			s := await(t, node.Call("call", "status"))
			if got := s.Get("storage").Get("used").Int(); got < 6<<20 {
				return fmt.Errorf("%d bytes stored", got)
			}
			return nil
		})
	})
	kinds := map[string]bool{}
	for len(events) > 0 {
		kind, _, _ := strings.Cut(<-events, " ")
		kinds[kind] = true
	}
	for _, want := range []string{"peer", "relay", "block"} {
		if !kinds[want] {
			t.Errorf("no %q event", want)
		}
	}
}

// thrown returns the code that a promise is rejected with.
func thrown(t *testing.T, p js.Value) string {
	t.Helper()
	code := make(chan string, 1)
	ok := jsapi.Func(func([]js.Value) any { code <- ""; return nil })
	fail := jsapi.Func(func(args []js.Value) any { code <- args[0].Get("code").String(); return nil })
	defer ok.Release()
	defer fail.Release()
	p.Call("then", ok, fail)
	select {
	case c := <-code:
		return c
	case <-time.After(time.Minute):
		t.Fatal("a call is not answered after a minute")
		panic("unreachable")
	}
}

func waitFor(t *testing.T, cond func() error) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		err := cond()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
