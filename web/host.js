// @ts-check
// Runs the Go node in the worker: fetches and compiles it, boots it once, hands
// it requests, starts it again when it ends, and ends what it left unanswered.

import * as assets from "./assets.js";
import * as config from "./config.js";

/** @typedef {import("./types.js").Node} Node */
/** @typedef {import("./types.js").NodeState} NodeState */
/** @typedef {import("./types.js").NodeRequest} NodeRequest */
/** @typedef {import("./types.js").ErrorCode} ErrorCode */

/** Pauses before a restart, in ms: the first, and the longest. */
const firstPause = 100, lastPause = 30_000;
/** A node that ran for this long, in ms, starts again without a longer pause. */
const steady = 60_000;
/** How long no request may have been under way before the node boots, how often that is looked at, and the longest wait; ms. */
const quietFor = 40, quietStep = 10, quietAtMost = 1_000;
/** How old what the relays said may become, in ms, while there is anything to do. */
const configAge = 180_000;

/** An error with a code, as it crosses to pages. */
export class HostError extends Error {
  /** @param {ErrorCode} code @param {string} message */
  constructor(code, message) {
    super(message);
    this.name = "HostError";
    this.code = code;
  }
}

/** One run of the Go program, from its start to its end. */
class Run {
  constructor() {
    /** @type {Node | null} */
    this.node = null;
    this.started = Date.now();
    /** @type {WebAssembly.Memory | null} */
    this.memory = null;
    this.over = false;
    /** Aborted when the run is over; its reason is a HostError. */
    this.end = new AbortController();
  }
}

export class NodeHost {
  /**
   * @param {object} hooks
   * @param {(type: keyof import("./types.js").Events, detail: any) => void} hooks.event
   * @param {() => {cid: string, data: Uint8Array}[]} hooks.takeBlocks what was fetched before the node was up
   * @param {() => boolean} hooks.busy whether requests are being answered without the node
   */
  constructor({ event, takeBlocks, busy }) {
    this.event = event;
    this.takeBlocks = takeBlocks;
    this.busy = busy;
    /** @type {NodeState} */
    this.state = "idle";
    /** @type {Run | null} */
    this.run = null;
    /** @type {Promise<WebAssembly.Module> | null} */
    this.module = null;
    this.moduleURL = "";
    this.pause = firstPause;
    /** @type {import("./types.js").Config | null} */
    this.config = null;
    this.asked = 0;
    /** @type {Promise<void> | null} */
    this.asking = null;
    this.#renew();
  }

  /** The running node, or null. */
  get node() {
    return this.state === "ready" ? (this.run?.node ?? null) : null;
  }

