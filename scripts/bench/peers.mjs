// The peers: @helia/verified-fetch in a Service Worker over a Kubo gateway, and
// Helia in a page by Bitswap over a Kubo's WebSocket.
import { build } from 'esbuild'
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import http from 'node:http'
import os from 'node:os'
import path from 'node:path'
import zlib from 'node:zlib'
import { withPage } from './browser.mjs'
import { BUILD, MiB, ROOT, daemon, freePort, summary, watched } from './lib.mjs'

const IPFS = process.env.IPFS_BIN ?? path.join(process.env.XDG_CACHE_HOME ?? path.join(os.homedir(), '.cache'), 'weft-test', 'ipfs-v0.43.0')
const PAGES = path.join(ROOT, 'scripts', 'bench', 'peers')

/** A private Kubo on loopback that imports by the profile unixfs-v1-2025, as Weft does. */
export async function startKubo () {
  const repo = path.join(BUILD, 'kubo')
  const env = { IPFS_PATH: repo, IPFS_TELEMETRY: 'off', GOLOG_LOG_LEVEL: 'error' }
  const ipfs = (...args) => execFileSync(IPFS, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] }).toString().trim()
  const [ws, api, gateway] = [await freePort(), await freePort(), await freePort()]
  ipfs('init', '--profile', 'test,unixfs-v1-2025')
  const settings = {
    'Addresses.Swarm': [`/ip4/127.0.0.1/tcp/${ws}/ws`],
    'Addresses.API': `/ip4/127.0.0.1/tcp/${api}`,
    'Addresses.Gateway': `/ip4/127.0.0.1/tcp/${gateway}`,
    'Routing.Type': 'none',
    Bootstrap: [],
    'Discovery.MDNS.Enabled': false,
    'AutoConf.Enabled': false,
    'AutoTLS.Enabled': false,
    'Provide.Enabled': false,
    'Swarm.DisableNatPortMap': true,
    'DNS.Resolvers': {},
    'Routing.DelegatedRouters': [],
    'Ipns.DelegatedPublishers': [],
    'Gateway.HTTPHeaders': { 'Access-Control-Allow-Origin': ['*'] },
    'Plugins.Plugins.telemetry.Disabled': true
  }
  for (const [key, value] of Object.entries(settings)) ipfs('config', '--json', key, JSON.stringify(value))
  const kubo = await daemon('kubo', IPFS, ['daemon'], env, log => fs.readFileSync(log, 'utf8').includes('Daemon is ready'))
  return {
    ...kubo,
    gateway: `http://127.0.0.1:${gateway}`,
    peer: `/ip4/127.0.0.1/tcp/${ws}/ws/p2p/${ipfs('id', '-f', '<id>')}`,
    /** Adds a folder and returns its root CID. */
    add: folder => ipfs('add', '--recursive', '--quieter', folder)
  }
}

/** Bundles the peers' clients for the browser; returns their sizes in bytes. */
export async function bundle () {
  const outdir = path.join(BUILD, 'peers')
  await build({
    entryPoints: ['vf-sw', 'helia-tab', 'helia-pair'].map(f => path.join(PAGES, f + '.js')),
    outdir,
    bundle: true,
    minify: true,
    format: 'esm',
    platform: 'browser',
    target: 'es2022',
    define: { 'process.env.NODE_ENV': '"production"', global: 'globalThis' },
    logLevel: 'error'
  })
  const size = name => {
    const bytes = fs.readFileSync(path.join(outdir, name))
    return { raw: bytes.length, brotli: zlib.brotliCompressSync(bytes).length }
  }
  return { 'verified-fetch': size('vf-sw.js'), Helia: size('helia-tab.js') }
}

/** Serves the peers' pages and bundles, and the delegated router they ask, which knows nobody. */
export async function servePeers () {
  const types = { '.html': 'text/html', '.js': 'text/javascript' }
  const server = http.createServer((req, res) => {
    const { pathname } = new URL(req.url, 'http://localhost')
    if (pathname.startsWith('/routing/v1/')) {
      res.setHeader('Content-Type', 'application/json')
      return res.end('{"Providers":[]}')
    }
    const file = [PAGES, path.join(BUILD, 'peers')].map(d => path.join(d, path.basename(pathname))).findLast(f => fs.existsSync(f) && fs.statSync(f).isFile())
    if (file === undefined) {
      res.statusCode = 404
      return res.end()
    }
    res.setHeader('Content-Type', types[path.extname(file)])
    res.setHeader('Cache-Control', 'no-store')
    fs.createReadStream(file).pipe(res)
  })
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    close: () => { server.closeAllConnections(); server.close() }
  }
}

/** One repetition of verified-fetch. roots: the addresses of what Kubo holds. */
export const verifiedFetch = ({ kubo, pages, roots }) => withPage(async page => {
  const out = {}
  await page.goto(`${pages.url}/vf.html?${new URLSearchParams({ gateway: kubo.gateway, module: roots.first })}`)
  Object.assign(out, await page.result('marks'))
  await measureReads(out, address => page.fetch(pages.url + address, address === roots.big ? 64 * MiB : 2048), roots, page)
  await page.stopWorkers()
  out.woken = (await page.fetch(pages.url + roots.first, 2048)).ttfb
  return out
})

/** One repetition of Helia in a page. */
export const heliaTab = ({ kubo, pages, roots }) => withPage(async page => {
  const out = {}
  await page.goto(`${pages.url}/helia.html?${new URLSearchParams({ peer: kubo.peer, module: roots.first })}`)
  Object.assign(out, await page.result('marks'))
  const read = async address => {
    const got = await page.evaluate(a => window.read(a), address)
    if (got.bytes !== (address === roots.big ? 64 * MiB : 2048)) throw new Error(`${address}: ${got.bytes} bytes`)
    return got
  }
  await measureReads(out, read, roots, page)
  return out
})

/**
 * The reads every subject does in the same order: small ones that are here, small
 * ones that are not, 64 MiB from the network, the same again from disk. persisted
 * returns the page's time at which what was read is in the database; the peers
 * wait for that themselves before they give a block.
 */
export async function measureReads (out, read, roots, page, persisted) {
  const median = async addresses => {
    const all = []
    for (const a of addresses) all.push((await read(a)).ttfb)
    return summary(all).median
  }
  out.local = await median(Array(9).fill(roots.first))
  out.remote = await median(roots.far)
  const { result, ...used } = await watched(page.browserPid, async () => {
    const got = await read(roots.big)
    if (persisted) got.ms += Math.max(0, await persisted() - got.end)
    return got
  })
  out.bulk = 64_000 / result.ms
  out.bulkFirst = result.ttfb
  out.bulkCpu = used.cpu / 64
  out.peakRenderers = used.renderers
  out.peakBrowser = used.browser
  const again = await read(roots.big)
  out.disk = 64_000 / again.ms
  out.diskFirst = again.ttfb
}
