// @ts-check
// The page's part of WebRTC: it owns the RTCPeerConnections, since a worker may
// not, and does what the node asks over a MessagePort. What the node means by it
// stays in the node: this moves descriptions, candidates and bytes.
//
// Commands and events are listed in types.js. Both come in batches, in order.
// Nothing here grows without bound: what waits to be sent is what the node gave,
// which it limits by the amounts reported to it, and of what is received and not
// yet taken by the node a connection has at most maxUntaken.

/** @typedef {import("./types.js").RTCCommand} RTCCommand */
/** @typedef {import("./types.js").RTCEvent} RTCEvent */
/** @typedef {import("./types.js").HostMessage} HostMessage */

/** How much one connection may have received that the node has not taken, in bytes; then it is closed. */
const maxUntaken = 48 << 20;
/** What an event counts for beside its data, in bytes. */
const eventCost = 128;
/** From how few unsent bytes on no more is reported of a channel; what was is exact then. */
const low = 16 << 10;
/** After how many bytes more is reported of a channel that sends much. */
const reportEvery = 256 << 10;

/** One data channel. */
class Channel {
  /** @param {Peer} peer @param {number} id @param {RTCDataChannel} dc */
  constructor(peer, id, dc) {
    this.peer = peer;
    this.id = id;
    this.dc = dc;
    /** @type {ArrayBuffer[]} what is to be sent once it is open */
    this.early = [];
    this.given = 0; // bytes to send, ever
    this.reported = 0; // of these, told to be on their way
    this.closing = false;
    dc.binaryType = "arraybuffer";
    dc.onopen = () => this.#opened();
    dc.onmessage = ({ data }) => {
      if (data instanceof ArrayBuffer) peer.received({ type: "message", pc: peer.id, ch: id, data }, data.byteLength);
      else dc.close(); // libp2p sends no text
    };
    dc.onbufferedamountlow = () => this.report();
    dc.onclose = () => peer.forget(this);
    if (dc.readyState === "open") this.#opened();
  }

  #opened() {
    for (const data of this.early) this.#send(data);
    this.early = [];
    this.report();
    if (this.closing) this.dc.close();
  }

  /** @param {ArrayBuffer} data */
  send(data) {
    this.given += data.byteLength;
    if (this.dc.readyState === "connecting") this.early.push(data);
    else this.#send(data);
  }

  /** @param {ArrayBuffer} data */
  #send(data) {
    if (this.dc.readyState !== "open") return; // its end has been reported, or is about to be
    try {
      this.dc.send(data);
    } catch (err) {
      console.debug("weft: a data channel refused to send:", err);
      this.early = [];
      this.dc.close();
    }
  }

  /** Tells how many bytes are on their way, and asks to be called when more are. */
  report() {
    if (this.dc.readyState !== "open") return;
    const unsent = this.dc.bufferedAmount;
    const drained = this.given - unsent;
    if (drained - this.reported >= (unsent > low ? reportEvery : low)) {
      this.reported = drained;
      this.peer.link.post({ type: "drained", pc: this.peer.id, ch: this.id, bytes: drained });
    }
    this.dc.bufferedAmountLowThreshold = Math.max(low, unsent - reportEvery);
  }

  close() {
    this.closing = true;
    // What was given before is sent first.
    if (this.dc.readyState !== "connecting" || !this.early.length) this.dc.close();
  }
}

/** One peer connection. */
class Peer {
  /** @param {Link} link @param {number} id @param {RTCConfiguration} config */
  constructor(link, id, config) {
    this.link = link;
    this.id = id;
    /** @type {Map<number, Channel>} */
    this.channels = new Map();
    this.theirs = 0; // channels that the far end opened: they have even numbers
    this.untaken = 0;
    this.over = false;
    /** @type {Promise<void>} what describes the connection, one after another */
    this.order = Promise.resolve();
    this.pc = new RTCPeerConnection(config);
    this.pc.onicecandidate = ({ candidate }) => {
      if (candidate?.candidate) link.post({ type: "candidate", pc: id, init: JSON.stringify(candidate) });
    };
    this.pc.onconnectionstatechange = () => this.#state(this.pc.connectionState);
    this.pc.ondatachannel = ({ channel }) => {
      const ch = 2 * ++this.theirs;
      this.received({ type: "channel", pc: id, ch, label: channel.label }, 0);
      if (!this.over) this.channels.set(ch, new Channel(this, ch, channel));
    };
  }

