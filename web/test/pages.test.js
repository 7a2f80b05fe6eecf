// Which page hosts: pages.js, over real MessagePorts.
import assert from "node:assert/strict";
import { test } from "node:test";

import { Pages } from "../pages.js";

/** A page that offered; what the worker told it is in `told`. */
function offer(pages, client) {
  const { port1, port2 } = new MessageChannel();
  const page = { told: [], port: port1, client };
  port1.onmessage = ({ data }) => {
    page.told.push(data.type);
    page.heard?.();
  };
  pages.offered(port2, client);
  return page;
}

/** Waits until a page was told something. */
async function told(page, what) {
  while (!page.told.includes(what)) await new Promise((resolve) => (page.heard = resolve));
}

test("one page hosts, a visible one first, and the next when it goes", async () => {
  const attached = [];
  let heard = () => {};
  const pages = new Pages({
    attach: (port) => {
      attached.push(port);
      heard();
    },
    visible: async () => new Set(["b", "d"]),
  });
  const all = ["a", "b", "c", "d"].map((client) => offer(pages, client));
  const [a, b, c, d] = all;
  assert.deepEqual(attached, [], "no node, no host");

  pages.node(true);
  await told(b, "host");
  assert.equal(attached.length, 1);

  b.port.postMessage({ type: "away" });
  await told(d, "host");
  assert.equal(attached.length, 3, "the line was taken away, and another given");
  assert.equal(attached[1], null);

  d.port.close(); // the page has gone
  await told(a, "host");
  assert.deepEqual(c.told, []);

  pages.node(false);
  await told(a, "dismiss");
  assert.equal(attached.at(-1), null);
  pages.node(true);
  await new Promise((resolve) => (heard = resolve));
  assert.deepEqual(a.told, ["host", "dismiss", "host"].slice(0, a.told.length));

  pages.node(false);
  for (const page of all) page.port.close();
  for (const port of attached) port?.close();
});

test("a page that comes later hosts where there was none", async () => {
  const attached = [];
  const pages = new Pages({ attach: (port) => attached.push(port), visible: async () => new Set() });
  pages.node(true);
  const page = offer(pages, "a");
  await told(page, "host");
  assert.equal(attached.length, 1);
  pages.node(false);
  page.port.close();
  attached[0].close();
});
