// @ts-check
// The example as a page of its own: type, and see the cloth of what you typed.

import { weave } from "./hello.js";

const cloth = /** @type {HTMLElement} */ (document.querySelector("#cloth"));
const words = /** @type {HTMLInputElement} */ (document.querySelector("#words"));
const kind = /** @type {HTMLElement} */ (document.querySelector("#kind"));

async function show() {
  const tall = innerHeight > innerWidth;
  kind.textContent = await weave(cloth, words.value, tall ? { columns: 36, rows: 64 } : { columns: 88, rows: 52 });
  document.documentElement.dataset.ready = "";
}

words.addEventListener("input", () => void show());
matchMedia("(orientation: portrait)").addEventListener("change", () => void show());
void show();
