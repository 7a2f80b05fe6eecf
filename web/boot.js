// @ts-check
// Answers /ipfs/ requests until the Go node runs: blocks come from the relay
// one by one, are verified here, and are read as UnixFS (blocks.js). It gives
// what the node would give, or throws Later where only the node can answer:
// documents (does the owner vouch for them?), listings, other codecs and
// hashes, content the relay has not got. Blocks are kept for the node, which
// takes them over when it is up.

import { BlockError, DAG_PB, IDENTITY, decodeUnixFS, hamtStep, parseCID, verify } from "./blocks.js";
import { readAtMost } from "./body.js";

/** @typedef {import("./blocks.js").CID} CID */
/** @typedef {import("./blocks.js").Entry} Entry */

/** The largest block accepted, in bytes: 2 MiB, as Bitswap peers do. */
export const maxBlockSize = 2 << 20;
/** How many bytes of blocks are kept for the node; older ones are fetched again. */
const maxHeld = 48 << 20;
/** How long a block may take, in ms. */
const blockTimeout = 30_000;
/** How many blocks of a file are fetched ahead of the reader. */
const readAhead = 4;
/** The deepest DAG that is read, in levels, as in shared/content. */
const maxDepth = 32;
/** How many names a path may have, as in shared/gateway. */
const maxSegments = 1024;
/** How many bytes tell the type of a file without a telling name. */
const sniffBytes = 512;

/** Thrown where the node must answer. */
export class Later extends Error {
  /** @param {string} why */
  constructor(why) {
    super(why);
    this.name = "Later";
  }
}

/** Verified blocks: those that the node left on this device, then those of relays' gateways. */
export class Blocks {
  /**
   * @param {() => Promise<string[]>} relays base URLs, the best first
   * @param {object} [from]
   * @param {typeof fetch} [from.get]
   * @param {{get(cid: CID): Promise<Uint8Array<ArrayBuffer> | null>}} [from.device] what is kept here; it need not be right
   */
  constructor(relays, { get = (...a) => fetch(...a), device } = {}) {
    this.relays = relays;
    this.get = get;
    this.device = device;
    /** Bytes that came over the network. */
    this.fetched = 0;
    this.heldBytes = 0;
    /** @type {Map<string, {cid: CID, data: Uint8Array<ArrayBuffer>}>} by key; oldest first */
    this.held = new Map();
    /** @type {Map<string, Promise<Uint8Array<ArrayBuffer>>>} */
    this.coming = new Map();
  }

  /**
   * The block that cid names. Rejects with a {@link BlockError}, or with
   * {@link Later} where no relay gave it.
   * @param {CID} cid
   * @returns {Promise<Uint8Array<ArrayBuffer>>}
   */
  async block(cid) {
    if (cid.hash === IDENTITY) return cid.digest;
    const held = this.held.get(cid.key);
    if (held) return held.data;
    let coming = this.coming.get(cid.key);
    if (!coming) {
      coming = this.#fetch(cid).finally(() => this.coming.delete(cid.key));
      this.coming.set(cid.key, coming);
    }
    return coming;
  }

  /** Takes every held block out, for the node. */
  take() {
    const out = [...this.held.values()].map(({ cid, data }) => ({ cid: cid.text, data }));
    this.held.clear();
    this.heldBytes = 0;
    return out;
  }

