package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/ipfs/go-cid"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/webfabric/weft/shared/content"
)

func lsCommand() *cobra.Command {
	var relay string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ls CID[/path]",
		Short: "List a directory: CID, size in bytes, name",
		Example: `  weft ls bafy…/images
  weft ls --json bafy… | jq -r .name`,
		Args: takes("CID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			root, segments, err := parsePath(args[0])
			if err != nil {
				return err
			}
			return withRelay(cmd.Context(), relay, func(ctx context.Context, get content.Getter) error {
				return list(ctx, get, root, segments, asJSON, cmd.OutOrStdout())
			})
		},
	}
	relayFlag(cmd, &relay)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line")
	return cmd
}

// listed is one line of `weft ls --json`.
type listed struct {
	Name string  `json:"name"`
	Cid  string  `json:"cid"`
	Type string  `json:"type"` // file, dir or symlink
	Size int64   `json:"size"` // bytes of a file; of a directory's whole DAG, as its maker says
	cid  cid.Cid // of Cid
}

var kinds = map[content.Kind]string{content.File: "file", content.Dir: "dir", content.Symlink: "symlink"}

// ahead is how many entries are looked at together: their kinds are in their
// own blocks.
const ahead = 32

func list(ctx context.Context, get content.Getter, root cid.Cid, segments []string, asJSON bool, stdout io.Writer) error {
	target, err := content.Resolve(ctx, get, root, segments)
	if err != nil {
		return err
	}
	out := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	print := func(e listed) error {
		if asJSON {
			return json.NewEncoder(stdout).Encode(e)
		}
		name := e.Name
		if strings.ContainsFunc(name, func(r rune) bool { return !strconv.IsPrint(r) }) {
			name = strconv.Quote(name) // a foreign name does not write to this terminal
		}
		if e.Type == kinds[content.Dir] {
			name += "/"
		}
		_, err := fmt.Fprintf(out, "%s\t%d\t%s\n", e.Cid, e.Size, name)
		return err
	}
	if target.Kind != content.Dir {
		name := root.String()
		if len(segments) > 0 {
			name = segments[len(segments)-1]
		}
		if err := print(listed{Name: name, Cid: target.Cid.String(), Type: kinds[target.Kind], Size: target.Size}); err != nil {
			return err
		}
		return out.Flush()
	}
	var batch []listed
	flush := func() error {
		group, ctx := errgroup.WithContext(ctx)
		for i := range batch {
			group.Go(func() error {
				t, err := content.Resolve(ctx, get, batch[i].cid, nil)
				if err != nil {
					return fmt.Errorf("%q: %w", batch[i].Name, err)
				}
				batch[i].Type = kinds[t.Kind]
				if t.Kind != content.Dir {
					batch[i].Size = t.Size
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		for _, e := range batch {
			if err := print(e); err != nil {
				return err
			}
		}
		batch = batch[:0]
		return out.Flush()
	}
	for e, err := range content.List(ctx, get, target.Cid) {
		if err != nil {
			return err
		}
		batch = append(batch, listed{Name: e.Name, Cid: e.Cid.String(), Size: e.Size, cid: e.Cid})
		if len(batch) == ahead {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}
