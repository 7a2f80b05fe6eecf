# Weft. `make run` and `make test` are all that most people need; README.md
# says what each does and how long it takes. Every target sets itself up.

SHELL      := /bin/bash -euo pipefail
GO         ?= go
# The tab's node leaves modules out that it never needs: scripts/wasmmod.sh.
WASMENV    := GOOS=js GOARCH=wasm GOFLAGS="$(GOFLAGS) -modfile=$(CURDIR)/build/wasm.mod"
WASM       := $(WASMENV) $(GO)
LDFLAGS    := -trimpath -ldflags='-s -w'
BROTLI     ?= 5
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.7.0
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.1.4
# Two cores: packages are tested one at a time, and each has its own goroutines.
TEST       := $(GO) test -p 1 -timeout 10m
RUNNER     := $(CURDIR)/bin/wasmexec

.PHONY: all build wasmmod wasm weft release run test check fmt vet staticcheck types vuln deps unit unit-js kubo netlab e2e size bench measure fuzz soak clean

all: build

build: weft ## bin/weft and web/node.wasm

wasmmod: ## the mod file of the tab's node: go.mod with the stubs of wasm/stubs
	scripts/wasmmod.sh

wasm: wasmmod ## the tab's node, and its compressed form for the relay to carry
	$(WASM) build $(LDFLAGS) -o build/node.wasm ./wasm
	$(GO) run ./scripts/pack build/node.wasm build/node.wasm.new
	@mkdir -p web/built
	@if cmp -s build/node.wasm.new web/node.wasm && [ -f web/built/node.wasm.br ] && [ "$$(cat build/brotli 2>/dev/null || true)" -ge "$(BROTLI)" ]; then \
		rm build/node.wasm.new; \
	else \
		mv build/node.wasm.new web/node.wasm && \
		$(GO) run ./scripts/compress -q $(BROTLI) web/node.wasm web/built/node.wasm.br && \
		echo $(BROTLI) > build/brotli; \
	fi
	@install -m 644 "$$($(GO) env GOROOT)/lib/wasm/wasm_exec.js" web/built/wasm_exec.js

weft: wasm
	$(GO) build $(LDFLAGS) -o bin/weft ./relay

release: ## as build, with the node compressed as well as brotli can (minutes)
	$(MAKE) build BROTLI=11

run: build ## start a relay with embedded defaults and print its URL
	bin/weft relay

test: ## every functional test; what CI runs
	$(MAKE) check
	$(MAKE) kubo
	$(MAKE) netlab
	$(MAKE) e2e

check: fmt vet staticcheck types vuln deps unit unit-js

fmt:
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "gofmt would change:"; echo "$$out"; exit 1; fi

vet: wasmmod
	$(GO) vet -tags 'e2e kubo netlab' ./...
	GOOS=js GOARCH=wasm $(GO) vet ./shared/...
	$(WASM) vet ./wasm/...

staticcheck:
	$(GO) run $(STATICCHECK) -tags 'e2e kubo netlab' ./...
	GOBIN=$(CURDIR)/bin $(GO) install $(STATICCHECK)
	GOOS=js GOARCH=wasm bin/staticcheck ./shared/... ./wasm/...

types: ## tsc over the JSDoc types, and the plain JavaScript's own tests
	scripts/setup.sh node
	npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	npm test

vuln: ## known vulnerabilities, where the database can be had
	@mkdir -p build
	@if $(GO) run $(GOVULNCHECK) ./... > build/vuln.log 2>&1; then tail -n 1 build/vuln.log; \
	elif grep -qE 'fetching vulnerabilities|dial tcp|no such host|Forbidden|proxyconnect|connection refused|410 Gone|404 Not Found|403' build/vuln.log; then echo "govulncheck: its database cannot be reached from here; not checked"; \
	else cat build/vuln.log; exit 1; fi

deps: wasmmod ## who may import whom, and what stays out of the tab, with reasons and stubs
	$(GO) test -count=1 -run 'TestImports|TestTab' .
	cd wasm/stubs && $(GO) test -count=1 ./...

unit: wasmmod ## native unit tests, with the race detector
	scripts/setup.sh gcc node
	$(TEST) -race . ./shared/... ./relay/... ./wasm/... ./scripts/...
	$(TEST) -run 'TestSuite|TestBitswap' ./relay/pionrtc # too slow for ICE with the race detector

unit-js: wasmmod ## the tab's own packages, in real Chromium
	scripts/setup.sh chromium
	$(GO) build -o bin/wasmexec ./scripts/wasmexec
	$(WASM) test -p 1 -timeout 10m -exec $(RUNNER) ./wasm/...

kubo: ## against a real Kubo, which is built once and cached
	scripts/kubo/build.sh
	$(TEST) -count=1 -tags kubo ./scripts/kubo/...

netlab: build ## peers behind bad lines and NATs, in network namespaces; as root
	scripts/setup.sh ip chromium
	$(TEST) -count=1 -v -tags netlab ./scripts/netlab/...

e2e: build ## a real relay, real pages in real Chromium, and once a real Kubo
	scripts/setup.sh chromium node
	scripts/setup.sh pages
	scripts/kubo/build.sh
	$(GO) test -count=1 -parallel 2 -timeout 30m -tags e2e ./web/e2e/...

size: wasm ## the tab's node in bytes, by package, against its budget
	rm -f build/named.wasm
	$(WASM) build -trimpath -ldflags='-w -dumpdep' -o build/named.wasm ./wasm 2>build/named.deps
	$(GO) build -o bin/size ./scripts/size
	GOFLAGS=-modfile=$(CURDIR)/build/wasm.mod bin/size web/node.wasm build/named.wasm build/named.deps

bench: build ## our figures beside the peers', from one run
	scripts/setup.sh chromium node
	scripts/bench/run.sh

measure: build ## long tasks in a page, and the node's memory, while 64 MiB and 1 GiB come in
	scripts/setup.sh chromium
	MEASURE=1 $(GO) test -count=1 -v -tags e2e -run TestLight ./web/e2e/...

fuzz: ## every fuzz target, FUZZTIME each
	scripts/fuzz.sh $${FUZZTIME:-60s}

soak: build ## a relay and tabs that come and go, for MINUTES, watching memory
	scripts/setup.sh chromium
	MINUTES=$${MINUTES:-10} $(GO) test -count=1 -v -timeout 0 -tags 'e2e soak' -run TestSoak ./web/e2e/...

clean:
	rm -rf bin build node_modules web/node.wasm
	find web/built -type f ! -name README.md -delete
