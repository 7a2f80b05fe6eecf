package weft_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/webfabric/weft"

// list returns what `go list` prints for args, a line each, under GOOS=goos.
func list(t *testing.T, goos string, args ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Env = os.Environ()
	if goos != "" {
		if out, err := exec.Command("scripts/wasmmod.sh").CombinedOutput(); err != nil {
			t.Fatalf("scripts/wasmmod.sh: %v\n%s", err, out)
		}
		cmd.Env = append(cmd.Env, "GOOS="+goos, "GOARCH=wasm", "GOFLAGS=-modfile=build/wasm.mod")
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v\n%s", args, err, stderr.String())
	}
	return strings.Fields(string(out))
}

// under tells whether pkg is one of prefix's packages.
func under(pkg, prefix string) bool {
	return pkg == prefix || strings.HasPrefix(pkg, prefix+"/")
}

// TestTab lists what may not be in the tab's node, with the reason: every
// visitor downloads it.
func TestTab(t *testing.T) {
	banned := []struct{ pkg, why string }{
		{"github.com/libp2p/go-libp2p/p2p/transport/quic", "a tab has no UDP; quic-go weighs over a megabyte"},
		{"github.com/quic-go/quic-go", "a tab has no UDP"},
		{"github.com/pion/webrtc/v4", "its js half wants window, which a Service Worker lacks, and weighs 0.7 MB brotli; the page owns WebRTC"},
		{"github.com/ipfs/boxo/gateway", "1.1 MB brotli and 200 ms of start; shared/gateway answers in the tab"},
		{"github.com/ipfs/boxo/namesys", "names come with their own issue, and then by delegated routing"},
		{"github.com/libp2p/go-libp2p-kad-dht", "a tab delegates routing to its relay"},
		{"github.com/libp2p/go-libp2p-pubsub", "nothing in the tab uses topics yet"},
		{"github.com/prometheus/client_model", "the tab shows one Stats snapshot, it serves no metrics; wasm/stubs/prometheus"},
		{"go.uber.org/zap/zapcore", "errors go to slog; wasm/stubs/golog"},
		{"go.opentelemetry.io/otel/metric", "the tab sends no traces; wasm/stubs/otel"},
		{"regexp", "0.2 MB for what is written by hand in a few lines"},
		{"expvar", "the tab serves no metrics"},
		{"github.com/coder/websocket", "its js half queues received messages without bound; wasm/wsdial has a cap"},
		{"github.com/spf13/cobra", "the command line is the relay's"},
		{"github.com/caddyserver/certmagic", "certificates are the relay's"},
		{"github.com/ipfs/go-ds-flatfs", "a tab has no files"},
	}
	deps := list(t, "js", "-deps", "./wasm")
	for _, b := range banned {
		for _, pkg := range deps {
			if under(pkg, b.pkg) {
				t.Errorf("the tab's node imports %s: %s", pkg, b.why)
			}
		}
	}
	stubs, err := filepath.Glob("wasm/stubs/*/go.mod")
	if err != nil || len(stubs) == 0 {
		t.Fatalf("%d stubs, %v", len(stubs), err)
	}
	for _, mod := range stubs {
		b, err := os.ReadFile(mod)
		if err != nil {
			t.Fatal(err)
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(string(b), "module "), "\n")
		if !slices.ContainsFunc(deps, func(pkg string) bool { return under(pkg, name) }) {
			t.Errorf("%s stands in for %s, which the tab's node does not import", filepath.Dir(mod), name)
		}
	}
	if slices.Contains(deps, "github.com/libp2p/go-libp2p") {
		t.Error("the tab's node imports go-libp2p's root package, which does not compile for it")
	}
}

// TestImports holds the direction in which packages may import each other.
func TestImports(t *testing.T) {
	rules := []struct{ from, to, why string }{
		{"shared", "relay", "shared builds for every platform"},
		{"shared", "wasm", "shared builds for every platform"},
		{"relay", "wasm", "the two platforms meet in shared"},
		{"wasm", "relay", "the two platforms meet in shared"},
		{"shared/content", "shared/gateway", "content knows blocks and files, not requests"},
		{"shared/content", "shared/node", "content reads from whatever getter it is given"},
		{"shared/gateway", "shared/node", "the gateway is given its source"},
		{"shared/identity", "shared/content", "keys know nothing of content"},
		{"shared/config", "shared/node", "a document is read, not acted on"},
		{"relay/store", "relay/server", "the store is below the server"},
		{"relay/auth", "relay/store", "a signature is checked before anything is kept"},
		{"relay/server", "relay/publish", "the publishing side asks the server over HTTP only"},
	}
	outside := []struct{ from, pkg, why string }{
		{"shared", "github.com/libp2p/go-libp2p", "the root package does not compile for the tab"},
		{"shared", "syscall/js", "platform code lives in wasm/"},
		{"shared", "os/exec", "shared starts no processes"},
		{"shared", "net/http/httptest", "for tests only"},
	}
	for _, goos := range []string{"", "js"} {
		pkgs := []string{"./shared/..."}
		if goos == "" {
			pkgs = append(pkgs, "./relay/...")
		} else {
			pkgs = append(pkgs, "./wasm/...")
		}
		lines := list(t, goos, append([]string{"-f", `{{.ImportPath}},{{join .Imports ","}}`}, pkgs...)...)
		for _, line := range lines {
			parts := strings.Split(line, ",")
			for _, imported := range parts[1:] {
				for _, r := range rules {
					if under(parts[0], module+"/"+r.from) && under(imported, module+"/"+r.to) {
						t.Errorf("%s imports %s: %s", parts[0], imported, r.why)
					}
				}
				for _, o := range outside {
					if under(parts[0], module+"/"+o.from) && imported == o.pkg {
						t.Errorf("%s imports %s: %s", parts[0], imported, o.why)
					}
				}
			}
		}
	}
}
