// From one tab to another, each a visitor of its own in one Chromium: Weft, Helia,
// and a bare data channel, which neither verifies nor keeps what it carries. All
// meet through Weft's relay, which ends before the content is asked for.
import { withPages } from './browser.mjs'
import { MiB, watched } from './lib.mjs'
import { startRelay, stored } from './weft.mjs'

const SIZE = Number(process.env.TABS_MIB ?? 64)
const PROFILE_CHUNK = MiB

/** What lib.mjs's noise() gives, made in the page. */
async function noise (size, seed) {
  const raw = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(seed))
  const key = await crypto.subtle.importKey('raw', raw, 'AES-CTR', false, ['encrypt'])
  return new Uint8Array(await crypto.subtle.encrypt({ name: 'AES-CTR', counter: new Uint8Array(16), length: 64 }, key, new Uint8Array(size)))
}

/**
 * Measures one transfer: read() fetches the file and returns {ttfb, ms, bytes}.
 * There is no relay any more that it could come through.
 */
async function transfer (page, read) {
  await new Promise(resolve => setTimeout(resolve, 1000)) // until the browser has settled
  const { result, cpu, threads } = await watched(page.browserPid, read)
  if (result.bytes !== SIZE * MiB) throw new Error(`${result.bytes} bytes of ${SIZE} MiB`)
  return { tabs: SIZE * 1000 / result.ms, tabsFirst: result.ttfb, tabsCpu: cpu / SIZE, threads }
}

/** Runs f with two pages and a relay of their own, which f ends when they are connected. */
const withRelay = f => async setup => {
  const relay = await startRelay('weft-tabs')
  try {
    return await withPages(2, (giver, taker) => f(relay, setup, giver, taker))
  } finally {
    await relay.stop()
  }
}

/** One repetition of Weft. The two are of different origins, so that they do not meet before they are told to. */
export const weftTabs = withRelay(async (relay, { siteFolder }, giver, taker) => {
  const site = relay.publish(siteFolder)
  const page = origin => `${origin}/ipfs/${site}/tab.html?weft=off`
  await giver.goto(page(relay.url))
  await taker.goto(page(relay.url.replace('127.0.0.1', 'localhost')))
  for (const p of [giver, taker]) await p.result('online')
  const root = await giver.evaluate(`async size => {
    const noise = ${noise}
    return (await node.add({ 'tab.bin': await noise(size, 'tabs') })).cid
  }`, SIZE * MiB)
  const id = await giver.evaluate(async () => (await node.status()).peerId)
  const dial = await taker.evaluate(async address => {
    const start = performance.now()
    await node.connect(address)
    return performance.now() - start
  }, `${relay.address}/p2p-circuit/webrtc/p2p/${id}`)
  const before = await taker.evaluate(`async () => {
    const { bytes, peers } = await node.status()
    return { fromPeers: bytes.fromPeers, blocks: await (${stored})(), webrtc: peers.some(p => p.transport === 'webrtc') }
  }`)
  if (!before.webrtc) throw new Error('Weft is not connected by WebRTC')
  await relay.stop()
  const out = await transfer(taker, async () => {
    const got = await taker.fetch(`/ipfs/${root}/tab.bin`, SIZE * MiB)
    // A block for each chunk, the file, and the folder.
    got.ms += Math.max(0, await taker.evaluate(`async want => {
      const stored = ${stored}
      while (await stored() < want) await new Promise(resolve => setTimeout(resolve, 2))
      return performance.now()
    }`, before.blocks + SIZE * MiB / PROFILE_CHUNK + 2) - got.end)
    return got
  })
  const fromPeers = await taker.evaluate(async () => (await node.status()).bytes.fromPeers) - before.fromPeers
  if (fromPeers < SIZE * MiB) throw new Error(`${fromPeers} bytes came from the other tab`)
  return { ...out, dial, root }
})

/** One repetition of Helia. */
export const heliaTabs = withRelay(async (relay, { pages }, giver, taker) => {
  const page = more => `${pages.url}/helia-pair.html?${new URLSearchParams({ relay: relay.address, ...more })}`
  await giver.goto(page({}))
  await taker.goto(page({ store: 'idb' }))
  for (const p of [giver, taker]) await p.result('ready')
  const root = await giver.evaluate(`async size => {
    const noise = ${noise}
    return window.add('tab.bin', await noise(size, 'tabs'))
  }`, SIZE * MiB)
  const dial = await taker.evaluate(address => window.dial(address), await giver.result('address'))
  await relay.stop()
  const out = await transfer(taker, () => taker.evaluate(cid => window.read(cid, 'tab.bin'), root))
  return { ...out, dial, root }
})

// What follows runs in the raw channel's pages.

async function offer () {
  const pc = window.pc = new RTCPeerConnection()
  const channel = window.channel = pc.createDataChannel('raw')
  window.open = new Promise(resolve => { channel.onopen = () => resolve(true) })
  await pc.setLocalDescription()
  while (pc.iceGatheringState !== 'complete') await new Promise(resolve => { pc.onicegatheringstatechange = resolve })
  return pc.localDescription.sdp
}

async function answer (sdp) {
  const pc = window.pc = new RTCPeerConnection()
  pc.ondatachannel = ({ channel }) => {
    channel.binaryType = 'arraybuffer'
    let left
    channel.onmessage = ({ data }) => {
      if (typeof data === 'string') left = Number(data)
      else if ((left -= data.byteLength) === 0) channel.send('all')
    }
  }
  await pc.setRemoteDescription({ type: 'offer', sdp })
  await pc.setLocalDescription()
  while (pc.iceGatheringState !== 'complete') await new Promise(resolve => { pc.onicegatheringstatechange = resolve })
  return pc.localDescription.sdp
}

async function sendAll (size, each) {
  const { channel } = window
  const message = crypto.getRandomValues(new Uint8Array(16384))
  const data = new Uint8Array(each)
  for (let at = 0; at < each; at += message.length) data.set(message, at)
  channel.bufferedAmountLowThreshold = 1 << 20
  const all = new Promise(resolve => { channel.onmessage = resolve })
  const start = performance.now()
  channel.send(String(size))
  for (let sent = 0; sent < size; sent += each) {
    // Chromium misses the event now and then: look again after a while.
    while (channel.bufferedAmount > 4 << 20) {
      await new Promise(resolve => {
        channel.onbufferedamountlow = resolve
        setTimeout(resolve, 100)
      })
    }
    channel.send(data)
  }
  await all
  return { ms: performance.now() - start, bytes: size }
}

/** One repetition of a bare data channel with messages of so many KiB. */
export const rawTabs = kib => ({ pages }) => withPages(2, async (giver, taker) => {
  for (const p of [giver, taker]) await p.goto(`${pages.url}/raw.html`)
  const start = performance.now()
  const sdp = await taker.evaluate(answer, await giver.evaluate(offer))
  await giver.evaluate(async sdp => { await window.pc.setRemoteDescription({ type: 'answer', sdp }); return window.open }, sdp)
  const dial = performance.now() - start
  const { tabs, tabsCpu, threads } = await transfer(taker, () => giver.evaluate(sendAll, SIZE * MiB, kib << 10))
  return { tabs, tabsCpu, threads, dial }
})
