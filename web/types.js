// @ts-check
// Every message between page, worker and the Go node, typed once. There is no
// code here: pages and the worker import the types by JSDoc.

/**
 * What went wrong, for programs. The first group comes from the page's side, the
 * second from the worker, the third from the Go node (one table there).
 * @typedef {"insecure_context" | "worker_blocked" | "worker_failed" | "timeout" | "left" | "import_failed"
 *   | "no_relay" | "no_node" | "node_restarted"
 *   | "no_provider" | "bad_block" | "not_found" | "not_unixfs" | "bad_cid" | "bad_request" | "range" | "quota" | "cancelled" | "internal"} ErrorCode
 */

/** An error as it crosses between page, worker and node. @typedef {{code: ErrorCode, message: string}} WireError */

/**
 * `/weft/config.json` of a relay: shared/config's Config.
 * @typedef {object} Config
 * @property {number} version
 * @property {string} peerId the relay's
 * @property {string[]} relays WebSocket multiaddrs with peer IDs
 * @property {string[]} [swarm] addresses for native peers
 * @property {string[]} [stun] STUN servers, as URLs
 * @property {{peerId: string, roots: string} | null} [owner] the signed list of the origin's own roots (base64)
 * @property {string} [demo] CID of the relay's example site
 * @property {{maxBlockSize: number, maxReservation: number}} [limits] bytes, and seconds
 * @property {{wasm: string, exec: string, bytes: number}} [node] what to run
 */

/**
 * Bytes by where they came from, since the worker started.
 * @typedef {{fromRelay: number, fromPeers: number, fromDisk: number, served: number}} Bytes
 */

/**
 * A peer that is connected. Bytes are of blocks: those from it that were waited
 * for, and those sent to it.
 * @typedef {object} Peer
 * @property {string} id
 * @property {string} peerId the same
 * @property {string} addr
 * @property {"webrtc" | "circuit" | "websocket"} transport
 * @property {boolean} relay
 * @property {number} bytesIn
 * @property {number} bytesOut
 */

/**
 * What this visitor gives. A node that gives nothing serves nobody and cannot be
 * found; it still takes from two others at most, which spares the relay. upload
 * is in bytes a second, 0 for no limit; connections is how many other visitors
 * at most, 0 for 8.
 * @typedef {{giving: boolean, saveData: boolean, upload: number, connections: number}} Limits
 */

/**
 * One answer to "how is it going".
 * @typedef {object} Status
 * @property {string} peerId empty until the node has started
 * @property {string[]} relays peer IDs of the relays it is connected to
 * @property {Peer[]} peers who is connected, relays among them
 * @property {string[]} liars peer IDs of visitors that sent bytes which are no block asked for: they are not let in any more
 * @property {Limits} limits
 * @property {number} blocks held on disk
 * @property {Bytes} bytes
 * @property {{used: number, quota: number, pinned: number}} storage bytes
 * @property {number} started when the node started, in ms since 1970; 0 before
 * @property {number} memory of the node, in bytes, at its most since it started; 0 before
 * @property {string} bootId another one means another worker instance
 * @property {NodeState} state
 * @property {string} demo CID of the relay's example site, or empty
 */

/**
 * idle: not asked for yet. starting: being fetched, compiled or booted; blocks
 * are verified in plain JavaScript meanwhile. ready. stopped: by leave().
 * failed: this browser cannot run it; plain JavaScript keeps serving.
 * @typedef {"idle" | "starting" | "ready" | "stopped" | "failed"} NodeState
 */

/**
 * Operations of a page on the worker: its arguments and its result, by name.
 * @typedef {object} Ops
 * @property {{args: {}, result: Hello}} ping keeps the worker alive
 * @property {{args: {}, result: Hello}} claim takes control of every page of the origin
 * @property {{args: {relays?: string[]}, result: Hello}} join relays: base URLs, where they are not the page's own origin
 * @property {{args: {}, result: {}}} leave stops the node
 * @property {{args: {wait?: boolean}, result: Status}} status wait: until the node runs
 * @property {{args: {}, result: {}}} online resolves when a relay is connected
 * @property {{args: {addr: string}, result: {peerId: string}}} connect connects to the peer at a multiaddr
 * @property {{args: {}, result: {}}} offer offers the page as host of WebRTC connections; a second port is for {@link HostMessage}s
 * @property {{args: {give?: boolean | null, saveData?: boolean, upload?: number, connections?: number}, result: Limits}} limits changes what is named, and keeps it; give null: as the browser is set to save data
 * @property {{args: {files: AddFile[]}, result: {cid: string}}} add
 * @property {{args: {cid: string}, result: {}}} pin
 * @property {{args: {cid: string}, result: {}}} unpin
 * @property {{args: {}, result: string[]}} pins
 * @property {{args: {paths: string[]}, result: {}}} keep fetches /ipfs/ paths into the store, in the background
 * @property {{args: {}, result: {freed: number}}} clear deletes every block that is not pinned
 * @property {{args: {}, result: {}}} panic for tests: only where the worker's URL has ?test
 * @property {{args: {}, result: {goroutines: number, values: number, heap: number}}} inspect for tests, as panic: what the node holds
 */