  /** @param {CID} cid */
  async #fetch(cid) {
    const kept = await this.device?.get(cid);
    // What the device spoilt is fetched again.
    if (kept && (await verify(cid, kept).then(() => true, () => false))) return kept;
    /** @type {unknown} */
    let failure = new Later("no relay is known");
    for (const relay of await this.relays()) {
      try {
        const data = await this.#from(relay, cid);
        await verify(cid, data);
        this.#hold(cid, data);
        return data;
      } catch (err) {
        // A lie is worth reporting above an absence.
        if (!(failure instanceof BlockError)) failure = err;
      }
    }
    throw failure;
  }

  /** @param {string} relay @param {CID} cid */
  async #from(relay, cid) {
    const controller = new AbortController();
    const timer = setTimeout(() => controller.abort(), blockTimeout);
    try {
      const response = await this.get(`${relay}/ipfs/${cid.text}?format=raw`, {
        headers: { Accept: "application/vnd.ipld.raw" },
        cache: "no-store",
        credentials: "omit",
        signal: controller.signal,
      });
      if (!response.ok) {
        response.body?.cancel().catch(() => {});
        throw new Later(`the relay answered ${response.status} for ${cid.text}`);
      }
      const data = await readAtMost(response, maxBlockSize);
      if (!data) throw new BlockError("bad_block", `more than ${maxBlockSize} bytes came for one block`);
      this.fetched += data.length;
      return data;
    } catch (err) {
      if (err instanceof BlockError || err instanceof Later) throw err;
      throw new Later(`the relay did not answer for ${cid.text}: ${err}`);
    } finally {
      clearTimeout(timer);
      controller.abort();
    }
  }

  /** @param {CID} cid @param {Uint8Array<ArrayBuffer>} data */
  #hold(cid, data) {
    this.held.set(cid.key, { cid, data });
    this.heldBytes += data.length;
    for (const [key, { data: old }] of this.held) {
      if (this.heldBytes <= maxHeld) break;
      this.held.delete(key);
      this.heldBytes -= old.length;
    }
  }
}

/**
 * What is at an /ipfs/ path.
 * @typedef {object} Target
 * @property {CID} cid
 * @property {Entry} entry
 * @property {string} name its last path segment, for its type
 */

/**
 * Answers a request that is not a navigation.
 * @param {{method: string, url: string, headers: Headers}} request
 * @param {Blocks} blocks
 * @returns {Promise<Response>} rejects with {@link Later}
 */
export async function answer(request, blocks) {
  try {
    const url = new URL(request.url);
    const query = [...url.searchParams.keys()];
    if (query.some((k) => k === "format" || k === "download" || k === "filename") || /;|%(?![0-9a-f]{2})/i.test(url.search)) throw new Later(`query ${url.search}`);
    if (request.headers.get("Accept")?.includes("application/vnd.ip")) throw new Later("another format");
    const [, , root, ...rest] = url.pathname.split("/");
    if (rest.length > maxSegments) throw new Later("a path of very many names");
    const slash = rest.at(-1) === "";
    const target = await resolve(parseCID(root), rest.filter((s) => s !== "").map(decode), blocks);
    if (target.entry.kind === "file") return await file(request, target, blocks);
    if (!slash) return new Response(null, { status: 301, headers: { Location: `${url.pathname}/${url.search}` } });
    const index = await step(target, "index.html", blocks);
    if (index?.entry.kind !== "file") throw new Later("a listing");
    return await file(request, index, blocks, target.cid);
  } catch (err) {
    if (!(err instanceof BlockError)) throw err;
    switch (err.code) {
      case "bad_cid": return failure(400, err.code, err.message);
      case "not_found": return failure(404, err.code, err.message);
      case "bad_block": return failure(502, err.code, err.message);
      default: throw new Later(err.message);
    }
  }
}

/** @param {string} segment */
function decode(segment) {
  try {
    return decodeURIComponent(segment);
  } catch {
    throw new Later("a path that is no UTF-8");
  }
}

/**
 * An error for scripts, as shared/gateway makes it.
 * @param {number} status
 * @param {string} code
 * @param {string} message
 */
export function failure(status, code, message) {
  return new Response(JSON.stringify({ error: { status, code, message } }) + "\n", {
    status,
    headers: { "Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff" },
  });
}

/**
 * @param {CID} root
 * @param {string[]} segments
 * @param {Blocks} blocks
 */
async function resolve(root, segments, blocks) {
  /** @type {Target} */
  let target = { cid: root, entry: decodeUnixFS(root, await blocks.block(root)), name: "" };
  for (const name of segments) {
    const next = await step(target, name, blocks);
    if (!next) throw new BlockError("not_found", `there is no ${JSON.stringify(name)} in ${target.cid.text}`);
    target = next;
  }
  return target;
}

