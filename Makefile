# make            builds the three binaries into bin/
# make demo       resynchronizes a pair of real images on this machine, and checks the result
# make test       everything that CI runs
# make bench      measures against rsync, qemu-nbd and the floor of the machine
# make lint       gofmt, vet, staticcheck
# make fuzz       every fuzz target for FUZZTIME
# make proto      generates the code of proto/;  make proto-check  style, compatibility, drift
# make setup      installs what tests need: Debian packages and the tools of tools/go.mod, and unpacks a guest's kernel
# make clean      removes bin/
#
# demo, test and bench install the Debian packages that are missing (tools/packages.txt) as root or through sudo.

.NOTPARALLEL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := build

FUZZTIME  ?= 60s
TIMEOUT   ?= 20m
BINARIES  := agent-primary agent-replica vmreplica
TOOLS     := bin/tools/buf bin/tools/staticcheck bin/tools/grpcurl

VERSION   := $(shell git describe --tags --always --dirty 2>/dev/null)
REVISION  := $(shell git rev-parse HEAD 2>/dev/null)
STAMP     := -X vmreplica/internal/build.version=$(VERSION) -X vmreplica/internal/build.revision=$(REVISION)
GO_BUILD  := CGO_ENABLED=0 go build -trimpath -buildvcs=false

# Where goroutines meet: these run under the race detector too.
RACE := ./agent-primary/... ./agent-replica/... ./blockdiff/... ./transport/... ./internal/...

.PHONY: build
build:
	$(GO_BUILD) -ldflags '-s -w $(STAMP)' -o bin/ ./agent-primary ./agent-replica ./cmd/vmreplica

.PHONY: demo
demo: packages-demo build
	go run -buildvcs=false ./test/demo

.PHONY: bench
bench: packages-bench build
	go run -buildvcs=false ./test/bench

.PHONY: test
test: packages-test guest-kernel tools lint proto-check cross build test-fuzz test-race test-all

# The packages that mostly wait for other processes come first: the rest fills their pauses.
.PHONY: test-all
test-all:
	go test -timeout $(TIMEOUT) ./test/e2e ./test/guest ./...

.PHONY: test-race
test-race:
	CGO_ENABLED=1 go test -race -short -timeout $(TIMEOUT) $(RACE)

.PHONY: test-fuzz
test-fuzz:
	tools/fuzz 60s '^./internal/disk/'
	tools/fuzz 5s '!^./internal/disk/'

.PHONY: fuzz
fuzz:
	tools/fuzz $(FUZZTIME)

.PHONY: lint
lint: bin/tools/staticcheck
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "gofmt: $$unformatted" >&2; exit 1; }
	go vet ./...
	go vet -tags faults ./agent-primary/... ./agent-replica/... ./internal/fault
	bin/tools/staticcheck ./...

# Everything builds elsewhere too; what needs Linux says so when it runs.
.PHONY: cross
cross:
	GOOS=windows GOARCH=amd64 $(GO_BUILD) ./...
	GOOS=linux GOARCH=arm64 $(GO_BUILD) ./...

.PHONY: proto
proto: bin/tools/buf
	bin/tools/buf generate

.PHONY: proto-check
proto-check: bin/tools/buf
	tools/proto-check bin/tools/buf

# The contract that later versions must stay compatible with: renewed at a release, after proto-check passed.
.PHONY: proto-baseline
proto-baseline: bin/tools/buf
	bin/tools/buf breaking --against proto/baseline.binpb
	bin/tools/buf build --exclude-source-info -o proto/baseline.binpb

.PHONY: setup
setup: packages-test guest-kernel tools

.PHONY: packages-demo packages-test packages-bench
packages-demo packages-test packages-bench:
	@tools/setup $(@:packages-%=%)

# What test/guest boots; downloaded once and never installed.
.PHONY: guest-kernel
guest-kernel:
	@tools/guest-kernel bin/guest

.PHONY: tools
tools: $(TOOLS)

# A tool is built once, at the version that tools/go.mod pins; buf takes two minutes of a core.
$(TOOLS): tools/go.mod tools/go.sum
	@mkdir -p bin/tools
	cd tools && CGO_ENABLED=0 go build -buildvcs=false -trimpath -o ../$@ $$(go list tool | grep '/$(@F)$$')
	@touch $@

.PHONY: clean
clean:
	rm -rf bin
