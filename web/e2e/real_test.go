//go:build e2e

package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// packageDir is where `scripts/setup.sh pages` has put a package from npm.
func packageDir(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join("pages", "node_modules", name)
	if _, err := os.Stat(filepath.Join(dir, "package.json")); err != nil {
		t.Fatalf("%s is not installed: run scripts/setup.sh pages, or `make e2e`: %v", name, err)
	}
	return dir
}

// TestLodash imports every module of lodash-es through the worker, as one graph
// and one by one, and uses them.
func TestLodash(t *testing.T) {
	t.Parallel()
	dir := packageDir(t, "lodash-es")
	r := startRelay(t)
	root := r.publish(dir)
	files, err := filepath.Glob(filepath.Join(dir, "*.js"))
	if err != nil || len(files) < 600 {
		t.Fatalf("%d modules, %v: want lodash-es", len(files), err)
	}
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = filepath.Base(f)
	}
	p := r.joined(newVisitor(t))
	got := eval[string](p, `async (root) => {
		const _ = await node.import(root, "lodash.js");
		const grouped = _.groupBy(_.range(1, 11), (n) => (n % 2 ? "odd" : "even"));
		const chained = _.default([3, 1, 2]).map((n) => n * n).sortBy().value();
		return JSON.stringify([
			_.chunk(["a", "b", "c"], 2), grouped.even, chained, _.camelCase("content addressed modules"),
			_.get({ a: [{ b: { c: 3 } }] }, "a[0].b.c"), _.isEqual({ x: [1, { y: 2 }] }, { x: [1, { y: 2 }] }),
		]);
	}`, root.String())
	want := `[[["a","b"],["c"]],[2,4,6,8,10],[1,4,9],"contentAddressedModules",3,true]`
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	type count struct{ Modules, Functions, Same int }
	all := eval[count](p, `async (root, names) => {
		const index = await import("/ipfs/" + root + "/lodash.js");
		const modules = await Promise.all(names.map((n) => node.import(root, n)));
		const functions = modules.filter((m) => typeof m.default === "function");
		const same = names.filter((n, i) => n.slice(0, -3) in index && index[n.slice(0, -3)] === modules[i].default);
		return { Modules: modules.length, Functions: functions.length, Same: same.length };
	}`, root.String(), names)
	if all.Modules != len(names) || all.Functions < 500 || all.Same < 250 {
		t.Errorf("imported %+v of %d modules: want all, most of them functions, and those that the index exports the same", all, len(names))
	}
}

// TestThree renders a scene with three.js, imported through the worker.
func TestThree(t *testing.T) {
	t.Parallel()
	s := site{
		"index.html": `<!doctype html><meta charset="utf-8"><title>three</title><link rel="icon" href="data:,">
<style>body { margin: 0 } canvas { display: block }</style>
<canvas id="scene" width="320" height="240"></canvas>
<script type="module" src="scene.js"></script>`,
		"scene.js": `import * as THREE from "./three/three.module.js";
const canvas = document.getElementById("scene");
const renderer = new THREE.WebGLRenderer({ canvas, antialias: true, preserveDrawingBuffer: true });
renderer.setSize(320, 240, false);
const scene = new THREE.Scene();
scene.background = new THREE.Color(0x102030);
const camera = new THREE.PerspectiveCamera(50, 4 / 3, 0.1, 100);
camera.position.set(0, 0, 4);
const knot = new THREE.Mesh(new THREE.TorusKnotGeometry(0.8, 0.3, 96, 16), new THREE.MeshStandardMaterial({ color: 0xff8800 }));
scene.add(knot, new THREE.AmbientLight(0xffffff, 0.4));
const light = new THREE.DirectionalLight(0xffffff, 3);
light.position.set(2, 3, 4);
scene.add(light);
renderer.render(scene, camera);
globalThis.rendered = THREE.REVISION;`,
	}
	for _, name := range []string{"three.module.js", "three.core.js"} {
		b, err := os.ReadFile(filepath.Join(packageDir(t, "three"), "build", name))
		if err != nil {
			t.Fatal(err)
		}
		s["three/"+name] = string(b)
	}
	r := startRelay(t)
	root := r.publishSite(s)
	v := newVisitor(t)
	r.joined(v).close() // so that the worker answers, from the first request on
	p := v.open(r.ipfs(root, ""))
	// What drivers of software have to say of their speed is no error of ours.
	until[string](p, "the scene is rendered", `() => globalThis.rendered`)
	if !eval[bool](p, `() => !!navigator.serviceWorker.controller`) {
		t.Error("not answered by the worker")
	}
	shot, err := chromedp.Run(p.ctx, chromedp.Screenshot(chromedp.CSS("#scene")))
	if err != nil {
		t.Fatal(err)
	}
	m, err := png.Decode(bytes.NewReader(shot))
	if err != nil {
		t.Fatal(err)
	}
	colors, lit := map[[3]uint32]bool{}, 0
	for y := m.Bounds().Min.Y; y < m.Bounds().Max.Y; y++ {
		for x := m.Bounds().Min.X; x < m.Bounds().Max.X; x++ {
			r, g, b, _ := m.At(x, y).RGBA()
			colors[[3]uint32{r >> 8, g >> 8, b >> 8}] = true
			if r > b+0x3000 { // orange
				lit++
			}
		}
	}
	if pixels := m.Bounds().Dx() * m.Bounds().Dy(); len(colors) < 50 || lit < pixels/20 || lit > pixels*9/10 {
		t.Errorf("%d colours, %d of %d pixels of the knot: want a picture", len(colors), lit, pixels)
	}
}

