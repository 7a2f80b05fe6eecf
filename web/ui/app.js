// @ts-check
// The page a visitor opens: joins, shows how it goes, and lets them open an
// address, clear what is kept, and leave.

import { WeftError, join } from "/weft.js";
import { bytes, count, short } from "./format.js";
import { noVisitors, showVisitors } from "./visitors.js";

/** @typedef {import("/weft.js").WeftNode} WeftNode */
/** @typedef {import("/types.js").Status} Status */

/** @param {string} id */
const $ = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
const toggle = /** @type {HTMLButtonElement} */ ($("toggle"));
const clear = /** @type {HTMLButtonElement} */ ($("clear"));
const address = /** @type {HTMLInputElement} */ ($("address"));

/** @type {WeftNode | null} */
let node = null;
let wovenFor = "";

/** @param {"joining" | "online" | "offline" | "left" | "failed"} state @param {string} text */
function say(state, text) {
  if ($("state").textContent === text) return;
  $("state").dataset.state = state === "left" ? "offline" : state;
  $("state").textContent = text;
}

/** @param {string} text shown until it is called with an empty one */
function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

async function start() {
  toggle.disabled = true;
  notice("");
  say("joining", "Joining…");
  try {
    node = await join();
    node.on("status", show);
    node.on("error", ({ code, message, peerId }) => {
      if (code === "node_restarted") say("joining", "Starting again…");
      else if (code === "bad_block") notice(`${peerId ? short(peerId) : "Someone"} sent a block that is not what its address says. It was thrown away.`);
      else console.debug("weft:", code, message);
    });
    toggle.textContent = "Leave";
    clear.disabled = false;
    say("joining", "Verified; starting the peer…");
  } catch (err) {
    node = null;
    say("failed", "Not joined");
    notice(explain(err));
    toggle.textContent = "Join";
  }
  toggle.disabled = false;
}

/** @param {unknown} err */
function explain(err) {
  switch (err instanceof WeftError ? err.code : "") {
    case "insecure_context": return "Browsers allow this only on https and on localhost. The page works without it.";
    case "worker_blocked": return "This browser does not allow Service Workers here, as some do not in private windows. The page works without it.";
    case "no_relay": return "No relay answers, and this browser has not been here before. Please try again later.";
    case "timeout": return "Joining takes longer than it should. Please try again.";
    default: return `Joining did not work: ${err instanceof Error ? err.message : err}`;
  }
}

/** @param {Status} s */
function show(s) {
  if (!node) return;
  const relays = s.relays.length;
  if (s.state === "ready") say(relays ? "online" : "offline", relays ? "Verified, relay connected" : "Verified, no relay in reach");
  else if (s.state === "failed") say("online", "Verified, without a peer");
  if (s.peerId) {
    $("peer").textContent = short(s.peerId);
    $("peer").title = s.peerId;
    $("copy").hidden = false;
  }
  $("relay").textContent = relays ? (relays > 1 ? `${relays} connected` : "Connected") : s.state === "ready" ? "Away" : "–";
  $("relay").title = s.relays.join("\n");
  showVisitors(s);
  $("blocks").textContent = count(s.blocks);
  $("served").textContent = bytes(s.bytes.served);

  const parts = [["relay", s.bytes.fromRelay], ["peers", s.bytes.fromPeers], ["disk", s.bytes.fromDisk]];
  const total = s.bytes.fromRelay + s.bytes.fromPeers + s.bytes.fromDisk;
  for (const [from, n] of /** @type {[string, number][]} */ (parts)) {
    $(`from-${from}`).textContent = bytes(n);
    const bar = /** @type {HTMLElement} */ (document.querySelector(`#sources [data-from=${from}]`));
    bar.style.width = total ? `${(100 * n) / total}%` : "0";
  }
  if (total) $("sources").ariaLabel = `${bytes(s.bytes.fromRelay)} from the relay, ${bytes(s.bytes.fromPeers)} from visitors, ${bytes(s.bytes.fromDisk)} from this device`;

  const { used, quota, pinned } = s.storage;
  const text = `${bytes(used)}${quota ? ` of ${bytes(quota)}` : ""}${pinned ? `, ${bytes(pinned)} pinned` : ""}`;
  $("used").textContent = text;
  $("storage").ariaLabel = text;
  /** @type {HTMLElement} */ ($("storage").firstElementChild).style.width = quota && used ? `max(2px, ${(100 * used) / quota}%)` : "0";

  void weave(s);
}

