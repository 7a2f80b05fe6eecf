//go:build e2e

package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math/rand/v2"
	"strings"
	"testing"
)

// addWasm is a module with add(i32, i32) i32, from the text format's
// (module (func (export "add") (param i32 i32) (result i32) local.get 0 local.get 1 i32.add)).
const addWasm = "\x00asm\x01\x00\x00\x00\x01\x07\x01\x60\x02\x7f\x7f\x01\x7f\x03\x02\x01\x00\x07\x07\x01\x03add\x00\x00\x0a\x09\x01\x07\x00\x20\x00\x20\x01\x6a\x0b"

// picture is a PNG of n by n pixels.
func picture(t *testing.T, n int) string {
	t.Helper()
	m := image.NewRGBA(image.Rect(0, 0, n, n))
	for x := range n {
		m.Set(x, x, color.RGBA{R: 200, A: 255})
	}
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// noise is n bytes that no compression or coincidence makes smaller.
func noise(seed uint64, n int) string {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b) // never fails
	return string(b)
}

func sum(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

// everything is a site with each kind of thing that pages import.
func everything(t *testing.T) site {
	return site{
		"index.html": `<!doctype html><meta charset="utf-8"><title>a site</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="css/style.css">
<img id="img" src="img/dot.png" alt="">
<p id="out">not yet</p>
<script type="module" src="main.js"></script>`,
		"main.js": `import { greet } from "./lib/greet.js";
import data from "./data/data.json" with { type: "json" };
const { instance } = await WebAssembly.instantiateStreaming(fetch(new URL("add.wasm", import.meta.url)));
const later = await import("./lib/later.js");
document.getElementById("out").textContent = greet(data.name) + " " + instance.exports.add(40, 2) + " " + later.word;
globalThis.done = true;`,
		"lib/greet.js":       `export const greet = (name) => "hello " + name;`,
		"lib/later.js":       `export const word = "later";`,
		"data/data.json":     `{"name": "weft"}`,
		"add.wasm":           addWasm,
		"css/style.css":      `@import "more.css"; body { background-image: url("../img/dot.png"); color: rgb(1, 2, 3) }`,
		"css/more.css":       `p { color: rgb(4, 5, 6) }`,
		"img/dot.png":        picture(t, 7),
		"video.mp4":          noise(1, 3<<20),
		"no-extension":       "plain words\n",
		"a page/ü & more.js": "export default 'odd names';",
	}
}

func TestImport(t *testing.T) {
	t.Parallel()
	r := startRelay(t)
	s := everything(t)
	root := r.publishSite(s)
	p := r.joined(newVisitor(t)).expects("status of 416")
	base := "/ipfs/" + root.String() + "/"

	t.Run("modules", func(t *testing.T) {
		p := p.in(t)
		got := eval[string](p, `async (root) => (await node.import(root, "lib/greet.js")).greet("you")`, root.String())
		if got != "hello you" {
			t.Errorf("import: got %q", got)
		}
		if got := eval[string](p, `async (base) => (await import(base + "lib/later.js")).word`, base); got != "later" {
			t.Errorf("dynamic import: got %q", got)
		}
		if got := eval[string](p, `async (base) => (await import(base + encodeURIComponent("a page") + "/" + encodeURIComponent("ü & more.js"))).default`, base); got != "odd names" {
			t.Errorf("import of an odd name: got %q", got)
		}
		if !eval[bool](p, `async (base) => (await import(base + "lib/greet.js")) === (await import(base + "lib/greet.js"))`, base) {
			t.Error("one URL gave two module instances")
		}
	})
	t.Run("json module", func(t *testing.T) {
		p := p.in(t)
		if got := eval[string](p, `async (base) => (await import(base + "data/data.json", { with: { type: "json" } })).default.name`, base); got != "weft" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("wasm streaming", func(t *testing.T) {
		p := p.in(t)
		if got := eval[int](p, `async (base) => {
			const module = await WebAssembly.compileStreaming(fetch(base + "add.wasm"));
			return (await WebAssembly.instantiate(module)).exports.add(2, 3);
		}`, base); got != 5 {
			t.Errorf("2 + 3 = %d", got)
		}
	})
	t.Run("style sheet with relative url", func(t *testing.T) {
		p := p.in(t)
		got := eval[[]string](p, `async (base) => {
			const link = Object.assign(document.createElement("link"), { rel: "stylesheet", href: base + "css/style.css" });
			await new Promise((ok, no) => { link.onload = ok; link.onerror = no; document.head.append(link); });
			return [getComputedStyle(document.body).color, getComputedStyle(document.querySelector("p")).color, getComputedStyle(document.body).backgroundImage];
		}`, base)
		want := []string{"rgb(1, 2, 3)", "rgb(4, 5, 6)", fmt.Sprintf(`url("%s%simg/dot.png")`, r.url, base)}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %q, want %q", got, want)
		}
		until[bool](p, "the sheet's image was fetched", `(url) => performance.getEntriesByName(url).length > 0`, r.url+base+"img/dot.png")
	})
	t.Run("image", func(t *testing.T) {
		p := p.in(t)
		if got := eval[int](p, `async (base) => { const i = new Image(); i.src = base + "img/dot.png"; await i.decode(); return i.naturalWidth; }`, base); got != 7 {
			t.Errorf("width = %d, want 7", got)
		}
	})
	t.Run("types", func(t *testing.T) {
		p := p.in(t)
		for name, want := range map[string]string{
			"main.js": "text/javascript", "add.wasm": "application/wasm", "css/style.css": "text/css", "data/data.json": "application/json",
			"img/dot.png": "image/png", "video.mp4": "video/mp4", "no-extension": "text/plain",
		} {
			got := eval[string](p, `async (url) => { const r = await fetch(url, { method: "HEAD" }); return r.status + " " + r.headers.get("Content-Type"); }`, base+name)
			if !strings.HasPrefix(got, "200 "+want) {
				t.Errorf("%s: %s, want 200 %s", name, got, want)
			}
		}
	})
	t.Run("ranges", func(t *testing.T) {
		p := p.in(t)
		video := s["video.mp4"]
		for _, tt := range []struct {
			name, header, status string
			want                 string
		}{
			{"a part", "bytes=1048570-1048590", "206 bytes 1048570-1048590/3145728", video[1048570:1048591]},
			{"the start", "bytes=0-99", "206 bytes 0-99/3145728", video[:100]},
			{"from somewhere", "bytes=3145700-", "206 bytes 3145700-3145727/3145728", video[3145700:]},
			{"the end", "bytes=-5", "206 bytes 3145723-3145727/3145728", video[3145723:]},
			{"past the end", "bytes=3145728-", "416 bytes */3145728", ""},
		} {
			got := eval[[2]string](p, `async (url, range) => {
				const r = await fetch(url, { headers: { Range: range } });
				const sum = new Uint8Array(await crypto.subtle.digest("SHA-256", await r.arrayBuffer())).toHex();
				return [r.status + " " + r.headers.get("Content-Range"), sum];
			}`, base+"video.mp4", tt.header)
			if got[0] != tt.status {
				t.Errorf("%s: %s: got %s, want %s", tt.name, tt.header, got[0], tt.status)
			}
			if tt.want != "" && got[1] != sum(tt.want) {
				t.Errorf("%s: %s: other bytes than were published", tt.name, tt.header)
			}
		}
	})
	t.Run("verified", func(t *testing.T) {
		p := p.in(t)
		got := eval[string](p, `async (url) => {
			const r = await fetch(url);
			return new Uint8Array(await crypto.subtle.digest("SHA-256", await r.arrayBuffer())).toHex();
		}`, base+"video.mp4")
		if got != sum(s["video.mp4"]) {
			t.Error("other bytes than were published")
		}
		if b := p.status().Bytes; b.FromRelay < 3<<20 {
			t.Errorf("status().bytes = %+v, want at least %d from the relay", b, 3<<20)
		}
	})
}

// TestLargeGraph imports a static graph of 600 modules: a chain of wide layers,
// so that both depth and breadth are there.
func TestLargeGraph(t *testing.T) {
	t.Parallel()
	const layers, width = 20, 30
	s := site{}
	for l := range layers {
		for i := range width {
			var src strings.Builder
			if l+1 < layers {
				for k := range 3 {
					fmt.Fprintf(&src, "import { n as n%d } from \"../l%d/m%d.js\";\n", k, l+1, (i*3+k)%width)
				}
				src.WriteString("export const n = 1 + Math.max(n0, n1, n2);\n")
			} else {
				src.WriteString("export const n = 1;\n")
			}
			fmt.Fprintf(&src, "(globalThis.loaded ??= []).push(\"%d/%d\");\n", l, i)
			s[fmt.Sprintf("l%d/m%d.js", l, i)] = src.String()
		}
	}
	var all strings.Builder
	for i := range width {
		fmt.Fprintf(&all, "export { n as n%d } from \"./l0/m%d.js\";\n", i, i)
	}
	s["all.js"] = all.String()
	r := startRelay(t)
	root := r.publishSite(s)
	p := r.joined(newVisitor(t))
	if got := eval[int](p, `async (root) => (await node.import(root, "all.js")).n29`, root.String()); got != layers {
		t.Errorf("depth = %d, want %d", got, layers)
	}
	if got := eval[int](p, `() => new Set(loaded).size`); got != layers*width {
		t.Errorf("%d modules ran, want %d", got, layers*width)
	}
	if got := eval[int](p, `() => loaded.length`); got != layers*width {
		t.Errorf("modules ran %d times, want each once, %d", got, layers*width)
	}
}