// sums is the SHA-256 of the SHA-256s of the pieces of a stream: what a page
// can compute without holding it, for its digest function takes no streams.
func sums(b []byte, piece int) string {
	all := sha256.New()
	for len(b) > 0 {
		n := min(piece, len(b))
		h := sha256.Sum256(b[:n])
		all.Write(h[:])
		b = b[n:]
	}
	return hex.EncodeToString(all.Sum(nil))
}

// streamSums is the page's side of [sums]: it reads url as a stream and returns
// [the sum, how many bytes came].
const streamSums = `async (url, piece) => {
	const response = await fetch(url);
	if (!response.ok) throw new Error(url + ": status " + response.status);
	const buffer = new Uint8Array(piece), digests = [];
	let filled = 0, total = 0;
	for await (let part of response.body) {
		total += part.length;
		while (part.length) {
			const n = Math.min(part.length, piece - filled);
			buffer.set(part.subarray(0, n), filled);
			filled += n;
			part = part.subarray(n);
			if (filled === piece) {
				digests.push(new Uint8Array(await crypto.subtle.digest("SHA-256", buffer)));
				filled = 0;
			}
		}
	}
	if (filled) digests.push(new Uint8Array(await crypto.subtle.digest("SHA-256", buffer.subarray(0, filled))));
	const all = new Uint8Array(await new Blob(digests).arrayBuffer());
	return [new Uint8Array(await crypto.subtle.digest("SHA-256", all)).toHex(), String(total)];
}`

// TestLargeFile streams 64 MiB, from the relay and then from disk alone.
func TestLargeFile(t *testing.T) {
	t.Parallel()
	const size, piece = 64 << 20, 1 << 20
	data := noise(64, size)
	r := startRelay(t)
	root := r.publishSite(site{"large.bin": data})
	p := r.joined(newVisitor(t))
	url := "/ipfs/" + root.String() + "/large.bin"
	want := sums([]byte(data), piece)
	for _, from := range []string{"the relay", "disk, without the relay"} {
		got := eval[[2]string](p, streamSums, url, piece)
		if got[0] != want || got[1] != fmt.Sprint(size) {
			t.Errorf("from %s: got %s bytes with other content than was published", from, got[1])
		}
		until[bool](p, "all of it is kept", `async (n) => (await node.status()).storage.used >= n`, size)
		if r.server != nil {
			r.stop()
			p.expects("ERR_CONNECTION_REFUSED", "net::ERR_FAILED", "WebSocket connection")
		}
	}
	s := p.status()
	if s.Bytes.FromRelay < size || s.Bytes.FromDisk < size {
		t.Errorf("status().bytes = %+v, want at least %d from the relay, and from disk", s.Bytes, size)
	}
}

// TestManyFiles has a site of 5,000 files in one directory, a sharded one.
func TestManyFiles(t *testing.T) {
	t.Parallel()
	const n = 5000
	name := func(i int) string {
		return fmt.Sprintf("a-rather-long-file-name-so-that-the-directory-is-sharded-%05d.json", i)
	}
	s := site{}
	for i := range n {
		s["data/"+name(i)] = fmt.Sprintf(`{"n":%d}`, i)
	}
	r := startRelay(t)
	root := r.publishSite(s)
	p := r.joined(newVisitor(t))
	got := eval[int](p, `async (base, n, first) => {
		let next = 0, right = 0;
		const one = async () => {
			while (next < n) {
				const i = next++;
				const r = await fetch(base + first.replace("00000", String(i).padStart(5, "0")));
				if (r.ok && (await r.json()).n === i) right++;
			}
		};
		await Promise.all(Array.from({ length: 32 }, one));
		return right;
	}`, "/ipfs/"+root.String()+"/data/", n, name(0))
	if got != n {
		t.Errorf("%d of %d files came", got, n)
	}
	if text := eval[string](p, `async (base) => (await fetch(base, { headers: { Accept: "text/html" } })).text()`, "/ipfs/"+root.String()+"/data/"); strings.Count(text, "sharded-") < n {
		t.Errorf("the listing names %d of %d files", strings.Count(text, "sharded-"), n)
	}
}
