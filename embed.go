// Package weft carries the files that a relay serves to browsers, so that one
// binary is all a site owner needs.
//
// On a fresh clone web/built is empty but for its README; `make build` puts the
// compiled node there before it builds the relay.
package weft

import (
	"embed"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
)

//go:embed index.html sw.js web/*.js web/ui web/demo web/built
var files embed.FS

// layers are the folders whose files are served at the root, the first that
// has a name wins.
var layers = []string{".", "web", "web/built"}

// hidden are names at the root that are no part of what is served.
var hidden = []string{"web", "README.md", "built", "demo"}

// Assets returns the files that a browser may ask for, by the path it asks
// under: index.html, sw.js, weft.js, ui/…, wasm_exec.js, node.wasm.br.
// It lacks the last two in a binary that was not built by make.
func Assets() fs.FS { return assets{} }

// Demo returns the small site that a relay publishes as its first root.
func Demo() fs.FS {
	demo, err := fs.Sub(files, "web/demo")
	if err != nil {
		panic(err) // the path is valid and embedded
	}
	return demo
}

type assets struct{}

var _ fs.ReadDirFS = assets{}

// Open implements [fs.FS].
func (assets) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	if name == "." {
		return files.Open(name) // for fs.Stat; ReadDir lists the union
	}
	if first, _, _ := strings.Cut(name, "/"); !slices.Contains(hidden, first) {
		for _, dir := range layers {
			f, err := files.Open(path.Join(dir, name))
			if !errors.Is(err, fs.ErrNotExist) {
				return f, err
			}
		}
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// ReadDir implements [fs.ReadDirFS]: the root is the union of the layers.
func (assets) ReadDir(name string) ([]fs.DirEntry, error) {
	seen := map[string]fs.DirEntry{}
	found := false
	for _, dir := range layers {
		entries, err := files.ReadDir(path.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		found = true
		for _, e := range entries {
			if _, taken := seen[e.Name()]; !taken && !(name == "." && slices.Contains(hidden, e.Name())) {
				seen[e.Name()] = e
			}
		}
	}
	if !found {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrNotExist}
	}
	var out []fs.DirEntry
	for _, e := range seen {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return out, nil
}
