package server

import (
	"net/http"
	"time"

	bsmsg "github.com/ipfs/boxo/bitswap/message"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	pbv2 "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/webfabric/weft/shared/bcin"
)

// metrics counts what the relay does. Labels come from fixed sets.
type metrics struct {
	reg *prometheus.Registry

	httpRequests *prometheus.CounterVec // status: 2xx, 3xx, 4xx, 5xx
	httpBytes    prometheus.Counter
	upgrades     *prometheus.CounterVec // status: accepted, refused
	sentBytes    prometheus.Counter
	sentBlocks   prometheus.Counter
	recvBytes    prometheus.Counter
	recvBlocks   prometheus.Counter
	blockReads   *prometheus.CounterVec // where: kept, cache, miss
	reservations *prometheus.CounterVec // status: ok, refused
	held         prometheus.Gauge
	circuits     *prometheus.CounterVec // status: ok, refused
	circuitsOpen prometheus.Gauge
	circuitBytes prometheus.Counter
	publishes    *prometheus.CounterVec // status: done, failed, refused
	egress       *prometheus.CounterVec // path: gateway, static, api, bitswap, circuit
	rendezvous   *prometheus.CounterVec // op: register, renew, discover, watch, other; status: ok, refused
	stun         *prometheus.CounterVec // status: answered, limited, ignored
}

func newMetrics() *metrics {
	m := &metrics{reg: prometheus.NewRegistry()}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "weft_relay_" + name, Help: help})
		m.reg.MustRegister(c)
		return c
	}
	vec := func(name, help, label string, values ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weft_relay_" + name, Help: help}, []string{label})
		for _, v := range values {
			c.WithLabelValues(v)
		}
		m.reg.MustRegister(c)
		return c
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "weft_relay_" + name, Help: help})
		m.reg.MustRegister(g)
		return g
	}
	m.httpRequests = vec("http_requests_total", "HTTP requests answered.", "status", "2xx", "3xx", "4xx", "5xx")
	m.httpBytes = counter("http_sent_bytes_total", "Bytes of HTTP response bodies sent.")
	m.upgrades = vec("websocket_upgrades_total", "WebSocket upgrades for libp2p.", "status", "accepted", "refused")
	m.sentBytes = counter("bitswap_sent_bytes_total", "Bytes of blocks sent by Bitswap.")
	m.sentBlocks = counter("bitswap_sent_blocks_total", "Blocks sent by Bitswap.")
	m.recvBytes = counter("bitswap_received_bytes_total", "Bytes of blocks received by Bitswap.")
	m.recvBlocks = counter("bitswap_received_blocks_total", "Blocks received by Bitswap.")
	m.blockReads = vec("block_reads_total", "Reads of the blockstore, by where the block was.", "where", "kept", "cache", "miss")
	m.reservations = vec("reservations_total", "Circuit relay reservations asked for.", "status", "ok", "refused")
	m.held = gauge("reservations", "Circuit relay reservations held.")
	m.circuits = vec("circuits_total", "Circuits asked for.", "status", "ok", "refused")
	m.circuitsOpen = gauge("circuits", "Circuits open.")
	m.circuitBytes = counter("circuit_bytes_total", "Bytes relayed through circuits.")
	m.publishes = vec("publishes_total", "Requests to publish.", "status", "done", "failed", "refused")
	m.egress = vec("egress_bytes_total", "Bytes sent to others: bodies of HTTP responses, blocks sent by Bitswap, what circuits carried.", "path", pathGateway, pathStatic, pathAPI, pathBitswap, pathCircuit)
	m.rendezvous = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weft_bcin_requests_total", Help: "Requests to the rendezvous."}, []string{"op", "status"})
	m.reg.MustRegister(m.rendezvous)
	m.stun = vec("stun_requests_total", "Packets to the STUN port.", "status", "answered", "limited", "ignored")
	m.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// watch adds what is read when it is asked for.
func (m *metrics) watch(h host.Host, roots func() int) {
	gauge := func(name, help string, f func() int) {
		m.reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "weft_relay_" + name, Help: help}, func() float64 { return float64(f()) }))
	}
	gauge("connections", "libp2p connections open.", func() int { return len(h.Network().Conns()) })
	gauge("peers", "Peers connected.", func() int { return len(h.Network().Peers()) })
	gauge("roots", "Roots kept.", roots)
}

// watchRendezvous adds what the rendezvous holds when it is asked for.
func (m *metrics) watchRendezvous(stats func() bcin.Stats) {
	gauge := func(name, help string, f func(bcin.Stats) int) {
		m.reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "weft_bcin_" + name, Help: help}, func() float64 { return float64(f(stats())) }))
	}
	gauge("records", "Records of nodes kept.", func(s bcin.Stats) int { return s.Records })
	gauge("origins", "Origins with a record or a watcher.", func(s bcin.Stats) int { return s.Origins })
	gauge("watchers", "Nodes told of records as they change.", func(s bcin.Stats) int { return s.Watchers })
}

// What the relay sends its bytes for.
const (
	pathGateway = "gateway" // /ipfs
	pathStatic  = "static"  // the site's own files, the node among them
	pathAPI     = "api"     // the configuration, publishing, metrics, errors
	pathBitswap = "bitswap"
	pathCircuit = "circuit"
)

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.reg, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second})
}

// bitswapTracer counts blocks, and hands wants to the forwarder.
type bitswapTracer struct {
	m        *metrics
	received func(peer.ID, bsmsg.BitSwapMessage)
}

func (t bitswapTracer) MessageReceived(p peer.ID, msg bsmsg.BitSwapMessage) {
	for _, b := range msg.Blocks() {
		t.m.recvBlocks.Inc()
		t.m.recvBytes.Add(float64(len(b.RawData())))
	}
	t.received(p, msg)
}

func (t bitswapTracer) MessageSent(_ peer.ID, msg bsmsg.BitSwapMessage) {
	for _, b := range msg.Blocks() {
		t.m.sentBlocks.Inc()
		t.m.sentBytes.Add(float64(len(b.RawData())))
		t.m.egress.WithLabelValues(pathBitswap).Add(float64(len(b.RawData())))
	}
}

// circuitTracer counts what the circuit relay does.
type circuitTracer struct{ m *metrics }

var _ circuit.MetricsTracer = circuitTracer{}

func (circuitTracer) RelayStatus(bool) {}

func (t circuitTracer) ConnectionOpened()                { t.m.circuitsOpen.Inc() }
func (t circuitTracer) ConnectionClosed(_ time.Duration) { t.m.circuitsOpen.Dec() }
func (t circuitTracer) ReservationClosed(n int)          { t.m.held.Sub(float64(n)) }

func (t circuitTracer) BytesTransferred(n int) {
	t.m.circuitBytes.Add(float64(n))
	t.m.egress.WithLabelValues(pathCircuit).Add(float64(n))
}

func (t circuitTracer) ConnectionRequestHandled(s pbv2.Status) {
	t.m.circuits.WithLabelValues(circuitStatus(s)).Inc()
}

func (t circuitTracer) ReservationAllowed(renewal bool) {
	if !renewal {
		t.m.held.Inc()
	}
}

func (t circuitTracer) ReservationRequestHandled(s pbv2.Status) {
	t.m.reservations.WithLabelValues(circuitStatus(s)).Inc()
}

func circuitStatus(s pbv2.Status) string {
	if s == pbv2.Status_OK {
		return "ok"
	}
	return "refused"
}
