# Everything a user or a developer does, one target each. What takes more than a line is a script in scripts/.
# `make` alone lists the targets. Works with GNU Make 3.81, which macOS still ships.

MODULEDIR ?= $(PREFIX)/lib/redis/modules
TARGET    := $(or $(CARGO_TARGET_DIR),target)
RL_CLI    ?= redis-cli
# To measure speed takes minutes for each server: so it is the installed one alone, unless others are named.
MEASURED  := $(or $(SERVERS),installed)
SERVERS   ?= installed redis valkey
export RL_CLI

ifneq ($(shell uname -s),Darwin)
  LIBRARY := libredis_rl.so
  PREFIX  ?= /usr
else
  LIBRARY := libredis_rl.dylib
  PREFIX  ?= $(shell brew --prefix 2>/dev/null)
  # bindgen finds Apple's libclang by itself, but not Homebrew's on Apple silicon.
  ifeq ($(LIBCLANG_PATH)$(wildcard /Library/Developer/CommandLineTools/usr/lib/libclang.dylib \
      /Applications/Xcode.app/Contents/Developer/Toolchains/XcodeDefault.xctoolchain/usr/lib/libclang.dylib),)
    export LIBCLANG_PATH := $(PREFIX)/opt/llvm/lib
  endif
endif

MODULE := $(TARGET)/release/$(LIBRARY)

# Before a command: the tests and examples start the server that RL_SERVER names.
WITH_SERVER = server=$$(scripts/server) && RL_SERVER="$$server"

.NOTPARALLEL:
.PHONY: help setup build run gateway test test-unit test-server test-tools test-clients test-metrics test-gateway test-servers test-upgrade test-long test-valgrind test-fresh replay \
        plots bench bench-memory bench-leases bench-clients bench-gateway bench-instructions check-instructions cluster cluster-stop lint fmt install package test-package release clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' Makefile

setup: ## install what building and testing need and the machine lacks
	@scripts/setup

build: setup ## build the module: target/release/libredis_rl.so
	cargo build --release

run: build ## start a server with the module on port 6379, or the next free one (PORT=n: exactly that one)
	@scripts/run "$(MODULE)"

gateway: build ## start a server with the module and the gateway before it, and say which curl is limited
	cargo build --release --package redis-rl-gateway
	@scripts/gateway "$(MODULE)" "$(TARGET)/release/redis-rl-gateway"

test: setup test-unit test-server test-tools ## run all the tests

test-unit: setup ## run the unit and property tests, which need no server, and those of setup and release
	cargo test --lib --test setup --test release

test-server: setup ## run the server tests on the installed server, or on the one that RL_SERVER names
	@scripts/setup test
	cargo build --examples
	$(WITH_SERVER) cargo test --test server

test-tools: setup ## test the programs of make replay, make bench and make plots
	@scripts/setup test
	$(WITH_SERVER) cargo test --workspace --test tools

test-clients: build ## test the clients for Python and Node.js, with the frameworks that they plug into, on real servers
	@scripts/setup clients
	@$(WITH_SERVER) scripts/test-clients "$(MODULE)"

test-metrics: setup ## test what Prometheus sees, with its stock exporter for Redis, and the alerts, with promtool
	@scripts/setup metrics
	$(WITH_SERVER) cargo test --test server metrics::

test-gateway: setup ## test the gateway: by itself, and behind Envoy, Caddy, Traefik and nginx, which it fetches
	@scripts/setup gateway
	cargo build
	$(WITH_SERVER) RL_PROXIES=required cargo test --package redis-rl-gateway

test-servers: setup ## run the server tests on the installed server, Redis 8.2.3 and Valkey 9.1.2 (SERVERS='redis valkey': on these)
	@scripts/test-servers $(SERVERS)

test-upgrade: setup ## test an upgrade from the module as it was before its stored format last grew
	@scripts/test-upgrade

test-long: setup ## run all the tests with many more random cases, and the gateway's with traces
	cargo build --release --examples
	$(WITH_SERVER) RL_LONG=1 cargo test --release --lib --test server
	$(WITH_SERVER) cargo test --package redis-rl-gateway --lib --features otlp

test-valgrind: setup ## run the server tests with the server under valgrind (TESTS='errors:: hostile::': these)
	@scripts/test-valgrind $(TESTS)

