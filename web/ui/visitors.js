// @ts-check
// The part of the page about other visitors: who is connected, what goes to and
// fro, who lied, and the switch that ends giving.

import { bytes, short } from "./format.js";

/** @typedef {import("/types.js").Status} Status */
/** @typedef {import("/types.js").Peer} Peer */

/** @type {Record<Peer["transport"], string>} */
const ways = { webrtc: "directly", circuit: "through the relay", websocket: "by WebSocket" };

/** @param {string} id */
const $ = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
const give = /** @type {HTMLButtonElement} */ ($("give"));

/** What the list shows, so that it is left alone while nothing changes. */
let shown = "";

/** @param {Status} s */
export function showVisitors(s) {
  const others = s.peers.filter((p) => !p.relay);
  $("peers").textContent = s.state === "ready" ? others.length.toLocaleString("en") : "–";
  give.disabled = s.state !== "ready";
  give.ariaChecked = String(s.limits.giving);
  $("give-text").textContent = explain(s, others.length);
  const list = JSON.stringify([others.map((p) => [p.id, p.transport, p.bytesIn, p.bytesOut]), s.liars]);
  if (list === shown) return;
  shown = list;
  $("others").replaceChildren(...others.map(row), ...s.liars.map(liar));
}

/** Nothing is connected any more. */
export function noVisitors() {
  shown = "";
  give.disabled = true;
  give.ariaChecked = "false";
  $("others").replaceChildren();
  $("give-text").textContent = "You have left: nothing is given";
}

/** In a sentence, where no line ends inside a number. @param {number} n */
const size = (n) => bytes(n).replace(" ", "\u00a0");

/** What a visitor gives and gets. @param {Status} s @param {number} n how many are connected */
function explain({ state, limits, bytes: { fromPeers, served } }, n) {
  if (state !== "ready") return "Not started yet";
  if (!limits.giving) {
    return `${limits.saveData ? "Your browser saves data, so you give nothing" : "You give nothing"}: nobody loads from you. What you load still comes from others where it can.`;
  }
  const most = limits.upload ? ` You give at most ${size(limits.upload)} a second.` : "";
  if (!n) return `Nobody else is here now. Whoever comes can get from you what you have loaded here, and you from them.${most} The switch stops that at once.`;
  const who = n === 1 ? "one other visitor" : `${n} other visitors`;
  return `You and ${who} pass each other what you have loaded here: so far you got ${size(fromPeers)} from visitors and passed on ${size(served)}.${most} The switch stops your giving at once.`;
}

/** @param {string} text @param {string} [className] */
function span(text, className = "") {
  return Object.assign(document.createElement("span"), { textContent: text, className });
}

/** @param {string} id */
function name(id) {
  return Object.assign(document.createElement("code"), { textContent: short(id), title: id });
}

/** @param {Peer} p */
function row(p) {
  const li = document.createElement("li");
  li.append(name(p.id), span(ways[p.transport], "way"), span(`got ${bytes(p.bytesIn)}`, "in"), span(`gave ${bytes(p.bytesOut)}`, "out"));
  return li;
}

/** @param {string} id */
function liar(id) {
  const li = Object.assign(document.createElement("li"), { className: "liar" });
  li.append(name(id), span("sent something else than asked for: shut out", "way"));
  return li;
}
