// @ts-check
// The example that a relay publishes: a small site of several modules, a JSON
// module, a wasm module and a style sheet with an image, all found relative to
// this file, wherever its root is. It weaves a cloth from any text.

import { draft } from "./draft.js";
import { loom } from "./loom.js";
import dyes from "./threads.json" with { type: "json" };

/** Scrambles 32 bits; WebAssembly by hand. @type {Promise<(x: number) => number>} */
const next = WebAssembly.instantiateStreaming(fetch(new URL("./mix.wasm", import.meta.url))).then(
  ({ instance }) => /** @type {(x: number) => number} */ (instance.exports.next),
);

const style = new URL("./cloth.css", import.meta.url).href;

/** Loads this example's style sheet, once per document. */
function dress() {
  if ([...document.styleSheets].some((s) => s.href === style)) return;
  const link = document.createElement("link");
  link.rel = "stylesheet";
  link.href = style;
  return new Promise((resolve) => {
    link.addEventListener("load", resolve, { once: true });
    link.addEventListener("error", resolve, { once: true });
    document.head.append(link);
  });
}

/**
 * Puts a cloth into target. The same text gives the same cloth.
 * @param {Element} target
 * @param {string} text
 * @param {{columns?: number, rows?: number}} [size] in threads
 * @returns {Promise<string>} what cloth it is
 */
export async function weave(target, text, { columns = 64, rows = 40 } = {}) {
  const [mix] = await Promise.all([next, dress()]);
  let state = 0x9e3779b9;
  for (const byte of new TextEncoder().encode(text)) state = mix(state ^ Math.imul(byte + 1, 0x01000193)) || 1;
  for (let i = 0; i < 8; i++) state = mix(state);
  const pick = (/** @type {number} */ below) => {
    state = mix(state);
    return (state >>> 0) % below;
  };
  const plan = draft(dyes, pick, columns, rows);
  target.replaceChildren(loom(plan));
  return plan.name;
}

/** For a first look from a console. */
export const greeting = "Hello from the fabric.";
