//go:build js && wasm

package idbstore

import (
	"context"
	"errors"
	"fmt"
	"syscall/js"

	"github.com/hack-pad/go-indexeddb/idb"

	"github.com/webfabric/weft/wasm/jsbytes"
)

// schema is the database's version. Version 1 has the object stores
//
//	blocks  key → the block's bytes
//	index   key → size and last use, see [entryCode]
//	pins    root CID → the keys of its DAG's blocks, see [appendKeys]
//	meta    name → bytes
//
// where key is the multihash in unpadded base64url: a string crosses to
// JavaScript at a third of the cost of a byte array.
const schema = 1

// Names of the object stores.
const (
	storeBlocks = "blocks"
	storeIndex  = "index"
	storePins   = "pins"
	storeMeta   = "meta"
)

// jsDB opens and closes transactions; go-indexeddb only logs what goes wrong
// in its callbacks, so every transaction is awaited here and its error returned.
type jsDB struct {
	db  *idb.Database
	raw js.Value // the same, for getAll, which go-indexeddb lacks
}

func openDB(ctx context.Context, name string) (_ jsDB, err error) {
	defer recovered(&err)
	req, err := idb.Global().Open(ctx, name, schema, func(db *idb.Database, from, _ uint) error {
		if from >= 1 {
			return nil
		}
		for _, s := range []string{storeBlocks, storeIndex, storePins, storeMeta} {
			if _, err := db.CreateObjectStore(s, idb.ObjectStoreOptions{}); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		var db *idb.Database
		if db, err = req.Await(ctx); err == nil && ctx.Err() == nil {
			raw, err := req.Request.Result()
			return jsDB{db, raw}, err
		}
	}
	if err == nil {
		err = context.Cause(ctx)
	}
	if errors.Is(err, idb.NewDOMException("VersionError")) {
		err = fmt.Errorf("%w: %w", ErrVersion, err)
	}
	return jsDB{}, fmt.Errorf("idbstore: open %q: %w", name, err)
}

// recovered turns a panic of go-indexeddb into an error.
func recovered(err *error) {
	if r := recover(); r != nil {
		if e, ok := r.(error); ok {
			*err = fmt.Errorf("idbstore: %w", e)
		} else {
			*err = fmt.Errorf("idbstore: %v", r)
		}
	}
}

// write runs f in a read-write transaction over stores and waits until it has
// committed. f must make all its requests before it returns, without waiting:
// the transaction ends when none is pending.
func (d jsDB) write(ctx context.Context, f func(open func(string) *idb.ObjectStore) error, stores ...string) (err error) {
	defer recovered(&err)
	txn, err := d.db.TransactionWithOptions(idb.TransactionOptions{
		Mode:       idb.TransactionReadWrite,
		Durability: idb.DurabilityRelaxed,
	}, stores[0], stores[1:]...)
	if err != nil {
		return quota(err)
	}
	var failed error
	open := func(name string) *idb.ObjectStore {
		s, err := txn.ObjectStore(name)
		if err != nil {
			panic(err)
		}
		return s
	}
	if failed = f(open); failed != nil {
		if err := txn.Abort(); err != nil {
			return errors.Join(failed, err)
		}
		return quota(failed)
	}
	return quota(txn.Await(ctx))
}

// quota marks the browser's refusal to store more.
func quota(err error) error {
	if errors.Is(err, idb.NewDOMException("QuotaExceededError")) {
		return fmt.Errorf("%w: %w", ErrQuota, err)
	}
	return err
}

// get reads one value; it is undefined where there is none.
func (d jsDB) get(ctx context.Context, store, key string) (_ js.Value, err error) {
	defer recovered(&err)
	txn, err := d.db.Transaction(idb.TransactionReadOnly, store)
	if err != nil {
		return js.Undefined(), err
	}
	s, err := txn.ObjectStore(store)
	if err != nil {
		return js.Undefined(), err
	}
	req, err := s.Get(js.ValueOf(key))
	if err != nil {
		return js.Undefined(), err
	}
	v, err := req.Await(ctx)
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return v, err
}

// pageSize is how many records all reads at once: a step of some milliseconds.
const pageSize = 4096

// all calls f for every record of store, in key order.
func (d jsDB) all(ctx context.Context, store string, f func(key string, v js.Value) error) (err error) {
	defer recovered(&err)
	for from := js.ValueOf(""); ; {
		s := d.raw.Call("transaction", store).Call("objectStore", store)
		after := js.Global().Get("IDBKeyRange").Call("lowerBound", from, true)
		keys := settle(s.Call("getAllKeys", after, pageSize))
		values := settle(s.Call("getAll", after, pageSize))
		ks, err := keys(ctx)
		if err != nil {
			return err
		}
		vs, err := values(ctx)
		if err != nil {
			return err
		}
		n := ks.Length()
		for i := range n {
			if err := f(ks.Index(i).String(), vs.Index(i)); err != nil {
				return err
			}
		}
		if n < pageSize {
			return nil
		}
		from = ks.Index(n - 1)
	}
}

// settle listens to a request and returns what waits for its result.
func settle(req js.Value) func(context.Context) (js.Value, error) {
	done := make(chan error, 1)
	var ok, fail js.Func
	end := func(err error) {
		ok.Release()
		fail.Release()
		done <- err
	}
	ok = js.FuncOf(func(js.Value, []js.Value) any {
		end(nil)
		return nil
	})
	fail = js.FuncOf(func(js.Value, []js.Value) any {
		end(fmt.Errorf("idbstore: %w", js.Error{Value: req.Get("error")}))
		return nil
	})
	req.Set("onsuccess", ok)
	req.Set("onerror", fail)
	return func(ctx context.Context) (js.Value, error) {
		select {
		case err := <-done:
			if err != nil {
				return js.Undefined(), err
			}
			return req.Get("result"), nil
		case <-ctx.Done():
			return js.Undefined(), context.Cause(ctx)
		}
	}
}

func bytesOf(v js.Value) ([]byte, error) {
	if v.Type() != js.TypeObject || !v.InstanceOf(js.Global().Get("Uint8Array")) {
		return nil, ErrMalformed
	}
	return jsbytes.Copy(v), nil
}
