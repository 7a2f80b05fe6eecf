// @ts-check
// Content-addressed blocks in plain JavaScript: CIDs, their verification by
// WebCrypto, and what of DAG-PB and UnixFS reading a file takes. boot.js uses
// it until the Go node runs. Every decoder here takes bytes from strangers: it
// throws a named BlockError, never anything else, and allocates no more than a
// small multiple of its input.
// Formats: https://github.com/multiformats/cid, https://ipld.io/specs/codecs/dag-pb/spec/,
// https://specs.ipfs.tech/unixfs/.

/** Codecs of blocks that are read here. */
export const RAW = 0x55, DAG_PB = 0x70;
/** Hash functions that are verified here; others wait for the Go node. */
export const SHA2_256 = 0x12, IDENTITY = 0x00;

/** The longest textual CID accepted, in characters; one with SHA-512 in base 16 has 140. */
const maxCIDText = 256;
/** The longest identity digest accepted, in bytes, as boxo's verifcid allows. */
const maxIdentity = 128;

/**
 * Says which of four things went wrong:
 * - bad_cid: the text or bytes are no CID
 * - bad_block: the block is not what its CID says, or is malformed
 * - not_found: a path has no such name
 * - unsupported: valid perhaps, but only the Go node reads it
 */
export class BlockError extends Error {
  /**
   * @param {"bad_cid" | "bad_block" | "not_found" | "unsupported"} code
   * @param {string} message
   */
  constructor(code, message) {
    super(message);
    this.name = "BlockError";
    this.code = code;
  }
}

/** @param {string} what @returns {never} */
const malformed = (what) => {
  throw new BlockError("bad_block", `malformed block: ${what}`);
};

/**
 * A content identifier. Two CIDs of one block have one key.
 * @typedef {object} CID
 * @property {0 | 1} version
 * @property {number} codec
 * @property {number} hash code of the hash function
 * @property {Uint8Array<ArrayBuffer>} digest
 * @property {string} text canonical: base58 for version 0, base32 for version 1
 * @property {string} key
 */

const base32 = "abcdefghijklmnopqrstuvwxyz234567";
const base36 = "0123456789abcdefghijklmnopqrstuvwxyz";
const base58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/** @param {string} s @param {string} alphabet @param {number} bits */
function decodeBits(s, alphabet, bits) {
  const out = new Uint8Array(Math.floor((s.length * bits) / 8));
  let acc = 0, n = 0, at = 0;
  for (const ch of s) {
    const v = alphabet.indexOf(ch);
    if (v < 0) throw new BlockError("bad_cid", `character ${JSON.stringify(ch)} is not in its base`);
    acc = ((acc << bits) | v) & 0xfff;
    n += bits;
    if (n >= 8) out[at++] = acc >> (n -= 8);
  }
  if ((acc & ((1 << n) - 1)) !== 0) throw new BlockError("bad_cid", "its last character has stray bits");
  return out;
}

/** @param {string} s @param {string} alphabet */
function decodeBig(s, alphabet) {
  /** @type {number[]} */
  const out = []; // little-endian
  for (const ch of s) {
    let carry = alphabet.indexOf(ch);
    if (carry < 0) throw new BlockError("bad_cid", `character ${JSON.stringify(ch)} is not in its base`);
    for (let i = 0; i < out.length; i++) {
      carry += out[i] * alphabet.length;
      out[i] = carry & 0xff;
      carry >>= 8;
    }
    while (carry) {
      out.push(carry & 0xff);
      carry >>= 8;
    }
  }
  for (const ch of s) {
    if (ch !== alphabet[0]) break;
    out.push(0);
  }
  return new Uint8Array(out.reverse());
}

/** @param {Uint8Array} bytes */
function encodeBase58(bytes) {
  /** @type {number[]} */
  const digits = [];
  for (const b of bytes) {
    let carry = b;
    for (let i = 0; i < digits.length; i++) {
      carry += digits[i] << 8;
      digits[i] = carry % 58;
      carry = Math.floor(carry / 58);
    }
    while (carry) {
      digits.push(carry % 58);
      carry = Math.floor(carry / 58);
    }
  }
  let out = "";
  for (const b of bytes) {
    if (b) break;
    out += base58[0];
  }
  return out + digits.reverse().map((d) => base58[d]).join("");
}

/** @param {Uint8Array} bytes */
function encodeBase32(bytes) {
  let acc = 0, n = 0, out = "";
  for (const b of bytes) {
    acc = ((acc << 8) | b) & 0xfff;
    n += 8;
    while (n >= 5) out += base32[(acc >> (n -= 5)) & 31];
  }
  return n ? out + base32[(acc << (5 - n)) & 31] : out;
}

/** @param {Uint8Array} bytes */
export const hex = (bytes) => Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");

