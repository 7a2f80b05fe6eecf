// Helia as a page runs it, with the parts that the comparison needs: libp2p over
// WebSocket, Bitswap, UnixFS, blocks in IndexedDB.
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { withBitswap } from '@helia/bitswap'
import { withLibp2pLight } from '@helia/libp2p'
import { unixfs } from '@helia/unixfs'
import { identify } from '@libp2p/identify'
import { webSockets } from '@libp2p/websockets'
import { multiaddr } from '@multiformats/multiaddr'
import { IDBBlockstore } from 'blockstore-idb'
import { IDBDatastore } from 'datastore-idb'
import { createHeliaLight } from 'helia'
import { CID } from 'multiformats/cid'

const query = new URLSearchParams(location.search)

/** Reads /ipfs/<cid>/<name> to its end, as timedFetch in lib.mjs does. */
async function * cat (fs, address) {
  const [, , cid, name] = address.split('/')
  yield * fs.cat(CID.parse(cid), { path: name, signal: AbortSignal.timeout(120_000) })
}

async function main () {
  const blockstore = new IDBBlockstore('blocks')
  const datastore = new IDBDatastore('data')
  await blockstore.open()
  await datastore.open()
  const helia = await withBitswap(withLibp2pLight(createHeliaLight({ blockstore, datastore }), {
    addresses: { listen: [] }, transports: [webSockets()],
    connectionEncrypters: [noise()], streamMuxers: [yamux()], services: { identify: identify() },
    connectionGater: { denyDialMultiaddr: async () => false }
  })).start()
  const fs = unixfs(helia)
  const ready = performance.now()
  await helia.libp2p.dial(multiaddr(query.get('peer')))
  const online = performance.now()
  const parts = []
  for await (const bytes of cat(fs, query.get('module'))) parts.push(bytes)
  await import(URL.createObjectURL(new Blob(parts, { type: 'text/javascript' })))
  window.marks = { ready, online, imported: performance.now() }
  window.read = async address => {
    const start = performance.now()
    let ttfb
    let bytes = 0
    for await (const chunk of cat(fs, address)) {
      ttfb ??= performance.now() - start
      bytes += chunk.length
    }
    return { ttfb, ms: performance.now() - start, bytes }
  }
}
main().catch(err => { window.failed = String(err?.stack ?? err) })
