// Weft: bin/weft as relay and publisher, and its node in the Service Worker.
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import zlib from 'node:zlib'
import { withPage } from './browser.mjs'
import { BUILD, MiB, ROOT, answers, daemon, freePort } from './lib.mjs'
import { measureReads } from './peers.mjs'

const WEFT = path.join(ROOT, 'bin', 'weft')

/** A relay with a home and a store of its own. */
export async function startRelay () {
  const url = `http://127.0.0.1:${await freePort()}`
  const env = { WEFT_HOME: path.join(BUILD, 'weft-home') }
  const publisher = path.join(BUILD, 'weft-publisher')
  const weft = (...args) => execFileSync(WEFT, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'inherit'] }).toString().trim()
  const key = weft('id', '--data', publisher)
  const relay = await daemon('relay', WEFT,
    ['relay', '--listen', url.slice('http://'.length), '--data', path.join(BUILD, 'weft-relay'), '--allow-publisher', key, '--no-demo'],
    env, () => answers(url + '/healthz'))
  return {
    ...relay,
    url,
    /** Publishes a folder and returns its root CID. */
    publish: folder => JSON.parse(weft('publish', '--data', publisher, '--relay', url, '--json', folder).split('\n').at(-1)).cid
  }
}

/** What a visitor's browser downloads to run the node: wasm and scripts. */
export function size () {
  const files = ['web/node.wasm', 'web/built/wasm_exec.js', 'sw.js', 'web/boot.js', 'web/weft.js']
  const out = { raw: 0, brotli: 0, wasmRaw: 0, wasmBrotli: 0 }
  for (const f of files) {
    const bytes = fs.readFileSync(path.join(ROOT, f))
    // Quality 11 takes minutes on the wasm: its compressed form comes from the build.
    const brotli = f === 'web/node.wasm' ? fs.statSync(path.join(ROOT, 'web/built/node.wasm.br')).size : zlib.brotliCompressSync(bytes).length
    out.raw += bytes.length
    out.brotli += brotli
    if (f === 'web/node.wasm') Object.assign(out, { wasmRaw: bytes.length, wasmBrotli: brotli })
  }
  return out
}

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
    await measureReads(out, address => page.fetch(relay.url + address, address === roots.big ? 64 * MiB : 2048), roots, page)
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
