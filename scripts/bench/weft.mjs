// Weft: bin/weft as relay and publisher, and its node in the Service Worker.
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import zlib from 'node:zlib'
import { withPage } from './browser.mjs'
import { BUILD, MiB, ROOT, answers, daemon, freePort } from './lib.mjs'
import { measureReads } from './peers.mjs'

const WEFT = path.join(ROOT, 'bin', 'weft')

/** A relay with a home and a store of its own, empty at first. */
export async function startRelay (name = 'weft') {
  const url = `http://127.0.0.1:${await freePort()}`
  const dir = path.join(BUILD, name)
  fs.rmSync(dir, { recursive: true, force: true })
  const env = { WEFT_HOME: path.join(dir, 'home') }
  const publisher = path.join(dir, 'publisher')
  const weft = (...args) => execFileSync(WEFT, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'inherit'] }).toString().trim()
  const key = weft('id', '--data', publisher)
  const relay = await daemon(`relay-${name}`, WEFT,
    ['relay', '--listen', url.slice('http://'.length), '--data', path.join(dir, 'relay'), '--allow-publisher', key, '--allow-origin', '*', '--no-demo'],
    env, () => answers(url + '/healthz'))
  const { relays } = await (await fetch(url + '/weft/config.json')).json()
  return {
    ...relay,
    url,
    /** Its multiaddr. */
    address: relays[0],
    /** Publishes a folder and returns its root CID. */
    publish: folder => JSON.parse(weft('publish', '--data', publisher, '--relay', url, '--json', folder).split('\n').at(-1)).cid
  }
}

/** What a visitor's browser downloads to run the node, in bytes: the wasm and the relay's scripts. */
export async function size (relay) {
  const { files } = await (await fetch(relay.url + '/assets.json')).json()
  const scripts = Object.keys(files).filter(f => /^\/[a-z_]+\.js$/.test(f))
  // Brotli's best level takes minutes on the wasm: its compressed form is the build's.
  const wasm = { raw: fs.statSync(path.join(ROOT, 'web/node.wasm')).size, brotli: fs.statSync(path.join(ROOT, 'web/built/node.wasm.br')).size }
  const out = { ...wasm, wasmRaw: wasm.raw, wasmBrotli: wasm.brotli }
  for (const f of ['/sw.js', ...scripts]) {
    const bytes = Buffer.from(await (await fetch(relay.url + f)).arrayBuffer())
    out.raw += bytes.length
    out.brotli += zlib.brotliCompressSync(bytes).length
  }
  return out
}

// All blocks that the reads bring: by the profile the 64 MiB file is 64 leaves and
// their parent, a small module one block, and each is in a folder of its own.
const allBlocks = roots => 64 + 2 + 2 * (1 + roots.far.length)

/** How many blocks are in the node's database. Runs in the page. */
export async function stored () {
  const db = await new Promise((resolve, reject) => {
    const request = indexedDB.open('weft')
    request.onsuccess = () => resolve(request.result)
    request.onerror = () => reject(request.error)
  })
  try {
    return await new Promise((resolve, reject) => {
      const request = db.transaction('index').objectStore('index').count()
      request.onsuccess = () => resolve(request.result)
      request.onerror = () => reject(request.error)
    })
  } finally {
    db.close()
  }
}

/** Waits until the database holds want blocks; returns the page's time then. */
const whenStored = (page, want) => page.evaluate(`async want => {
  const stored = ${stored}
  for (let n; (n = await stored()) < want;) {
    if (performance.now() > 300_000) throw new Error(n + ' of ' + want + ' blocks are in the database')
    await new Promise(resolve => setTimeout(resolve, 2))
  }
  return performance.now()
}`, want)

/** One repetition: a first visit in one browser, everything else in another. */
export async function weft ({ relay, site, roots }) {
  const out = await withPage(async page => {
    await page.goto(`${relay.url}/ipfs/${site}/`)
    return { visit: await page.result('imported') }
  })
  return withPage(async page => {
    // `weft=off`: the page joins by itself, so that it can say when.
    await page.goto(`${relay.url}/ipfs/${site}/join.html?${new URLSearchParams({ weft: 'off', module: roots.first })}`)
    Object.assign(out, await page.result('marks'))
    out.online = await page.result('online')

    const before = await page.evaluate(() => window.node.status())
    await measureReads(out, address => page.fetch(relay.url + address, address === roots.big ? 64 * MiB : 2048),
      roots, page, () => whenStored(page, allBlocks(roots)))
    const after = await page.evaluate(() => window.node.status())
    const fromRelay = after.bytes.fromRelay - before.bytes.fromRelay
    if (fromRelay < 64 * MiB || fromRelay > 66 * MiB) throw new Error(`64 MiB read twice: ${fromRelay} bytes came from the relay`)

    await page.stopWorkers()
    out.woken = (await page.fetch(relay.url + roots.first, 2048)).ttfb
    await page.stopWorkers()
    out.wokenNode = await page.evaluate(async () => {
      const start = performance.now()
      await window.node.status()
      return performance.now() - start
    })
    return out
  })
}