  /** Makes a new promise for whoever waits for the node. */
  #renew() {
    /** @type {PromiseWithResolvers<Node>} */
    const d = {};
    d.promise = new Promise((resolve, reject) => Object.assign(d, { resolve, reject }));
    d.promise.catch(() => {}); // often nobody waits
    this.waiting = d;
  }

  /** @param {NodeState} state */
  #enter(state) {
    if (this.state === state) return;
    this.state = state;
    this.event("state", { state });
  }

  /**
   * Starts the node unless it runs, and resolves when it does. Rejects where
   * this browser cannot run it, or it was stopped.
   * @returns {Promise<Node>}
   */
  ready() {
    if (this.state === "idle") this.#boot();
    return /** @type {PromiseWithResolvers<Node>} */ (this.waiting).promise;
  }

  /** Ends the node until {@link resume}. */
  async stop() {
    const run = this.run;
    this.#enter("stopped");
    this.waiting?.reject(new HostError("left", "the node was stopped"));
    if (run?.node) {
      // The node closes its connections and its program ends.
      const closing = run.node.call("stop", {}).catch(() => {});
      await Promise.race([closing, new Promise((r) => setTimeout(r, 2_000))]);
    }
    if (run) this.#over(run, new HostError("left", "the node was stopped"));
  }

  /** Lets a stopped node start again. */
  resume() {
    if (this.state !== "stopped") return;
    this.#renew();
    this.#enter("idle");
  }

  /**
   * What the relays said, asked again when it is older than maxAge.
   * @param {number} [maxAge] ms
   */
  async refreshConfig(maxAge = configAge) {
    if (Date.now() - this.asked <= maxAge) return;
    this.asking ??= (async () => {
      const had = JSON.stringify(this.config);
      this.config = (await config.fresh()) ?? this.config;
      this.asked = Date.now();
      const json = JSON.stringify(this.config);
      if (this.config && json !== had && this.node) await this.node.call("config", { json }).catch((err) => this.event("error", asError(err)));
    })().finally(() => (this.asking = null));
    await this.asking;
  }

  /** Where the relays are others now: asks them. */
  async relaysChanged() {
    this.config = null;
    this.asked = 0;
    await this.refreshConfig(0);
  }

  async #boot() {
    this.#enter("starting");
    try {
      this.config ??= await config.kept();
      // With a kept config nothing waits for the network.
      const asked = this.refreshConfig();
      if (!this.config) await asked;
      if (!this.config) throw new HostError("no_relay", "no relay answered, and none is remembered");
      await this.#quiet();
      const module = await this.#compile(this.config);
      if (this.state !== "starting") return;
      await this.#start(module);
    } catch (err) {
      if (this.state !== "starting") return;
      const cannot = typeof WebAssembly === "undefined" || err instanceof WebAssembly.CompileError || err instanceof WebAssembly.LinkError;
      const error = cannot ? new HostError("no_node", `this browser cannot run the node: ${err}`) : asError(err);
      this.event("error", { code: error.code, message: error.message });
      if (cannot) {
        this.#enter("failed");
        this.waiting?.reject(error);
      } else this.#again();
    }
  }

  /**
   * Waits until the requests that came first are answered (boot.js): compiling
   * and booting take both cores of a small machine, and neither a first import
   * nor the first one after the worker was stopped must wait for them.
   */
  async #quiet() {
    const begun = Date.now();
    for (let idle = 0; idle < quietFor && Date.now() - begun < quietAtMost; idle = this.busy() ? 0 : idle + quietStep) {
      await new Promise((resolve) => setTimeout(resolve, quietStep));
    }
  }

  /** The memory of the node that runs, in bytes: it never shrinks, so this is its most. */
  get memory() {
    return this.run?.memory?.buffer.byteLength ?? 0;
  }

  /** Starts again after a pause. */
  #again() {
    const pause = this.pause;
    this.pause = Math.min(lastPause, pause * 2);
    setTimeout(() => {
      if (this.state === "starting") this.#boot();
    }, pause * (0.75 + Math.random() / 2));
  }

  /** @param {import("./types.js").Config} c @returns {Promise<WebAssembly.Module>} */
  async #compile(c) {
    // A site elsewhere carries the node among its own files.
    const files = c.node && new URL(c.node.wasm, location.origin).origin === location.origin ? {} : await assets.listed();
    const url = Object.keys(files).find((p) => /^\/node\.[0-9a-f]+\.wasm$/.test(p)) ?? c.node?.wasm;
    if (!url) throw new HostError("no_node", "the relay carries no node");
    if (!this.module || this.moduleURL !== url) {
      this.moduleURL = url;
      this.module = (async () => {
        const response = await assets.nodeWasm(url);
        if (WebAssembly.compileStreaming && response.headers.get("Content-Type") === "application/wasm") {
          return WebAssembly.compileStreaming(response);
        }
        return WebAssembly.compile(await response.arrayBuffer());
      })();
      this.module.catch(() => (this.module = null));
    }
    return this.module;
  }

  /** @param {WebAssembly.Module} module */
  async #start(module) {
    const run = (this.run = new Run());
    const go = new globalThis.Go();
    let code = 0;
    go.exit = (/** @type {number} */ c) => (code = c);
    /** @type {import("./types.js").Host} */
    globalThis.weftHost = {
      config: JSON.stringify(this.config),
      origin: location.origin,
      event: (type, detail) => {
        if (!run.over) this.event(type, detail);
      },
      values: () => go._values.length - go._idPool.length,
      ready: (node) => this.#up(run, node),
    };
    const instance = await WebAssembly.instantiate(module, go.importObject);
    run.memory = /** @type {WebAssembly.Memory} */ (instance.exports.mem);
    go.run(instance).then(
      () => this.#over(run, new HostError("node_restarted", `the node ended with status ${code}`)),
      (/** @type {unknown} */ err) => this.#over(run, new HostError("node_restarted", `the node broke: ${err}`)),
    );
  }

  /** @param {Run} run @param {Node} node */
  async #up(run, node) {
    if (run.over || this.run !== run) return;
    run.node = node;
    const blocks = this.takeBlocks();
    if (blocks.length) await node.call("putBlocks", { blocks }).catch((err) => this.event("error", asError(err)));
    if (run.over) return;
    if (this.state === "stopped") return void node.call("stop", {}).catch(() => {});
    this.#enter("ready");
    this.waiting?.resolve(node);
    // What the relays said while it started.
    const json = JSON.stringify(this.config);
    if (json !== globalThis.weftHost.config) node.call("config", { json }).catch(() => {});
  }

  /** @param {Run} run @param {HostError} why */
  #over(run, why) {
    if (run.over) return;
    run.over = true;
    run.end.abort(why);
    if (this.run !== run) return;
    this.run = null;
    if (this.state === "ready") this.#renew();
    if (this.state === "stopped") return;
    if (Date.now() - run.started > steady) this.pause = firstPause;
    this.event("error", { code: why.code, message: why.message });
    this.#enter("starting");
    this.#again();
  }

  /** Gives the running node the line to the page that hosts its connections, or takes it away. @param {MessagePort | null} port */
  attach(port) {
    if (this.node) this.node.call("rtc", { port }).catch((err) => this.event("error", asError(err)));
    else port?.close();
  }

  /** An error escaped from the program into the event loop: it will not run on. @param {unknown} err */
  broken(err) {
    if (this.run && (err instanceof WebAssembly.RuntimeError || err instanceof RangeError)) {
      this.#over(this.run, new HostError("node_restarted", `the node broke: ${err}`));
    }
  }

  /**
   * Asks the node. Rejects with a HostError: node_restarted where it ended meanwhile.
   * @param {string} op
   * @param {object} args
   */
  async call(op, args) {
    const node = await this.ready();
    const run = this.run;
    if (!run) throw new HostError("node_restarted", "the node is starting again");
    try {
      return await orEnd(run, node.call(op, args));
    } catch (err) {
      throw asError(err);
    }
  }

  /**
   * Has the running node answer a request.
   * @param {NodeRequest} request
   * @param {AbortSignal} signal
   * @returns {Promise<Response>}
   */
  async fetch(request, signal) {
    const run = this.run;
    if (!this.node || !run) throw new HostError("node_restarted", "the node is starting again");
    const { status, headers, body } = await orEnd(run, this.node.fetch(request, signal));
    const empty = request.method === "HEAD" || status === 204 || status === 304 || !body;
    return new Response(empty ? null : untilEnd(run, body), { status, headers });
  }
}

/**
 * @template T
 * @param {Run} run
 * @param {Promise<T>} work
 * @returns {Promise<T>} rejects when the run is over
 */
function orEnd(run, work) {
  return new Promise((resolve, reject) => {
    const ended = () => reject(run.end.signal.reason);
    if (run.over) return ended();
    run.end.signal.addEventListener("abort", ended);
    work.then(resolve, reject).finally(() => run.end.signal.removeEventListener("abort", ended));
  });
}

/**
 * The same body, which fails when the run is over.
 * @param {Run} run
 * @param {ReadableStream<Uint8Array>} body
 */
function untilEnd(run, body) {
  const reader = body.getReader();
  return new ReadableStream(
    {
      async pull(controller) {
        const { done, value } = await orEnd(run, reader.read());
        if (done) controller.close();
        else controller.enqueue(value);
      },
      cancel: (reason) => reader.cancel(reason),
    },
    { highWaterMark: 0 },
  );
}

/** @param {any} err @returns {HostError} */
export function asError(err) {
  if (err instanceof HostError) return err;
  return new HostError(typeof err?.code === "string" ? err.code : "internal", String(err?.message ?? err));
}
