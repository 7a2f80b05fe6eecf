// @ts-check
// Finds out which relays the worker uses and what they say about themselves
// (`/weft/config.json`), and remembers both for when they are away.

import { readAtMost } from "./body.js";

/** @typedef {import("./types.js").Config} Config */

const cacheName = "weft-config";
const basesKey = "/weft/joined.json";
/** How long relays may take to answer, in ms, where an older answer is kept. */
const patience = 2_500;
/** How long where none is kept. */
const firstPatience = 15_000;
/** The largest config read, in bytes: a full list of roots is 1 MiB, base64 makes it 4/3 of that. */
const maxBytes = 2 << 20;

/** @type {Promise<string[]> | undefined} */
let bases;

/**
 * The relays' base URLs: those a page named last, else the site's own origin.
 * @returns {Promise<string[]>}
 */
export function relays() {
  bases ??= (async () => {
    const kept = await (await caches.open(cacheName)).match(basesKey);
    return kept ? await kept.json() : [location.origin];
  })().catch(() => [location.origin]);
  return bases;
}

/**
 * Base URLs of the relays' gateways: of the relays themselves, then of those
 * that they name. A relay's HTTP is where its WebSocket is.
 * @param {Config | null} config
 * @returns {Promise<string[]>}
 */
export async function gateways(config) {
  const named = (config?.relays ?? []).map(httpOf).filter((u) => u !== null);
  return [...new Set([...(await relays()), ...named])];
}

/** @param {string} addr a multiaddr @returns {string | null} */
function httpOf(addr) {
  const m = /^\/(ip4|ip6|dns|dns4|dns6)\/([^/]+)\/tcp\/(\d+)(\/tls)?\/(ws|wss)\/p2p\/[^/]+$/.exec(addr);
  if (!m) return null;
  const host = m[1] === "ip6" ? `[${m[2]}]` : m[2];
  try {
    return new URL(`${m[4] || m[5] === "wss" ? "https" : "http"}://${host}:${m[3]}`).origin;
  } catch {
    return null;
  }
}

/**
 * Remembers the relays that a page names.
 * @param {string[]} urls
 * @returns {Promise<boolean>} whether they are others than before
 */
export async function setRelays(urls) {
  const wanted = [...new Set(urls.map((u) => new URL(u).origin))];
  if (wanted.length === 0) wanted.push(location.origin);
  if (String(await relays()) === String(wanted)) return false;
  bases = Promise.resolve(wanted);
  const cache = await caches.open(cacheName);
  await cache.put(basesKey, Response.json(wanted));
  return true;
}

/**
 * What is kept of the relays' last answers.
 * @returns {Promise<Config | null>}
 */
export async function kept() {
  const cache = await caches.open(cacheName);
  return merge(await Promise.all((await relays()).map(async (base) => {
    const r = await cache.match(key(base));
    return r ? /** @type {Config} */ (await r.json()) : null;
  })));
}

/**
 * Asks the relays. Those that do not answer in time are taken from what is kept:
 * once one has answered, the others have `patience` left.
 * @returns {Promise<Config | null>} null if nobody answered, ever
 */
export async function fresh() {
  const had = (await kept()) !== null;
  const cache = await caches.open(cacheName);
  const late = new AbortController();
  let timer = setTimeout(() => late.abort(), had ? patience : firstPatience);
  let answered = had;
  const configs = await Promise.all((await relays()).map(async (base) => {
    try {
      const response = await fetch(`${base}/weft/config.json`, { cache: "no-store", credentials: "omit", signal: late.signal });
      const bytes = response.ok ? await readAtMost(response, maxBytes) : null;
      const config = bytes && parse(new TextDecoder().decode(bytes), base);
      if (config) {
        if (!answered) {
          answered = true;
          clearTimeout(timer);
          timer = setTimeout(() => late.abort(), patience);
        }
        await cache.put(key(base), Response.json(config)).catch(() => {}); // no room: it is asked again next time
        return config;
      }
    } catch {
      // Away, or not a relay: what it said last may be kept.
    }
    const r = await cache.match(key(base));
    return r ? /** @type {Config} */ (await r.json()) : null;
  }));
  clearTimeout(timer);
  return merge(configs);
}

/** @param {string} base */
const key = (base) => `/weft/config.json?of=${encodeURIComponent(base)}`;

/**
 * Checks what a relay says. Only the origin's own relay may say which roots are
 * the origin's own: another's pages never run here.
 * @param {string} text
 * @param {string} base
 * @returns {Config | null}
 */
function parse(text, base) {
  const c = JSON.parse(text);
  if (typeof c !== "object" || c === null || c.version !== 1 || !Array.isArray(c.relays)) return null;
  c.relays = c.relays.filter((/** @type {unknown} */ a) => typeof a === "string");
  if (typeof c.node?.wasm !== "string") delete c.node;
  if (base !== location.origin) {
    delete c.owner;
    if (c.node) c.node.wasm = new URL(c.node.wasm, base).href;
  }
  return c;
}

/** One config of several: the first's, with everyone's relays. @param {(Config | null)[]} all */
function merge(all) {
  const some = all.filter((c) => c !== null);
  if (some.length === 0) return null;
  return { ...some[0], relays: [...new Set(some.flatMap((c) => c.relays))] };
}