/**
 * The entry called name of a directory, or null.
 * @param {Target} dir
 * @param {string} name
 * @param {Blocks} blocks
 * @returns {Promise<Target | null>}
 */
async function step(dir, name, blocks) {
  if (dir.entry.kind === "file") return null;
  let cid = null;
  if (dir.entry.kind === "directory") {
    cid = dir.entry.links.find((l) => l.name === name)?.cid;
  } else {
    let shard = dir.entry;
    for (let depth = 0; !cid; depth++) {
      const found = hamtStep(shard, name, depth);
      if (!found) return null;
      if (found.done) cid = found.cid;
      else {
        shard = decodeUnixFS(found.cid, await blocks.block(found.cid));
        if (shard.kind !== "hamt") throw new BlockError("bad_block", "malformed block: a HAMT's shard is none");
      }
    }
  }
  if (!cid) return null;
  // A raw leaf's block is the file: it is read, like every other leaf, as it is sent.
  return { cid, entry: decodeUnixFS(cid, await blocks.block(cid)), name };
}

/**
 * @param {{method: string, headers: Headers}} request
 * @param {Target} target
 * @param {Blocks} blocks
 * @param {CID} [tag] what the path leads to: the file, or the folder whose page it is
 */
async function file(request, target, blocks, tag = target.cid) {
  const { entry, name } = target;
  const etag = `"${tag.text}"`;
  const type = contentType(name) ?? sniff(await head(entry, blocks));
  const headers = new Headers({
    "Content-Type": type,
    "Accept-Ranges": "bytes",
    "Cache-Control": "public, max-age=29030400, immutable",
    ETag: etag,
    "X-Content-Type-Options": "nosniff",
  });
  const match = request.headers.get("If-None-Match");
  if (match && (match.trim() === "*" || match.split(",").some((t) => t.trim().replace(/^W\//, "") === etag))) {
    return new Response(null, { status: 304, headers });
  }
  let from = 0, to = entry.size, status = 200;
  const ifRange = request.headers.get("If-Range");
  const range = ifRange && ifRange !== etag ? null : parseRange(request.headers.get("Range"), entry.size);
  if (range === "unsatisfiable") {
    const r = failure(416, "range", `the file has ${entry.size} bytes`);
    r.headers.set("Content-Range", `bytes */${entry.size}`);
    return r;
  }
  if (range) {
    ({ from, to } = range);
    status = 206;
    headers.set("Content-Range", `bytes ${from}-${to - 1}/${entry.size}`);
  }
  headers.set("Content-Length", String(to - from));
  /** @type {BodyInit} */
  let body;
  if (entry.links.length === 0) body = /** @type {Uint8Array<ArrayBuffer>} */ (entry.data.subarray(from, to));
  else {
    // No status before the first block is here, and right.
    const source = parts(entry, from, to, blocks, 1);
    const first = await source.next();
    if (!first.done) await first.value.bytes;
    body = stream(first.done ? [] : [first.value.bytes], source);
  }
  return new Response(request.method === "HEAD" ? null : body, { status, headers });
}

/**
 * One byte range; null means the whole file: none asked for, several, not understood, or nothing to take a part of.
 * @param {string | null} header
 * @param {number} size
 * @returns {{from: number, to: number} | "unsatisfiable" | null}
 */
export function parseRange(header, size) {
  const m = header?.match(/^bytes=\s*(\d*)-(\d*)\s*$/);
  if (!m || size === 0 || (!m[1] && !m[2])) return null;
  if ([m[1], m[2]].some((n) => BigInt(n.slice(0, 32)) >= 2n ** 63n)) return null; // as shared/gateway counts
  if (!m[1]) {
    const last = Number(m[2]);
    return last === 0 ? "unsatisfiable" : { from: Math.max(0, size - last), to: size };
  }
  const from = Number(m[1]);
  const to = m[2] ? Math.min(size, Number(m[2]) + 1) : size;
  if (m[2] && Number(m[2]) < from) return null;
  return from >= size ? "unsatisfiable" : { from, to };
}

/** @param {Entry} entry @param {Blocks} blocks */
async function head(entry, blocks) {
  const out = new Uint8Array(Math.min(sniffBytes, entry.size));
  let at = 0;
  for await (const { bytes } of parts(entry, 0, out.length, blocks, 1)) {
    const part = await bytes;
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/**
 * @param {Promise<Uint8Array>[]} ahead the parts that were begun
 * @param {ReturnType<typeof parts>} source those after them
 */
function stream(ahead, source) {
  let ended = false;
  return new ReadableStream(
    {
      async pull(controller) {
        while (!ended && ahead.length < readAhead) {
          const { done, value } = await source.next();
          if (done) ended = true;
          else {
            value.bytes.catch(() => {}); // awaited below, unless the reader leaves first
            ahead.push(value.bytes);
          }
        }
        const part = ahead.shift();
        if (part) controller.enqueue(await part);
        else controller.close();
      },
      async cancel() {
        ended = true;
        await source.return(undefined);
      },
    },
    { highWaterMark: 0 },
  );
}

/**
 * The bytes [from, to) of a file, in order, as its leaves. Each comes boxed: a
 * generator would wait for a bare promise, and so for one leaf at a time. depth
 * is the level of entry, 1 for the root.
 * @param {Entry} entry
 * @param {number} from
 * @param {number} to
 * @param {Blocks} blocks
 * @param {number} depth
 * @returns {AsyncGenerator<{bytes: Promise<Uint8Array>}, void>}
 */
async function* parts(entry, from, to, blocks, depth) {
  if (from < entry.data.length && from < to) yield { bytes: Promise.resolve(entry.data.subarray(from, to)) };
  let at = entry.data.length;
  for (let i = 0; i < entry.links.length && at < to; i++) {
    const { cid } = entry.links[i];
    const start = at, size = entry.sizes[i];
    at += size;
    if (at <= from || size === 0) continue;
    if (depth === maxDepth) throw new BlockError("bad_block", `malformed block: a file of more than ${maxDepth} levels`);
    const lo = Math.max(0, from - start), hi = Math.min(size, to - start);
    if (cid.codec === DAG_PB) yield* parts(child(cid, size, await blocks.block(cid)), lo, hi, blocks, depth + 1);
    else yield { bytes: blocks.block(cid).then((b) => child(cid, size, b).data.subarray(lo, hi)) };
  }
}

/** @param {CID} cid @param {number} size @param {Uint8Array} block */
function child(cid, size, block) {
  const entry = decodeUnixFS(cid, block);
  if (entry.kind !== "file" || entry.size !== size) throw new BlockError("bad_block", `malformed block: ${cid.text} is not the ${size} bytes of a file that its parent says`);
  return entry;
}

/**
 * The type of a file by its name, as shared/gateway has it; undefined if the
 * name does not tell.
 * @param {string} name
 */
export function contentType(name) {
  const dot = name.lastIndexOf(".");
  return dot < 0 ? undefined : types[name.slice(dot + 1).toLowerCase()];
}

/** @type {Record<string, string>} by extension, as in shared/gateway/types.go */
export const types = Object.assign(Object.create(null), {
  html: "text/html", htm: "text/html",
  xhtml: "application/xhtml+xml", xht: "application/xhtml+xml",
  js: "text/javascript; charset=utf-8", mjs: "text/javascript; charset=utf-8", cjs: "text/javascript; charset=utf-8",
  json: "application/json", map: "application/json", jsonld: "application/ld+json", geojson: "application/geo+json",
  webmanifest: "application/manifest+json", importmap: "application/importmap+json", ndjson: "application/x-ndjson",
  wasm: "application/wasm",
  css: "text/css; charset=utf-8",
  txt: "text/plain; charset=utf-8", md: "text/markdown; charset=utf-8", csv: "text/csv; charset=utf-8",
  ts: "text/plain; charset=utf-8", mts: "text/plain; charset=utf-8", tsx: "text/plain; charset=utf-8", jsx: "text/plain; charset=utf-8",
  yaml: "application/yaml", yml: "application/yaml", toml: "application/toml", vtt: "text/vtt; charset=utf-8",
  glsl: "text/plain; charset=utf-8", wgsl: "text/wgsl; charset=utf-8", frag: "text/plain; charset=utf-8", vert: "text/plain; charset=utf-8",
  xml: "text/xml; charset=utf-8", xsl: "text/xsl; charset=utf-8", xslt: "application/xslt+xml", rss: "application/rss+xml", atom: "application/atom+xml",
  svg: "image/svg+xml",
  png: "image/png", apng: "image/apng", jpg: "image/jpeg", jpeg: "image/jpeg", gif: "image/gif",
  webp: "image/webp", avif: "image/avif", jxl: "image/jxl", bmp: "image/bmp", ico: "image/x-icon",
  tif: "image/tiff", tiff: "image/tiff", heic: "image/heic", ktx2: "image/ktx2",
  woff: "font/woff", woff2: "font/woff2", ttf: "font/ttf", otf: "font/otf", ttc: "font/collection",
  eot: "application/vnd.ms-fontobject",
  mp4: "video/mp4", m4v: "video/mp4", webm: "video/webm", ogv: "video/ogg", mov: "video/quicktime", mkv: "video/x-matroska",
  m3u8: "application/vnd.apple.mpegurl", mpd: "application/dash+xml", m4s: "video/iso.segment",
  mp3: "audio/mpeg", m4a: "audio/mp4", aac: "audio/aac", ogg: "audio/ogg", oga: "audio/ogg", opus: "audio/ogg",
  flac: "audio/flac", wav: "audio/wav", weba: "audio/webm", mid: "audio/midi",
  glb: "model/gltf-binary", gltf: "model/gltf+json", obj: "model/obj", stl: "model/stl",
  pdf: "application/pdf", epub: "application/epub+zip", rtf: "application/rtf",
  zip: "application/zip", gz: "application/gzip", tgz: "application/gzip", bz2: "application/x-bzip2", xz: "application/x-xz",
  zst: "application/zstd", br: "application/octet-stream", tar: "application/x-tar", "7z": "application/x-7z-compressed",
  bin: "application/octet-stream", dat: "application/octet-stream", data: "application/octet-stream",
  car: "application/vnd.ipld.car", mht: "multipart/related", mhtml: "multipart/related",
  parquet: "application/vnd.apache.parquet", sqlite: "application/vnd.sqlite3",
  onnx: "application/octet-stream", safetensors: "application/octet-stream", gguf: "application/octet-stream",
});

/** How bytes begin, a character each, whose type the node tells: markup, and other formats with a signature. */
const others = /^(?:[\t\n\f\r ]*<|%|BM|RIFF|FORM|ID3|OggS|MThd|OTTO|ttcf|wOF|PK\x03\x04|Rar!|\x1f\x8b|\x1aE\xdf\xa3|\xfe\xff|\xff\xfe|\xef\xbb\xbf|\0\0[\x01\x02]\0|\0\x01\0\0|[^]{4}ftyp|[^]{34}LP)/;

/**
 * The type of bytes without a telling name. The few that pages use; the node,
 * which follows https://mimesniff.spec.whatwg.org/, knows more.
 * @param {Uint8Array} first
 */
export function sniff(first) {
  /** @type {[string, number[]][]} */
  const magic = [
    ["image/png", [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]],
    ["image/jpeg", [0xff, 0xd8, 0xff]],
    ["image/gif", [0x47, 0x49, 0x46, 0x38, 0x37, 0x61]],
    ["image/gif", [0x47, 0x49, 0x46, 0x38, 0x39, 0x61]],
    ["application/wasm", [0, 0x61, 0x73, 0x6d]],
    ["application/pdf", [0x25, 0x50, 0x44, 0x46, 0x2d]],
  ];
  for (const [type, bytes] of magic) if (bytes.every((b, i) => first[i] === b)) return type;
  const text = String.fromCharCode(...first.subarray(0, sniffBytes));
  if (others.test(text)) throw new Later("a file without a telling name that may be many things");
  return /[\0-\x08\x0b\x0e-\x1a\x1c-\x1f]/.test(text) ? "application/octet-stream" : "text/plain; charset=utf-8";
}
