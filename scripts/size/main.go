// Command size prints what the tab's node weighs, raw and compressed, against
// its budget, and which packages weigh most.
//
// Usage: go run ./scripts/size web/node.wasm
//
// A package's weight is that of its code before the linker drops what nobody
// calls, so the list is a guide to what is worth keeping out; the totals are
// what a visitor downloads.
package main

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/andybalholm/brotli"
)

// budget is the most that the node may weigh, in brotli bytes at quality 11.
const budget = 6_000_000

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: size FILE.wasm")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "size:", err)
		os.Exit(1)
	}
}

func run(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	fmt.Printf("raw        %10d\n", len(data))
	var small int
	for _, q := range []int{5, 11} {
		var buf bytes.Buffer
		w := brotli.NewWriterOptions(&buf, brotli.WriterOptions{Quality: q, LGWin: 24})
		if _, err := w.Write(data); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
		small = buf.Len()
		fmt.Printf("brotli %-3d %10d\n", q, small)
	}
	if err := packages(); err != nil {
		return err
	}
	if small > budget {
		return fmt.Errorf("%d brotli bytes, over the budget of %d", small, budget)
	}
	fmt.Printf("budget     %10d\n", budget)
	return nil
}

// packages prints the twenty heaviest packages that the node depends on, from
// their archives: a linked wasm file has no symbols that `go tool nm` can read.
func packages() error {
	list := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}} {{.Export}}{{end}}", "-export", "./wasm")
	list.Env = append(os.Environ(), "GOOS=js", "GOARCH=wasm")
	out, err := list.Output()
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	type weight struct {
		pkg   string
		bytes int64
	}
	var all []weight
	for line := range strings.Lines(string(out)) {
		pkg, archive, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		nm, err := exec.Command("go", "tool", "nm", "-size", archive).Output()
		if err != nil {
			continue // a package without code has no symbols
		}
		var sum int64
		for l := range strings.Lines(string(nm)) {
			f := strings.Fields(l)
			if len(f) >= 4 && strings.EqualFold(f[2], "t") {
				n, err := strconv.ParseInt(f[1], 10, 64)
				if err == nil {
					sum += n
				}
			}
		}
		all = append(all, weight{pkg, sum})
	}
	slices.SortFunc(all, func(a, b weight) int { return cmp.Compare(b.bytes, a.bytes) })
	fmt.Println("heaviest packages, code bytes before linking:")
	for _, w := range all[:min(20, len(all))] {
		fmt.Printf("  %9d %s\n", w.bytes, w.pkg)
	}
	return nil
}