/** The example, once it is there, and what it took. @type {{root: string, module: any, took: number} | null} */
let example = null;
let busy = false;

/**
 * Imports the example from the fabric, at once, and has it weave this peer's
 * cloth as soon as there is a peer ID.
 * @param {Status} s
 */
async function weave(s) {
  if (!node || !s.demo || busy) return;
  busy = true;
  const link = /** @type {HTMLAnchorElement} */ ($("demo"));
  link.href = `/ipfs/${s.demo}/`;
  link.hidden = false;
  try {
    if (example?.root !== s.demo) {
      const begun = performance.now();
      const module = await node.import(s.demo, "hello.js");
      example = { root: s.demo, module, took: Math.max(1, Math.round(performance.now() - begun)) };
      $("woven").textContent = "Imported; warping the loom…";
    }
    if (s.peerId && wovenFor !== s.demo + s.peerId) {
      const kind = await example.module.weave($("cloth"), s.peerId);
      wovenFor = s.demo + s.peerId;
      $("cloth").ariaBusy = "false";
      $("woven").replaceChildren(
        `Woven from your peer ID (${kind}) by modules imported from `,
        Object.assign(document.createElement("code"), { textContent: `/ipfs/${short(s.demo)}/hello.js`, title: s.demo }),
        ` in ${example.took} ms.`,
      );
    }
  } catch (err) {
    $("woven").textContent = `The example could not be imported: ${err instanceof Error ? err.message : err}`;
  }
  busy = false;
}

toggle.addEventListener("click", async () => {
  if (!node) return start();
  toggle.disabled = true;
  const leaving = node;
  node = null;
  await leaving.leave().catch((err) => notice(`Leaving did not work: ${err.message}`));
  say("left", "Left; nothing runs here");
  for (const id of ["relay", "peers", "blocks", "served"]) $(id).textContent = "–";
  noVisitors();
  clear.disabled = true;
  toggle.textContent = "Join";
  toggle.disabled = false;
});

$("give").addEventListener("click", async () => {
  const giving = $("give").ariaChecked === "true";
  $("give").ariaChecked = String(!giving); // at once; the next status confirms it
  try {
    await node?.limits({ give: !giving });
  } catch (err) {
    $("give").ariaChecked = String(giving);
    notice(`It could not be changed: ${err instanceof Error ? err.message : err}`);
  }
});

$("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText($("peer").title);
  $("copy").textContent = "Copied";
  setTimeout(() => ($("copy").textContent = "Copy"), 2_000);
});

$("open").addEventListener("submit", (event) => {
  event.preventDefault();
  const path = address.value.trim().replace(/^(?:ipfs:\/\/|https?:\/\/[^/]+\/ipfs\/|\/?ipfs\/)/, "");
  const valid = /^(?:Qm[1-9A-HJ-NP-Za-km-z]{44}|b[a-z2-7]{8,}|[zkf][0-9a-zA-Z]{8,})(?:[/?].*)?$/.test(path);
  $("address-error").textContent = valid ? "" : path ? "This is no CID: they begin with bafy, bafk or Qm." : "Please enter an address first.";
  address.setAttribute("aria-invalid", String(!valid));
  if (valid) location.assign(`/ipfs/${path}`);
  else address.focus();
});

/** @param {boolean} open */
function confirm(open) {
  $("confirm").hidden = !open;
  clear.hidden = open;
  (open ? $("clear-no") : clear).focus();
}
clear.addEventListener("click", () => confirm(true));
$("clear-no").addEventListener("click", () => confirm(false));
$("confirm").addEventListener("keydown", (event) => {
  if (event.key === "Escape") confirm(false);
});
$("clear-yes").addEventListener("click", async () => {
  try {
    await node?.clear();
  } catch (err) {
    notice(`It could not be deleted: ${err instanceof Error ? err.message : err}`);
  }
  confirm(false);
});

void start();
