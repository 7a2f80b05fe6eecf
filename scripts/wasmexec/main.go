// Command wasmexec runs a js/wasm test binary in a real, headless Chromium:
//
//	GOOS=js GOARCH=wasm go test -exec bin/wasmexec ./wasm/...
//
// The binary runs in a dedicated worker, which has IndexedDB, WebCrypto and
// WebSocket as a Service Worker has, on an origin and a profile of its own. Its
// output goes to stdout and its exit code becomes this program's.
//
// The binary finds these in its environment:
//
//	WEFT_TEST_WS    a WebSocket URL; ?do= says how its far end behaves, see farEnd
//	WEFT_TEST_PEER  the multiaddr of a native libp2p peer over WebSocket, which
//	                answers pings and serves the blocks of WEFT_TEST_ROOT
//	WEFT_TEST_RTC   the multiaddr of another native peer, by /webrtc through the
//	                first one; what it does is in rtc.go
//	WEFT_TEST_ROOT  a UnixFS directory with the file data.bin, whose byte i is
//	                given by [fixtureByte]
//
// The global function newRTC returns a MessagePort to a page that serves WebRTC
// (web/rtc.js); each port stands for a page of its own.
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/coder/websocket"

	"github.com/webfabric/weft"
)

//go:embed worker.js
var workerJS []byte

const page = `<!doctype html><title>wasmexec</title><script type="module">
import { serveRTC } from "/rtc.js";
const w = new Worker("/worker.js");
w.onerror = (e) => fetch("/failed", { method: "POST", body: "worker: " + (e.message || "not started") });
w.onmessage = ({ ports }) => serveRTC(ports[0]);
</script>`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: wasmexec TEST.wasm [arguments]")
		os.Exit(2)
	}
	code, err := run(ctx, os.Args[1], os.Args[2:], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "wasmexec:", err)
		os.Exit(3)
	}
	os.Exit(code)
}

// run runs binary and returns its exit code.
func run(ctx context.Context, binary string, args []string, out io.Writer) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	goroot, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return 0, fmt.Errorf("go env GOROOT: %w", err)
	}
	wasmExec, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(goroot)), "lib", "wasm", "wasm_exec.js"))
	if err != nil {
		return 0, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	base := "http://" + ln.Addr().String()
	peer, err := newFixture(ctx)
	if err != nil {
		return 0, err
	}
	defer peer.Close()
	rtcAddr, stopRTC, err := newRTCPeer(ctx, peer.host)
	if err != nil {
		return 0, err
	}
	defer stopRTC()
	rtcJS, err := fs.ReadFile(weft.Assets(), "rtc.js")
	if err != nil {
		return 0, err
	}
	// The binary has no files: what go test asks for in files is left out.
	args = slices.DeleteFunc(args, func(a string) bool {
		return strings.HasPrefix(a, "-test.testlogfile=") || strings.HasPrefix(a, "-test.gocoverdir=")
	})
	setup, err := json.Marshal(map[string]any{
		"argv": append([]string{"test"}, args...),
		"env": map[string]string{
			"WEFT_TEST_WS":   "ws://" + ln.Addr().String() + "/ws",
			"WEFT_TEST_PEER": peer.addr,
			"WEFT_TEST_RTC":  rtcAddr,
			"WEFT_TEST_ROOT": peer.root.String(),
		},
	})
	if err != nil {
		return 0, err
	}

	type result struct {
		code int
		err  error
	}
	done := make(chan result, 1)
	end := func(r result) {
		select {
		case done <- r:
		default:
		}
	}
	mux := http.NewServeMux()
	serve := func(path, contentType string, body []byte) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			w.Write(body)
		})
	}
	serve("/{$}", "text/html", []byte(page))
	serve("/worker.js", "text/javascript", workerJS)
	serve("/rtc.js", "text/javascript", rtcJS)
	serve("/wasm_exec.js", "text/javascript", wasmExec)
	serve("/setup.json", "application/json", setup)
	mux.HandleFunc("GET /test.wasm", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/wasm")
		http.ServeFile(w, r, binary)
	})
	mux.HandleFunc("POST /failed", func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(io.LimitReader(r.Body, 1<<16))
		end(result{err: errors.New(string(b))})
	})
	mux.HandleFunc("GET /ws", farEnd)
	// The worker's output comes as binary messages, its exit code as a text.
	mux.HandleFunc("GET /output", func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(-1)
		for {
			kind, b, err := c.Read(ctx)
			if err != nil {
				end(result{err: fmt.Errorf("the worker ended: %w", err)})
				return
			}
			if kind == websocket.MessageBinary {
				if _, err := out.Write(b); err != nil {
					end(result{err: err})
				}
				continue
			}
			var code int
			if _, err := fmt.Sscan(string(b), &code); err != nil {
				end(result{err: errors.New(string(b))})
			} else {
				end(result{code: code})
			}
			return
		}
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go srv.Serve(ln) // ends with Close
	defer srv.Close()

	browser, quit, err := browse(ctx, base+"/")
	if err != nil {
		return 0, err
	}
	defer quit()
	select {
	case r := <-done:
		return r.code, r.err
	case <-browser.Done():
		return 0, fmt.Errorf("the browser ended: %w", context.Cause(browser))
	}
}

// browse starts a browser on url. The context it returns ends with it.
func browse(ctx context.Context, url string) (context.Context, func(), error) {
	dir, err := os.MkdirTemp("", "wasmexec")
	if err != nil {
		return nil, nil, err
	}
	alloc, stopAlloc := chromedp.NewExecAllocator(ctx,
		chromedp.UserDataDir(dir),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("no-proxy-server", true),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-dev-shm-usage", true),
		// The native peer resolves no mDNS names, and is on this machine.
		chromedp.Flag("disable-features", "WebRtcHideLocalIpsWithMdns"),
		chromedp.Flag("allow-loopback-in-peer-connection", true),
	)
	tab, stopTab := chromedp.NewContext(alloc)
	quit := func() {
		stopTab()
		stopAlloc()
		os.RemoveAll(dir)
	}
	if err := chromedp.Do(tab, chromedp.Navigate(url)); err != nil {
		quit()
		return nil, nil, fmt.Errorf("start Chromium: %w", err)
	}
	return tab, quit, nil
}

// farEnd is the other side of WEFT_TEST_WS. By ?do= it does:
//
//	echo   send back every message (the default)
//	flood  send 64 KiB messages without end
//	text   send one text message
//	reset  close the TCP connection without a closing handshake
//	bye    send "bye" and close properly
//	stall  never read
//	refuse answer 403
func farEnd(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("do") == "refuse" {
		http.Error(w, "no", http.StatusForbidden)
		return
	}
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return
	}
	defer c.CloseNow()
	c.SetReadLimit(-1)
	ctx := r.Context()
	switch r.URL.Query().Get("do") {
	case "flood":
		ctx = c.CloseRead(ctx)
		for buf := make([]byte, 64<<10); ; {
			if c.Write(ctx, websocket.MessageBinary, buf) != nil {
				return
			}
		}
	case "text":
		c.Write(ctx, websocket.MessageText, []byte("hello"))
		c.Read(ctx)
	case "reset":
	case "bye":
		c.Write(ctx, websocket.MessageBinary, []byte("bye"))
		c.Close(websocket.StatusNormalClosure, "")
	case "stall":
		<-ctx.Done()
	default:
		for {
			kind, b, err := c.Read(ctx)
			if err != nil || c.Write(ctx, kind, b) != nil {
				return
			}
		}
	}
}
