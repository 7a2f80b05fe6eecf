// @ts-check
// The client API of a page:
//
//   import { join } from "/weft.js";
//   const node = await join();                    // fetches are verified from here on
//   await node.online;                            // it has a relay
//   const m = await node.import(cid, "hello.js"); // or import(`/ipfs/${cid}/hello.js`)
//   node.on("status", (s) => console.log(s.bytes));
//
// Everything that can go wrong is a WeftError with a code.

import { Hosting } from "./rtc.js";

/** @typedef {import("./types.js").Ops} Ops */
/** @typedef {import("./types.js").Events} Events */
/** @typedef {import("./types.js").Status} Status */
/** @typedef {import("./types.js").Hello} Hello */
/** @typedef {import("./types.js").AddFile} AddFile */
/** @typedef {import("./types.js").ErrorCode} ErrorCode */

/** How often a visible page says that it is there, in ms. A worker is stopped about 30 s after its last event. */
const pingEvery = 10_000;
/** How often `status` is measured where someone listens, in ms, and the shortest time between two. */
const statusEvery = 2_000, statusAtMost = 250;
/** Times an import, or an operation whose worker went away, is tried. */
const tries = 3;

/** What went wrong; `code` is for programs. */
export class WeftError extends Error {
  /**
   * @param {ErrorCode} code
   * @param {string} message
   * @param {ErrorOptions} [options]
   */
  constructor(code, message, options) {
    super(message, options);
    this.name = "WeftError";
    this.code = code;
  }
}

/**
 * @typedef {object} JoinOptions
 * @property {string[]} [relays] base URLs of relays, for a page that no relay serves; default: the page's own origin
 * @property {number} [timeout] how long joining may take, in ms; default 20,000
 * @property {string} [worker] URL of the Service Worker; default "/sw.js"
 * @property {{upload?: number, connections?: number}} [limits] how much this visitor gives: bytes a second, and connections to other visitors; default: no limit, and 8
 */

/** @type {Promise<WeftNode> | null} */
let joined = null;

/**
 * Joins the fabric: resolves when this page's requests for /ipfs/… are verified.
 * Joining again gives the same node. Rejects with a {@link WeftError}:
 * insecure_context (neither https nor localhost), worker_blocked (the browser
 * forbids Service Workers here, as some do in private windows), worker_failed
 * (sw.js could not be loaded or started), no_relay, timeout.
 * @param {JoinOptions} [options]
 * @returns {Promise<WeftNode>}
 */
export function join(options = {}) {
  if (!joined) {
    const attempt = attach(options);
    joined = attempt;
    attempt.catch(() => {
      if (joined === attempt) joined = null;
    });
  }
  return joined;
}

/** @param {JoinOptions} options */
async function attach({ relays = [], timeout = 20_000, worker = "/sw.js", limits = {} }) {
  if (!globalThis.isSecureContext) {
    throw new WeftError("insecure_context", "joining needs a secure context: open this page by https, or on localhost");
  }
  if (!("serviceWorker" in navigator)) {
    throw new WeftError("worker_blocked", "this browser has no Service Workers here; a private window, perhaps");
  }
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new WeftError("timeout", `joining took more than ${timeout} ms`)), timeout);
  });
  try {
    return /** @type {WeftNode} */ (await Promise.race([late, (async () => {
      const link = new Link(await register(worker), relays);
      await link.take();
      return new WeftNode(link, limits);
    })()]));
  } finally {
    clearTimeout(timer);
  }
}

/** @param {string} url */
async function register(url) {
  try {
    const registration = await navigator.serviceWorker.register(url, { type: "module", scope: "/", updateViaCache: "none" });
    await active(registration);
    return registration;
  } catch (err) {
    if (err instanceof WeftError) throw err;
    const blocked = err instanceof DOMException && (err.name === "SecurityError" || err.name === "NotSupportedError");
    throw new WeftError(blocked ? "worker_blocked" : "worker_failed", `the Service Worker ${url} could not be registered: ${err}`, { cause: err });
  }
}

/**
 * The registration's active worker, as soon as there is one.
 * @param {ServiceWorkerRegistration} registration
 * @returns {Promise<ServiceWorker>}
 */
async function active(registration) {
  for (;;) {
    if (registration.active) return registration.active;
    const worker = registration.installing ?? registration.waiting;
    if (!worker || worker.state === "redundant") throw new WeftError("worker_failed", "the Service Worker did not start");
    await new Promise((resolve) => worker.addEventListener("statechange", resolve, { once: true }));
  }
}