test-fresh: ## do the README's first command on fresh Debian systems (ROOTS='bookworm bookworm-llvm trixie bookworm-sudo': on these)
	@scripts/test-fresh $(ROOTS)

replay: setup ## what would a limit have done to my traffic? LOG=access.log LIMIT='SLIDING 60 1m' (PLOT=file.svg), or SUGGEST=1m: which limit?
	@test -n "$$LOG" && test -n "$$LIMIT$$SUGGEST" || { \
	    echo "usage: make replay LOG=access.log LIMIT='SLIDING 60 1m' [PLOT=file.svg], or SUGGEST=1m, or both" >&2; exit 1; }
	@$(WITH_SERVER) cargo run --release --package redis-rl-tools --bin replay -- \
	    $${LIMIT:+--limit="$$LIMIT"} $${PLOT:+--plot="$$PLOT"} $${SUGGEST:+--suggest="$$SUGGEST"} -- "$$LOG"

plots: setup ## draw the pictures in docs/ from the real module
	@$(WITH_SERVER) cargo run --release --package redis-rl-tools --bin plots

bench: setup ## how fast is it? (ROUNDS=n, REQUESTS=n; CELL=path/to/libredis_cell.so: redis-cell, too; SERVERS='installed redis valkey')
	@scripts/bench throughput $(MEASURED)

bench-memory: setup ## how many bytes does a key take, on the installed server, Redis 8.2.3 and Valkey 9.1.2? (N=keys)
	@scripts/bench memory $(SERVERS)

bench-leases: setup ## leases beside a sorted set in Lua, on the installed server, Redis 8.2.3 and Valkey 9.1.2 (ROUNDS=n)
	@scripts/bench leases $(SERVERS)

bench-clients: build ## the stores of the clients for Python and Node.js beside the libraries' own: round trips, bytes, speed, faults
	@scripts/setup clients
	@$(WITH_SERVER) scripts/bench-clients "$(MODULE)"

bench-gateway: build ## how many requests a second does the gateway decide, and how long does it take? (ROUNDS=n)
	@scripts/bench gateway $(MEASURED)

bench-instructions: setup ## how many instructions does a command take? (CELL=..., SERVERS=...: as above)
	@scripts/bench instructions $(MEASURED)

check-instructions: setup ## fail if a command takes 3 % more instructions than docs/instructions.tsv says
	@scripts/bench check $(MEASURED)

cluster: build ## start a cluster of three primaries and three replicas with the module (PORT=n: the first of six ports)
	@scripts/cluster start "$(MODULE)"

cluster-stop: ## stop that cluster
	@scripts/cluster stop

lint: setup ## check the formatting, versions and dependencies, and run clippy; ruff, mypy, eslint, tsc on the clients, hadolint on Dockerfiles
	@scripts/setup lint
	@scripts/setup clients
	scripts/version check
	cargo fmt --all --check
	scripts/lint-dependencies
	scripts/lint-dockerfiles
	cargo clippy --workspace --all-targets -- -D warnings
	@for lint in clients/python/lint.sh clients/node/lint.sh; do \
	    [ ! -x "$$lint" ] || { echo "$$lint" && "$$lint"; } || exit 1; done

fmt: ## format the code
	@scripts/setup lint
	cargo fmt --all

# Does not build: `make build` as yourself, then `sudo make install`. root often has no Rust.
install: ## copy the built module into the server's module folder (MODULEDIR=dir, DESTDIR=dir)
	@test -f "$(MODULE)" || { echo "make install: there is no $(MODULE) yet: run 'make build' first" >&2; exit 1; }
	install -d "$(DESTDIR)$(MODULEDIR)"
	install -m 755 "$(MODULE)" "$(DESTDIR)$(MODULEDIR)/$(LIBRARY)"
	@echo "Add this line to the server's configuration and restart it:"
	@echo "    loadmodule $(MODULEDIR)/$(LIBRARY)"

package: ## make the packages, wheels and archives that users install: dist/ (PARTS='module gateway clients': these)
	@scripts/setup && scripts/setup package
	@scripts/package $(PARTS)

test-package: ## install, use, upgrade and purge them in fresh Debian systems, and check the files (ROOTS='bookworm trixie', AGAIN='module')
	@scripts/test-package $(ROOTS)

release: ## commit and tag VERSION=x.y.z here, with the version set everywhere
	@scripts/release "$(VERSION)"

clean: cluster-stop ## remove everything that was built or fetched
	cargo clean
	rm -rf dist