/** @typedef {{path: string, data: Uint8Array | Blob}} AddFile */
/** @typedef {{bootId: string, state: NodeState}} Hello */

/**
 * What a page posts to the worker, with a port for the {@link Reply}.
 * @typedef {{weft: keyof Ops, id: number, args: object}} PageMessage
 */

/** @typedef {{id: number, result: any} | {id: number, error: WireError}} Reply */

/**
 * What happens, by type, with its detail. `status` is made in the page.
 * @typedef {object} Events
 * @property {{peerId: string, connected: boolean, relay: boolean}} peer
 * @property {{peerId: string, connected: boolean}} relay
 * @property {{cid: string, bytes: number, blocks: number, from: "relay" | "peer"}} block what came lately: its sums, and the last CID
 * @property {WireError & {peerId?: string}} error
 * @property {{state: NodeState}} state
 * @property {{bootId: string}} restart another worker instance answers now
 * @property {Status} status
 */

/**
 * What the worker posts to every page of the origin.
 * @typedef {{weft: "event", type: keyof Events, detail: any}} EventMessage
 */

/**
 * A request as the Go node takes it.
 * @typedef {{method: string, url: string, headers: [string, string][], navigation: boolean}} NodeRequest
 */

/** @typedef {{status: number, headers: [string, string][], body: ReadableStream<Uint8Array> | null}} NodeResponse */

/**
 * What the Go program hands to {@link Host.ready}.
 * @typedef {object} Node
 * @property {(request: NodeRequest, signal: AbortSignal) => Promise<NodeResponse>} fetch
 * @property {(op: string, args: object) => Promise<any>} call rejects with a {@link WireError}
 */

/**
 * `globalThis.weftHost`: what the Go program finds when it starts.
 * @typedef {object} Host
 * @property {string} config a {@link Config} as JSON
 * @property {string} origin of the pages it serves
 * @property {(type: keyof Events, detail: any) => void} event
 * @property {(node: Node) => void} ready
 * @property {() => number} values how many JavaScript values Go holds
 */

/**
 * Between the worker and a page that offered to host the node's WebRTC
 * connections. host, from the worker, with a port: do what the node asks for
 * there ({@link RTCCommand}, {@link RTCEvent}). dismiss: close it all. beat:
 * asks whether the page runs, and its answer. away, from the page: it is
 * closing, or frozen.
 * @typedef {{type: "host" | "dismiss" | "beat" | "away"}} HostMessage
 */

/**
 * What the node asks of the page that hosts its connections, in batches. `pc`
 * numbers a connection; `ch` a channel, odd where the node opened it. What has
 * an `id` is answered by {@link RTCEvent} `done`.
 * @typedef {{op: "new", id: number, pc: number, stun: string[]}
 *   | {op: "offer", id: number, pc: number}
 *   | {op: "answer" | "setAnswer", id: number, pc: number, sdp: string}
 *   | {op: "addCandidate", id: number, pc: number, init: string}
 *   | {op: "open", pc: number, ch: number, label: string}
 *   | {op: "send", pc: number, ch: number, data: ArrayBuffer}
 *   | {op: "shut", pc: number, ch: number}
 *   | {op: "took", pc: number, bytes: number}
 *   | {op: "close", pc: number}} RTCCommand
 * shut closes a channel once all is sent; took says that the node has taken so
 * many bytes of events, which count as in rtc.js.
 */

/**
 * What the page tells the node, in batches. `drained` is how many of a
 * channel's bytes were sent, ever.
 * @typedef {{type: "done", id: number, value: string}
 *   | {type: "done", id: number, error: string}
 *   | {type: "candidate", pc: number, init: string}
 *   | {type: "state", pc: number, state: string}
 *   | {type: "channel", pc: number, ch: number, label: string}
 *   | {type: "message", pc: number, ch: number, data: ArrayBuffer}
 *   | {type: "drained", pc: number, ch: number, bytes: number}
 *   | {type: "closed", pc: number, ch: number}} RTCEvent
 */

export {};
