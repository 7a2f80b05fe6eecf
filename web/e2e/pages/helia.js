// A visitor that runs Helia in place of Weft: libp2p over WebSocket, circuits and
// WebRTC, Bitswap, UnixFS. `esbuild` bundles it (helia_test.go).
import { noise } from "@chainsafe/libp2p-noise";
import { yamux } from "@chainsafe/libp2p-yamux";
import { withBitswap } from "@helia/bitswap";
import { withLibp2pLight } from "@helia/libp2p";
import { unixfs } from "@helia/unixfs";
import { circuitRelayTransport } from "@libp2p/circuit-relay-v2";
import { identify } from "@libp2p/identify";
import { webRTC } from "@libp2p/webrtc";
import { webSockets } from "@libp2p/websockets";
import { multiaddr } from "@multiformats/multiaddr";
import { createHeliaLight } from "helia";
import { CID } from "multiformats/cid";

const helia = await withBitswap(withLibp2pLight(createHeliaLight(), {
  addresses: { listen: ["/p2p-circuit", "/webrtc"] },
  transports: [webSockets(), webRTC({ rtcConfiguration: { iceServers: [] } }), circuitRelayTransport()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: { identify: identify() },
  connectionGater: { denyDialMultiaddr: async () => false }, // the relay is on this machine
})).start();
const fs = unixfs(helia);
const { relays: [relay] } = await (await fetch("/weft/config.json")).json();
await helia.libp2p.dial(multiaddr(relay));

globalThis.helia = {
  id: helia.libp2p.peerId.toString(),
  relay,
  dial: async (addr) => { await helia.libp2p.dial(multiaddr(addr)); },
  /** Where others reach this tab by WebRTC; undefined until a relay keeps a slot for it. */
  addr: () => helia.libp2p.getMultiaddrs().map(String).find((a) => a.includes("/webrtc")),
  /** The addresses of its connections to a peer. */
  connections: (id) => helia.libp2p.getConnections().filter((c) => c.remotePeer.toString() === id).map((c) => c.remoteAddr.toString()),
  /** Adds a folder with one file, and returns the folder's CID. */
  add: async (path, content) => (await fs.addFile({ path, content }, { wrapWithDirectory: true })).toString(),
  /** Fetches a file of a folder. */
  cat: async (cid, path) => {
    const parts = [];
    for await (const bytes of fs.cat(CID.parse(cid), { path, signal: AbortSignal.timeout(60_000) })) parts.push(bytes);
    return new Uint8Array(await new Blob(parts).arrayBuffer());
  },
};
