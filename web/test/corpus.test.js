// boot.js beside the node, on the corpus (build/corpus.json, by scripts/corpus),
// and on blocks that are made of the corpus' by changing bytes.
//
// MUTATE is how long that lasts, in seconds; unset, it is a set number of
// blocks, the same in every run. SEED begins another row of them.
import "./globals.js";
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { isDeepStrictEqual } from "node:util";
import { Blocks, Later, answer } from "../boot.js";
import { BlockError, DAG_PB, RAW, SHA2_256, decodeCID, decodeDAGPB, decodeUnixFS, hex, parseCID } from "../blocks.js";

const corpus = JSON.parse(readFileSync(new URL("../../build/corpus.json", import.meta.url), "utf8"));
const stored = new Map(Object.entries(corpus.blocks).map(([key, data]) => [key, new Uint8Array(Buffer.from(data, "base64"))]));
const sha256 = async (bytes) => new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
const multihash = (cid) => hex(Uint8Array.of(cid.hash, cid.digest.length, ...cid.digest));

/** Blocks from the corpus, and from more. */
function reader(more = new Map()) {
  return new Blocks(async () => ["http://relay"], {
    get: async (url) => {
      const key = multihash(parseCID(String(url).match(/\/ipfs\/(\w+)\?format=raw$/)[1]));
      const data = more.get(key) ?? stored.get(key);
      return data ? new Response(data) : new Response("", { status: 504 });
    },
  });
}

/** What boot.js answers, as the corpus has answers; "later", or why the body broke. */
async function ask({ path, method, header }, blocks) {
  let response;
  try {
    response = await answer({ method, url: `http://site${path}`, headers: new Headers(header ?? {}) }, blocks);
  } catch (err) {
    if (err instanceof Later) return "later";
    throw err;
  }
  let body;
  try {
    body = await response.arrayBuffer();
  } catch (err) {
    if (!(err instanceof BlockError || err instanceof Later)) throw err;
    return { status: 502, header: {}, hash: "" };
  }
  const { status } = response;
  const kept = (corpus.headers[status] ?? []).flatMap((name) => (response.headers.get(name) ? [[name, response.headers.get(name)]] : []));
  return { status, header: Object.fromEntries(kept), hash: status < 300 ? hex(await sha256(body)) : "" };
}

test("boot.js answers as the node does, or leaves it to it", async () => {
  const blocks = reader();
  /** @type {string[]} */
  const wrong = [];
  let answered = 0;
  for (const asked of corpus.asked) {
    const got = await ask(asked, blocks);
    if (got !== "later") answered++;
    if (asked.any ? got === "later" : asked.later && got === "later") continue;
    if (!asked.later && isDeepStrictEqual(got, asked.answer)) continue;
    wrong.push(`${asked.name}: ${asked.method} ${asked.path} ${JSON.stringify(asked.header)}: boot.js ${JSON.stringify(got)}, the node ${JSON.stringify(asked.answer)}${asked.later ? ", to be left to it" : ""}`);
  }
  assert.equal(wrong.join("\n"), "");
  assert(answered > corpus.asked.length / 2, `${answered} of ${corpus.asked.length} were answered`);
});

/** A small deterministic generator, so that a failure repeats. */
function random(seed) {
  return (below) => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

/** Changes a few bytes: sets, inserts, repeats, cuts off, swaps in a part of another block. */
function mutate(data, other, next) {
  let out = [...data];
  for (let n = 1 + next(4); n > 0; n--) {
    const at = next(out.length + 1);
    switch (next(6)) {
      case 0: out.splice(at, 0, next(256)); break;
      case 1: out.splice(at, next(8)); break;
      case 2: out = out.slice(0, at); break;
      case 3: out.splice(at, 0, ...out.slice(at, at + next(64))); break;
      case 4: out.splice(at, next(64), ...other.slice(next(other.length), next(other.length))); break;
      default: if (at < out.length) out[at] = next(2) ? out[at] ^ (1 << next(8)) : next(256);
    }
  }
  return Uint8Array.from(out);
}

test("what is made of the corpus by changing bytes gives an answer or a named error", async (t) => {
  const seed = Number(process.env.SEED ?? 1), lasts = Number(process.env.MUTATE ?? 0) * 1000;
  const next = random(seed), begun = Date.now();
  const small = [...stored.values()].filter((b) => b.length < 8 << 10 && b.length > 0);
  const nodes = small.filter((b) => {
    try {
      return decodeDAGPB(b).data;
    } catch {
      return false;
    }
  });
  let tried = 0, answered = 0;
  for (; lasts ? Date.now() - begun < lasts : tried < 3000; tried++) {
    const data = mutate(nodes[next(nodes.length)], small[next(small.length)], next);
    const digest = await sha256(data);
    const cid = decodeCID(Uint8Array.of(1, next(16) ? DAG_PB : RAW, SHA2_256, 32, ...digest));
    const where = `seed ${seed}, mutant ${tried}: ${Buffer.from(data).toString("hex")}`;
    for (const decode of [() => decodeUnixFS(cid, data), () => decodeDAGPB(data), () => decodeCID(data), () => parseCID(Buffer.from(data).toString("latin1"))]) {
      try {
        decode();
      } catch (err) {
        if (!(err instanceof BlockError)) throw new Error(`${where}: ${err}`, { cause: err });
      }
    }
    const path = `/ipfs/${cid.text}${["", "/", "/x.txt", "/file-001.txt"][next(4)]}`;
    const header = next(4) ? {} : { Range: `bytes=${next(300)}-${next(600)}` };
    // A body ends, and is no longer than what its blocks can have.
    try {
      const got = await ask({ path, method: "GET", header }, reader(new Map([[multihash(cid), data]])));
      if (got !== "later" && got.status < 300) {
        answered++;
        assert(Number(got.header["Content-Length"]) <= 64 << 20, `${got.header["Content-Length"]} bytes`);
      }
    } catch (err) {
      throw new Error(`${where}: ${err}`, { cause: err });
    }
  }
  t.diagnostic(`seed ${seed}: ${tried} mutants, of which ${answered} could be read`);
  assert(answered > tried / 100, `only ${answered} of ${tried} could be read: this tests little`);
});

test("a changed block is never taken for the one it was made of", async () => {
  const next = random(2), keys = [...stored.keys()];
  for (let i = 0; i < 500; i++) {
    const key = keys[next(keys.length)], data = stored.get(key);
    const changed = mutate(data.subarray(0, 4 << 10), data.subarray(0, 64), next);
    if (Buffer.compare(changed, data) === 0) continue;
    const cid = decodeCID(Uint8Array.of(1, RAW, ...Buffer.from(key, "hex")));
    const got = await ask({ path: `/ipfs/${cid.text}`, method: "GET" }, reader(new Map([[key, changed]])));
    assert.equal(got.status, 502, `${cid.text} with ${Buffer.from(changed).toString("hex")}`);
  }
});
