//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/webfabric/weft/relay/server"
	"github.com/webfabric/weft/relay/store"
	"github.com/webfabric/weft/shared/gateway/corpus"
)

// asked is a request for a case, as the pages below take it.
type asked struct {
	Path   string            `json:"path"`
	Method string            `json:"method"`
	Header map[string]string `json:"header"`
}

// told is an answer, or the reason why the node must give it.
type told struct {
	corpus.Answer
	Later string `json:"later"`
}

// tellAll has answer, a function from a request to a Response, give all answers.
const tellAll = `async (answer, asked, keep) => {
	const tell = async ({ path, method, header }) => {
		let response;
		try {
			response = await answer(path, { method, headers: header ?? {}, redirect: "manual" });
		} catch (err) {
			return { status: 0, header: {}, hash: "", later: String(err) };
		}
		const status = response.type === "opaqueredirect" ? 301 : response.status;
		let bytes;
		try {
			bytes = await response.arrayBuffer();
		} catch {
			return { status: 502, header: {}, hash: "", later: "" }; // as corpus.Broken
		}
		const out = {};
		for (const name of keep[status] ?? []) if (response.headers.get(name)) out[name] = response.headers.get(name);
		const hash = status < 300 ? [...new Uint8Array(await crypto.subtle.digest("SHA-256", bytes))].map((b) => b.toString(16).padStart(2, "0")).join("") : "";
		return { status, header: out, hash, later: "" };
	};
	const out = [];
	for (let i = 0; i < asked.length; i += 16) out.push(...(await Promise.all(asked.slice(i, i + 16).map(tell))));
	return out;
}`

// byFetch has a page's fetch answer: by the worker that controls it.
const byFetch = `(asked, keep) => (` + tellAll + `)((path, init) => fetch(path, { ...init, cache: "no-store" }), asked, keep)`

// tells has fn, called in the page with requests, tell the answers to all of them.
func tells(p *tab, fn string, all []asked) (out []told) {
	p.t.Helper()
	for some := range slices.Chunk(all, 128) { // each within patience
		out = append(out, eval[[]told](p, fn, some, corpus.Headers)...)
	}
	return out
}

