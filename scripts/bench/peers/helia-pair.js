// Helia in a tab that others reach by WebRTC through a circuit relay. The one that
// fetches keeps blocks in IndexedDB; the one that gives has them in memory, since
// its importer would store views, and IndexedDB the whole buffer behind each.
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { withBitswap } from '@helia/bitswap'
import { withLibp2pLight } from '@helia/libp2p'
import { unixfs } from '@helia/unixfs'
import { circuitRelayTransport } from '@libp2p/circuit-relay-v2'
import { identify } from '@libp2p/identify'
import { webRTC } from '@libp2p/webrtc'
import { webSockets } from '@libp2p/websockets'
import { multiaddr } from '@multiformats/multiaddr'
import { IDBBlockstore } from 'blockstore-idb'
import { IDBDatastore } from 'datastore-idb'
import { createHeliaLight } from 'helia'
import { CID } from 'multiformats/cid'

const query = new URLSearchParams(location.search)

async function stores () {
  if (query.get('store') !== 'idb') return {}
  const [blockstore, datastore] = [new IDBBlockstore('blocks'), new IDBDatastore('data')]
  await blockstore.open()
  await datastore.open()
  return { blockstore, datastore }
}

async function main () {
  const helia = await withBitswap(withLibp2pLight(createHeliaLight(await stores()), {
    addresses: { listen: ['/p2p-circuit', '/webrtc'] },
    transports: [webSockets(), webRTC({ rtcConfiguration: { iceServers: [] } }), circuitRelayTransport()],
    connectionEncrypters: [noise()], streamMuxers: [yamux()], services: { identify: identify() },
    connectionGater: { denyDialMultiaddr: async () => false }
  })).start()
  const fs = unixfs(helia)
  await helia.libp2p.dial(multiaddr(query.get('relay')))
  const address = () => helia.libp2p.getMultiaddrs().map(String).find(a => a.includes('/webrtc'))
  while (address() === undefined) await new Promise(resolve => setTimeout(resolve, 20))
  window.address = address()
  window.add = async (name, content) => (await fs.addFile({ path: name, content }, { wrapWithDirectory: true })).toString()
  window.dial = async address => {
    const start = performance.now()
    const connection = await helia.libp2p.dial(multiaddr(address))
    const ms = performance.now() - start
    if (!connection.remoteAddr.toString().includes('/webrtc')) throw new Error(`connected by ${connection.remoteAddr}`)
    // Bitswap takes the first connection that has no limits: not the circuit.
    for (const c of helia.libp2p.getConnections(connection.remotePeer)) if (c !== connection) await c.close()
    return ms
  }
  window.read = async (cid, path) => {
    const start = performance.now()
    let ttfb
    let bytes = 0
    for await (const chunk of fs.cat(CID.parse(cid), { path, signal: AbortSignal.timeout(240_000) })) {
      ttfb ??= performance.now() - start
      bytes += chunk.length
    }
    return { ttfb, ms: performance.now() - start, bytes }
  }
  window.ready = true
}
main().catch(err => { window.failed = String(err?.stack ?? err) })
