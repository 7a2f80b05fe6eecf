// Package prometheus stands in for client_golang in the tab, which serves no
// metrics: go-libp2p declares its metrics as it starts, and uses them only under
// a tracer, which the tab's node does not make. Using one panics.
package prometheus

const leftOut = "prometheus: left out of the tab: it has no metrics"

// Opts names a metric.
type Opts struct{ Namespace, Subsystem, Name, Help string }

// CounterOpts names a counter.
type CounterOpts Opts

// GaugeOpts names a gauge.
type GaugeOpts Opts

// HistogramOpts names a histogram.
type HistogramOpts struct {
	Namespace, Subsystem, Name, Help string
	Buckets                          []float64
}

// A Collector is any metric.
type Collector interface{ collector() }

// A Registerer registers metrics; there is none.
type Registerer interface{ Register(Collector) error }

// DefaultRegisterer refuses by a panic.
var DefaultRegisterer Registerer = refusal{}

type refusal struct{}

func (refusal) Register(Collector) error { panic(leftOut) }

// AlreadyRegisteredError is what callers ask an error to be; none is.
type AlreadyRegisteredError struct{}

func (AlreadyRegisteredError) Error() string { return leftOut }

// A metric of whatever kind.
type metric struct{}

func (metric) collector()      {}
func (metric) Inc()            { panic(leftOut) }
func (metric) Dec()            { panic(leftOut) }
func (metric) Add(float64)     { panic(leftOut) }
func (metric) Set(float64)     { panic(leftOut) }
func (metric) Observe(float64) { panic(leftOut) }

// A Counter counts.
type Counter interface {
	Collector
	Inc()
	Add(float64)
}

// A Gauge is set.
type Gauge interface {
	Collector
	Inc()
	Dec()
	Add(float64)
	Set(float64)
}

// A Histogram observes.
type Histogram interface {
	Collector
	Observe(float64)
}

// An Observer observes.
type Observer interface{ Observe(float64) }

// A CounterVec is counters by labels.
type CounterVec struct{ metric }

// A GaugeVec is gauges by labels.
type GaugeVec struct{ metric }

// A HistogramVec is histograms by labels.
type HistogramVec struct{ metric }

func NewCounter(CounterOpts) Counter                        { return metric{} }
func NewGauge(GaugeOpts) Gauge                              { return metric{} }
func NewHistogram(HistogramOpts) Histogram                  { return metric{} }
func NewCounterVec(CounterOpts, []string) *CounterVec       { return &CounterVec{} }
func NewGaugeVec(GaugeOpts, []string) *GaugeVec             { return &GaugeVec{} }
func NewHistogramVec(HistogramOpts, []string) *HistogramVec { return &HistogramVec{} }
func (*CounterVec) WithLabelValues(...string) Counter       { panic(leftOut) }
func (*GaugeVec) WithLabelValues(...string) Gauge           { panic(leftOut) }
func (*HistogramVec) WithLabelValues(...string) Observer    { panic(leftOut) }
func ExponentialBuckets(_, _ float64, _ int) []float64      { return nil }
func LinearBuckets(_, _ float64, _ int) []float64           { return nil }
