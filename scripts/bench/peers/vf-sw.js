// A Service Worker that answers /ipfs/<cid>/<path> with @helia/verified-fetch
// over one trustless HTTP gateway, keeping blocks in IndexedDB.
import { withHTTP } from '@helia/http'
import { createVerifiedFetchWithHelia } from '@helia/verified-fetch'
import { IDBBlockstore } from 'blockstore-idb'
import { IDBDatastore } from 'datastore-idb'
import { createHeliaLight } from 'helia'

const gateway = new URL(location.href).searchParams.get('gateway')
const start = async () => {
  const blockstore = new IDBBlockstore('blocks')
  const datastore = new IDBDatastore('data')
  await blockstore.open()
  await datastore.open()
  const helia = await withHTTP(createHeliaLight({ blockstore, datastore }), {
    delegatedRouters: [location.origin], recursiveGateways: [gateway], allowInsecure: true, allowLocal: true
  }).start()
  return createVerifiedFetchWithHelia(helia)
}
let starting
const node = () => (starting ??= start())

self.addEventListener('install', e => e.waitUntil(self.skipWaiting()))
self.addEventListener('activate', e => e.waitUntil(self.clients.claim()))
self.addEventListener('fetch', e => {
  const { pathname } = new URL(e.request.url)
  if (pathname === '/ready') e.respondWith(node().then(() => new Response()))
  if (!pathname.startsWith('/ipfs/')) return
  e.respondWith(node()
    .then(fetch => fetch('ipfs://' + pathname.slice('/ipfs/'.length)))
    .catch(err => new Response(String(err?.stack ?? err), { status: 502 })))
})
