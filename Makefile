# Everything here needs Go 1.26 and nothing else.

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
FUZZTIME ?= 10s
BIN      := build/tollgraph

.DEFAULT_GOAL := build
.PHONY: build demo test test-interop check bench bench-quick bench-parts interop vuln clean fuzz

## build: the one static binary, build/tollgraph
build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $(BIN) ./cmd/tollgraph

## demo: the whole market in one process: serve, sell twice, verify, print receipts
demo: build
	$(BIN) demo

## test: every test, with the race detector
test:
	$(GO) test -race -timeout 30m ./...
	$(MAKE) --no-print-directory test-interop

## check: format, vet, staticcheck, tidiness, import rules, a short run of every fuzz target
check:
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$unformatted" ]; then echo "run gofmt -w on:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(GO) mod tidy -diff
	$(GO) test -count=1 -run '^(TestImports|TestRoomsAreListed|TestRevalidatorIsPure|TestNoDrawers)$$' ./integration
	$(MAKE) --no-print-directory fuzz

## fuzz: FUZZTIME of every fuzz target
fuzz:
	@set -e; for pkg in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "$$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; \
	done

## bench: what the project is held to, in about half an hour on two quiet cores; writes build/bench.json
bench:
	$(GO) run ./integration/bench -suite

## bench-quick: the same with small sizes, under two minutes
bench-quick:
	$(GO) run ./integration/bench -quick

## bench-parts: every benchmark of the packages
bench-parts:
	$(GO) test -run '^$$' -bench . -benchmem ./...

## test-interop: the existing network: its wire, a stock client and a stock provider; a module of its own
test-interop interop:
	cd integration/interop && $(GO) vet ./... && $(GO) test -race -timeout 30m ./...

## vuln: known vulnerabilities; needs the database of vulnerabilities
vuln:
	$(GO) run golang.org/x/vuln/cmd/govulncheck@v1.1.4 ./...

clean:
	rm -rf build
