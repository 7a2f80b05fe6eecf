//go:build e2e

package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/webfabric/weft/scripts/kubo"
)

// TestKuboToTab has a tab fetch, through a relay that is connected to a real
// Kubo, what only that Kubo has.
func TestKuboToTab(t *testing.T) {
	t.Parallel()
	r := startRelay(t)
	k := kubo.Start(t)
	data := make([]byte, 3<<20+1)
	rand.NewChaCha8([32]byte{7}).Read(data)
	sum := sha256.Sum256(data)
	root := k.Add(t, site{"sub/hello.js": `export default "from Kubo";`, "big.bin": string(data), "empty.txt": ""}.write(t))
	for _, a := range r.server.Addrs() {
		if addr := a.String(); strings.Contains(addr, "/ip4/127.0.0.1/tcp/") && !strings.Contains(addr, "/ws") {
			k.Connect(t, addr)
			break
		}
	}

	p := r.joined(newVisitor(t))
	if got := eval[string](p, `async (root) => (await node.import(root, "sub/hello.js")).default`, root); got != "from Kubo" {
		t.Errorf("import = %q", got)
	}
	if got := eval[string](p, `async (root) => {
		const r = await node.fetch(root, "big.bin");
		return new Uint8Array(await crypto.subtle.digest("SHA-256", await r.arrayBuffer())).toHex();
	}`, root); got != hex.EncodeToString(sum[:]) {
		t.Errorf("big.bin has the SHA-256 %s, want %x", got, sum)
	}
	if got := eval[string](p, `async (root) => { const r = await node.fetch(root, "empty.txt"); return r.status + " " + (await r.text()).length; }`, root); got != "200 0" {
		t.Errorf("empty.txt: %s", got)
	}
	if got := p.status().Bytes.FromRelay; got < int64(len(data)) {
		t.Errorf("%d bytes by Bitswap, want all %d", got, len(data))
	}
}
