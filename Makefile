# make            build bin/plantops
# make run        build, then run the main job in the foreground (TLS, generated certificates, SQLite)
# make check      everything CI runs;  make help lists the rest

VERSION    := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT     := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
# The commit's own date: the same commit builds the same bytes. Certificates are not made before it.
BUILD_DATE := $(shell TZ=UTC git log -1 --format=%cd --date=format-local:%Y-%m-%dT%H:%M:%SZ 2>/dev/null)
ifeq ($(BUILD_DATE),)
# Out of a ZIP, or in another user's checkout.
BUILD_DATE := $(shell date -u +%Y-%m-%dT%H:%M:%SZ)
endif
LDFLAGS    := -X main.version=$(VERSION) -X main.commit=$(COMMIT) -X main.buildDate=$(BUILD_DATE)
BUILD      := CGO_ENABLED=0 go build -trimpath -buildvcs=false
CONFIG     ?= deploy/plantops.yaml
FUZZTIME   ?= 30s
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
# The race detector looks at Go's own memory and at none of SQLite's, which is allocated beside it: to instrument what was made out of
# SQLite's C finds nothing, and takes three quarters of the tests' CPU time. The driver, and the library that it calls, are instrumented.
RACE       := -race -gcflags=modernc.org/sqlite/lib=-race=false
# Those that take longest come first, so that none of them is left at the end with one core beside it.
LONG       := ./store ./cmd/plantops ./broker ./cmd/plantops/outside/...
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.8.0
COMPOSE    := PLANTOPS_UID=$$(id -u) PLANTOPS_GID=$$(id -g) docker compose -f deploy/docker-compose.yml
HAVE_DOCKER := $(shell docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1 && echo yes)

export VERSION COMMIT BUILD_DATE

.DEFAULT_GOAL := build
.PHONY: build run certs up down logs test check check-root fmt tidy vet staticcheck pi cross compose-check interop torture esp32 fuzz bench vuln notices clean help

build: ## bin/plantops for this machine
	@deploy/go-version.sh
	$(BUILD) -ldflags "$(LDFLAGS)" -o bin/plantops ./cmd/plantops

run: build ## run the main job in the foreground: Ctrl-C stops it
	./bin/plantops serve -c $(CONFIG)

certs: build ## create the certificate authority and the server certificate, if there are none
	@if [ -e data/certs/ca.crt ]; then ./bin/plantops certs show -c $(CONFIG); \
	else ./bin/plantops certs init -c $(CONFIG); fi

ifeq ($(HAVE_DOCKER),yes)
up: certs ## start in the background: with Docker Compose, or without Docker as a plain process
	$(COMPOSE) up -d --build

down: ## stop what `make up` started
	$(COMPOSE) down

logs: ## follow the log of what `make up` started
	$(COMPOSE) logs -f
else
up: certs
	@deploy/background.sh up -c $(CONFIG)

down:
	@deploy/background.sh down -c $(CONFIG)

logs:
	@deploy/background.sh logs
endif

test: ## all tests
	@deploy/go-version.sh
	go test ./...

# The tests come last: the log of a run ends with their own output.
check: fmt tidy vet staticcheck cross compose-check ## everything CI runs: format, go.mod, vet, staticcheck, cross-builds, tests with -race
	go test $(RACE) -timeout 20m $(LONG) ./...

# File systems of their own take root: what ends in AsRoot is left out by everybody else's make test.
check-root: ## the tests that need root; fails when there are none
	@[ "$$(id -u)" = 0 ] || { echo "make check-root: needs root"; exit 1; }
	@packages=$$(grep -rlE --include='*_test.go' '^func Test[A-Za-z0-9]*AsRoot\(' . | xargs -r -n1 dirname | sort -u); \
	[ -n "$$packages" ] || { echo "make check-root: no test matched"; exit 1; }; \
	go test $(RACE) -count=1 -v -run 'AsRoot$$' $$packages

fmt: ## every file is gofmt-ed
	@deploy/go-version.sh
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	if [ -n "$$unformatted" ]; then echo "not gofmt-ed (run gofmt -w):"; echo "$$unformatted"; exit 1; fi

tidy: ## go.mod and go.sum are tidy
	@go mod tidy -diff || { echo "go.mod or go.sum is not tidy (run go mod tidy)"; exit 1; }

vet: ## go vet
	go vet ./...

staticcheck: ## staticcheck
	go run $(STATICCHECK) ./...