/** The page's end of the line to the worker. */
class Link {
  /** @param {ServiceWorkerRegistration} registration @param {string[]} relays */
  constructor(registration, relays) {
    this.registration = registration;
    this.relays = relays;
    this.bootId = "";
    this.calls = 0;
    this.closed = false;
    /** @type {Set<(why: WeftError) => void>} what to reject when the worker has gone */
    this.pending = new Set();
    /** @type {(bootId: string) => void} */
    this.onrestart = () => {};
  }

  /** Takes control of the page, and tells the worker which relays it wants. */
  async take() {
    await this.#control();
    const { bootId } = await this.call("join", this.relays.length ? { relays: this.relays } : {});
    this.#seen(bootId);
  }

  /** After shift-reload a page has no controller, and waiting alone does not help: the worker claims it. */
  async #control() {
    const container = navigator.serviceWorker;
    if (container.controller) return;
    const controlled = new Promise((resolve) => container.addEventListener("controllerchange", resolve, { once: true }));
    await this.call("claim", {});
    if (!container.controller) await controlled;
  }

  /**
   * Asks the worker. Rejects with a {@link WeftError}; node_restarted where the
   * worker or its node went away before it answered.
   * @template {keyof Ops} K
   * @param {K} op
   * @param {Ops[K]["args"]} args
   * @param {MessagePort[]} [ports] more than the one for the reply
   * @returns {Promise<Ops[K]["result"]>}
   */
  async call(op, args, ports = []) {
    const worker = await active(this.registration);
    const { port1, port2 } = new MessageChannel();
    const id = ++this.calls;
    return new Promise((resolve, reject) => {
      const gone = (/** @type {WeftError} */ why) => {
        this.pending.delete(gone);
        port1.close();
        reject(why);
      };
      this.pending.add(gone);
      port1.onmessage = ({ data }) => {
        this.pending.delete(gone);
        port1.close();
        if (data.error) reject(new WeftError(data.error.code, data.error.message));
        else resolve(data.result);
      };
      // Where browsers tell, a worker that stopped is noticed at once; elsewhere by the next ping.
      port1.addEventListener("close", () => gone(new WeftError("node_restarted", "the Service Worker was stopped")));
      worker.postMessage({ weft: op, id, args }, [port2, ...ports]);
    });
  }

  /**
   * As {@link call}, again where the worker or its node went away: only for
   * operations that may be done twice.
   * @template {keyof Ops} K
   * @param {K} op
   * @param {Ops[K]["args"]} args
   * @returns {Promise<Ops[K]["result"]>}
   */
  async again(op, args) {
    for (let n = 1; ; n++) {
      try {
        return await this.call(op, args);
      } catch (err) {
        if (this.closed || n === tries || !(err instanceof WeftError) || err.code !== "node_restarted") throw err;
      }
    }
  }

  /** Keeps the worker alive, and notices another instance. */
  async ping() {
    try {
      const { bootId } = await this.call("ping", {});
      if (!this.closed && this.#seen(bootId)) {
        await this.#control();
        await this.call("join", this.relays.length ? { relays: this.relays } : {});
      }
    } catch {
      // The next ping finds out.
    }
  }

  /** @param {string} bootId @returns {boolean} whether another instance answered before */
  #seen(bootId) {
    const before = this.bootId;
    if (before === bootId) return false;
    this.bootId = bootId;
    if (!before) return false;
    for (const gone of [...this.pending]) gone(new WeftError("node_restarted", "the Service Worker was stopped"));
    this.onrestart(bootId);
    return true;
  }
}

/** A page's handle on the node that all pages of the origin share. */
export class WeftNode {
  /** @type {Map<keyof Events, Set<(detail: any) => void>>} */
  #listeners = new Map();
  /** @type {Promise<void> | null} */
  #online = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #soon;
  #measured = 0;
  #timers = [0];
  #ended = new AbortController();
  /** @type {Link} */
  #link;
  #hosting;

