# Moiré. `make help` lists what there is to do.
export CGO_ENABLED ?= 0
BIN := bin
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X moire.dev/moire/cli.Version=$(VERSION) -X main.version=$(VERSION)
BINARIES := moire moired moire-node moire-proxy
TOOL := go tool -modfile=tools/go.mod

.PHONY: help build gen test check demo lab ha long reliable differential bench bench-proxy bench-mesh traces conformance attack fuzz clean $(BINARIES)

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

build: $(BINARIES) ## build the binaries into bin/ (the first time takes minutes: moired holds an API server)

$(BINARIES):
	@echo "building $@"
	@go build -ldflags '$(LDFLAGS)' -o $(BIN)/$@ ./cmd/$@

gen: ## make every generated file anew (needs clang and protoc)
	@deploy/gen

test: ## run all tests; root tests make network namespaces and need root
	@deploy/test

check: ## what CI runs: format, vet, lint, house plan, generated files, docs, race and root tests
	@deploy/check

demo: build ## two nodes, two tenants with the same addresses, on this machine (root)
	@$(BIN)/moire demo

lab: build ## run the scenario files with real traffic (root)
	@MOIRE_BIN=$(CURDIR)/$(BIN) go test ./lab/... -count=1 -v -run Scenario

ha: ## kill and freeze control planes and members of etcd for 5 minutes (needs etcd)
	@MOIRE_LONG=5m go test ./control -count=1 -v -timeout 20m -run ThreeControls

long: build ## the data path with all repetitions, and a minute without a control plane (root)
	@MOIRE_LONG=1m MOIRE_REQUIRE_ROOT=1 go test ./datapath/... -count=1 -timeout 40m
	@MOIRE_LONG=1m MOIRE_REQUIRE_ROOT=1 MOIRE_BIN=$(CURDIR)/$(BIN) go test ./lab -count=1 -run ControlPlaneGone

reliable: build ## mesh traffic while all is killed, replaced, rotated and changed, each for at most LONG=1h (root; ONE=AgentsKilled: that alone)
	@MOIRE_LONG=$(or $(LONG),1h) MOIRE_REQUIRE_ROOT=1 MOIRE_BIN=$(CURDIR)/$(BIN) go test ./lab -count=1 -v -timeout 12h -run 'Reliable$$/$(or $(ONE),.)'

differential: build ## random requests in two tenants, 2,100 with each number of proxies, against what explain says (root)
	@MOIRE_LONG=1m MOIRE_REQUIRE_ROOT=1 MOIRE_BIN=$(CURDIR)/$(BIN) go test ./lab -count=1 -v -timeout 60m -run 'Differential|ProxyModes'

traces: ## judge spans by a real OpenTelemetry collector, trace context by W3C's suite (python3-aiohttp)
	@[ -x $(BIN)/tools/otelcol ] || proxy/telemetry/testdata/collector/build $(BIN)/tools/otelcol
	@[ -d $(BIN)/tools/trace-context ] || git clone -q https://github.com/w3c/trace-context $(BIN)/tools/trace-context
	@git -C $(BIN)/tools/trace-context checkout -q acab820be9db7b3433668baa5cdd43f57f4c4be0
	@MOIRE_OTELCOL=$(CURDIR)/$(BIN)/tools/otelcol MOIRE_TRACE_CONTEXT=$(CURDIR)/$(BIN)/tools/trace-context/test \
		go test -tags judge ./proxy/telemetry -count=1 -v -run 'RealCollector|W3CSuite'

bench: build ## measure against raw veth, Linux bridge and VXLAN (root, iperf3)
	@bench/run

bench-proxy: ## measure the proxy against HAProxy, nginx and Envoy, 40 minutes (QUICK=1: 4)
	@bench/proxy/run

bench-mesh: build ## measure the whole mesh against no proxy and a pair of Envoys (root), 8 minutes (QUICK=1: 2)
	@bench/mesh/run

conformance: moire-proxy ## outside judges of the proxy: h2spec, gRPC, smuggling, WebSocket, curl, testssl.sh, slowhttptest (PROXY=nginx: of a peer)
	@proxy/judge/install $(if $(filter envoy,$(PROXY)),peers)
	@go build -o $(BIN)/judge ./proxy/judge
	@$(BIN)/judge -proxy $(or $(PROXY),moire) conformance

attack: moire-proxy ## floods, bombs, stalls and slowloris against the proxy, 20 minutes; prints a table for bench/RESULTS.md
	@go build -o $(BIN)/judge ./proxy/judge
	@$(BIN)/judge -proxy $(or $(PROXY),moire) attack

fuzz: ## every fuzz target of the proxy for FUZZTIME (10m); what they find is kept under testdata
	@go build -o $(BIN)/judge ./proxy/judge
	@$(BIN)/judge -fuzztime $(or $(FUZZTIME),10m) fuzz

clean: ## remove what was built
	@rm -rf $(BIN)