  /** @param {RTCPeerConnectionState} state */
  #state(state) {
    if (!this.over) this.link.post({ type: "state", pc: this.id, state });
  }

  /**
   * Reports what the far end did.
   * @param {RTCEvent} event
   * @param {number} bytes
   */
  received(event, bytes) {
    if (this.over) return;
    this.untaken += bytes + eventCost;
    if (this.untaken > maxUntaken) {
      this.#state("failed");
      this.close();
      return;
    }
    this.link.post(event);
  }

  /** @param {number} ch @param {string} label */
  open(ch, label) {
    try {
      this.channels.set(ch, new Channel(this, ch, this.pc.createDataChannel(label)));
    } catch (err) {
      console.debug("weft: no data channel:", err);
      this.received({ type: "closed", pc: this.id, ch }, 0);
    }
  }

  /** @param {Channel} channel which has ended */
  forget(channel) {
    if (this.channels.delete(channel.id)) this.received({ type: "closed", pc: this.id, ch: channel.id }, 0);
  }

  /**
   * Does what describes the connection, in order, and answers the command.
   * @param {number} id the command's
   * @param {() => Promise<string | void>} work
   */
  describe(id, work) {
    this.order = this.order.then(async () => {
      try {
        this.link.post({ type: "done", id, value: (await work()) ?? "" });
      } catch (err) {
        this.link.post({ type: "done", id, error: String(err) });
      }
    });
  }

  async offer() {
    await this.pc.setLocalDescription(await this.pc.createOffer());
    return this.#described();
  }

  /** @param {string} sdp */
  async answer(sdp) {
    await this.pc.setRemoteDescription({ type: "offer", sdp });
    await this.pc.setLocalDescription(await this.pc.createAnswer());
    return this.#described();
  }

  #described() {
    // The connection's own state learns late that the far end has hung up.
    const { sctp } = this.pc;
    if (sctp && !sctp.onstatechange) {
      sctp.onstatechange = () => {
        if (sctp.state === "closed") this.#state("closed");
      };
    }
    return this.pc.localDescription?.sdp ?? "";
  }

  /** @param {string} sdp */
  async setAnswer(sdp) {
    await this.pc.setRemoteDescription({ type: "answer", sdp });
    this.#described();
  }

  close() {
    if (this.over) return;
    this.over = true;
    this.link.peers.delete(this.id);
    for (const { dc } of this.channels.values()) dc.onopen = dc.onmessage = dc.onbufferedamountlow = dc.onclose = null;
    this.channels.clear();
    this.pc.onicecandidate = this.pc.onconnectionstatechange = this.pc.ondatachannel = null;
    if (this.pc.sctp) this.pc.sctp.onstatechange = null;
    this.pc.close();
  }
}

/** The line to the node. */
class Link {
  /** @param {MessagePort} port */
  constructor(port) {
    this.port = port;
    /** @type {Map<number, Peer>} */
    this.peers = new Map();
    /** @type {RTCEvent[]} */
    this.batch = [];
    // A message to itself comes after whatever else is due by now, so that what
    // arrives together goes to the node together. Timers would be throttled.
    const { port1, port2 } = new MessageChannel();
    this.later = port1;
    port2.onmessage = () => this.#flush();
    port.onmessage = ({ data }) => {
      for (const command of /** @type {RTCCommand[]} */ (data)) this.#do(command);
    };
    port.addEventListener("close", () => this.close());
  }

