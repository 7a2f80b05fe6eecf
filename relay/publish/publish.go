// Package publish is the publishing side: it adds a folder to the publisher's
// own store, serves it by Bitswap, and asks a relay to fetch and keep it.
//
// What [Add] has returned is on disk: after a crash every block of it is there,
// and none of them corrupt. [Ask] returns when the relay has every block too.
// The relay's side is relay/server; relay/auth signs what is asked.
package publish

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/multiformats/go-multiaddr"

	"github.com/webfabric/weft/relay/auth"
	"github.com/webfabric/weft/relay/client"
	"github.com/webfabric/weft/shared/content"
)

const (
	// maxLine bounds one line of a relay's answer, in bytes.
	maxLine = 64 << 10
	// patience is how long a relay may say nothing while it fetches.
	patience = 2 * time.Minute
)

var (
	// ErrNotAllowed means that the relay keeps nothing for this key.
	ErrNotAllowed = errors.New("publish: the relay does not keep content for this key")
	// ErrRefused means that the relay did not accept the request's signature:
	// most often, one of the two clocks is wrong.
	ErrRefused = errors.New("publish: the relay refused the signed request")
	// ErrRelay means that the relay could not do what it was asked.
	ErrRelay = errors.New("publish: the relay failed")
	// ErrAnswer means an answer that no relay gives.
	ErrAnswer = errors.New("publish: answer not understood")
)

// Add adds the file or directory at path to bs. Symlinks are kept as links, and
// never followed, but path itself may be one.
func Add(ctx context.Context, bs blockstore.Blockstore, path string, opts ...content.AddOption) (content.Stat, error) {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return content.Stat{}, fmt.Errorf("publish: add: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return content.Stat{}, fmt.Errorf("publish: add: %w", err)
	}
	dir, name := path, "."
	if !info.IsDir() {
		dir, name = filepath.Split(path)
		if dir == "" {
			dir = "."
		}
	}
	dag := merkledag.NewDAGService(blockservice.New(bs, offline.Exchange(bs)))
	stat, err := content.Add(ctx, dag, os.DirFS(dir), name, opts...)
	if err != nil {
		return stat, fmt.Errorf("publish: add %s: %w", path, err)
	}
	return stat, nil
}

// Pulled is how far the relay is.
type Pulled struct {
	Blocks int   `json:"blocks"` // of the DAG, that the relay holds
	Bytes  int64 `json:"bytes"`  // of these blocks
	New    int   `json:"new"`    // of these, how many it did not have before
}

// Result is what the relay has kept.
type Result struct {
	Cid cid.Cid
	URL string
	Pulled
}

// Ask asks the relay that p is connected to, to keep root under name. The relay
// fetches from p, or from addrs if it is not connected. progress is called as
// it does. The error wraps one of this package's, or is that of the connection.
func Ask(ctx context.Context, p *client.Peer, key crypto.PrivKey, root cid.Cid, name string, progress func(Pulled)) (Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	body, err := json.Marshal(struct {
		Root  string                `json:"root"`
		Name  string                `json:"name"`
		Addrs []multiaddr.Multiaddr `json:"addrs"`
	}{root.String(), name, p.Addrs()})
	if err != nil {
		return Result{}, fmt.Errorf("publish: ask: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.Relay.URL+"/weft/publish", bytes.NewReader(body))
	if err != nil {
		return Result{}, fmt.Errorf("publish: ask: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if err := auth.Sign(req, body, key, p.Relay.ID, time.Now()); err != nil {
		return Result{}, fmt.Errorf("publish: ask: %w", err)
	}
	silent := time.AfterFunc(patience, func() {
		cancel(fmt.Errorf("%w: it said nothing for %v", ErrRelay, patience))
	})
	defer silent.Stop()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return Result{}, fmt.Errorf("publish: ask: %w", cause(ctx, err))
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusForbidden:
		return Result{}, fmt.Errorf("%w: %s", ErrNotAllowed, p.Host.ID())
	case http.StatusUnauthorized:
		return Result{}, fmt.Errorf("%w: %s", ErrRefused, message(resp.Body))
	default:
		return Result{}, fmt.Errorf("%w: %s: %s", ErrRelay, resp.Status, message(resp.Body))
	}
	res, err := readAnswer(resp.Body, func(n Pulled) {
		silent.Reset(patience)
		if progress != nil {
			progress(n)
		}
	})
	if err != nil {
		return Result{}, cause(ctx, err)
	}
	if !res.Cid.Equals(root) {
		return Result{}, fmt.Errorf("%w: it kept %s, not %s", ErrAnswer, res.Cid, root)
	}
	return res, nil
}

// cause is why ctx was cancelled, if it was, and else err.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil {
		return c
	}
	return err
}

// message is what an error response says, for a person.
func message(r io.Reader) string {
	b, _ := io.ReadAll(io.LimitReader(r, 4<<10)) // what was read is all there is to show
	var e struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if err := json.Unmarshal(b, &e); err == nil && e.Error.Message != "" {
		return e.Error.Message
	}
	return strings.TrimSpace(string(b))
}

// readAnswer reads the relay's lines of JSON up to the result.
func readAnswer(r io.Reader, progress func(Pulled)) (Result, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4<<10), maxLine)
	for lines.Scan() {
		var line struct {
			Pulled
			Cid   string `json:"cid"`
			URL   string `json:"url"`
			Error string `json:"error"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return Result{}, fmt.Errorf("%w: %v", ErrAnswer, err)
		}
		switch {
		case line.Error != "":
			return Result{}, fmt.Errorf("%w: %s", ErrRelay, line.Error)
		case line.Cid != "":
			c, err := cid.Decode(line.Cid)
			if err != nil {
				return Result{}, fmt.Errorf("%w: cid: %v", ErrAnswer, err)
			}
			return Result{Cid: c, URL: line.URL, Pulled: line.Pulled}, nil
		default:
			progress(line.Pulled)
		}
	}
	if err := lines.Err(); err != nil {
		return Result{}, fmt.Errorf("%w: cut off: %w", ErrAnswer, err)
	}
	return Result{}, fmt.Errorf("%w: cut off: the relay may have stopped", ErrAnswer)
}