/**
 * Reads one unsigned varint of 64 bits; above 2^53 it is rounded.
 * @param {Uint8Array} b
 * @param {number} at
 * @returns {[value: number, next: number]}
 */
function varint(b, at) {
  let value = 0, scale = 1;
  for (let i = 0; i < 10; i++, scale *= 128) {
    if (at >= b.length) return malformed("it ends inside a number");
    const c = b[at++];
    value += (c & 127) * scale;
    if (i === 9 && c > 1) break;
    if (c < 128) return [value, at];
  }
  return malformed("a number is too long");
}

/** The same in a CID: short enough to be exact, and as short as it can be. @type {typeof varint} */
function code(b, at) {
  const [value, next] = varint(b, at);
  if (value > Number.MAX_SAFE_INTEGER || (next - at > 1 && b[next - 1] === 0)) return malformed("a number is written at length");
  return [value, next];
}

/**
 * Reads a CID from bytes that hold nothing else.
 * @param {Uint8Array} bytes
 * @returns {CID}
 */
export function decodeCID(bytes) {
  if (bytes.length === 34 && bytes[0] === SHA2_256 && bytes[1] === 32) {
    const digest = bytes.slice(2);
    return { version: 0, codec: DAG_PB, hash: SHA2_256, digest, text: encodeBase58(bytes), key: `${SHA2_256}:${hex(digest)}` };
  }
  try {
    let version, codec, hash, length, at = 0;
    [version, at] = code(bytes, at);
    if (version !== 1) throw new BlockError("bad_cid", `CID version ${version}`);
    [codec, at] = code(bytes, at);
    [hash, at] = code(bytes, at);
    [length, at] = code(bytes, at);
    if (bytes.length - at !== length) throw new BlockError("bad_cid", "the digest has another length than it says");
    if (hash === SHA2_256 && length !== 32) throw new BlockError("unsupported", `a SHA-256 of ${length} bytes`);
    if (hash === IDENTITY && length > maxIdentity) throw new BlockError("unsupported", `an identity digest of ${length} bytes`);
    const digest = bytes.slice(at);
    return { version: 1, codec, hash, digest, text: "b" + encodeBase32(bytes), key: `${hash}:${hex(digest)}` };
  } catch (err) {
    if (err instanceof BlockError && err.code !== "bad_block") throw err;
    throw new BlockError("bad_cid", "it ends early");
  }
}

/**
 * Reads a CID from text: version 0, or version 1 in base 16, 32, 36 or 58.
 * @param {string} text
 * @returns {CID}
 */
export function parseCID(text) {
  if (text.length < 2 || text.length > maxCIDText) throw new BlockError("bad_cid", `${text.length} characters are no CID`);
  if (text.length === 46 && text.startsWith("Qm")) return decodeCID(decodeBig(text, base58));
  const rest = text.slice(1);
  /** @type {Uint8Array} */
  let bytes;
  switch (text[0]) {
    case "b": bytes = decodeBits(rest, base32, 5); break;
    case "B": bytes = decodeBits(rest.toLowerCase(), base32, 5); break;
    case "f": bytes = decodeBits(rest, "0123456789abcdef", 4); break;
    case "k": bytes = decodeBig(rest, base36); break;
    case "z": bytes = decodeBig(rest, base58); break;
    default: throw new BlockError("bad_cid", `no base is called ${JSON.stringify(text[0])}`);
  }
  if (bytes[0] === SHA2_256) throw new BlockError("bad_cid", "version 0 in another base than 58");
  return decodeCID(bytes);
}

/**
 * Checks that bytes are the block that cid names.
 * @param {CID} cid
 * @param {Uint8Array<ArrayBuffer>} bytes
 */
export async function verify(cid, bytes) {
  if (cid.hash !== SHA2_256) throw new BlockError("unsupported", `hash function 0x${cid.hash.toString(16)}`);
  const sum = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  if (!sum.every((b, i) => b === cid.digest[i])) {
    throw new BlockError("bad_block", `the ${bytes.length} bytes that came for ${cid.text} hash to something else`);
  }
}

/** The numbers that fill b. @param {Uint8Array} b */
function* varints(b) {
  for (let at = 0, value; at < b.length;) {
    [value, at] = varint(b, at);
    yield value;
  }
}

/**
 * The fields of a protobuf message.
 * @param {Uint8Array} b
 * @returns {Generator<{field: number, value: number, bytes: Uint8Array | null}>}
 */
