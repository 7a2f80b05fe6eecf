//go:build js && wasm

// Package swfetch turns the Service Worker's fetch events into requests to
// shared/gateway, and its responses into streams that JavaScript pulls from.
//
// A body is read only as fast as the browser asks for it. The request's work
// ends when its AbortSignal fires, when the stream is cancelled, and when the
// body has been read.
package swfetch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"syscall/js"

	"github.com/webfabric/weft/shared/gateway"
	"github.com/webfabric/weft/wasm/jsapi"
	"github.com/webfabric/weft/wasm/jsbytes"
)

// chunkSize is how many bytes of a body cross to JavaScript at once, at most: a
// whole chunk of a file by the profile. Each crossing costs the same.
const chunkSize = 1 << 20

// errAborted is the cause of a request that the page gave up.
var errAborted = fmt.Errorf("swfetch: aborted by the page: %w", context.Canceled)

// A Server answers requests; shared/gateway's Gateway is one.
type Server interface {
	Serve(ctx context.Context, r gateway.Request) *gateway.Response
}

// Fetch answers one request {method, url, headers: [[k, v]…], navigation} with
// the promise of {status, headers, body}. ctx bounds it, signal (an AbortSignal,
// null or undefined) ends it.
func Fetch(ctx context.Context, s Server, req, signal js.Value) js.Value {
	ctx, cancel := context.WithCancelCause(ctx)
	unlisten := onAbort(signal, func() { cancel(errAborted) })
	return jsapi.Promise(func() (_ any, err error) {
		done := func() {
			cancel(nil)
			unlisten()
		}
		keep := false
		defer func() {
			if !keep {
				done()
			}
		}()
		r, err := request(req)
		if err != nil {
			return nil, err
		}
		resp := s.Serve(ctx, r)
		if ctx.Err() != nil {
			if resp.Body != nil {
				resp.Body.Close()
			}
			return nil, context.Cause(ctx)
		}
		var headers []any
		for k, vs := range resp.Header {
			for _, v := range vs {
				headers = append(headers, []any{k, v})
			}
		}
		body := js.Null()
		if resp.Body != nil {
			body, keep = stream(ctx, resp.Body, done, cancel), true
		}
		return map[string]any{"status": resp.Status, "headers": headers, "body": body}, nil
	})
}

// onAbort calls f when signal fires, at once if it has. The function it returns
// stops listening.
func onAbort(signal js.Value, f func()) func() {
	if signal.Type() != js.TypeObject {
		return func() {}
	}
	if signal.Get("aborted").Bool() {
		f()
		return func() {}
	}
	cb := jsapi.Func(func([]js.Value) any {
		f()
		return nil
	})
	signal.Call("addEventListener", "abort", cb)
	return sync.OnceFunc(func() {
		signal.Call("removeEventListener", "abort", cb)
		cb.Release()
	})
}

// request reads the JavaScript form of a request.
func request(v js.Value) (gateway.Request, error) {
	if v.Type() != js.TypeObject || v.Get("url").Type() != js.TypeString {
		return gateway.Request{}, fmt.Errorf("swfetch: %w: want {method, url, headers, navigation}", jsapi.ErrArguments)
	}
	path, query, ok := splitURL(v.Get("url").String())
	if !ok {
		return gateway.Request{}, fmt.Errorf("swfetch: %w: %.200q is no URL with a host", jsapi.ErrArguments, v.Get("url").String())
	}
	r := gateway.Request{
		Method:     http.MethodGet,
		Path:       path,
		RawQuery:   query,
		Header:     http.Header{},
		Navigation: v.Get("navigation").Truthy(),
	}
	if m := v.Get("method"); m.Type() == js.TypeString {
		r.Method = m.String()
	}
	if hs := v.Get("headers"); hs.Type() == js.TypeObject {
		for i := range hs.Length() {
			h := hs.Index(i)
			r.Header.Add(h.Index(0).String(), h.Index(1).String())
		}
	}
	return r, nil
}

// stream makes a ReadableStream of body. done is called once, when the stream
// has ended in any way.
func stream(ctx context.Context, body io.ReadCloser, done func(), cancel context.CancelCauseFunc) js.Value {
	var (
		start, pull, stop js.Func
		controller        js.Value
		buf               []byte
		reading           sync.Mutex // held while body is read or closed; guards what follows
		ended             bool
	)
	// finish ends the stream on both sides; reading is held. A stream that was
	// cancelled takes an error without a word, but neither bytes nor its end.
	finish := func(err error) {
		if ended {
			return
		}
		ended = true
		if err == nil && ctx.Err() == nil {
			controller.Call("close")
		} else {
			controller.Call("error", jsapi.Exception(cmp.Or(err, context.Cause(ctx))))
		}
		body.Close()
		done()
		start.Release()
		pull.Release()
		stop.Release()
	}
	start = jsapi.Func(func(args []js.Value) any {
		controller = args[0]
		return nil
	})
	pull = jsapi.Func(func([]js.Value) any {
		return jsapi.Promise(func() (any, error) {
			reading.Lock()
			defer reading.Unlock()
			if ended {
				return nil, nil
			}
			if buf == nil {
				buf = make([]byte, chunkSize)
			}
			n, err := io.ReadAtLeast(body, buf, 1)
			if n > 0 && ctx.Err() == nil {
				controller.Call("enqueue", jsbytes.Uint8Array(buf[:n]))
			}
			switch {
			case errors.Is(err, io.EOF):
				finish(nil)
			case err != nil && ctx.Err() != nil:
				finish(context.Cause(ctx))
			case err != nil:
				finish(err)
			}
			return nil, nil
		})
	})
	stop = jsapi.Func(func([]js.Value) any {
		cancel(errAborted)
		return nil
	})
	// Cancelled, aborted, or the node is closing: a read under way ends too.
	context.AfterFunc(ctx, func() {
		jsapi.Guard(func() {
			reading.Lock()
			defer reading.Unlock()
			finish(context.Cause(ctx))
		})
	})
	return js.Global().Get("ReadableStream").New(
		map[string]any{"start": start, "pull": pull, "cancel": stop},
		map[string]any{"highWaterMark": 1},
	)
}
