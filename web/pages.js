// @ts-check
// Chooses which page of the origin hosts the node's WebRTC connections: only
// pages have RTCPeerConnection, and all of them share one node. One page hosts
// at a time. When it goes, or answers no more, another takes over at once; what
// it had connected is lost, and the node connects anew.

/** @typedef {import("./types.js").HostMessage} HostMessage */

/** How often the host is asked whether it runs, in ms, and how many times in vain before another takes over. */
const beatEvery = 2_000, beatsMissed = 3;

/** A page's offer to host. @typedef {{port: MessagePort, client: string, missed: number}} Offer */

export class Pages {
  /**
   * @param {object} hooks
   * @param {(port: MessagePort | null) => void} hooks.attach gives the node the line to its host, or takes it away
   * @param {() => Promise<Set<string>>} hooks.visible the visible pages' client IDs
   */
  constructor({ attach, visible }) {
    this.attach = attach;
    this.visible = visible;
    /** @type {Set<Offer>} in their order */
    this.offers = new Set();
    /** @type {Offer | null} */
    this.host = null;
    this.wanted = false;
    this.choosing = false;
    /** @type {ReturnType<typeof setInterval> | undefined} */
    this.timer = undefined;
  }

  /** Takes a page's offer. @param {MessagePort} port for {@link HostMessage}s @param {string} client its ID */
  offered(port, client) {
    /** @type {Offer} */
    const offer = { port, client, missed: 0 };
    this.offers.add(offer);
    port.onmessage = ({ data }) => {
      offer.missed = 0;
      if (/** @type {HostMessage} */ (data).type === "away") this.#gone(offer);
    };
    port.addEventListener("close", () => this.#gone(offer)); // where browsers tell
    void this.#choose();
  }

  /** Says whether there is a node, which wants a host. @param {boolean} wanted */
  node(wanted) {
    this.wanted = wanted;
    if (wanted) void this.#choose();
    else this.#dismiss();
  }

  /** @param {Offer} offer */
  #gone(offer) {
    this.offers.delete(offer);
    const hosted = this.host === offer;
    if (hosted) this.#dismiss();
    offer.port.close();
    if (hosted) void this.#choose();
  }

  #dismiss() {
    clearInterval(this.timer);
    const host = this.host;
    this.host = null;
    if (!host) return;
    host.port.postMessage({ type: "dismiss" });
    this.attach(null);
  }

  async #choose() {
    if (this.choosing || this.host || !this.wanted || !this.offers.size) return;
    this.choosing = true;
    const visible = await this.visible().catch(() => new Set());
    this.choosing = false;
    if (this.host || !this.wanted) return;
    const offers = [...this.offers];
    const host = offers.find(({ client }) => visible.has(client)) ?? offers[0];
    if (!host) return;
    const { port1, port2 } = new MessageChannel();
    host.port.postMessage({ type: "host" }, [port1]);
    host.missed = 0;
    this.host = host;
    this.timer = setInterval(() => this.#beat(), beatEvery);
    this.attach(port2);
  }

  /** Asks the host whether it runs; a page without a successor may take its time. */
  #beat() {
    const host = this.host;
    if (!host) return;
    if (host.missed >= beatsMissed && this.offers.size > 1) {
      this.#gone(host);
      return;
    }
    host.missed++;
    host.port.postMessage({ type: "beat" });
  }
}
