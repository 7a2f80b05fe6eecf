// @ts-check
// Keeps the site's own few files (index.html, weft.js, ui/…) for when the
// network is away. `/assets.json` lists them with the first 16 hex digits of
// their SHA-256; a file is kept only if it is what the list says, so what is
// kept belongs together.

import { hex } from "./blocks.js";

const cacheName = "weft-assets";
const listURL = "/assets.json";
/** How long the network may take before the kept file is given, in ms. */
const patience = 2_500;
/** Own files, by path: what else a site serves stays the browser's business. */
const own = /^\/(?:|index\.html|(?:weft|rtc|join|boot|blocks|host|pages|assets|config|types|wasm_exec)\.js|assets\.json|ui\/.+)$/;
/** The node: immutable, named by its hash. */
const hashed = /^\/node\.[0-9a-f]{16,64}\.wasm$/;

/** @param {string} path @returns {boolean} whether {@link respond} answers it */
export const isOwn = (path) => own.test(path);

/**
 * Fetches what is not kept yet, and forgets what is no longer listed.
 * @returns {Promise<void>} never rejects: without network nothing changes
 */
export async function refresh() {
  try {
    const cache = await caches.open(cacheName);
    const response = await fetch(listURL, { cache: "no-cache", signal: AbortSignal.timeout(30_000) });
    if (!response.ok) return;
    const text = await response.text();
    const files = parseList(text);
    const old = await listed();
    /** @type {[path: string, file: Response][]} */
    const fresh = [];
    for (const path of Object.keys(files)) {
      if (!isOwn(path) || path === listURL) continue;
      if (old[path] === files[path] && (await cache.match(path))) continue;
      const file = await fetch(path, { cache: "no-cache", signal: AbortSignal.timeout(30_000) });
      const bytes = await file.clone().arrayBuffer();
      const sum = hex(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)));
      if (!file.ok || !sum.startsWith(files[path])) return; // the site is being updated: next time
      fresh.push([path, file]);
    }
    for (const [path, file] of fresh) await cache.put(path, file);
    await cache.put(listURL, new Response(text, { headers: { "Content-Type": "application/json" } }));
    for (const request of await cache.keys()) {
      const path = new URL(request.url).pathname;
      if (isOwn(path) && path !== listURL && !(path in files)) await cache.delete(request);
    }
  } catch {
    // Offline, or no room: what is kept stays.
  }
}

/** @param {string} text @returns {Record<string, string>} */
function parseList(text) {
  const files = JSON.parse(text)?.files;
  if (typeof files !== "object" || files === null) return {};
  return Object.fromEntries(Object.entries(files).filter(([p, h]) => p.startsWith("/") && typeof h === "string" && /^[0-9a-f]{16,64}$/.test(h)));
}

/** The kept list. @returns {Promise<Record<string, string>>} */
export async function listed() {
  const kept = await (await caches.open(cacheName)).match(listURL);
  return kept ? parseList(await kept.text()) : {};
}

/**
 * Answers a request for an own file: from the network, from what is kept if
 * that fails or takes too long.
 * @param {Request} request
 * @returns {Promise<Response>}
 */
export async function respond(request) {
  const network = fetch(request);
  network.catch(() => {});
  const slow = new Promise((resolve) => setTimeout(resolve, navigator.onLine ? patience : 0));
  const first = await Promise.race([network.catch(() => undefined), slow.then(() => undefined)]);
  if (first && first.status < 500) return first;
  const path = new URL(request.url).pathname;
  const cache = await caches.open(cacheName);
  const kept = (await cache.match(path)) ?? (path === "/" ? await cache.match("/index.html") : path === "/index.html" ? await cache.match("/") : undefined);
  return kept ?? first ?? network;
}

/**
 * The compiled-from bytes of the node, kept until another is asked for.
 * @param {string} url
 * @returns {Promise<Response>}
 */
export async function nodeWasm(url) {
  const path = new URL(url, location.origin).pathname;
  const cache = await caches.open(cacheName);
  const kept = await cache.match(path);
  if (kept) return kept;
  const response = await fetch(url, { priority: "low" });
  if (!response.ok) throw new Error(`${url}: HTTP status ${response.status}`);
  if (!hashed.test(path)) return response;
  const copy = response.clone();
  cache.put(path, copy).then(async () => {
    for (const request of await cache.keys()) {
      const other = new URL(request.url).pathname;
      if (hashed.test(other) && other !== path) await cache.delete(request);
    }
  }).catch(() => {}); // no room: the browser's own cache has it for a while
  return response;
}
