import "./globals.js";
import assert from "node:assert/strict";
import { test } from "node:test";
import { BlockError, decodeCID, decodeDAGPB, decodeUnixFS, murmur3, parseCID, verify } from "../blocks.js";

// The empty UnixFS directory and file of every Kubo: https://docs.ipfs.tech/concepts/content-addressing/.
const emptyDir = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn";
const emptyDirV1 = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354";

test("a CID of version 0 and its version 1 name one block", () => {
  const a = parseCID(emptyDir), b = parseCID(emptyDirV1);
  assert.equal(a.key, b.key);
  assert.equal(a.text, emptyDir);
  assert.equal(b.text, emptyDirV1);
  assert.equal(parseCID(emptyDirV1.toUpperCase()).text, emptyDirV1);
});

test("what is no CID is said to be none", () => {
  for (const bad of ["", "b", "Qm", "hello", "Qm0000000000000000000000000000000000000000000l", "bafy", "z6", emptyDir + "a", emptyDirV1.slice(0, -1), "b".repeat(500), "bAFK!"]) {
    assert.throws(() => parseCID(bad), (e) => e instanceof BlockError && e.code === "bad_cid", bad);
  }
});

test("the empty directory verifies and reads", async () => {
  const block = Uint8Array.of(0x0a, 0x02, 0x08, 0x01);
  await verify(parseCID(emptyDirV1), block);
  assert.equal(decodeUnixFS(parseCID(emptyDirV1), block).kind, "directory");
  await assert.rejects(verify(parseCID(emptyDirV1), Uint8Array.of(0x0a, 0x02, 0x08, 0x02)), { code: "bad_block" });
});

test("murmur3 as spaolacci/murmur3, which boxo uses", () => {
  // From https://github.com/spaolacci/murmur3/blob/master/murmur_test.go (h64_1 with seed 0).
  /** @type {[string, bigint][]} */
  const vectors = [
    ["", 0x0000000000000000n],
    ["hello", 0xcbd8a7b341bd9b02n],
    ["hello, world", 0x342fac623a5ebc8en],
    ["19 Jan 2038 at 3:14:07 AM", 0xb89e5988b737affcn],
    ["The quick brown fox jumps over the lazy dog.", 0xcd99481f9ee902c9n],
  ];
  for (const [text, want] of vectors) assert.equal(murmur3(new TextEncoder().encode(text)), want, text);
});

/** A small deterministic generator, so that a failure repeats. @param {number} seed */
function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

test("strangers' bytes give a value or a named error", () => {
  const next = random(1);
  const cid = parseCID(emptyDirV1);
  // A directory with one link, to mutate.
  const link = Uint8Array.of(0x12, 0x2a, 0x0a, 0x24, 1, 0x55, 0x12, 0x20, ...new Uint8Array(32), 0x12, 0x02, 0x61, 0x62, 0x0a, 0x02, 0x08, 0x01);
  assert.equal(decodeDAGPB(link).links[0].name, "ab");
  for (let i = 0; i < 50_000; i++) {
    let bytes;
    if (i % 2) bytes = Uint8Array.from({ length: Math.floor(next() * 80) }, () => next() * 256);
    else {
      bytes = link.slice(0, Math.ceil(next() * link.length));
      bytes[Math.floor(next() * bytes.length)] = next() * 256;
    }
    for (const decode of [() => decodeUnixFS(cid, bytes), () => decodeDAGPB(bytes), () => decodeCID(bytes), () => parseCID("b" + String.fromCharCode(...bytes)), () => parseCID(new TextDecoder("latin1").decode(bytes))]) {
      try {
        decode();
      } catch (e) {
        if (!(e instanceof BlockError)) throw new Error(`on ${bytes}: ${e}`, { cause: e });
      }
    }
  }
});
