//go:build js && wasm

package jsapi

import (
	"context"
	"errors"
	"syscall/js"

	"github.com/webfabric/weft/shared/content"
	"github.com/webfabric/weft/shared/gateway"
	"github.com/webfabric/weft/shared/node"
	"github.com/webfabric/weft/wasm/idbstore"
)

// Errors of calls whose arguments make no sense, or name nothing.
var (
	ErrArguments = errors.New("bad arguments")
	ErrCID       = errors.New("bad CID")
	ErrUnknown   = errors.New("no such operation")
)

// codes maps errors to the codes of web/types.js; the first match counts.
var codes = []struct {
	err  error
	code string
}{
	{ErrCID, "bad_cid"},
	{ErrArguments, "bad_request"},
	{ErrUnknown, "bad_request"},
	{idbstore.ErrQuota, "quota"},
	{content.ErrBadBlock, "bad_block"},
	{idbstore.ErrTooLarge, "bad_block"},
	{gateway.ErrNoProvider, "no_provider"},
	{content.ErrNotFound, "not_found"},
	{content.ErrNotUnixFS, "not_unixfs"},
	{node.ErrClosed, "cancelled"},
	{context.Canceled, "cancelled"},
	{context.DeadlineExceeded, "timeout"},
}

// Code returns the code of err: "internal" for any that callers have no reason
// to tell apart.
func Code(err error) string {
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return c.code
		}
	}
	return "internal"
}

// Error makes {code, message[, peerId]} of err.
func Error(err error) js.Value {
	o := map[string]any{"code": Code(err), "message": err.Error()}
	var bad *node.BadBlockError
	if errors.As(err, &bad) {
		o["peerId"] = bad.Peer.String()
	}
	return Object(o)
}

// Exception makes an Error object with Error's properties, for what streams
// fail with.
func Exception(err error) js.Value {
	e := errorClass.New(err.Error())
	object.Call("assign", e, Error(err))
	return e
}
