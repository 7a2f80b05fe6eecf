//go:build js && wasm

// Package jsapi is the boundary between Go and JavaScript: promises both ways,
// bytes, and errors as {code, message} objects.
//
// JavaScript must never wait for Go inside a callback, so what it calls starts
// a goroutine and returns a promise. A panic on Go's side of the boundary
// rejects that promise with code "internal" and is reported by [OnPanic].
package jsapi

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"syscall/js"

	"github.com/webfabric/weft/wasm/jsbytes"
)

var (
	array      = js.Global().Get("Uint8Array")
	object     = js.Global().Get("Object")
	promise    = js.Global().Get("Promise")
	errorClass = js.Global().Get("Error")
)

// ErrThrown is wrapped by errors that JavaScript threw or rejected with.
var ErrThrown = errors.New("jsapi: JavaScript exception")

var onPanic atomic.Pointer[func(reason string)]

// OnPanic sets who is told of panics that were caught at the boundary.
func OnPanic(f func(reason string)) { onPanic.Store(&f) }

// Recover is deferred where JavaScript calls Go; it turns a panic into *err.
func Recover(err *error) {
	r := recover()
	if r == nil {
		return
	}
	if jserr, ok := r.(js.Error); ok {
		*err = fmt.Errorf("%w: %s", ErrThrown, Text(jserr.Value))
		return
	}
	*err = fmt.Errorf("jsapi: panic: %v", r)
	if f := onPanic.Load(); f != nil {
		(*f)(fmt.Sprintf("%v\n%s", r, debug.Stack()))
	}
}

// Guard runs f as a callback that must not panic: a panic that reaches
// syscall/js ends the program.
func Guard(f func()) {
	var err error
	defer Recover(&err)
	f()
}

// Func makes a JavaScript function of f, which must not block. The caller
// releases it.
func Func(f func(args []js.Value) any) js.Func {
	return js.FuncOf(func(_ js.Value, args []js.Value) (v any) {
		var err error
		defer Recover(&err)
		return f(args)
	})
}

// Promise runs f in a goroutine and returns the promise of its result, which
// must be something js.ValueOf takes. An error rejects it by [Error].
func Promise(f func() (any, error)) js.Value {
	var resolve, reject js.Value
	executor := js.FuncOf(func(_ js.Value, args []js.Value) any {
		resolve, reject = args[0], args[1] // called before New returns
		return nil
	})
	p := promise.New(executor)
	executor.Release()
	go func() {
		v, err := call(f)
		if err != nil {
			reject.Invoke(Error(err))
			return
		}
		resolve.Invoke(v)
	}()
	return p
}

func call(f func() (any, error)) (v any, err error) {
	defer Recover(&err)
	return f()
}

// Await waits for a promise. Its error wraps [ErrThrown], or is ctx's cause.
func Await(ctx context.Context, p js.Value) (js.Value, error) {
	type result struct {
		v   js.Value
		err error
	}
	done := make(chan result, 1)
	var then, fail js.Func
	release := func() {
		then.Release()
		fail.Release()
	}
	then = js.FuncOf(func(_ js.Value, args []js.Value) any {
		release()
		v := js.Undefined()
		if len(args) > 0 {
			v = args[0]
		}
		done <- result{v: v}
		return nil
	})
	fail = js.FuncOf(func(_ js.Value, args []js.Value) any {
		release()
		done <- result{err: fmt.Errorf("%w: %s", ErrThrown, Text(args[0]))}
		return nil
	})
	p.Call("then", then, fail)
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		return js.Undefined(), context.Cause(ctx) // the functions stay until p settles
	}
}

// Bytes copies a Uint8Array or ArrayBuffer.
func Bytes(v js.Value) ([]byte, error) {
	if v.Type() != js.TypeObject {
		return nil, fmt.Errorf("jsapi: want bytes, got %s", v.Type())
	}
	if !v.InstanceOf(array) {
		if !v.InstanceOf(js.Global().Get("ArrayBuffer")) {
			return nil, errors.New("jsapi: want a Uint8Array or ArrayBuffer")
		}
		v = array.New(v)
	}
	return jsbytes.Copy(v), nil
}

// Object makes an object of its properties.
func Object(props map[string]any) js.Value {
	o := object.New()
	for k, v := range props {
		o.Set(k, v)
	}
	return o
}

// Array makes an array.
func Array[T any](vs []T) []any {
	out := make([]any, len(vs))
	for i, v := range vs {
		out[i] = v
	}
	return out
}

// Text describes what JavaScript threw.
func Text(v js.Value) string {
	switch {
	case v.IsUndefined(), v.IsNull():
		return v.Type().String()
	case v.Type() == js.TypeString:
		return v.String()
	case v.Type() == js.TypeObject:
		if m := v.Get("message"); m.Type() == js.TypeString {
			if n := v.Get("name"); n.Type() == js.TypeString {
				return n.String() + ": " + m.String()
			}
			return m.String()
		}
	}
	return js.Global().Get("String").Invoke(v).String()
}
