//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/serviceworker"
	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"
)

// patience caps every wait: far above what anything takes, so that reaching it
// means that the thing waited for does not happen.
var patience = 2 * time.Minute

// flags are Chromium's. Software WebGL, because machines that run tests have no
// GPU.
func flags(dir string) []chromedp.ExecAllocatorOption {
	out := []chromedp.ExecAllocatorOption{
		chromedp.UserDataDir(dir),
		chromedp.Flag("headless", "new"),
	}
	for _, name := range []string{
		"no-sandbox", "disable-quic", "no-first-run", "no-default-browser-check", "disable-background-networking",
		"disable-component-update", "disable-sync", "disable-extensions", "disable-default-apps", "disable-breakpad",
		"disable-dev-shm-usage", "disable-background-timer-throttling", "disable-renderer-backgrounding",
		"disable-backgrounding-occluded-windows", "no-proxy-server", "mute-audio", "enable-unsafe-swiftshader",
	} {
		out = append(out, chromedp.Flag(name, true))
	}
	return append(out,
		chromedp.Flag("use-gl", "angle"),
		chromedp.Flag("use-angle", "swiftshader"),
		chromedp.Flag("force-color-profile", "srgb"),
		// Native peers resolve no mDNS names, and are on this machine.
		chromedp.Flag("disable-features", "WebRtcHideLocalIpsWithMdns"),
		chromedp.Flag("allow-loopback-in-peer-connection", true),
		chromedp.Flag("password-store", "basic"),
	)
}

// chromium is the one process that the visitors of all tests share.
var chromium struct {
	once sync.Once
	ctx  context.Context
	stop func()
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if chromium.stop != nil {
		chromium.stop()
	}
	os.Exit(code)
}

// launch starts a Chromium that keeps its profile in dir. stop ends it as a
// user would, so that what it was told is on disk.
func launch(dir string, more ...chromedp.ExecAllocatorOption) (ctx context.Context, stop func(), err error) {
	actx, acancel := chromedp.NewExecAllocator(context.Background(), append(flags(dir), more...)...)
	ctx, cancel := chromedp.NewContext(actx)
	if err := chromedp.Do(ctx); err != nil {
		cancel()
		acancel()
		return nil, nil, fmt.Errorf("e2e: start Chromium: %w", err)
	}
	return ctx, func() {
		tctx, tcancel := context.WithTimeout(ctx, 30*time.Second)
		defer tcancel()
		_ = chromedp.Cancel(tctx) // it is gone either way after acancel
		cancel()
		acancel()
	}, nil
}

// A visitor is one browser context: one identity on each origin.
type visitor struct {
	t   *testing.T
	ctx context.Context
	own bool // an own process, whose default context it is
	// leave closes all the visitor has, as closing a window does.
	leave func()
}

// newVisitor returns somebody who was never here before.
func newVisitor(t *testing.T) *visitor {
	t.Helper()
	chromium.once.Do(func() {
		dir, err := os.MkdirTemp("", "weft-e2e-")
		if err != nil {
			chromium.err = err
			return
		}
		var stop func()
		chromium.ctx, stop, chromium.err = launch(dir)
		chromium.stop = func() {
			if stop != nil {
				stop()
			}
			_ = os.RemoveAll(dir) // a temporary directory
		}
	})
	if chromium.err != nil {
		t.Fatal(chromium.err)
	}
	ctx, cancel := chromedp.NewContext(chromium.ctx, chromedp.WithNewBrowserContext())
	leave := sync.OnceFunc(cancel)
	t.Cleanup(leave)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("new browser context: %v", err)
	}
	return &visitor{t: t, ctx: ctx, leave: leave}
}

// returningVisitor is a browser of its own with a profile in dir, until quit.
func returningVisitor(t *testing.T, dir string, more ...chromedp.ExecAllocatorOption) (v *visitor, quit func()) {
	t.Helper()
	ctx, stop, err := launch(dir, more...)
	if err != nil {
		t.Fatal(err)
	}
	quit = sync.OnceFunc(stop)
	t.Cleanup(quit)
	return &visitor{t: t, ctx: ctx, own: true}, quit
}

// A tab is one page of a visitor, and the test that looks at it.
type tab struct {
	t     *testing.T
	ctx   context.Context
	close func()
	*console
}

// A console is what a tab logged, and the node in the worker behind it.
type console struct {
	t      *testing.T // the test that opened the tab
	mu     sync.Mutex
	errors []string
	expect []*regexp.Regexp // errors that the test provokes
	node   strings.Builder  // what the node wrote, a line each
}

