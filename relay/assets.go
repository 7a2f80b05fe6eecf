package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/andybalholm/brotli"
	"github.com/spf13/cobra"

	"github.com/webfabric/weft"
)

func assetsCommand() *cobra.Command {
	var asJSON, force bool
	cmd := &cobra.Command{
		Use:   "assets DIR",
		Short: "Write the files that a static host needs for its pages to join",
		Long: `Write the files that a static host needs for its pages to join: the Service
Worker, the node and the client API. Serve them at the root of the site's
origin; sw.js must not be cached for long. Pages then name their relay:

  import { join } from "/weft.js";
  const node = await join({ relays: ["https://relay.example"] });

and the relay lets that origin in by --allow-origin.`,
		Example: `  weft assets ./public
  weft relay --allow-origin https://www.example`,
		Args: takes("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			files, err := hostAssets(weft.Assets())
			if err != nil {
				return err
			}
			written, err := writeAssets(files, args[0], force)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"dir": args[0], "files": written})
			}
			for _, name := range written {
				fmt.Fprintln(cmd.OutOrStdout(), name)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace files that differ")
	jsonFlag(cmd, &asJSON)
	return cmd
}

// relayOnly are the assets that are a relay's own pages.
var relayOnly = []string{"index.html", "ui"}

// hostAssets returns what a static host serves, by path: the scripts, the node
// uncompressed under the name by which a relay's config.json knows it, and
// assets.json, the list of all of them.
func hostAssets(assets fs.FS) (map[string][]byte, error) {
	files, hashes := map[string][]byte{}, map[string]string{}
	err := fs.WalkDir(assets, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if slices.Contains(relayOnly, name) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.IsDir() {
			return nil
		}
		b, err := fs.ReadFile(assets, name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(b)
		hash := hex.EncodeToString(sum[:8])
		if name == "node.wasm.br" {
			name = "node." + hash + ".wasm"
			if b, err = io.ReadAll(brotli.NewReader(bytes.NewReader(b))); err != nil {
				return fmt.Errorf("unpack %s: %w", name, err)
			}
		}
		files[name], hashes["/"+name] = b, hash
		return nil
	})
	if err != nil {
		return nil, err
	}
	files["assets.json"], err = json.Marshal(map[string]any{"files": hashes})
	return files, err
}

// writeAssets writes every file below dir, and returns their names, sorted. A
// file that is there already and differs is an error unless force is set; then
// nothing is written.
func writeAssets(files map[string][]byte, dir string, force bool) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	names := slices.Sorted(maps.Keys(files))
	for _, name := range names {
		old, err := root.ReadFile(name)
		switch {
		case err == nil && !force && !bytes.Equal(old, files[name]):
			return nil, fmt.Errorf("%s exists and differs: use --force to replace it", filepath.Join(dir, name))
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}
	for _, name := range names {
		if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return nil, err
		}
		if err := root.WriteFile(name, files[name], 0o644); err != nil {
			return nil, err
		}
	}
	return names, nil
}
