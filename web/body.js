// @ts-check
// Reads the bodies of responses from those who may send anything.

/**
 * Reads a body of at most max bytes.
 * @param {Response} response
 * @param {number} max
 * @returns {Promise<Uint8Array<ArrayBuffer> | null>} null if there is more
 */
export async function readAtMost(response, max) {
  const reader = response.body?.getReader();
  /** @type {Uint8Array[]} */
  const parts = [];
  let size = 0;
  while (reader) {
    const { done, value } = await reader.read();
    if (done) break;
    size += value.length;
    if (size > max) {
      reader.cancel().catch(() => {});
      return null;
    }
    parts.push(value);
  }
  const out = new Uint8Array(size);
  let at = 0;
  for (const p of parts) {
    out.set(p, at);
    at += p.length;
  }
  return out;
}
