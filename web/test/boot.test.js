import "./globals.js";
import assert from "node:assert/strict";
import { test } from "node:test";
import { readFileSync } from "node:fs";
import { Blocks, Later, answer, contentType, maxBlockSize, parseRange, types } from "../boot.js";
import { decodeCID } from "../blocks.js";

// A tiny writer of UnixFS, enough to have something to read.
/** @param {number} n */
const varint = (n) => {
  const out = [];
  for (; n > 127; n = Math.floor(n / 128)) out.push((n % 128) | 128);
  return [...out, n];
};
/** @param {number} field @param {Iterable<number>} bytes */
const bytes = (field, bytes) => {
  const b = [...bytes];
  return [...varint(field * 8 + 2), ...varint(b.length), ...b];
};
/** @param {string} s */
const utf8 = (s) => new TextEncoder().encode(s);

class Store {
  constructor() {
    /** @type {Map<string, Uint8Array<ArrayBuffer>>} */
    this.blocks = new Map();
    this.asked = 0;
  }
  /** @param {Uint8Array} data @param {number} codec */
  async put(data, codec) {
    const copy = Uint8Array.from(data);
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", copy));
    const raw = Uint8Array.of(1, codec, 0x12, 32, ...digest);
    const cid = decodeCID(raw);
    this.blocks.set(cid.text, copy);
    return { raw, text: cid.text, size: data.length };
  }
  /** @param {{raw: Uint8Array, size: number}[]} parts */
  file(parts) {
    const size = parts.reduce((n, p) => n + p.size, 0);
    const meta = [8, 2, 0x18, ...varint(size), ...parts.flatMap((p) => [0x20, ...varint(p.size)])];
    return this.put(Uint8Array.from([...parts.flatMap((p) => bytes(2, bytes(1, p.raw))), ...bytes(1, meta)]), 0x70).then((r) => ({ ...r, size }));
  }
  /** @param {Record<string, {raw: Uint8Array}>} entries */
  dir(entries) {
    return this.put(Uint8Array.from([...Object.entries(entries).flatMap(([n, e]) => bytes(2, [...bytes(1, e.raw), ...bytes(2, utf8(n))])), ...bytes(1, [8, 1])]), 0x70);
  }
  reader() {
    return new Blocks(async () => ["http://relay"], { get: /** @type {typeof fetch} */ (async (url) => {
      this.asked++;
      const cid = String(url).match(/\/ipfs\/(\w+)\?format=raw$/)?.[1] ?? "";
      const data = this.blocks.get(cid);
      return data ? new Response(data) : new Response("", { status: 504 });
    }) });
  }
}

async function site() {
  const s = new Store();
  const leaves = await Promise.all([..."abcdefgh"].map((c) => s.put(utf8(c.repeat(10)), 0x55)));
  const halves = [await s.file(leaves.slice(0, 4)), await s.file(leaves.slice(4))];
  const big = await s.file(halves);
  const root = await s.dir({
    "a b.js": await s.put(utf8("export default 1"), 0x55),
    "big.bin": big,
    sub: await s.dir({ "index.html": await s.put(utf8("<p>hi"), 0x55) }),
    empty: await s.dir({}),
  });
  return { s, root: root.text, big: big.text, text: [..."abcdefgh"].map((c) => c.repeat(10)).join(""), leaves };
}

/** @param {string} path @param {Record<string, string>} [headers] */
const request = (path, headers = {}, method = "GET") => ({ method, url: `http://site${path}`, headers: new Headers(headers) });

test("files, directories, types", async () => {
  const { s, root, big, text } = await site();
  const blocks = s.reader();
  let r = await answer(request(`/ipfs/${root}/a%20b.js`), blocks);
  assert.equal(r.status, 200);
  assert.equal(r.headers.get("Content-Type"), "text/javascript; charset=utf-8");
  assert.equal(await r.text(), "export default 1");
  r = await answer(request(`/ipfs/${root}/big.bin`), blocks);
  assert.equal(r.headers.get("ETag"), `"${big}"`);
  assert.equal(r.headers.get("Content-Length"), "80");
  assert.equal(await r.text(), text);
  r = await answer(request(`/ipfs/${root}/sub`), blocks);
  assert.equal(r.status, 301);
  assert.equal(r.headers.get("Location"), `/ipfs/${root}/sub/`);
  r = await answer(request(`/ipfs/${root}/sub/`), blocks);
  assert.equal(await r.text(), "<p>hi");
  r = await answer(request(`/ipfs/${root}/big.bin`, {}, "HEAD"), blocks);
  assert.equal(r.body, null);
  r = await answer(request(`/ipfs/${root}/big.bin`, { "If-None-Match": `W/"x", "${big}"` }), blocks);
  assert.equal(r.status, 304);
  await assert.rejects(answer(request(`/ipfs/${root}/empty/`), blocks), Later);
});

test("what is not there", async () => {
  const { s, root } = await site();
  const blocks = s.reader();
  for (const [path, status, code] of /** @type {[string, number, string][]} */ ([
    [`/ipfs/${root}/none.js`, 404, "not_found"],
    [`/ipfs/${root}/a%20b.js/deeper`, 404, "not_found"],
    ["/ipfs/nonsense/x", 400, "bad_cid"],
  ])) {
    const r = await answer(request(path), blocks);
    assert.equal(r.status, status, path);
    assert.equal((await r.json()).error.code, code);
  }
  await assert.rejects(answer(request("/ipfs/bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku/x"), blocks), Later);
});

