package netlab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// mtu is that of every node's interface, in bytes: Ethernet's.
const mtu = 1500

// labs counts the labs of this process, so that their namespaces have names of
// their own.
var labs struct {
	sync.Mutex
	n int
}

// A Lab is an internet. Close ends it, when all processes on its nodes have.
type Lab struct {
	number int
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	nodes []*Node
	to    map[netip.Addr]*Node // by outer address
}

// A Node is a network namespace with one interface, eth0.
type Node struct {
	// Addr is where others reach it: the router's outer address if there is
	// one.
	Addr netip.Addr

	lab      *Lab
	ns       string
	inside   netip.Addr
	router   *router // nil for none
	tun      *os.File
	up, down *pipe
}

// New returns a lab without nodes.
func New() *Lab {
	labs.Lock()
	defer labs.Unlock()
	labs.n++
	l := &Lab{number: labs.n, to: map[netip.Addr]*Node{}}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// Close removes the nodes.
func (l *Lab) Close() error {
	l.cancel()
	l.mu.Lock()
	nodes := l.nodes
	l.nodes = nil
	l.mu.Unlock()
	var errs []error
	for _, n := range nodes {
		errs = append(errs, n.tun.Close(), ip("netns", "del", n.ns))
	}
	l.wg.Wait()
	return errors.Join(errs...)
}

// Node adds a node behind a router and a line. Its outer address is of
// 203.0.113.0/24, which is there for examples (RFC 5737), its inner one of
// 10.0.0.0/8.
func (l *Lab) Node(nat NAT, line Line) (_ *Node, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := len(l.nodes) + 1
	n := &Node{
		lab:    l,
		ns:     fmt.Sprintf("weft%d-%d-%d", os.Getpid(), l.number, id),
		Addr:   netip.AddrFrom4([4]byte{203, 0, 113, byte(id)}),
		inside: netip.AddrFrom4([4]byte{10, 0, byte(id), 2}),
	}
	if nat == NoNAT {
		n.inside = n.Addr
	} else {
		n.router = newRouter(nat, n.Addr)
	}
	if err := ip("netns", "add", n.ns); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoNamespace, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ip("netns", "del", n.ns))
		}
	}()
	name := fmt.Sprintf("weft%x.%x.%x", os.Getpid()&0xffff, l.number, id) // 15 bytes at most
	if n.tun, err = openTUN(name); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoNamespace, err)
	}
	for _, args := range []string{
		"link set " + name + " netns " + n.ns + " name eth0",
		"-n " + n.ns + " link set lo up",
		"-n " + n.ns + " addr add " + n.inside.String() + "/32 dev eth0",
		fmt.Sprintf("-n %s link set eth0 mtu %d up", n.ns, mtu),
		"-n " + n.ns + " route add default dev eth0",
	} {
		if err := ip(strings.Fields(args)...); err != nil {
			return nil, errors.Join(err, n.tun.Close())
		}
	}
	n.up = newPipe(line, l.route)
	n.down = newPipe(line, func(b []byte) { n.tun.Write(b) }) // an interface that is down loses it
	l.nodes = append(l.nodes, n)
	l.to[n.Addr] = n
	l.wg.Go(func() { n.up.run(l.ctx) })
	l.wg.Go(func() { n.down.run(l.ctx) })
	l.wg.Go(n.read)
	return n, nil
}

// read carries what the node sends, until its interface is closed.
func (n *Node) read() {
	buf := make([]byte, mtu)
	for {
		size, err := n.tun.Read(buf)
		if err != nil {
			return
		}
		p, ok := parse(append([]byte(nil), buf[:size]...))
		if !ok {
			continue
		}
		if n.router != nil {
			n.router.leave(&p)
		}
		n.up.send(p.b)
	}
}

// route hands b to the node that it is for.
func (l *Lab) route(b []byte) {
	p, ok := parse(b)
	if !ok {
		return
	}
	l.mu.Lock()
	n := l.to[p.dst.Addr()]
	l.mu.Unlock()
	if n == nil || n.router != nil && !n.router.enter(&p) {
		return
	}
	n.down.send(p.b)
}

// openTUN makes a TUN device.
func openTUN(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make TUN device %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

func ip(args ...string) error {
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// do calls f on a thread that is in the node's namespace: what it starts or
// opens is there.
func (n *Node) do(f func() error) error {
	done := make(chan error)
	go func() {
		// The thread ends with the goroutine, which does not unlock it.
		runtime.LockOSThread()
		done <- func() error {
			ns, err := os.Open("/run/netns/" + n.ns)
			if err != nil {
				return fmt.Errorf("%w: %w", ErrNoNamespace, err)
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("%w: enter %s: %w", ErrNoNamespace, n.ns, err)
			}
			return f()
		}()
	}()
	return <-done
}

// Start starts cmd on the node.
func (n *Node) Start(cmd *exec.Cmd) error { return n.do(cmd.Start) }

// Command is a command line's beginning that runs the rest on the node.
func (n *Node) Command() []string { return []string{"ip", "netns", "exec", n.ns} }

// Client returns an HTTP client on the node, for hosts that are addresses.
func (n *Node) Client() *http.Client {
	return &http.Client{
		Timeout: 30 * time.Second,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, network, addr string) (c net.Conn, err error) {
				err = n.do(func() error {
					var d net.Dialer
					c, err = d.DialContext(ctx, network, addr)
					return err
				})
				return c, err
			},
		},
	}
}
