module github.com/libp2p/go-netroute

go 1.26.0