test("ranges", async () => {
  const { s, root, text } = await site();
  const blocks = s.reader();
  for (const [range, from, to] of /** @type {[string, number, number][]} */ ([
    ["bytes=0-0", 0, 1], ["bytes=5-24", 5, 25], ["bytes=35-", 35, 80], ["bytes=-7", 73, 80], ["bytes=70-999", 70, 80],
  ])) {
    const r = await answer(request(`/ipfs/${root}/big.bin`, { Range: range }), blocks);
    assert.equal(r.status, 206, range);
    assert.equal(r.headers.get("Content-Range"), `bytes ${from}-${to - 1}/80`);
    assert.equal(await r.text(), text.slice(from, to), range);
  }
  const r = await answer(request(`/ipfs/${root}/big.bin`, { Range: "bytes=80-" }), blocks);
  assert.equal(r.status, 416);
  assert.equal(r.headers.get("Content-Range"), "bytes */80");
  assert.equal(parseRange("bytes=1-2,4-5", 80), null);
  assert.equal(parseRange("bytes=9-3", 80), null);
  assert.equal(parseRange("bytes=-", 80), null);
});

test("a flipped bit, a wrong length, an endless block are never delivered", async () => {
  for (const spoil of /** @type {((b: Uint8Array) => Uint8Array<ArrayBuffer>)[]} */ ([
    (b) => Uint8Array.from(b, (x, i) => (i === 3 ? x ^ 1 : x)),
    (b) => Uint8Array.from(b.slice(0, -1)),
    () => new Uint8Array(maxBlockSize + 1),
  ])) {
    const { s, root, leaves } = await site();
    const blocks = s.reader();
    const script = [...s.blocks].find(([, b]) => b.length === 16);
    assert(script);
    s.blocks.set(script[0], spoil(script[1]));
    const r = await answer(request(`/ipfs/${root}/a%20b.js`), blocks);
    assert.equal(r.status, 502);
    assert.equal((await r.json()).error.code, "bad_block");
    // In the middle of a body, the body fails.
    const leaf = leaves[5].text;
    s.blocks.set(leaf, spoil(/** @type {Uint8Array} */ (s.blocks.get(leaf))));
    await assert.rejects((await answer(request(`/ipfs/${root}/big.bin`), blocks)).text());
    assert(blocks.take().every((b) => b.cid !== leaf && b.cid !== script[0]));
  }
});

test("a parent that lies about its children's sizes is malformed", async () => {
  const s = new Store();
  const leaf = await s.put(utf8("0123456789"), 0x55);
  const liar = await s.file([{ ...leaf, size: 9 }]);
  const root = await s.dir({ "x.css": liar });
  assert.equal((await answer(request(`/ipfs/${root.text}/x.css`), s.reader())).status, 502);
});

test("one block is asked for once, and given to the node once", async () => {
  const { s, root } = await site();
  const blocks = s.reader();
  await Promise.all([1, 2, 3].map(async () => (await answer(request(`/ipfs/${root}/a%20b.js`), blocks)).text()));
  assert.equal(s.asked, 2);
  assert.equal(blocks.take().length, 2);
  assert.equal(blocks.take().length, 0);
});

test("types that browsers insist on", () => {
  assert.equal(contentType("x.MJS"), "text/javascript; charset=utf-8");
  assert.equal(contentType("x.wasm"), "application/wasm");
  assert.equal(contentType("constructor"), undefined);
  assert.equal(contentType("a.constructor"), undefined);
});

test("every type is the one that the node gives", () => {
  const go = readFileSync(new URL("../../shared/gateway/types.go", import.meta.url), "utf8").replaceAll(/(?<=: )htmlType/g, '"text/html"');
  const table = Object.fromEntries([...go.matchAll(/"\.(\w+)":\s*"([^"]+)"/g)].map(([, ext, type]) => [ext, type]));
  assert(Object.keys(table).length > 50);
  assert.deepEqual({ ...types }, table);
});

test("a block on this device is not asked for, and one that it spoilt is", async () => {
  const s = new Store();
  const good = await s.put(utf8("kept"), 0x55), spoilt = await s.put(utf8("spoilt"), 0x55);
  /** @type {Record<string, Uint8Array<ArrayBuffer>>} */
  const device = { [good.text]: Uint8Array.from(utf8("kept")), [spoilt.text]: Uint8Array.from(utf8("other")) };
  const blocks = s.reader();
  blocks.device = { get: async (cid) => device[cid.text] ?? null };
  for (const [{ text }, want, asked] of /** @type {const} */ ([[good, "kept", 0], [spoilt, "spoilt", 1]])) {
    const response = await answer({ method: "GET", url: `http://site/ipfs/${text}`, headers: new Headers() }, blocks);
    assert.equal(await response.text(), want);
    assert.equal(s.asked, asked);
  }
  assert.deepEqual(blocks.take().map((b) => b.cid), [spoilt.text]);
});
