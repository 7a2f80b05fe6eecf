// @ts-check
// The Service Worker: answers /ipfs/ from the Go node, from plain JavaScript
// (boot.js) until that runs, and keeps the site's own files for when the
// network is away. Every handler is registered at once; each does its work and
// keeps the worker alive while it does.

import "/wasm_exec.js";
import * as assets from "/assets.js";
import { Blocks, Later, answer, failure } from "/boot.js";
import * as config from "/config.js";
import { Held } from "/held.js";
import { HostError, NodeHost, asError } from "/host.js";
import { Pages } from "/pages.js";

/** @typedef {import("/types.js").PageMessage} PageMessage */
/** @typedef {import("/types.js").Status} Status */

const worker = /** @type {ServiceWorkerGlobalScope} */ (/** @type {unknown} */ (globalThis));

/** Names this instance: a page that sees another one attaches anew. */
const bootId = crypto.randomUUID();
/** How long a request waits for a node that is not up, in ms. */
const nodePatience = 60_000;

const held = new Held();
/** @type {Blocks} */
const blocks = new Blocks(() => config.gateways(host.config), { device: held });
/** @type {NodeHost} */
const host = new NodeHost({ event: told, takeBlocks: () => blocks.take(), busy: () => early > 0 });
const pages = new Pages({ attach: (port) => host.attach(port), visible });
/** How many requests are being answered without the node. */
let early = 0;
/** @type {Promise<void> | undefined} */
let kept;

worker.addEventListener("install", () => void worker.skipWaiting());
worker.addEventListener("activate", (event) => event.waitUntil(worker.clients.claim()));
worker.addEventListener("error", (event) => host.broken(event.error));
worker.addEventListener("unhandledrejection", (event) => host.broken(event.reason));

worker.addEventListener("message", (event) => {
  const message = /** @type {PageMessage} */ (event.data);
  const port = event.ports[0];
  if (typeof message?.weft !== "string" || !port) return;
  if (message.weft === "offer" && event.ports[1] && event.source instanceof WindowClient) pages.offered(event.ports[1], event.source.id);
  event.waitUntil(
    (async () => {
      try {
        port.postMessage({ id: message.id, result: await handle(message.weft, /** @type {any} */ (message.args ?? {})) });
      } catch (err) {
        const { code, message: text } = asError(err);
        port.postMessage({ id: message.id, error: { code, message: text } });
      }
    })(),
  );
  if (host.state !== "stopped") event.waitUntil(upkeep());
});

worker.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (url.origin !== worker.location.origin || (request.method !== "GET" && request.method !== "HEAD") || host.state === "stopped") return;
  if (url.pathname.startsWith("/ipfs/")) {
    const { body, done } = holding(event);
    event.respondWith(serve(event).then(body, (err) => {
      done();
      const { code, message } = asError(err);
      return failure(code === "cancelled" ? 499 : 504, code, message);
    }));
    event.waitUntil(upkeep());
  } else if (assets.isOwn(url.pathname)) {
    event.respondWith(assets.respond(request));
  }
});

/** What is due now and then while there are events. */
async function upkeep() {
  await Promise.all([(kept ??= assets.refresh()), host.refreshConfig()]);
}

/**
 * @param {PageMessage["weft"]} op
 * @param {any} args
 * @returns {Promise<any>}
 */
async function handle(op, args) {
  switch (op) {
    case "ping":
    case "offer":
      return hello();
    case "claim":
      await worker.clients.claim();
      return hello();
    case "join": {
      host.resume();
      if (await config.setRelays(args.relays ?? [])) await host.relaysChanged();
      host.config ??= await config.kept();
      if (!host.config) await host.refreshConfig(0);
      if (!host.config) throw new HostError("no_relay", `no relay answered at ${(await config.relays()).join(", ")}, and nothing is kept of it`);
      host.ready().catch(() => {}); // it starts; nobody waits
      return hello();
    }
    case "leave":
      await host.stop();
      return {};
    case "status":
      return status(args.wait === true);
    default:
      return host.call(op, args);
  }
}

const hello = () => ({ bootId, state: host.state });

/** @param {boolean} wait @returns {Promise<Status>} */
async function status(wait) {
  const running = wait || host.node ? await host.call("status", {}) : { peerId: "", relays: [], peers: [], liars: [], limits: { giving: false, saveData: false, upload: 0, connections: 0 }, blocks: 0, bytes: {}, storage: await storage(), started: 0 };
  const { fromRelay = 0, fromPeers = 0, fromDisk = 0, served = 0 } = running.bytes;
  // What came before the node was up came from somewhere too.
  return { ...running, bytes: { fromRelay: fromRelay + blocks.fetched, fromPeers, fromDisk: fromDisk + held.read, served }, memory: host.memory, bootId, state: host.state, demo: host.config?.demo ?? "" };
}

