// Package stubs_test shows what the modules beside it do when they are reached.
// It is a module of its own, so that the originals are nothing to go.mod.
package stubs_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"

	ignore "github.com/crackcomm/go-gitignore"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"github.com/huin/goupnp"
	"github.com/huin/goupnp/dcps/internetgateway2"
	golog "github.com/ipfs/go-log/v2"
	natpmp "github.com/jackpal/go-nat-pmp"
	"github.com/koron/go-ssdp"
	asnutil "github.com/libp2p/go-libp2p-asn-util"
	"github.com/libp2p/go-netroute"
	"github.com/multiformats/go-multicodec"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
)

// leftOut is in every error and panic of a stub: web/e2e looks for it in what
// nodes say.
const leftOut = "left out of the tab"

// TestStubs: each module of wasm/stubs says so loudly when it is reached where
// something is missing. Those that the node does reach do what the real ones do
// unconfigured: nothing.
func TestStubs(t *testing.T) {
	err := func(f func() error) func() string { return func() string { return fmt.Sprint(f()) } }
	panics := func(f func()) func() string {
		return func() (text string) {
			defer func() { text = fmt.Sprint(recover()) }()
			f()
			return ""
		}
	}
	loud := map[string][]func() string{
		"asnutil": {panics(func() { asnutil.AsnForIPv6(net.IPv6loopback) })},
		"gitignore": {
			err(func() error { _, err := ignore.CompileIgnoreLines("*"); return err }),
			err(func() error { _, err := ignore.CompileIgnoreFileAndLines("x"); return err }),
			panics(func() { new(ignore.GitIgnore).MatchesPath("x") }),
		},
		"goupnp": {
			err(func() error { _, err := goupnp.DiscoverDevicesCtx(t.Context(), "x"); return err }),
			err(func() error { _, err := goupnp.DeviceByURLCtx(t.Context(), nil); return err }),
			panics(func() { new(goupnp.Service).NewSOAPClient() }),
			panics(func() { new(goupnp.Device).VisitServices(nil) }),
			panics(func() { new(internetgateway2.WANIPConnection1).GetExternalIPAddress() }),
			panics(func() { new(internetgateway2.WANPPPConnection1).DeletePortMappingCtx(t.Context(), "", 0, "") }),
		},
		"natpmp": {
			err(func() error { _, err := natpmp.NewClient(nil).GetExternalAddress(); return err }),
			err(func() error { _, err := natpmp.NewClientWithTimeout(nil, 0).AddPortMapping("", 0, 0, 0); return err }),
		},
		"netroute": {
			err(func() error { _, err := netroute.New(); return err }),
			panics(func() { new(netroute.Router).Route(nil) }),
		},
		"prometheus": {
			panics(func() { prometheus.NewCounter(prometheus.CounterOpts{}).Inc() }),
			panics(func() { prometheus.NewGauge(prometheus.GaugeOpts{}).Set(1) }),
			panics(func() { prometheus.NewHistogram(prometheus.HistogramOpts{}).Observe(1) }),
			panics(func() { prometheus.NewCounterVec(prometheus.CounterOpts{}, nil).WithLabelValues("x") }),
			panics(func() { prometheus.NewGaugeVec(prometheus.GaugeOpts{}, nil).Set(1) }),
			panics(func() { prometheus.NewHistogramVec(prometheus.HistogramOpts{}, nil).WithLabelValues("x") }),
			panics(func() { prometheus.DefaultRegisterer.Register(prometheus.NewCounter(prometheus.CounterOpts{})) }),
		},
		"secp256k1": {
			err(func() error { _, err := secp256k1.GeneratePrivateKey(); return err }),
			err(func() error { _, err := secp256k1.ParsePubKey(nil); return err }),
			err(func() error { _, err := ecdsa.ParseDERSignature(nil); return err }),
			panics(func() { secp256k1.PrivKeyFromBytes(nil) }),
			panics(func() { new(secp256k1.PrivateKey).PubKey() }),
			panics(func() { new(secp256k1.PublicKey).SerializeCompressed() }),
			panics(func() { ecdsa.Sign(nil, nil) }),
			panics(func() { new(ecdsa.Signature).Verify(nil, nil) }),
		},
		"ssdp": {err(func() error { _, err := ssdp.Search(ssdp.All, 1, ""); return err })},
	}
	quiet := map[string]func() bool{
		"golog": func() bool {
			var out strings.Builder
			old := slog.Default()
			defer slog.SetDefault(old)
			slog.SetDefault(slog.New(slog.NewTextHandler(&out, nil)))
			l := golog.Logger("here")
			l.Warnf("dropped")
			l.Errorw("kept", "why", "it matters")
			return !strings.Contains(out.String(), "dropped") && strings.Contains(out.String(), "level=ERROR msg=kept system=here why=\"it matters\"")
		},
		"multicodec": func() bool { return strings.Contains(multicodec.Libp2pKey.String(), "72") },
		"otel": func() bool {
			_, span := otel.Tracer("x").Start(context.Background(), "y")
			return !span.IsRecording()
		},
		"oteltrace": func() bool { return !trace.SpanFromContext(context.Background()).IsRecording() },
		"zap":       func() bool { return new(zap.Logger).Check(zap.ErrorLevel, "x") == nil },
	}
	dirs, readErr := os.ReadDir(".")
	if readErr != nil {
		t.Fatal(readErr)
	}
	for _, d := range dirs {
		name := d.Name()
		if !d.IsDir() {
			continue
		}
		if loud[name] == nil && quiet[name] == nil {
			t.Errorf("wasm/stubs/%s is not tested", name)
		}
		for i, f := range loud[name] {
			if got := f(); !strings.Contains(got, leftOut) {
				t.Errorf("%s, sample %d: %q, want %q in it", name, i, got, leftOut)
			}
		}
		if f := quiet[name]; f != nil && !f() {
			t.Errorf("%s does otherwise than its original, unconfigured", name)
		}
	}
}
