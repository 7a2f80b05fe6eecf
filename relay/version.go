package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	"github.com/spf13/cobra"

	"github.com/ipfs/boxo/bitswap/network/bsnet"

	"github.com/webfabric/weft/shared/config"
)

// build is what `weft version` prints.
type build struct {
	Version   string            `json:"version"`
	Commit    string            `json:"commit,omitempty"`
	Go        string            `json:"go"`
	Platform  string            `json:"platform"`
	Config    int               `json:"config"` // the version of /weft/config.json
	Protocols []protocol.ID     `json:"protocols"`
	Modules   map[string]string `json:"modules"` // those whose version decides what peers see
}

func readBuild() build {
	b := build{
		Version: "devel", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		Config:    config.Version,
		Protocols: []protocol.ID{bsnet.ProtocolBitswap, identify.ID, proto.ProtoIDv2Hop, proto.ProtoIDv2Stop},
		Modules:   map[string]string{},
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		b.Version = v
	}
	modified := false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.modified":
			modified = s.Value == "true"
		}
	}
	if modified {
		b.Commit += "-modified"
	}
	for _, m := range info.Deps {
		switch m.Path {
		case "github.com/libp2p/go-libp2p", "github.com/ipfs/boxo":
			b.Modules[m.Path] = m.Version
		}
	}
	return b
}

func versionCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the versions of this program and of the protocols it speaks",
		Example: `  weft version
  weft version --json`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, out := readBuild(), cmd.OutOrStdout()
			if asJSON {
				return json.NewEncoder(out).Encode(b)
			}
			fmt.Fprintf(out, "weft %s %s %s\n", b.Version, b.Go, b.Platform)
			if b.Commit != "" {
				fmt.Fprintf(out, "commit %s\n", b.Commit)
			}
			for _, m := range []string{"github.com/libp2p/go-libp2p", "github.com/ipfs/boxo"} {
				fmt.Fprintf(out, "%s %s\n", m, b.Modules[m])
			}
			for _, p := range b.Protocols {
				fmt.Fprintf(out, "speaks %s\n", p)
			}
			return nil
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}