// leftOut is what a stub of wasm/stubs says when it is reached (wasm/stubs/stubs_test.go).
// No test may have the node say so.
const leftOut = "left out of the tab"

// tellPages is added to wasm_exec.js: what the node writes goes to the pages,
// since nothing can listen in a worker without keeping it alive. hearNode is run
// in every page.
const (
	tellPages = `
{
	const { log } = console;
	console.log = (...args) => {
		log(...args);
		self.clients?.matchAll({ includeUncontrolled: true, type: "window" }).then((all) => {
			for (const client of all) client.postMessage({ weft: "e2e-log", text: args.join(" ") });
		});
	};
}
`
	// A sandboxed document has no workers, and says so by an exception.
	hearNode = `if (self.origin !== "null") navigator.serviceWorker?.addEventListener("message", ({ data }) => {
		if (data?.weft === "e2e-log") console.debug("node:", data.text);
		if (data?.weft === "event" && data.type === "error") console.debug("node:", data.detail?.message);
	});`
)

// in is the same tab for a subtest.
func (p *tab) in(t *testing.T) *tab {
	return &tab{t: t, ctx: p.ctx, close: p.close, console: p.console}
}

// blank opens an empty tab.
func (v *visitor) blank() *tab {
	v.t.Helper()
	ctx, cancel := chromedp.NewContext(v.ctx)
	p := &tab{t: v.t, ctx: ctx, close: cancel, console: &console{t: v.t}}
	if err := chromedp.Listen(ctx, p.hear); err != nil {
		v.t.Fatalf("new tab: %v", err)
	}
	if _, err := chromedp.Call(ctx, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: hearNode}); err != nil {
		v.t.Fatalf("new tab: %v", err)
	}
	// chromedp attaches to whatever belongs to a page, and what a debugger is
	// attached to lives on: a Service Worker would never be stopped.
	attach := os.Getenv("E2E_WORKER_LOG") != ""
	flat := true
	if _, err := chromedp.Call(ctx, target.SetAutoAttach, target.SetAutoAttachParams{AutoAttach: attach, Flatten: &flat}); err != nil {
		v.t.Fatalf("new tab: %v", err)
	}
	v.t.Cleanup(func() {
		p.mu.Lock()
		for _, e := range p.errors {
			v.t.Errorf("console: %s", e)
		}
		p.mu.Unlock()
		cancel()
	})
	return p
}

// open opens url in a new tab and waits until it has loaded.
func (v *visitor) open(url string) *tab {
	v.t.Helper()
	p := v.blank()
	p.navigate(url)
	return p
}

// hear notes what a page logs. It runs where messages of the browser are read.
func (c *console) hear(ev any) {
	switch ev := ev.(type) {
	case *runtime.EventConsoleAPICalled:
		var parts []string
		for _, a := range ev.Args {
			if a.Description != "" {
				parts = append(parts, a.Description)
			} else {
				parts = append(parts, string(a.Value))
			}
		}
		c.note(ev.Type == runtime.ConsoleAPICalledTypeError, fmt.Sprintf("%s: %s", ev.Type, strings.Join(parts, " ")))
	case *runtime.EventExceptionThrown:
		d := ev.ExceptionDetails
		text := d.Text
		if d.Exception != nil && d.Exception.Description != "" {
			text += " " + d.Exception.Description
		}
		c.note(true, fmt.Sprintf("uncaught: %s (%s:%d)", text, d.URL, d.LineNumber+1))
	case *log.EventEntryAdded:
		c.note(ev.Entry.Level == log.EntryLevelError, fmt.Sprintf("%s: %s (%s)", ev.Entry.Level, ev.Entry.Text, ev.Entry.URL))
	}
}

func (c *console) note(bad bool, text string) {
	c.t.Logf("tab: %s", text)
	c.mu.Lock()
	defer c.mu.Unlock()
	if line, ok := strings.CutPrefix(text, `debug: "node:" `); ok {
		c.node.WriteString(line + "\n")
	}
	if strings.Contains(text, leftOut) {
		c.errors = append(c.errors, "the node needs what it has not: "+text)
		return
	}
	if !bad {
		return
	}
	for _, re := range c.expect {
		if re.MatchString(text) {
			return
		}
	}
	c.errors = append(c.errors, text)
}

// said waits until the node has written something with text in it.
func (p *tab) said(text string) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		p.mu.Lock()
		has := strings.Contains(p.node.String(), text)
		p.mu.Unlock()
		if has {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("the node never said %q", text)
		}
	}
}

// expects names errors in the console that belong to the test.
func (p *tab) expects(patterns ...string) *tab {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range patterns {
		p.expect = append(p.expect, regexp.MustCompile(s))
	}
	return p
}

