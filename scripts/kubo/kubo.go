// Package kubo runs a real Kubo for tests to meet: private, on loopback only,
// knowing nobody but who is connected to it.
//
// build.sh builds it, once, into a cache outside the tree; [Start] calls that.
// The tests in this directory (tag kubo) hold Weft to Kubo's CIDs and Bitswap.
package kubo

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Node is a repository, and while its daemon runs, a peer.
type Node struct {
	bin, repo string
}

// find returns the binary, building it if need be.
var find = sync.OnceValues(func() (string, error) {
	_, here, _, ok := runtime.Caller(0)
	if !ok {
		return "", fmt.Errorf("kubo: no source path: was this built with -trimpath?")
	}
	cmd := exec.Command(filepath.Join(filepath.Dir(here), "build.sh"))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("kubo: build.sh: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
})

// settings are applied to each repository, on top of the profiles test and
// unixfs-v1-2025: nothing but loopback, nobody but whom a test connects.
var settings = []string{
	`Addresses.Swarm=["/ip4/127.0.0.1/tcp/0","/ip4/127.0.0.1/udp/0/quic-v1"]`,
	`Routing.Type="none"`,
	`Bootstrap=[]`,
	`AutoConf.Enabled=false`,
	`AutoTLS.Enabled=false`,
	`Discovery.MDNS.Enabled=false`,
	`Provide.Enabled=false`,
	`Version.SwarmCheckEnabled=false`,
	`Swarm.DisableNatPortMap=true`,
	`Swarm.RelayClient.Enabled=false`,
	`HTTPRetrieval.Enabled=false`,
	`Plugins.Plugins.telemetry.Disabled=true`,
}

// New makes a repository without running it: enough to add and to hash.
func New(t testing.TB) *Node {
	t.Helper()
	bin, err := find()
	if err != nil {
		t.Fatal(err)
	}
	n := &Node{bin: bin, repo: filepath.Join(t.TempDir(), "kubo")}
	n.Run(t, "init", "--profile", "test,unixfs-v1-2025")
	for _, s := range settings {
		key, value, _ := strings.Cut(s, "=")
		n.Run(t, "config", "--json", key, value)
	}
	return n
}

// Start makes a repository and runs its daemon until the test ends.
func Start(t testing.TB) *Node {
	t.Helper()
	n := New(t)
	cmd := n.command(context.Background(), "daemon")
	log := &buffer{changed: make(chan struct{}, 1)}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
		if t.Failed() {
			t.Logf("Kubo's log:\n%s", log)
		}
	})
	limit := time.After(time.Minute)
	for !strings.Contains(log.String(), "Daemon is ready") {
		select {
		case <-log.changed:
		case <-ended:
			t.Fatalf("Kubo ended:\n%s", log)
		case <-limit:
			t.Fatalf("Kubo is not ready after a minute:\n%s", log)
		}
	}
	return n
}

func (n *Node) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, n.bin, args...)
	cmd.Env = append(os.Environ(), "IPFS_PATH="+n.repo, "IPFS_TELEMETRY=off", "GOLOG_LOG_LEVEL=error")
	return cmd
}

// Run runs ipfs with args and returns what it prints.
func (n *Node) Run(t testing.TB, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := n.command(ctx, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("ipfs %s: %v\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return out
}

// Add adds path, a file or a folder, and returns its root CID.
func (n *Node) Add(t testing.TB, path string) string {
	t.Helper()
	return strings.TrimSpace(string(n.Run(t, "add", "-r", "-Q", path)))
}

// Hash returns the root CID of path, and stores nothing. args are more flags of
// ipfs add.
func (n *Node) Hash(t testing.TB, path string, args ...string) string {
	t.Helper()
	args = append([]string{"add", "-r", "-Q", "--only-hash"}, append(args, path)...)
	return strings.TrimSpace(string(n.Run(t, args...)))
}

// Cat returns the file at path, CID[/name], from wherever Kubo finds it.
func (n *Node) Cat(t testing.TB, path string) []byte {
	t.Helper()
	return n.Run(t, "cat", path)
}

// Connect connects the running node to a multiaddr with /p2p.
func (n *Node) Connect(t testing.TB, addr string) {
	t.Helper()
	n.Run(t, "swarm", "connect", addr)
}

// ID is the node's peer ID.
func (n *Node) ID(t testing.TB) string {
	t.Helper()
	return strings.TrimSpace(string(n.Run(t, "config", "Identity.PeerID")))
}

// Addrs are the running node's addresses, each with /p2p.
func (n *Node) Addrs(t testing.TB) []string {
	t.Helper()
	id := n.ID(t)
	var addrs []string
	for addr := range strings.FieldsSeq(string(n.Run(t, "swarm", "addrs", "listen"))) {
		addrs = append(addrs, addr+"/p2p/"+id)
	}
	return addrs
}

// buffer keeps what is written, and tells that something was.
type buffer struct {
	mu      sync.Mutex
	b       bytes.Buffer
	changed chan struct{}
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case b.changed <- struct{}{}:
	default:
	}
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