async function storage() {
  /** @type {StorageEstimate} */
  const { usage = 0, quota = 0 } = await navigator.storage.estimate().catch(() => ({}));
  return { used: usage, quota, pinned: 0 };
}

/** Hears of the node. @param {keyof import("/types.js").Events} type @param {any} detail */
function told(type, detail) {
  if (type === "state") pages.node(detail.state === "ready");
  void broadcast(type, detail);
}

/** The visible pages' client IDs. */
async function visible() {
  const clients = await worker.clients.matchAll({ includeUncontrolled: true, type: "window" });
  return new Set(clients.filter((c) => c.visibilityState === "visible").map((c) => c.id));
}

/** Tells every page of the origin. @param {string} type @param {any} detail */
async function broadcast(type, detail) {
  for (const client of await worker.clients.matchAll({ includeUncontrolled: true, type: "window" })) {
    client.postMessage({ weft: "event", type, detail });
  }
}

/**
 * Keeps the worker alive until a response's body has been read or let go.
 * @param {FetchEvent} event
 */
function holding(event) {
  /** @type {() => void} */
  let done = () => {};
  event.waitUntil(new Promise((resolve) => (done = () => resolve(undefined))));
  /** @param {Response} response */
  const body = (response) => {
    if (!response.body) {
      done();
      return response;
    }
    if (response.type !== "default") {
      done(); // the browser's own, straight from the network
      return response;
    }
    const reader = response.body.getReader();
    const held = new ReadableStream(
      {
        async pull(controller) {
          try {
            const { done: end, value } = await reader.read();
            if (!end) return controller.enqueue(value);
            controller.close();
          } catch (err) {
            controller.error(err);
          }
          done();
        },
        async cancel(reason) {
          done();
          await reader.cancel(reason);
        },
      },
      { highWaterMark: 0 },
    );
    return new Response(held, { status: response.status, headers: response.headers });
  };
  return { body, done };
}

/** @type {ReadonlySet<string>} */
const documents = new Set(["document", "iframe", "frame", "embed", "object"]);
/** Run with the origin's rights, like documents: never by a root that was not looked up. */
const programs = new Set(["worker", "sharedworker"]);

/**
 * Answers one request for /ipfs/….
 * @param {FetchEvent} event
 * @returns {Promise<Response>}
 */
async function serve({ request }) {
  const navigation = request.mode === "navigate" || documents.has(request.destination);
  // What was published a moment ago is the owner's too.
  if (navigation && host.node) await host.refreshConfig(0);
  const asked = {
    method: request.method,
    url: request.url,
    // The browser hides these two from workers; errors depend on them.
    headers: /** @type {[string, string][]} */ ([...request.headers, ["Sec-Fetch-Dest", request.destination || "empty"], ["Sec-Fetch-Mode", request.mode]]),
    navigation,
  };
  for (let tries = 0; ; tries++) {
    if (!host.node) {
      const response = await beforeNode(request, navigation);
      if (response) return response;
    }
    try {
      return await host.fetch(asked, request.signal);
    } catch (err) {
      // It ended before it answered: once more.
      if (asError(err).code !== "node_restarted" || tries >= 2) throw err;
    }
  }
}

/**
 * Answers while there is no node, or resolves to null when there is.
 * @param {Request} request
 * @param {boolean} navigation
 * @returns {Promise<Response | null>}
 */
async function beforeNode(request, navigation) {
  /** @type {Promise<null>} */
  const node = host.ready().then(() => null);
  const without = navigation || programs.has(request.destination) ? relayed(request) : answer(request, blocks);
  early++;
  without.catch(() => {}).finally(() => early--);
  const first = await Promise.race([node.catch(() => without), without.catch((err) => {
    if (!(err instanceof Later)) throw err;
    return "later";
  })]);
  if (first !== "later") return /** @type {Response | null} */ (first);
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const slow = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new HostError("no_provider", "no provider: the relay did not answer, and the node is not up")), nodePatience);
  });
  try {
    return await Promise.race([node, /** @type {Promise<never>} */ (slow)]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * A document before the node can judge it: the site's own relay, which the page
 * itself came from, judges by the same rule.
 * @param {Request} request
 */
async function relayed(request) {
  if (!(await config.relays()).includes(worker.location.origin)) throw new Later("a document, and the relay is elsewhere");
  try {
    const response = await fetch(request);
    if (response.status < 500) return response;
    throw new Later(`the relay answered ${response.status}`);
  } catch (err) {
    throw err instanceof Later ? err : new Later(`the relay did not answer: ${err}`);
  }
}