// do runs actions within patience.
func (p *tab) do(actions ...chromedp.Action[chromedp.Void]) error {
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	return chromedp.Do(ctx, actions...)
}

// navigate goes to url and waits until it has loaded, whatever its status.
func (p *tab) navigate(url string) {
	p.t.Helper()
	if err := p.do(chromedp.Navigate(url)); err != nil {
		p.t.Fatalf("navigate to %s: %v", url, err)
	}
}

// reload reloads the page; hard is shift-reload, which goes around the worker.
func (p *tab) reload(hard bool) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	again := chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, page.Reload, page.ReloadParams{IgnoreCache: &hard})
		return err
	})
	if _, err := chromedp.Run(ctx, chromedp.WaitEvent(page.LoadEventFired, nil, again)); err != nil {
		p.t.Fatalf("reload: %v", err)
	}
}

// jsError is an exception of the page: an Error, or a {code, message} of ours.
type jsError struct {
	Name    string `json:"name"`
	Code    string `json:"code"`
	Message string `json:"message"`
	Stack   string `json:"stack"`
}

func (e *jsError) Error() string {
	return fmt.Sprintf("%s (code %q): %s", e.Name, e.Code, e.Message)
}

// try calls the function expression fn in the page with args, awaits it, and
// decodes what it returns. An exception comes back as a *jsError.
func try[T any](p *tab, fn string, args ...any) (T, error) {
	var out struct {
		Value T        `json:"value"`
		Error *jsError `json:"error"`
	}
	b, err := json.Marshal(args)
	if err != nil || args == nil {
		b = []byte("[]")
	}
	src := fmt.Sprintf(`(async () => {
		try {
			const value = await (%s)(...%s);
			return JSON.stringify({ value: value === undefined ? null : value });
		} catch (e) {
			return JSON.stringify({ error: { name: e?.name ?? typeof e, code: String(e?.code ?? ""), message: String(e?.message ?? e), stack: String(e?.stack ?? "") } });
		}
	})()`, fn, b)
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](src, chromedp.EvalAwaitPromise))
	if err != nil {
		return out.Value, fmt.Errorf("evaluate: %w", err)
	}
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		return out.Value, fmt.Errorf("evaluate: got %s: %w", text, err)
	}
	if out.Error != nil {
		return out.Value, out.Error
	}
	return out.Value, nil
}

// eval is try where failing ends the test.
func eval[T any](p *tab, fn string, args ...any) T {
	p.t.Helper()
	v, err := try[T](p, fn, args...)
	if err != nil {
		var js *jsError
		if errors.As(err, &js) {
			p.t.Fatalf("in the page: %v\n%s\nfrom %s", err, js.Stack, fn)
		}
		p.t.Fatalf("in the page: %v\nfrom %s", err, fn)
	}
	return v
}

// until waits for the function expression fn, called again and again in
// whatever document the tab shows, to return something truthy, and returns it.
// Exceptions count as not yet.
func until[T any](p *tab, what, fn string, args ...any) T {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	wrapped := fmt.Sprintf(`async (...args) => { const v = await (%s)(...args); if (!v) throw new Error("not yet: " + JSON.stringify(v)); return v; }`, fn)
	for {
		v, err := try[T](p, wrapped, args...)
		if err == nil {
			return v
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s: still not so after %v: %v", what, patience, err)
		}
		time.Sleep(100 * time.Millisecond) // between looks
	}
}

// stopWorker stops the visitor's Service Workers, as the browser does when it
// pleases, and returns when they are stopped.
func (p *tab) stopWorker() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	err := chromedp.Do(ctx, chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		events := cdp.Events(ctx, t, serviceworker.WorkerVersionUpdated)
		if _, err := cdp.Call(ctx, t, serviceworker.Enable, cdp.Empty{}); err != nil {
			return err
		}
		defer func() { _, _ = cdp.Call(ctx, t, serviceworker.Disable, cdp.Empty{}) }() // nothing is attached to the worker by it
		if _, err := cdp.Call(ctx, t, serviceworker.StopAllWorkers, cdp.Empty{}); err != nil {
			return err
		}
		for ev, err := range events {
			if err != nil {
				return err
			}
			for _, v := range ev.Versions {
				if v.Status == serviceworker.VersionStatusActivated && v.RunningStatus == serviceworker.VersionRunningStatusStopped {
					return nil
				}
			}
		}
		return errors.New("no worker was seen to stop")
	}))
	if err != nil {
		p.t.Fatalf("stop the worker: %v", err)
	}
}
