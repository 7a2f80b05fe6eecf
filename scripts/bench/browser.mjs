// A fresh Chromium, driven over its debugging pipe.
//
// Not by playwright or puppeteer: they switch on the Network domain, also in
// Service Workers, and the browser then hands every WebSocket frame and every
// response to the tool. That doubled the cost of what is measured here.
import { execFileSync, spawn } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'

/** Chromium's path: $CHROMIUM, else the one on the PATH. */
export const CHROMIUM = process.env.CHROMIUM ?? execFileSync('sh', ['-c', 'command -v chromium']).toString().trim()

// The flags of the end-to-end tests: no services of its own, no QUIC, no proxy.
const FLAGS = [
  '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update',
  '--disable-sync', '--no-proxy-server', '--remote-debugging-pipe',
  // Two tabs of one browser need neither: they meet as peers on one machine do.
  '--disable-features=WebRtcHideLocalIpsWithMdns', '--allow-loopback-in-peer-connection'
]

/** The protocol's messages, each ended by a zero byte, on the browser's file descriptors 3 and 4. */
class Connection {
  #out
  #pending = new Map()
  #listeners = new Set()
  #last = 0

  constructor (child) {
    this.#out = child.stdio[3]
    this.#out.on('error', () => {}) // the browser has ended; 'exit' tells
    let rest = []
    child.stdio[4].on('data', data => {
      for (let end; (end = data.indexOf(0)) >= 0; data = data.subarray(end + 1)) {
        this.#receive(JSON.parse(Buffer.concat([...rest, data.subarray(0, end)]).toString()))
        rest = []
      }
      rest.push(data)
    })
    child.once('exit', () => {
      for (const { reject } of this.#pending.values()) reject(new Error('Chromium has ended'))
    })
  }

  #receive (message) {
    const waiting = this.#pending.get(message.id)
    this.#pending.delete(message.id)
    if (waiting === undefined) for (const f of this.#listeners) f(message)
    else if (message.error) waiting.reject(new Error(`${waiting.method}: ${message.error.message}`))
    else waiting.resolve(message.result)
  }

  send (method, params = {}, sessionId) {
    const id = ++this.#last
    this.#out.write(JSON.stringify({ id, method, params, sessionId }) + '\0')
    return new Promise((resolve, reject) => this.#pending.set(id, { method, resolve, reject }))
  }

  /** Calls f with every event; returns what ends that. */
  listen (f) {
    this.#listeners.add(f)
    return () => this.#listeners.delete(f)
  }
}

/** One tab. */
export class Page {
  #connection
  #session
  log = []

  constructor (connection, session, browserPid) {
    this.#connection = connection
    this.#session = session
    this.browserPid = browserPid
    connection.listen(({ method, params, sessionId }) => {
      if (sessionId !== session) return
      if (method === 'Runtime.consoleAPICalled') this.log.push(params.args.map(a => a.value ?? a.description).join(' '))
      if (method === 'Runtime.exceptionThrown') this.log.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text)
    })
  }

  send (method, params) { return this.#connection.send(method, params, this.#session) }

  /** Waits for an event for which want(params) is true. */
  event (name, want = () => true) {
    return new Promise(resolve => {
      const end = this.#connection.listen(({ method, params, sessionId }) => {
        if (sessionId !== this.#session || method !== name || !want(params)) return
        end()
        resolve(params)
      })
    })
  }

  /** Loads a page, and returns when it has loaded. */
  async goto (url) {
    const loaded = this.event('Page.loadEventFired')
    const { errorText } = await this.send('Page.navigate', { url })
    if (errorText) throw new Error(`${url}: ${errorText}`)
    await loaded
  }

  /** Calls an async function in the page with arguments that are JSON, and returns its result. */
  async evaluate (f, ...args) {
    const { result, exceptionDetails } = await this.send('Runtime.evaluate', {
      expression: `(${f})(...${JSON.stringify(args)})`, awaitPromise: true, returnByValue: true
    })
    if (exceptionDetails) throw new Error(`page: ${exceptionDetails.exception?.description ?? exceptionDetails.text}`)
    return result.value
  }

  /** Waits until the page has set window[name] and returns it; throws what the page puts into window.failed. */
  result (name) {
    return this.evaluate(async name => {
      for (const start = performance.now(); window[name] === undefined;) {
        if (window.failed) throw new Error(window.failed)
        if (performance.now() - start > 60_000) throw new Error(`no window.${name} after 60 s`)
        await new Promise(resolve => setTimeout(resolve, 5))
      }
      return window[name]
    }, name)
  }

  /**
   * Fetches a URL in the page, reading it to the end.
   * @returns {Promise<{ttfb: number, ms: number, end: number, bytes: number}>} milliseconds to the body's
   *   first bytes and to its end, and the page's time then
   */
  async fetch (url, want) {
    const got = await this.evaluate(async url => {
      const start = performance.now()
      const response = await fetch(url)
      const reader = response.body.getReader()
      const first = await reader.read()
      const ttfb = performance.now() - start
      let bytes = first.value?.length ?? 0
      for (let c; !(c = await reader.read()).done;) bytes += c.value.length
      const end = performance.now()
      const text = response.ok ? '' : new TextDecoder().decode(first.value).slice(0, 300)
      return { status: response.status, ttfb, ms: end - start, end, bytes, text }
    }, url)
    if (got.status !== 200 || got.bytes !== want) throw new Error(`${url}: status ${got.status}, ${got.bytes} of ${want} bytes ${got.text}`)
    return got
  }

  /** Stops every Service Worker and waits until all are stopped. */
  async stopWorkers () {
    const running = new Set()
    const stopped = this.event('ServiceWorker.workerVersionUpdated', ({ versions }) => {
      for (const v of versions) {
        if (v.runningStatus === 'stopped') running.delete(v.versionId)
        else running.add(v.versionId)
      }
      return versions.length > 0 && running.size === 0
    })
    await this.send('ServiceWorker.enable')
    await this.send('ServiceWorker.stopAllWorkers')
    await stopped
    await this.send('ServiceWorker.disable')
  }
}

/** Runs f with a page of a Chromium with a new profile: no cache, no worker. Ends the browser after it. */
export const withPage = f => withPages(1, f)

/** Runs f with n pages, each of a visitor of its own (a browser context); else as withPage. */
export async function withPages (n, f) {
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'weft-bench-'))
  const child = spawn(CHROMIUM, [...FLAGS, `--user-data-dir=${profile}`, 'about:blank'], { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] })
  const exited = new Promise(resolve => child.once('exit', resolve))
  try {
    const connection = new Connection(child)
    const pages = []
    for (let i = 0; i < n; i++) {
      const { browserContextId } = n > 1 ? await connection.send('Target.createBrowserContext') : {}
      const { targetId } = await connection.send('Target.createTarget', { url: 'about:blank', browserContextId })
      const { sessionId } = await connection.send('Target.attachToTarget', { targetId, flatten: true })
      const page = new Page(connection, sessionId, child.pid)
      await page.send('Page.enable')
      await page.send('Runtime.enable')
      pages.push(page)
    }
    try {
      return await f(...pages)
    } catch (err) {
      for (const page of pages) err.message += '\n' + page.log.slice(-20).join('\n')
      throw err
    } finally {
      connection.send('Browser.close').catch(() => {})
    }
  } finally {
    const hard = setTimeout(() => child.kill('SIGKILL'), 5_000)
    await exited
    clearTimeout(hard)
    fs.rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 })
  }
}
