// @ts-check
// The blocks that the node left in IndexedDB, for a worker that was started
// again and has no node yet: reading one takes milliseconds, starting the node
// some hundred. The database is wasm/idbstore's; nothing here writes to it.

import { SHA2_256 } from "./blocks.js";

/** The node's database and its blocks, as wasm/idbstore names them. */
const database = "weft", store = "blocks";

/** Reads blocks by CID; the caller verifies them, as it does any other. */
export class Held {
  constructor() {
    /** @type {Promise<IDBDatabase | null> | null} */
    this.db = null;
    /** Bytes that were read. */
    this.read = 0;
  }

  /**
   * The bytes kept for cid, or null.
   * @param {import("./blocks.js").CID} cid
   * @returns {Promise<Uint8Array<ArrayBuffer> | null>}
   */
  async get(cid) {
    if (cid.hash !== SHA2_256) return null;
    const db = await (this.db ??= this.#open());
    if (!db) {
      this.db = null; // the node may make it yet
      return null;
    }
    const value = await new Promise((resolve) => {
      try {
        const request = db.transaction(store).objectStore(store).get(keyOf(cid));
        request.onsuccess = () => resolve(request.result);
        request.onerror = () => resolve(null);
      } catch {
        resolve(null); // it was closed in between, or has no such store
      }
    });
    if (!(value instanceof Uint8Array)) return null;
    this.read += value.length;
    return /** @type {Uint8Array<ArrayBuffer>} */ (value);
  }

  /** @returns {Promise<IDBDatabase | null>} null where there is no database: it is not made here */
  #open() {
    return new Promise((resolve) => {
      const request = indexedDB.open(database);
      request.onupgradeneeded = () => request.transaction?.abort();
      request.onblocked = () => resolve(null);
      request.onerror = (event) => {
        event.preventDefault();
        resolve(null);
      };
      request.onsuccess = () => {
        const db = request.result;
        // Whoever changes or deletes the database must not wait for a reader.
        db.onversionchange = () => {
          db.close();
          this.db = null;
        };
        db.onclose = () => (this.db = null);
        resolve(db);
      };
    });
  }
}

/** The multihash in unpadded base64url. @param {import("./blocks.js").CID} cid */
function keyOf(cid) {
  const multihash = Uint8Array.of(cid.hash, cid.digest.length, ...cid.digest);
  return btoa(String.fromCharCode(...multihash)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}
