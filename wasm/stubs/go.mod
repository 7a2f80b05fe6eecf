module github.com/webfabric/weft/wasm/stubs

go 1.26.0

require (
	github.com/crackcomm/go-gitignore v0.0.0
	github.com/decred/dcrd/dcrec/secp256k1/v4 v4.0.0
	github.com/huin/goupnp v0.0.0
	github.com/ipfs/go-log/v2 v2.0.0
	github.com/jackpal/go-nat-pmp v0.0.0
	github.com/koron/go-ssdp v0.0.0
	github.com/libp2p/go-libp2p-asn-util v0.0.0
	github.com/libp2p/go-netroute v0.0.0
	github.com/multiformats/go-multicodec v0.0.0
	github.com/prometheus/client_golang v0.0.0
	go.opentelemetry.io/otel v1.44.0
	go.opentelemetry.io/otel/trace v1.44.0
	go.uber.org/zap v1.28.0
)

replace (
	github.com/crackcomm/go-gitignore => ./gitignore
	github.com/decred/dcrd/dcrec/secp256k1/v4 => ./secp256k1
	github.com/huin/goupnp => ./goupnp
	github.com/ipfs/go-log/v2 => ./golog
	github.com/jackpal/go-nat-pmp => ./natpmp
	github.com/koron/go-ssdp => ./ssdp
	github.com/libp2p/go-libp2p-asn-util => ./asnutil
	github.com/libp2p/go-netroute => ./netroute
	github.com/multiformats/go-multicodec => ./multicodec
	github.com/prometheus/client_golang => ./prometheus
	go.opentelemetry.io/otel => ./otel
	go.opentelemetry.io/otel/trace => ./oteltrace
	go.uber.org/zap => ./zap
)