# Stripped, as they are released, with the notices that must go with them; the largest may have 25 MB.
define release
	@deploy/go-version.sh
	@mkdir -p dist
	@cp LICENSE NOTICE THIRD_PARTY_NOTICES.md dist/
	@for name in $(1); do \
		arch=$${name%v[67]}; arm=$${name#armv}; \
		env GOOS=linux GOARCH=$$arch GOARM=$$arm \
			$(BUILD) -ldflags "-s -w $(LDFLAGS)" -o dist/plantops-linux-$$name ./cmd/plantops || exit 1; \
		size=$$(wc -c <dist/plantops-linux-$$name); \
		echo "dist/plantops-linux-$$name: $$size bytes"; \
		[ $$size -le 25000000 ] || { echo "larger than 25 MB"; exit 1; }; \
	done
endef

PI ?= arm64
pi: ## dist/plantops-linux-arm64 for a Pi, built here; PI=armv7 or PI=armv6 (Pi Zero, Pi 1) for another
	@case "$(PI)" in arm64|armv6|armv7) ;; \
	*) echo "PI=$(PI): use arm64, armv7 or armv6; uname -m on the Pi says aarch64, armv7l or armv6l"; exit 2;; esac
	$(call release,$(PI))

cross: ## dist/plantops-linux-{amd64,arm64,armv6,armv7}, without cgo
	$(call release,amd64 arm64 armv6 armv7)

compose-check: ## the merged production compose files publish exactly 8883, the backend alone nothing
	cd deploy/composecheck && go vet . && go test . && go run . ../docker-compose.yml ../docker-compose.prod.yml && \
		go run . -backend ../docker-compose.backend.yml

interop: build ## real clients (mosquitto-clients, MQTT.js, paho for Python, openssl), installed when missing
	deploy/interop/run.sh

# What is not set here can be set outside. The full disk is a small file system of its own: without root it is left out.
torture: export PLANTOPS_TORTURE_KILLS ?= 500
torture: export PLANTOPS_POWERCUTS ?= 1000
torture: export PLANTOPS_POWERCUTS_HOUSE ?= 1000
torture: export PLANTOPS_POWERCUT_LOAD ?= 5s
torture: export PLANTOPS_STEPS ?= all
torture: export PLANTOPS_HOUSE_HOUR ?= 10s
torture: export PLANTOPS_STALL ?= 60s
torture: export PLANTOPS_RELOADS ?= 1000
torture: export PLANTOPS_CONTROL ?= 1
torture: ## kill -9, power cuts, each step of what takes several, stalled storage and reloads, over and over, and attacks on other brokers: an hour and a half
	.ci/test-by-name TestKilledServer TestPowerCut TestStepsOf TestStalledStorage TestReloads TestControlsFall TestHouse -- -timeout 3h -p 1 ./cmd/plantops/outside/...

esp32: export PLANTOPS_ESP32_HOURS ?= 168
esp32: export PLANTOPS_ESP32_KILLS ?= 200
esp32: export PLANTOPS_ESP32_CUTS ?= 1000
esp32: export PLANTOPS_ESP32_STALLS ?= 16
esp32: ## the library for the ESP32 against a server that dies: seven days of fifty devices, in about ten minutes
	.ci/test-by-name TestDevicesAndServer -- -timeout 1h -v ./cmd/plantops/outside/esp32

# Targets are found by their names. What fails is kept under testdata/fuzz, from where every later `make test` runs it.
fuzz: ## every fuzz target in turn, each for FUZZTIME (30s), until one fails
	@grep -rHo --include='*_test.go' '^func Fuzz[A-Za-z0-9]*' . | sort | while IFS=: read -r file function; do \
		echo "$${file%/*} $${function#func }"; \
		go test -run '^$$' -fuzz "^$${function#func }$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s "$${file%/*}" || exit 1; \
	done

# The year of readings in the store is that of 10 devices, or of PLANTOPS_BENCH_DEVICES (1000: 105 million readings, 0.5 GB, and minutes
# to write: PLANTOPS_BENCH_STORES is a directory in which it is kept). PLANTOPS_BENCH_HOLD (3s) is how long a load has company.
bench: ## speed and memory, measured, beside mosquitto and FlashMQ (PLANTOPS_FLASHMQ): an hour
	.ci/test-by-name Benchmark -- -benchmem ./...
	PLANTOPS_BENCH=1 .ci/test-by-name TestSpeed TestSubscribersGet TestRestartWith TestMemoryOf -- -timeout 2h ./cmd/plantops/outside/bench

vuln: ## known vulnerabilities; needs the vulnerability database from the network
	go run $(GOVULNCHECK) ./...

notices: ## THIRD_PARTY_NOTICES.md, after a change of go.mod
	PLANTOPS_WRITE_NOTICES=1 go test -count=1 -run '^TestNoticesOfWhatIsLinkedInAreThere$$' ./cmd/plantops

clean: ## remove what was built; data/ stays
	rm -rf bin dist

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | sort | expand -t 16