// TestCorpus holds the three that answer for /ipfs/ to the same answers: the
// relay, the worker while its node is not there yet, and the node.
func TestCorpus(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var cases []corpus.Case
	r := startRelay(t, func(c *server.Config) { // it has the blocks from the start
		held, err := store.Open(c.Dir)
		if err != nil {
			t.Fatal(err)
		}
		defer held.Close()
		if cases, err = corpus.Build(ctx, held.Blockstore()); err != nil {
			t.Fatal(err)
		}
	})

	var requests []asked
	var of []corpus.Case
	for _, c := range cases {
		for _, q := range c.Of() {
			requests = append(requests, asked{c.Path, q.Method, q.Header})
			of = append(of, c)
		}
	}
	begun := time.Now()
	did := func(who string) {
		t.Logf("%s has answered %d requests or fewer, %v after the first", who, len(requests), time.Since(begun).Round(time.Millisecond))
	}
	relay := make([]corpus.Answer, len(requests))
	direct := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	var asking errgroup.Group
	asking.SetLimit(16)
	for i, q := range requests {
		if of[i].Relay == 0 {
			asking.Go(func() (err error) {
				relay[i], err = ask(t.Context(), direct, r.url, q)
				return err
			})
		}
	}
	if err := asking.Wait(); err != nil {
		t.Fatal(err)
	}
	did("the relay")

	// The node's program is not handed out at first.
	f := newFront(t, r)
	here, leaked := make(chan struct{}), atomic.Int64{}
	f.answer(func(_ http.ResponseWriter, req *http.Request) bool {
		if strings.HasPrefix(req.URL.Path, "/node.") {
			select {
			case <-here:
			case <-req.Context().Done():
			}
		}
		if strings.HasPrefix(req.URL.Path, "/ipfs/") && req.URL.Query().Get("format") != "raw" {
			leaked.Add(1)
		}
		return false
	})
	bare := newVisitor(t).open(r.url + "/blank.html").expects("Failed to load resource") // no worker in between
	alone := tells(bare, `async (asked, keep) => {
		const { Blocks, answer } = await import("/boot.js");
		const blocks = new Blocks(async () => [location.origin]);
		return (`+tellAll+`)((path, { method, headers }) => answer({ method, url: location.origin + path, headers: new Headers(headers) }, blocks), asked, keep);
	}`, requests)
	did("boot.js by itself")
	p := newVisitor(t).open(f.url + "/blank.html").expects("Failed to load resource")
	eval[bool](p, `async () => { globalThis.node = await (await import("/weft.js")).join(); return true; }`)
	// What boot.js leaves to the node, the worker would have wait for it.
	var early []asked
	var which []int
	for i, q := range requests {
		if alone[i].Later == "" {
			early, which = append(early, q), append(which, i)
		}
	}
	boot := make(map[int]told, len(early))
	for i, a := range tells(p, byFetch, early) {
		boot[which[i]] = a
	}
	did("boot.js in the worker")
	if n := leaked.Load(); n > 0 {
		t.Errorf("boot.js did not answer alone: %d requests went on to the relay", n)
	}
	close(here)
	until[bool](p, "the node runs", `async () => (await node.status()).state === "ready"`)
	node := tells(p, byFetch, requests)
	did("the node")
	if n := leaked.Load(); n > 0 {
		t.Errorf("%d requests went on to the relay", n)
	}

	for i, q := range requests {
		c := of[i]
		name := fmt.Sprint(c.Name, ": ", q.Method, " ", q.Path, " ", q.Header)
		if node[i].Later != "" {
			t.Errorf("%s: the node: %s", name, node[i].Later)
			continue
		}
		hidden := c.Status == http.StatusMovedPermanently // a page does not see where to
		if d := node[i].Diff(relay[i]); d != "" && c.Relay == 0 && (!hidden || node[i].Status != relay[i].Status) {
			t.Errorf("%s: the node gives %s as the relay", name, d)
		}
		if q.Method == "GET" && len(q.Header) == 0 && node[i].Status != c.Status {
			t.Errorf("%s: the node answers %d, want %d", name, node[i].Status, c.Status)
		}
		b, ok := boot[i]
		switch {
		case !ok:
			if !c.Later {
				t.Errorf("%s: boot.js leaves it to the node: %s", name, alone[i].Later)
			}
			continue
		case c.Later:
			t.Errorf("%s: boot.js answers %d, which it is to leave to the node", name, b.Status)
		}
		if d := b.Diff(node[i].Answer); d != "" {
			t.Errorf("%s: boot.js gives %s as the node %s", name, d, b.Later)
		}
		if d := alone[i].Diff(relay[i]); hidden && d != "" {
			t.Errorf("%s: boot.js gives %s as the relay", name, d)
		}
	}
}

// ask asks the relay as a page's fetch does.
func ask(ctx context.Context, c *http.Client, url string, q asked) (corpus.Answer, error) {
	req, err := http.NewRequestWithContext(ctx, q.Method, url+q.Path, nil)
	if err != nil {
		return corpus.Answer{}, err
	}
	for k, v := range q.Header {
		req.Header.Set(k, v)
	}
	for _, kv := range [][2]string{{"Sec-Fetch-Mode", "cors"}, {"Sec-Fetch-Dest", "empty"}, {"Accept", "*/*"}, {"Accept-Encoding", "identity"}} {
		req.Header.Set(kv[0], kv[1])
	}
	resp, err := c.Do(req)
	if err != nil {
		return corpus.Answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return corpus.Broken(), nil
	}
	return corpus.NewAnswer(resp.StatusCode, resp.Header, body), nil
}