function* fields(b) {
  for (let at = 0; at < b.length;) {
    let tag, value;
    [tag, at] = varint(b, at);
    const field = Math.floor(tag / 8);
    if (field < 1 || field >= 2 ** 29) malformed(`a field numbered ${field}`);
    switch (tag % 8) {
      case 0:
        [value, at] = varint(b, at);
        yield { field, value, bytes: null };
        break;
      case 2:
        [value, at] = varint(b, at);
        if (value > b.length - at) malformed("a field is longer than the rest");
        yield { field, value: 0, bytes: b.subarray(at, at + value) };
        at += value;
        break;
      default:
        malformed(`protobuf wire type ${tag % 8}`);
    }
  }
}

/** @param {Uint8Array | null} bytes @returns {Uint8Array} */
const needBytes = (bytes) => bytes ?? malformed("a number where bytes belong");
const utf8 = new TextDecoder("utf-8", { fatal: false, ignoreBOM: true });

/** @typedef {{cid: CID, name: string}} Link */

/**
 * Reads a DAG-PB node, as strictly as go-codec-dagpb: the data may come before
 * the links or after them.
 * @param {Uint8Array} block
 * @returns {{links: Link[], data: Uint8Array | null}}
 */
export function decodeDAGPB(block) {
  /** @type {Link[]} */
  const links = [];
  /** @type {Uint8Array | null} */
  let data = null;
  let last = 0;
  for (const f of fields(block)) {
    if (f.field === 1) {
      if (data) malformed("two data fields");
      data = needBytes(f.bytes);
    } else if (f.field === 2) {
      if (links.length && last !== 2) malformed("links in two places");
      links.push(decodeLink(needBytes(f.bytes)));
    } else malformed(`field ${f.field} in a DAG-PB node`);
    last = f.field;
  }
  return { links, data };
}

/** @param {Uint8Array} bytes @returns {Link} */
function decodeLink(bytes) {
  let cid = null, name = "", last = 0;
  for (const f of fields(bytes)) {
    if (f.field <= last || f.field > 3) malformed(`field ${f.field} after field ${last} in a link`);
    last = f.field;
    if (f.field === 1) cid = needBytes(f.bytes);
    else if (f.field === 2) name = utf8.decode(needBytes(f.bytes));
    else if (f.bytes) malformed("bytes where a number belongs");
  }
  if (!cid) return malformed("a link without CID");
  try {
    return { cid: decodeCID(cid), name };
  } catch (err) {
    // What is malformed to this reader the node may read otherwise: bytes after it.
    throw new BlockError("unsupported", `a link's CID: ${/** @type {Error} */ (err).message}`);
  }
}

/** UnixFS node types that are read here. */
const kinds = /** @type {const} */ (["raw", "directory", "file", "metadata", "symlink", "hamt"]);

/**
 * A node of a UnixFS DAG. Of a file, sizes[i] is how many bytes of it are under
 * links[i]; data comes before them all.
 * @typedef {object} Entry
 * @property {"file" | "directory" | "hamt"} kind
 * @property {Link[]} links
 * @property {Uint8Array} data
 * @property {number} size of the file, in bytes
 * @property {number[]} sizes
 * @property {number} fanout of a HAMT
 */

/**
 * Reads a block as the UnixFS node it is.
 * @param {CID} cid
 * @param {Uint8Array} block
 * @returns {Entry}
 */
export function decodeUnixFS(cid, block) {
  if (cid.codec === RAW) return { kind: "file", links: [], data: block, size: block.length, sizes: [], fanout: 0 };
  if (cid.codec !== DAG_PB) throw new BlockError("unsupported", `codec 0x${cid.codec.toString(16)}`);
  const { links, data: meta } = decodeDAGPB(block);
  if (!meta) throw new BlockError("unsupported", "a DAG-PB node that is no UnixFS");
  const { kind, data, size, sizes, hash, fanout } = decodeMeta(meta);
  switch (kinds[kind]) {
    case "raw":
    case "file": {
      if (sizes.length !== links.length) malformed(`${links.length} links and ${sizes.length} sizes`);
      const sum = sizes.reduce((a, b) => a + b, data.length);
      if (!Number.isSafeInteger(sum)) throw new BlockError("unsupported", `a file of ${sum} bytes`);
      if (size && sum !== size) malformed(`its parts have ${sum} bytes, it says ${size}`);
      return { kind: "file", links, data, size: sum, sizes, fanout };
    }
    case "directory":
      return { kind: "directory", links, data, size: 0, sizes, fanout };
    case "hamt": {
      if (hash !== 0x22) throw new BlockError("unsupported", `a HAMT by hash function 0x${hash.toString(16)}`);
      if (fanout < 8 || fanout > 1024 || (fanout & (fanout - 1)) !== 0) malformed(`a HAMT with a fan-out of ${fanout}`);
      if (links.length > fanout) malformed(`a HAMT with a fan-out of ${fanout} and ${links.length} links`);
      const prefix = prefixLength(fanout);
      if (links.some((l) => l.name.length < prefix)) malformed("a HAMT with a link that has no slot");
      return { kind: "hamt", links, data, size: 0, sizes, fanout };
    }
    default:
      throw new BlockError("unsupported", `UnixFS type ${kind}`);
  }
}

