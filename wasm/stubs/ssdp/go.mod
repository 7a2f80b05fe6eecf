module github.com/koron/go-ssdp

go 1.26.0