  /** @param {Link} link @param {Ops["limits"]["args"]} limits */
  constructor(link, limits) {
    this.#link = link;
    this.#hosting = new Hosting((port) => link.call("offer", {}, [port]));
    this.#hosting.ongone = (busy) => {
      if (busy || document.visibilityState === "visible") void this.#attend();
    };
    this.#hosting.start();
    link.onrestart = (bootId) => {
      this.#online = null;
      this.#hosting.stop(); // what it had was the other instance's
      this.#hosting.start();
      this.#emit("restart", { bootId });
    };
    const signal = this.#ended.signal;
    // What the visitor decided is kept by the node; this is what the page knows.
    const connection = /** @type {any} */ (navigator).connection;
    const tell = (/** @type {Ops["limits"]["args"]} */ more) => {
      link.again("limits", { ...more, saveData: connection?.saveData === true }).catch(() => {}); // it has left
    };
    tell(limits);
    const container = navigator.serviceWorker;
    container.addEventListener("message", ({ data }) => {
      if (data?.weft !== "event") return;
      if (data.type === "error" && data.detail?.code === "node_restarted") this.#online = null;
      if (data.type === "state") this.#hosting.start(); // to a worker that was stopped, perhaps
      this.#emit(data.type, data.detail);
      this.#measureSoon();
    }, { signal });
    container.startMessages();
    connection?.addEventListener?.("change", () => tell({}), { signal });
    container.addEventListener("controllerchange", () => void link.ping(), { signal });
    document.addEventListener("visibilitychange", () => this.#beat(), { signal });
    // A page that is put away hosts no more, until it is shown again.
    for (const event of ["freeze", "pagehide"]) addEventListener(event, () => this.#hosting.stop(), { signal, capture: true });
    for (const event of ["resume", "pageshow"]) addEventListener(event, () => this.#hosting.start(), { signal, capture: true });
    addEventListener("pageshow", () => this.#beat(), { signal });
    this.#timers = [
      setInterval(() => this.#beat(), pingEvery),
      setInterval(() => this.#measureSoon(), statusEvery),
    ];
  }

  /** Keeps the worker alive while someone looks, or other visitors may be served. */
  #beat() {
    if (document.visibilityState === "visible" || this.#hosting.size) void this.#attend();
  }

  async #attend() {
    await this.#link.ping();
    if (!this.#ended.signal.aborted) this.#hosting.start();
  }

  /** Resolves when a relay is connected. @returns {Promise<void>} */
  get online() {
    if (!this.#online) {
      const attempt = this.#link.again("online", {}).then(() => {});
      attempt.catch(() => {
        if (this.#online === attempt) this.#online = null;
      });
      this.#online = attempt;
    }
    return this.#online;
  }

  /**
   * How it is going. Waits for the node to have started.
   * @returns {Promise<Status>}
   */
  status() {
    return this.#link.again("status", { wait: true });
  }

  /**
   * Changes what this visitor gives, and resolves to what holds now. It is kept
   * for later visits.
   * @param {{give?: boolean | null, upload?: number, connections?: number}} [change]
   *   give: whether anything is given to other visitors; null: unless the browser
   *   is set to save data. upload: bytes a second, 0 for no limit. connections: to
   *   other visitors at most, 0 for the default of 8.
   * @returns {Promise<import("./types.js").Limits>}
   */
  async limits(change = {}) {
    const now = await this.#link.again("limits", change);
    this.#measureSoon();
    return now;
  }

  /**
   * Connects to a peer.
   * @param {string} addr a multiaddr that ends in /p2p/ID
   * @returns {Promise<{peerId: string}>}
   */
  connect(addr) {
    return this.#link.again("connect", { addr });
  }

  /**
   * Fetches what is at a path under a root, verified.
   * @param {string} cid a CID, or a whole path that begins with /ipfs/
   * @param {string} [path] relative to it
   * @param {RequestInit} [init]
   * @returns {Promise<Response>}
   */
  async fetch(cid, path = "", init = {}) {
    if (!navigator.serviceWorker.controller) await this.#link.take();
    return fetch(address(cid, path), init);
  }

  /**
   * Imports a module. The worker may be stopped while a body is on its way; the
   * import is then tried again, with the same URL, so that a module remains one
   * instance. Rejects with a {@link WeftError} that says why, or with what the
   * module itself throws.
   * @param {string} cid a CID, or a whole path that begins with /ipfs/
   * @param {string} [path] relative to it
   * @returns {Promise<any>} the module's namespace
   */
  async import(cid, path = "") {
    const url = address(cid, path);
    for (let n = 1; ; n++) {
      try {
        if (!navigator.serviceWorker.controller) await this.#link.take();
        return await import(url);
      } catch (err) {
        // Only a failed fetch may succeed later; a module's own error stays, and
        // so does one that asking again for the reason met a second time.
        if (!(err instanceof TypeError)) throw err;
        const why = await reason(url, err);
        if (n === tries || (why && why.code !== "node_restarted")) throw why ?? err;
        await this.#link.ping();
      }
    }
  }

  /**
   * Adds files as UnixFS, as `weft publish` does: the same files give the same CID.
   * @param {Blob | string | Uint8Array | Iterable<File | AddFile> | Record<string, Blob | string | Uint8Array>} files
   *   one file's content; several files; or content by path. A directory picked by the user keeps its paths.
   * @returns {Promise<{cid: string, url: string}>}
   */
  async add(files) {
    const { cid } = await this.#link.call("add", { files: listFiles(files) });
    return { cid, url: `/ipfs/${cid}` };
  }

  /** Fetches a whole DAG and keeps it. @param {string} cid */
  async pin(cid) {
    await this.#link.again("pin", { cid });
  }

  /** Lets a DAG be evicted again. @param {string} cid */
  async unpin(cid) {
    await this.#link.again("unpin", { cid });
  }

  /** The CIDs of what is pinned. @returns {Promise<string[]>} */
  async pins() {
    return await this.#link.again("pins", {});
  }

  /** Fetches /ipfs/ paths into the store, in the background. @param {string[]} paths */
  async keep(paths) {
    await this.#link.again("keep", { paths });
  }

  /** Deletes every block that is not pinned. @returns {Promise<{freed: number}>} bytes */
  async clear() {
    const freed = await this.#link.again("clear", {});
    this.#measureSoon();
    return freed;
  }

  /**
   * Calls listener on each event of a type.
   * @template {keyof Events} K
   * @param {K} type
   * @param {(detail: Events[K]) => void} listener
   * @returns {() => void} stops it
   */
  on(type, listener) {
    const set = this.#listeners.get(type) ?? new Set();
    this.#listeners.set(type, set.add(listener));
    if (type === "status") this.#measureSoon();
    return () => this.off(type, listener);
  }

  /**
   * @template {keyof Events} K
   * @param {K} type
   * @param {(detail: Events[K]) => void} listener
   */
  off(type, listener) {
    this.#listeners.get(type)?.delete(listener);
  }

  /**
   * Calls listener on the next event of a type only.
   * @template {keyof Events} K
   * @param {K} type
   * @param {(detail: Events[K]) => void} listener
   * @returns {() => void} stops it
   */
  once(type, listener) {
    const off = this.on(type, (detail) => {
      off();
      listener(detail);
    });
    return off;
  }

  /**
   * Leaves the fabric: stops the node and removes the worker. What it stored
   * stays, until {@link clear} or the browser's own controls. {@link join} joins again.
   */
  async leave() {
    joined = null;
    this.#link.closed = true;
    this.#ended.abort();
    this.#hosting.stop();
    for (const t of this.#timers) clearInterval(t);
    clearTimeout(this.#soon);
    try {
      await this.#link.call("leave", {});
    } finally {
      await this.#link.registration.unregister();
      this.#listeners.clear();
    }
  }

  /** @param {keyof Events} type @param {any} detail */
  #emit(type, detail) {
    for (const listener of [...(this.#listeners.get(type) ?? [])]) {
      try {
        listener(detail);
      } catch (err) {
        reportError(err);
      }
    }
  }

  #measureSoon() {
    if (this.#soon || !this.#listeners.get("status")?.size || document.visibilityState !== "visible") return;
    this.#soon = setTimeout(async () => {
      try {
        this.#emit("status", await this.#link.call("status", {}));
      } catch {
        // The node is away; the next measurement tells.
      }
      this.#measured = performance.now();
      this.#soon = undefined;
    }, Math.max(0, statusAtMost - (performance.now() - this.#measured)));
  }
}

/** @param {string} cid @param {string} path */
function address(cid, path) {
  const base = cid.startsWith("/ipfs/") ? cid : `/ipfs/${cid}`;
  return path ? `${base.replace(/\/$/, "")}/${path.replace(/^\.?\//, "")}` : base;
}

/**
 * Why url cannot be had; null if it can, and so something that it imports, or
 * the connection to the worker, was at fault.
 * @param {string} url
 * @param {unknown} cause
 */
async function reason(url, cause) {
  try {
    const response = await fetch(url, { headers: { Accept: "application/json" } });
    if (response.ok) {
      await response.arrayBuffer(); // a body may fail too
      return null;
    }
    const { error } = await response.json();
    return new WeftError(error.code, `${url}: ${error.message}`, { cause });
  } catch (err) {
    return new WeftError("import_failed", `${url} could not be fetched: ${err}`, { cause });
  }
}

/** @param {any} files @returns {AddFile[]} */
function listFiles(files) {
  const encode = (/** @type {Blob | string | Uint8Array} */ data) => (typeof data === "string" ? new TextEncoder().encode(data) : data);
  if (typeof files === "string" || files instanceof Uint8Array) return [{ path: "", data: encode(files) }];
  if (files instanceof File) return [{ path: files.name, data: files }];
  if (files instanceof Blob) return [{ path: "", data: files }];
  if (typeof files?.[Symbol.iterator] === "function") {
    return Array.from(files, (f) => (f instanceof File ? { path: f.webkitRelativePath || f.name, data: f } : { path: f.path, data: encode(f.data) }));
  }
  return Object.entries(files).map(([path, data]) => ({ path, data: encode(/** @type {any} */ (data)) }));
}
