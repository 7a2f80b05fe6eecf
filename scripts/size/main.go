// Command size prints what the tab's node weighs, raw and compressed, against
// its budget, and which packages weigh how much in it.
//
// Usage: go run ./scripts/size web/node.wasm LINKED.wasm DEPS
//
// LINKED is the same program with its names (linked without -s), and DEPS what
// the linker's -dumpdep says about it: `make size` makes both. A package's code
// is what is in the program; its data is that of its archive which the program
// reaches. Neither counts the tables that the linker makes of all functions,
// which grow with the code. What a package costs compressed is known only by
// leaving it out: RATIONALE.md has what was measured.
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/andybalholm/brotli"
)

// budget is the most that the node may weigh, in brotli bytes at quality 11.
const budget = 3_200_000

// shown is how many packages are printed.
const shown = 40

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: size FILE.wasm LINKED.wasm DEPS")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "size:", err)
		os.Exit(1)
	}
}

func run(file, linked, deps string) error {
	if err := packages(linked, deps); err != nil {
		return err
	}
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
	if small > budget {
		return fmt.Errorf("%d brotli bytes, over the budget of %d", small, budget)
	}
	fmt.Printf("budget     %10d\n", budget)
	return nil
}

// A weight is a package's, in bytes.
type weight struct {
	pkg        string
	code, data int64
}

// packages prints the heaviest packages of a program.
func packages(linked, deps string) error {
	program, err := os.ReadFile(linked)
	if err != nil {
		return err
	}
	functions, err := functions(program)
	if err != nil {
		return fmt.Errorf("%s: %w", linked, err)
	}
	reached, err := reached(deps)
	if err != nil {
		return err
	}
	// The build's GOFLAGS name its mod file.
	list := exec.Command("go", "list", "-deps", "-f", "{{.ImportPath}} {{.Export}}", "-export", "./wasm")
	list.Env = append(os.Environ(), "GOOS=js", "GOARCH=wasm")
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	all := map[string]*weight{}
	named := map[string]*weight{} // by the name that the linker writes into wasm
	for line := range strings.Lines(string(out)) {
		pkg, archive, _ := strings.Cut(strings.TrimSpace(line), " ")
		w := &weight{pkg: pkg}
		all[pkg], named[mangled(pkg)] = w, w
		if archive == "" {
			continue
		}
		nm, err := exec.Command("go", "tool", "nm", "-size", archive).Output()
		if err != nil {
			continue // a package without code has no symbols
		}
		for l := range strings.Lines(string(nm)) {
			// address size type name; a name may have spaces
			f := symbolLine.FindStringSubmatch(strings.TrimSuffix(l, "\n"))
			if f == nil || !reached[f[2]] {
				continue
			}
			delete(reached, f[2]) // what several packages have counts once
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				return err
			}
			w.data += n
		}
	}
	rest := &weight{pkg: "(of no package)"}
	all[rest.pkg], named["main"] = rest, all["github.com/webfabric/weft/wasm"]
	for name, size := range functions {
		at := rest
		for i := range name {
			if name[i] == '.' {
				if w := named[name[:i]]; w != nil {
					at = w
				}
			}
		}
		at.code += size
	}
	heaviest := make([]*weight, 0, len(all))
	for _, w := range all {
		heaviest = append(heaviest, w)
	}
	slices.SortFunc(heaviest, func(a, b *weight) int {
		return cmp.Or(cmp.Compare(b.code+b.data, a.code+a.data), cmp.Compare(a.pkg, b.pkg))
	})
	fmt.Printf("%9s %9s  bytes in the program, heaviest packages of %d\n", "code", "data", len(all))
	for _, w := range heaviest[:min(shown, len(heaviest))] {
		fmt.Printf("%9d %9d  %s\n", w.code, w.data, w.pkg)
	}
	return nil
}

// symbolLine is a data symbol as `go tool nm -size` prints it.
var symbolLine = regexp.MustCompile(`^\s*[0-9a-f]*\s+(\d+)\s+[RrDd]\s+(.*)$`)

var notInName = regexp.MustCompile(`[^\w.]`)

// mangled is a package's path as the linker writes it before function names.
func mangled(pkg string) string { return notInName.ReplaceAllString(pkg, "_") }

// reached returns the symbols that are in a program, of what -dumpdep printed:
// lines "from -> to", either with attributes behind.
func reached(deps string) (map[string]bool, error) {
	f, err := os.Open(deps)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all := map[string]bool{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		from, to, ok := strings.Cut(lines.Text(), " -> ")
		if !ok {
			continue
		}
		for _, s := range []string{from, to} {
			s, _, _ = strings.Cut(s, " <")
			all[s] = true
		}
	}
	return all, lines.Err()
}

var errNoNames = errors.New("not a wasm program with names")

// functions returns the sizes of a program's functions by name.
func functions(program []byte) (sizes map[string]int64, err error) {
	defer func() {
		if recover() != nil {
			sizes, err = nil, errNoNames
		}
	}()
	var bodies []int64
	imports := 0
	names := map[int]string{}
	for r := bytes.NewReader(program[8:]); r.Len() > 0; {
		id, _ := r.ReadByte()
		section := next(r, number(r))
		s := bytes.NewReader(section)
		switch id {
		case 0: // custom
			if string(next(s, number(s))) != "name" {
				continue
			}
			for s.Len() > 0 {
				kind, _ := s.ReadByte()
				part := bytes.NewReader(next(s, number(s)))
				if kind != 1 { // function names
					continue
				}
				for range number(part) {
					i := number(part)
					names[i] = string(next(part, number(part)))
				}
			}
		case 2: // imports: a program of Go imports functions only
			for range number(s) {
				next(s, number(s))
				next(s, number(s))
				next(s, 1)
				number(s)
				imports++
			}
		case 10: // code
			for range number(s) {
				n := number(s)
				next(s, n)
				bodies = append(bodies, int64(n))
			}
		}
	}
	if len(names) == 0 {
		return nil, errNoNames
	}
	sizes = make(map[string]int64, len(bodies))
	for i, n := range bodies {
		sizes[names[i+imports]] += n
	}
	return sizes, nil
}

func number(r *bytes.Reader) int {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		panic(err)
	}
	return int(n)
}

func next(r *bytes.Reader, n int) []byte {
	b := make([]byte, n)
	if _, err := r.Read(b); err != nil && n > 0 {
		panic(err)
	}
	return b
}
