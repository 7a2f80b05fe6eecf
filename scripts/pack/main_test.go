package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// program panics at a line that its trace would name.
const program = `package main

import (
	"os"
	"runtime"
)

//go:noinline
func callee(n int) {
	_, file, line, ok := runtime.Caller(0)
	println("caller", file, line, ok)
	if n > 0 {
		defer func() { recover(); runtime.GC(); panic("again") }()
	}
	panic("on purpose")
}

func main() { callee(len(os.Args)) }
`

// TestPack links a program, packs it and runs both in Node.
func TestPack(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	source := write("main.go", []byte(program))
	before, after := filepath.Join(dir, "before.wasm"), filepath.Join(dir, "after.wasm")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", before, source)
	build.Env = append(os.Environ(), "GOOS=js", "GOARCH=wasm")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	if err := run(before, after); err != nil {
		t.Fatal(err)
	}
	linked, err := os.ReadFile(before)
	if err != nil {
		t.Fatal(err)
	}
	packed, err := os.ReadFile(after)
	if err != nil {
		t.Fatal(err)
	}
	again, err := pack(packed)
	if err != nil || !bytes.Equal(again, packed) {
		t.Errorf("a packed program is packed to another one, %v", err)
	}
	t.Logf("%d bytes linked, %d packed", len(linked), len(packed))

	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatalf("scripts/setup.sh node installs it: %v", err)
	}
	start := filepath.Join(strings.TrimSpace(string(goroot)), "lib/wasm/wasm_exec_node.js")
	for _, tt := range []struct {
		name, file, has, hasNot string
	}{
		{name: "linked", file: before, has: "main.go:", hasNot: "?:0"},
		{name: "packed", file: after, has: "main.callee", hasNot: "main.go:"},
	} {
		out, err := exec.Command(node, start, tt.file, "argument").CombinedOutput()
		if err == nil {
			t.Errorf("%s: the program did not panic", tt.name)
		}
		for _, has := range []string{tt.has, "on purpose", "again", "main.main", "true"} {
			if !strings.Contains(string(out), has) {
				t.Errorf("%s: no %q in the output\n%s", tt.name, has, out)
			}
		}
		if strings.Contains(string(out), tt.hasNot) {
			t.Errorf("%s: %q in the output\n%s", tt.name, tt.hasNot, out)
		}
	}

	for name, data := range map[string][]byte{
		"empty":     nil,
		"no data":   linked[:8],
		"cut off":   linked[:len(linked)/2],
		"other":     []byte("\x00asm\x02\x00\x00\x00"),
		"no tables": bytes.ReplaceAll(linked, header, make([]byte, len(header))),
	} {
		if _, err := pack(data); !errors.Is(err, errMalformed) {
			t.Errorf("pack(%s) = %v; want %v", name, err, errMalformed)
		}
	}
}
