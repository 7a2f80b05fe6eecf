// @ts-check
// What the one added line of a published page loads: joins quietly, and has the
// node keep what the page had already loaded when the worker took over, so that
// the page works without its relay from the next visit on.

import { join } from "./weft.js";

/** This page and what it has loaded under /ipfs/, as paths. */
function loaded() {
  const paths = new Set([location.pathname]);
  for (const { name } of performance.getEntriesByType("resource")) {
    const url = new URL(name, location.href);
    if (url.origin === location.origin) paths.add(url.pathname);
  }
  return [...paths].filter((p) => p.startsWith("/ipfs/"));
}

async function run() {
  const node = await join();
  if (document.readyState !== "complete") await new Promise((resolve) => addEventListener("load", resolve, { once: true }));
  await node.keep(loaded());
}

// A page that cannot join works as it did: its site need not hear of it.
run().catch((err) => console.debug("weft: not joined:", err.message));
