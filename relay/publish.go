package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/spf13/cobra"

	"github.com/webfabric/weft/relay/client"
	"github.com/webfabric/weft/relay/publish"
	"github.com/webfabric/weft/relay/store"
	"github.com/webfabric/weft/shared/content"
	"github.com/webfabric/weft/shared/identity"
)

// publisher is the command line of `weft publish`.
type publisher struct {
	data, relay, name string
	hidden            bool
	serve             bool
	listen            []string
	asJSON            bool
}

func publishCommand() *cobra.Command {
	var p publisher
	cmd := &cobra.Command{
		Use:   "publish PATH",
		Short: "Publish a folder or a file to a relay; prints its root CID",
		Long: `Publish a folder or a file: add it to this user's own store, serve it by
Bitswap, and have a relay fetch and keep it. The last line printed is its root
CID, the line before it the URL where the relay serves it.

Publishing an edited folder again sends only the blocks that are new. Symlinks
are published as links. Names that begin with a dot are left out without
--hidden.

On the machine and as the user that runs a relay nothing needs to be configured.
For another relay, its operator allows the key that 'weft id' prints.`,
		Example: `  weft publish ./site
  weft publish --relay https://relay.example ./site
  weft publish --serve ./site     # and keep on serving it from here
  weft publish --json ./site | jq -r .url`,
		Args: takes("PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.run(cmd.Context(), args[0], cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	dataFlag(cmd, &p.data, "publisher")
	relayFlag(cmd, &p.relay)
	f.StringVar(&p.name, "name", "", "what the relay lists it as (default: the last part of PATH)")
	f.BoolVar(&p.hidden, "hidden", false, "publish names that begin with a dot too")
	f.BoolVar(&p.serve, "serve", false, "keep on serving after the relay has it, until interrupted")
	f.StringArrayVar(&p.listen, "listen", []string{"/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1"},
		"`multiaddr` to serve at, repeatable; only with --serve")
	jsonFlag(cmd, &p.asJSON)
	return cmd
}

// published is the result with --json.
type published struct {
	Cid    cid.Cid  `json:"-"`
	Root   string   `json:"cid"`
	URL    string   `json:"url"`
	Files  int      `json:"files"`
	Blocks int      `json:"blocks"`
	Bytes  int64    `json:"bytes"` // of the files
	New    int      `json:"new"`   // blocks that the relay did not have
	Addrs  []string `json:"addrs,omitempty"`
}

func (p *publisher) run(ctx context.Context, path string, stdout, stderr io.Writer) error {
	total, err := size(path)
	if err != nil {
		return err
	}
	at, err := findRelay(p.relay)
	if err != nil {
		return err
	}
	relay, err := client.Find(ctx, at.URL, at.PeerID)
	if err != nil {
		return explain(err, at)
	}
	dir, err := roleDir(p.data, "publisher")
	if err != nil {
		return err
	}
	key, err := store.Key(dir)
	if err != nil {
		return err
	}
	blocks, err := store.Open(dir)
	if errors.Is(err, store.ErrLocked) {
		return fmt.Errorf("another `weft publish` is using %s: let it end, or give this one a directory of its own with --data: %w", dir, err)
	}
	if err != nil {
		return err
	}
	err = p.publish(ctx, relay, key, blocks, path, total, stdout, stderr)
	if errors.Is(err, publish.ErrNotAllowed) {
		err = notAllowed(err, key)
	}
	return errors.Join(explain(err, at), blocks.Close())
}

func (p *publisher) publish(ctx context.Context, relay client.Relay, key crypto.PrivKey, blocks *store.Store, path string, total int64, stdout, stderr io.Writer) error {
	var listen []client.Option
	if p.serve {
		listen = append(listen, client.WithListen(p.listen...))
	}
	// Connect before the work: a relay that cannot be reached is known at once.
	peer, err := client.Connect(ctx, relay, key, blocks.Blockstore(), listen...)
	if err != nil {
		return err
	}
	defer peer.Close()

	bar := newProgress(stderr, "adding", total)
	opts := []content.AddOption{content.WithProgress(func(s content.Stat) { bar.at(s.Bytes) })}
	if p.hidden {
		opts = append(opts, content.WithHidden())
	}
	stat, err := publish.Add(ctx, blocks.Blockstore(), path, opts...)
	bar.done()
	if err != nil {
		return err
	}

	name := p.name
	if name == "" {
		abs, err := filepath.Abs(path)
		if err != nil {
			return err
		}
		name = filepath.Base(abs)
	}
	if err := blocks.Keep(ctx, store.Root{Cid: stat.Root, Name: name, By: peer.Host.ID()}); err != nil {
		return err
	}
	bar = newProgress(stderr, "relay fetches", stat.Bytes)
	res, err := publish.Ask(ctx, peer, key, stat.Root, name, func(n publish.Pulled) { bar.at(min(n.Bytes, stat.Bytes)) })
	bar.done()
	if err != nil {
		return err
	}
	out := published{Root: stat.Root.String(), URL: res.URL, Files: stat.Files, Blocks: stat.Blocks, Bytes: stat.Bytes, New: res.New}
	if p.serve {
		for _, a := range peer.Addrs() {
			out.Addrs = append(out.Addrs, a.String())
		}
	}
	if p.asJSON {
		if err := json.NewEncoder(stdout).Encode(out); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(stderr, "%d files, %d blocks; the relay fetched %d of them\n", out.Files, out.Blocks, out.New)
		for _, a := range out.Addrs {
			fmt.Fprintf(stderr, "serving at %s\n", a)
		}
		fmt.Fprintf(stdout, "%s\n%s\n", out.URL, out.Root)
	}
	if p.serve {
		<-ctx.Done() // being interrupted is how serving ends
	}
	return nil
}

// size is how many bytes the files at and below path have, for the bar.
func size(path string) (int64, error) {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return 0, err
	}
	var total int64
	err = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, os.ErrNotExist) {
			return nil // gone since: the add decides
		}
		if err == nil {
			total += info.Size()
		}
		return err
	})
	return total, err
}

// explain adds to err what its reader can do about it.
func explain(err error, at running) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, client.ErrUnreachable) && at.PID != 0:
		return fmt.Errorf("%w\nThe relay that ran here (process %d) is gone: start one with `weft relay`, or name one with --relay URL", err, at.PID)
	case errors.Is(err, client.ErrUnreachable):
		return fmt.Errorf("%w\nIs a relay running at %s? Start one with `weft relay`", err, at.URL)
	case errors.Is(err, client.ErrConfig):
		return fmt.Errorf("%w\n%s is no Weft relay: name one with --relay URL", err, at.URL)
	}
	return err
}

// notAllowed says how the relay's operator lets key in.
func notAllowed(err error, key crypto.PrivKey) error {
	id, idErr := identity.ID(key)
	if idErr != nil {
		return errors.Join(err, idErr)
	}
	return fmt.Errorf("%w\nWhoever runs the relay lets it in by starting it with:\n  --allow-publisher %s", err, id)
}
