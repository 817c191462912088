# Two commands to begin with: make demo, make test. All of them: make help.

# Outside of tests nothing of muster needs cgo: the binary is static and runs on any Linux of
# its architecture.
export CGO_ENABLED ?= 0

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
# The race detector needs cgo, and cgo a C compiler.
RACE = $(shell command -v $${CC:-gcc} >/dev/null 2>&1 && go env GOARCH | grep -qE '^(amd64|arm64|ppc64le|riscv64|s390x)$$' && echo -race)

# Builds with GPUs need cgo, and what scripts/cuda-sdk.sh has put in .cuda.
CUDA = CGO_ENABLED=1 CGO_CFLAGS="-I$(CURDIR)/.cuda/include" CGO_LDFLAGS="-L$(CURDIR)/.cuda/lib -ldl"

.PHONY: help build build-cuda vet-cuda test-cuda cuda-kernels test-gpu bench-gpu pack-gpu demo test soak soak-promises soak-drain soak-elections soak-ring soak-many lint fmt proto bench bench-ring bench-server bench-net bench-cpu bench-optim clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 10 | sed 's/^/make /'

build: ## the one static binary: bin/muster
	go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/muster ./cmd/muster

build-cuda: ## bin/muster-cuda: the same, with GPUs (fetches CUDA's headers where there are none; runs without a GPU, too)
	scripts/cuda-sdk.sh
	$(CUDA) go build -tags cuda -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/muster-cuda ./cmd/muster

vet-cuda: ## go vet of what only the build with GPUs has
	scripts/cuda-sdk.sh
	$(CUDA) go vet -tags cuda ./trainer/device/cuda ./cmd/muster
	$(CUDA) go test -tags cuda -run 'TestLoadingCuBLAS' ./trainer/device/cuda # of a cuBLAS that is made up

test-cuda: build-cuda ## the binary with GPUs on made-up ones: copies, graphs, several cards, errors that cost a node its trainer (a minute)
	scripts/gpu-fake.sh

cuda-kernels: ## compile the GPU's kernels anew (NVRTC from PyPI, no GPU needed)
	scripts/cuda-sdk.sh --compiler
	python3 trainer/device/cuda/kernels/compile.py .cuda trainer/device/cuda/built

test-gpu: pack-gpu ## every operation and model on this machine's GPU beside the CPU; with compute-sanitizer where it is installed
	scripts/gpu-check.sh test sanitize

pack-gpu: build-cuda ## .gpu: all that scripts/gpu-check.sh needs on a machine with a GPU and without Go
	mkdir -p .gpu
	$(CUDA) go test -tags cuda -c -ldflags '-s -w' -o .gpu/cuda.test ./trainer/device/cuda
	cp bin/muster-cuda .gpu/

bench-gpu: pack-gpu ## training steps beside PyTorch on this machine's GPU, into bench/RESULTS-gpu.md (has never run)
	scripts/gpu-check.sh bench

demo: build ## three nodes train, one is killed half-way, the weights come out the same (under 2 minutes)
	scripts/demo.sh

test: ## every test, with the race detector where there is a C compiler
ifeq ($(RACE),-race)
	CGO_ENABLED=1 go test -race -timeout 15m ./...
	go test ./trainer/nn # once more in the plain build: what the detector makes too slow
	go test ./internal/node -run TestModesLearnAsRingDoes
else
	@echo 'make test: without the race detector, which needs a C compiler (install gcc)'
	go test -timeout 15m ./...
endif

soak: ## kill nodes of running clusters, 100 times or MUSTER_SOAK=n
	MUSTER_SOAK=$(or $(MUSTER_SOAK),100) go test -count=1 -timeout 6h -run '^TestKill$$' -v ./cmd/muster

soak-promises: ## the table of promises in docs/replication.md, row by row: the tests that each row names (10 minutes; full disks and cables need root)
	scripts/promises.sh

soak-drain: ## drain servers of running clusters; no step may wait for more than MUSTER_DRAIN_PAUSE=200ms (and the disk); then again, killing coordinators
	MUSTER_DRAIN_PAUSE=$(or $(MUSTER_DRAIN_PAUSE),200ms) go test -count=5 -timeout 1h -run '^TestServersMove$$' -v ./cmd/muster
	MUSTER_DRAIN_KILLS=$(or $(MUSTER_DRAIN_KILLS),10) go test -count=1 -timeout 1h -run '^TestDrainOutlivesItsCoordinator$$' -v ./cmd/muster

soak-elections: ## train while other processes take all cores: no group may elect a leader; then kill, stop and cut off 20 leaders each (root)
	MUSTER_ELECTIONS=$(or $(MUSTER_ELECTIONS),5m) MUSTER_LEADERS=$(or $(MUSTER_LEADERS),20) go test -count=1 -timeout 2h -run '^Test(Elections|LeadersLost)$$' -v ./cmd/muster

soak-ring: ## kill, stop, cut off and stutter ranks of a ring at any moment, MUSTER_RING_FAULTS=100 times in each way (cables need root)
	MUSTER_RING_FAULTS=$(or $(MUSTER_RING_FAULTS),100) go test -count=1 -timeout 2h -run '^TestRing(Faults|Stutter)$$' -v ./cmd/muster

soak-many: ## MUSTER_MANY=64 nodes on this machine, three of them killed: the same weights
	MUSTER_MANY=$(or $(MUSTER_MANY),64) go test -count=1 -timeout 30m -run '^TestManyNodes$$' -v ./cmd/muster

lint: ## gofmt, go vet, staticcheck, and shellcheck where it is installed
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || { echo "gofmt would change: $$unformatted; run: make fmt"; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...
	@if command -v shellcheck >/dev/null; then echo shellcheck && shellcheck scripts/*.sh .ci/run; fi

fmt: ## format all Go files
	gofmt -w $$(git ls-files '*.go')

proto: ## generate proto/*.pb.go anew (needs protoc; installs protoc-gen-go of go.mod's version)
	go install google.golang.org/protobuf/cmd/protoc-gen-go
	cd proto && PATH="$$PATH:$$(go env GOPATH)/bin" protoc --go_out=. --go_opt=paths=source_relative *.proto

bench: ## every benchmark, once
	go test -run '^$$' -bench . -benchmem ./...

bench-ring: ## all-reduces beside Gloo, Open MPI and bare TCP, into bench/RESULTS-ring.md, and with reno for all (10 minutes)
	bench/ring.sh --trials 2
	bench/ring.sh --trials 2 --control reno --out bench/RESULTS-ring-reno.md

bench-server: ## replicated parameter servers: rate, processor time, killed leaders, into bench/RESULTS-server.md (under 6 minutes)
	bench/server.sh

bench-cpu: ## training steps beside PyTorch, products beside OpenBLAS, into bench/RESULTS-cpu.md (under 15 minutes)
	bench/cpu.sh

bench-optim: ## optimizer updates beside PyTorch's, printed (needs Debian's python3-torch; a minute)
	bench/optim.py

bench-net: ## all-reduces over links of 1 Gb/s and 100 Mb/s, also 10 and 20 ms long (network namespaces, needs root), into bench/RESULTS-net.md
	bench/net.sh

clean: ## remove what was built and what runs have written (bin, runs)
	rm -rf bin runs