/**
 * Reads the UnixFS message of a DAG-PB node. A field of another wire type than
 * its own is skipped, as protobuf has it; bytes that are no protobuf message are
 * not UnixFS, and so not malformed.
 * @param {Uint8Array} meta
 */
function decodeMeta(meta) {
  let kind = -1, size = 0, fanout = 0, hash = 0;
  /** @type {Uint8Array} */
  let data = new Uint8Array(0);
  /** @type {number[]} */
  const sizes = [];
  try {
    for (const { field, value, bytes } of fields(meta)) {
      if (field === 4 && bytes) {
        for (const n of varints(bytes)) sizes.push(n); // packed, as proto3 writes them
      } else if (field === 2 && bytes) data = bytes;
      else if (bytes) continue;
      else if (field === 1) kind = value;
      else if (field === 3) size = value;
      else if (field === 4) sizes.push(value);
      else if (field === 5) hash = value;
      else if (field === 6) fanout = value;
    }
  } catch (err) {
    throw new BlockError("unsupported", `a DAG-PB node that is no UnixFS: ${/** @type {Error} */ (err).message}`);
  }
  return { kind, data, size, sizes, hash, fanout };
}

/** The digits of a slot's number before a name in a shard. @param {number} fanout */
const prefixLength = (fanout) => (fanout - 1).toString(16).length;

/**
 * Finds the link of a HAMT shard that leads to name.
 * @param {Entry} shard
 * @param {string} name
 * @param {number} depth how many shards are above this one
 * @returns {{cid: CID, done: boolean} | null} done: cid is the entry itself, not another shard
 */
export function hamtStep(shard, name, depth) {
  const width = Math.log2(shard.fanout);
  if ((depth + 1) * width > 64) malformed("a HAMT deeper than its hash");
  // boxo consumes the hash's bytes in big-endian order, most significant bits first.
  const bucket = Number((murmur3(new TextEncoder().encode(name)) >> BigInt(64 - (depth + 1) * width)) & BigInt(shard.fanout - 1));
  const prefix = bucket.toString(16).toUpperCase().padStart(prefixLength(shard.fanout), "0");
  let below = null;
  for (const l of shard.links) {
    if (l.name === prefix) below = { cid: l.cid, done: false };
    else if (l.name === prefix + name) return { cid: l.cid, done: true };
  }
  return below;
}

const m64 = (1n << 64n) - 1n;
/** @param {bigint} x @param {bigint} n */
const rotl = (x, n) => ((x << n) | (x >> (64n - n))) & m64;
/** @param {bigint} k */
const fmix = (k) => {
  k = ((k ^ (k >> 33n)) * 0xff51afd7ed558ccdn) & m64;
  k = ((k ^ (k >> 33n)) * 0xc4ceb9fe1a85ec53n) & m64;
  return k ^ (k >> 33n);
};

/**
 * The first 64 bits of murmur3-x64-128 with seed 0, the hash of UnixFS HAMTs.
 * @param {Uint8Array} b
 */
export function murmur3(b) {
  const c1 = 0x87c37b91114253d5n, c2 = 0x4cf5ad432745937fn;
  let h1 = 0n, h2 = 0n;
  /** @param {number} from @param {number} to */
  const word = (from, to) => {
    let w = 0n;
    for (let i = Math.min(to, b.length) - 1; i >= from; i--) w = (w << 8n) | BigInt(b[i]);
    return w;
  };
  const whole = b.length - (b.length % 16);
  for (let i = 0; i < whole; i += 16) {
    h1 ^= (rotl((word(i, i + 8) * c1) & m64, 31n) * c2) & m64;
    h1 = (((rotl(h1, 27n) + h2) & m64) * 5n + 0x52dce729n) & m64;
    h2 ^= (rotl((word(i + 8, i + 16) * c2) & m64, 33n) * c1) & m64;
    h2 = (((rotl(h2, 31n) + h1) & m64) * 5n + 0x38495ab5n) & m64;
  }
  if (b.length - whole > 8) h2 ^= (rotl((word(whole + 8, b.length) * c2) & m64, 33n) * c1) & m64;
  if (b.length > whole) h1 ^= (rotl((word(whole, whole + 8) * c1) & m64, 31n) * c2) & m64;
  const n = BigInt(b.length);
  h1 ^= n;
  h2 ^= n;
  h1 = (h1 + h2) & m64;
  h2 = (h2 + h1) & m64;
  h1 = fmix(h1);
  h2 = fmix(h2);
  return (h1 + h2) & m64;
}
