// What the measured subjects share: memory and CPU, daemons, content, statistics.
import { spawn } from 'node:child_process'
import { createHash, createCipheriv } from 'node:crypto'
import fs from 'node:fs'
import net from 'node:net'
import path from 'node:path'

export const ROOT = path.resolve(import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname), '../..')
export const BUILD = path.join(ROOT, 'build', 'bench')
export const MiB = 1 << 20

// ---- memory and CPU ---------------------------------------------------------

// Linux counts CPU time in ticks of 10 ms (sysconf(_SC_CLK_TCK) is 100 everywhere it runs).
const TICK_MS = 10

function processes () {
  const all = []
  for (const d of fs.readdirSync('/proc')) {
    if (!/^\d+$/.test(d)) continue
    try {
      // After the name, in brackets: state, parent, …, utime (12th), stime (13th), …, rss (22nd, in pages).
      const stat = fs.readFileSync(`/proc/${d}/stat`, 'utf8')
      const f = stat.slice(stat.lastIndexOf(')') + 2).split(' ').map(Number)
      const args = fs.readFileSync(`/proc/${d}/cmdline`, 'utf8')
      all.push({ pid: Number(d), parent: f[1], cpu: (f[11] + f[12]) * TICK_MS, rss: f[21] * 4096, args })
    } catch { /* it ended meanwhile */ }
  }
  return all
}

/** A process and all that it started. */
function tree (pid) {
  const all = processes()
  const tree = new Set([pid])
  for (let n = 0; n !== tree.size;) {
    n = tree.size
    for (const p of all) if (tree.has(p.parent)) tree.add(p.pid)
  }
  return all.filter(p => tree.has(p.pid))
}

/** The CPU milliseconds that a browser's threads have used, by kind and number of process and name of thread. */
function threads (browserPid) {
  const out = {}
  for (const { pid, args } of tree(browserPid)) {
    const kind = /--utility-sub-type=([\w.]+)/.exec(args)?.[1] ?? /--type=([\w-]+)/.exec(args)?.[1] ?? 'browser'
    try {
      for (const tid of fs.readdirSync(`/proc/${pid}/task`)) {
        const stat = fs.readFileSync(`/proc/${pid}/task/${tid}/stat`, 'utf8')
        const end = stat.lastIndexOf(')')
        const f = stat.slice(end + 2).split(' ').map(Number)
        const name = `${kind} ${pid} ${stat.slice(stat.indexOf('(') + 1, end)}`
        out[name] = (out[name] ?? 0) + (f[11] + f[12]) * TICK_MS
      }
    } catch { /* it ended meanwhile */ }
  }
  return out
}

/**
 * What a browser's processes hold and have used: resident bytes of all, resident
 * bytes of the renderers, where pages and workers live, and CPU milliseconds.
 */
function usage (browserPid) {
  const out = { browser: 0, renderers: 0, cpu: 0 }
  for (const p of tree(browserPid)) {
    out.browser += p.rss
    out.cpu += p.cpu
    if (p.args.includes('--type=renderer')) out.renderers += p.rss
  }
  return out
}

/**
 * Runs f and returns, beside its result, the CPU milliseconds it cost the browser,
 * those of the threads that took the most, and the highest resident sizes seen meanwhile, sampled every 100 ms.
 */
export async function watched (browserPid, f) {
  const start = usage(browserPid)
  const before = threads(browserPid)
  const peak = { ...start }
  const sample = () => {
    const now = usage(browserPid)
    for (const k in peak) peak[k] = Math.max(peak[k], now[k])
  }
  const timer = setInterval(sample, 100)
  try {
    const result = await f()
    sample()
    const used = Object.entries(threads(browserPid)).map(([name, ms]) => [name, ms - (before[name] ?? 0)])
    return {
      result,
      cpu: peak.cpu - start.cpu,
      threads: Object.fromEntries(used.filter(([, ms]) => ms >= 5 * TICK_MS).sort((a, b) => b[1] - a[1])),
      browser: peak.browser,
      renderers: peak.renderers
    }
  } finally {
    clearInterval(timer)
  }
}

// ---- processes and ports ----------------------------------------------------

/** A free TCP port on loopback. */
export async function freePort () {
  const server = net.createServer().listen(0, '127.0.0.1')
  await new Promise(resolve => server.once('listening', resolve))
  const { port } = server.address()
  await new Promise(resolve => server.close(resolve))
  return port
}

/**
 * Starts a daemon, its output in a log file, and waits until ready() is true.
 * @returns {Promise<{stop: () => Promise<void>}>}
 */
export async function daemon (name, command, args, env, ready) {
  const log = path.join(BUILD, `${name}.log`)
  const out = fs.openSync(log, 'w')
  const child = spawn(command, args, { env: { ...process.env, ...env }, stdio: ['ignore', out, out] })
  const ended = new Promise(resolve => child.once('exit', code => resolve(code ?? 'signal')))
  const deadline = Date.now() + 60_000
  while (!await ready(log)) {
    const code = await Promise.race([ended, new Promise(resolve => setTimeout(resolve, 50))])
    if (code !== undefined || Date.now() > deadline) {
      child.kill('SIGKILL')
      throw new Error(`${name} did not start (${code ?? 'after 60 s'}):\n${fs.readFileSync(log, 'utf8').slice(-2000)}`)
    }
  }
  return {
    /** Ends it; it may be called again. */
    stop: async () => {
      child.kill('SIGTERM')
      const hard = setTimeout(() => child.kill('SIGKILL'), 10_000)
      await ended
      clearTimeout(hard)
    }
  }
}

export const answers = async url => (await fetch(url).catch(() => null))?.ok === true

// ---- content ----------------------------------------------------------------

/** n bytes that do not compress and are the same for the same seed. */
export function noise (n, seed) {
  const key = createHash('sha256').update(String(seed)).digest()
  return createCipheriv('aes-256-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(n))
}

/** A module of 2 KB with a default export that is unlike any other's. */
export function smallModule (name) {
  const head = `export default ${JSON.stringify(name)}\n// `
  return head + noise(4096, name).toString('hex').slice(0, 2047 - head.length) + '\n'
}

// ---- statistics -------------------------------------------------------------

export function summary (values) {
  const s = [...values].sort((a, b) => a - b)
  const mid = s.length >> 1
  return { n: s.length, median: s.length % 2 ? s[mid] : (s[mid - 1] + s[mid]) / 2, min: s[0], max: s.at(-1) }
}