  /** @param {RTCEvent} event */
  post(event) {
    if (this.batch.push(event) === 1) this.later.postMessage(null);
  }

  #flush() {
    const batch = this.batch;
    this.batch = [];
    /** @type {ArrayBuffer[]} */
    const transfer = [];
    for (const event of batch) if (event.type === "message") transfer.push(event.data);
    this.port.postMessage(batch, transfer);
  }

  /** @param {RTCCommand} command */
  #do(command) {
    if (command.op === "new") {
      try {
        const iceServers = command.stun.length ? [{ urls: command.stun }] : [];
        this.peers.set(command.pc, new Peer(this, command.pc, { iceServers }));
      } catch (err) {
        this.post({ type: "done", id: command.id, error: String(err) });
        return;
      }
      this.post({ type: "done", id: command.id, value: "" });
      return;
    }
    const peer = this.peers.get(command.pc);
    if (!peer) {
      if ("id" in command) this.post({ type: "done", id: command.id, error: "the connection is closed" });
      return;
    }
    switch (command.op) {
      case "offer":
        return peer.describe(command.id, () => peer.offer());
      case "answer":
        return peer.describe(command.id, () => peer.answer(command.sdp));
      case "setAnswer":
        return peer.describe(command.id, () => peer.setAnswer(command.sdp));
      case "addCandidate":
        return peer.describe(command.id, () => peer.pc.addIceCandidate(JSON.parse(command.init)));
      case "open":
        return peer.open(command.ch, command.label);
      case "send": {
        const channel = peer.channels.get(command.ch);
        channel?.send(command.data);
        channel?.report();
        return;
      }
      case "shut":
        return peer.channels.get(command.ch)?.close();
      case "took":
        peer.untaken -= command.bytes;
        return;
      case "close":
        return peer.close();
    }
  }

  close() {
    for (const peer of [...this.peers.values()]) peer.close();
    this.port.onmessage = null;
    this.port.close();
    this.later.close();
  }
}

/**
 * Does what a node asks for over port, until either closes it.
 * @param {MessagePort} port
 */
export const serveRTC = (port) => new Link(port);

/**
 * Offers this page to the worker as the host of the node's connections, and is
 * that host for as long as the worker wants it.
 */
export class Hosting {
  /** @param {(port: MessagePort) => Promise<unknown>} offer gives the worker a port, for {@link HostMessage}s */
  constructor(offer) {
    this.offer = offer;
    /** @type {MessagePort | null} */
    this.port = null;
    /** @type {Link | null} */
    this.link = null;
    /** Called when the worker has gone; busy: and this page had connections of its. */
    this.ongone = (/** @type {boolean} */ _busy) => {};
  }

  /** How many connections this page has. */
  get size() {
    return this.link?.peers.size ?? 0;
  }

  /** Offers this page, unless it has been. */
  start() {
    if (this.port || typeof RTCPeerConnection !== "function") return;
    const { port1, port2 } = new MessageChannel();
    this.port = port1;
    port1.onmessage = ({ data, ports }) => {
      switch (/** @type {HostMessage} */ (data).type) {
        case "beat":
          return port1.postMessage({ type: "beat" });
        case "host":
          this.link?.close();
          this.link = serveRTC(ports[0]);
          return;
        case "dismiss":
          this.link?.close();
          this.link = null;
      }
    };
    // Where browsers tell, a worker that stopped is noticed at once.
    port1.addEventListener("close", () => {
      if (this.port !== port1) return;
      const busy = this.size > 0;
      this.#end();
      this.ongone(busy);
    });
    this.offer(port2).catch(() => {
      if (this.port === port1) this.#end();
    });
  }

  /** Takes the offer back, and closes every connection. */
  stop() {
    this.port?.postMessage({ type: "away" });
    this.#end();
  }

  #end() {
    this.port?.close();
    this.link?.close();
    this.port = this.link = null;
  }
}
