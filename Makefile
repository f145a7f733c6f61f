# For newcomers: `make demo`, `make run`, `make test`. Each command first gets Docker and the base images ready, and
# names the packages that the command installs.
.PHONY: demo run cluster check test test-cluster test-crashes times nightly load bench lint build

build:
	@echo 'make: compiling a release build; three to nine minutes on two cores the first time'
	cargo build --release --locked

demo: build
	scripts/with-docker scripts/demo

run: build
	scripts/with-docker scripts/run

# Three nodes with an engine each, PostgreSQL, a registry and HAProxy, on this machine; ends with Ctrl-C. Needs root.
# `scripts/cluster --swarm` runs the nodes by deploy/stack.yml.
cluster: build
	scripts/cluster

# The checks for every change: formatting, lints, and all tests that need no Docker.
check:
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings
	cargo test --locked --quiet

# All tests, with Docker. The comparison with programs by hand also runs on the older base images. `make test
# T=pool::` runs the tests whose name contains `pool::`. The tests of `it` wait, too, so there is one more at a time
# than there are processors. An engine starts a copy of itself for each layer and each container, and a part of that
# copy's work is the collection of garbage: with GOGC a build takes a fifth less processor time.
test test-crashes: export GOGC = 800
# What takes minutes and has a shorter relative among the other tests; `make nightly` has these, too.
LONG = --skip without_preloading_and_by_pipes --skip each_slot_of_a_week_with_kills
ifdef T
test:
	cargo test --locked --no-run
	scripts/with-docker cargo test --locked -- --include-ignored '$(T)'
else
test:
	scripts/test-tools
	cargo test --locked --no-run
	scripts/with-docker cargo test --locked --lib --bins --examples --test hostile -- --include-ignored
	RUST_TEST_THREADS=$$(($$(nproc) + 1)) scripts/with-docker cargo test --locked --test it -- --include-ignored $(LONG)
	SUITE=bookworm scripts/with-docker cargo test --locked --test it -- --include-ignored as_by_hand
endif

# Three nodes: a function while one is lost and comes back, and crashes of all members at random under clients.
# CLUSTER_ROUNDS is the number of crashes, CLUSTER_SEED has the same crashes again. Then the nodes run by Docker Swarm.
# `make nightly` also has 3,000 functions and 100,000 queued executions.
test-cluster: build
	cargo test --locked --test cluster --no-run
	scripts/cluster scripts/cluster-smoke
	scripts/cluster cargo test --locked --test cluster -- --ignored --nocapture --skip go_functions --skip many_functions
	scripts/cluster --swarm scripts/cluster-smoke

# A few crashes of members of a cluster, with a debug build: the part of `make test-cluster` for every change.
test-crashes:
	scripts/test-tools
	cargo build --locked
	cargo test --locked --test cluster --no-run
	BINARY=$(CURDIR)/target/debug/youtube-serverless CLUSTER_ROUNDS=$${CLUSTER_ROUNDS:-3} scripts/with-docker scripts/cluster \
		cargo test --locked --test cluster -- --ignored --nocapture rounds

# The same tests as `make test`, with their times, and then the ten slowest. Rust has no stable option for the times.
times:
	scripts/test-tools
	cargo test --locked --no-run
	scripts/with-docker cargo test --locked --no-fail-fast \
		--config 'target."cfg(all())".runner = ["env", "RUSTC_BOOTSTRAP=1"]' \
		-- --include-ignored -Z unstable-options --report-time | tee target/times.txt
	grep -o '^test [^ ]* ... ok <[0-9.]*s>' target/times.txt | sort -t '<' -k 2 -rn | head

# The long tests: everything on both generations of base images and over both transports, 100,000 invocations of one
# instance, the long load, and sixty crashes of members of a cluster.
nightly: export CONFORMANCE_MATRIX = 1
nightly: export GROWTH_INVOCATIONS = 100000
nightly: export CRASH_ROUNDS = 100
nightly:
	scripts/test-tools
	cargo test --locked --no-run
	SUITE=bookworm scripts/with-docker cargo test --locked -- --include-ignored
	SUITE=trixie scripts/with-docker cargo test --locked -- --include-ignored
	TEST_TRANSPORT=pipes scripts/with-docker cargo test --locked --test it -- --include-ignored crash:: faults:: outages::
	TEST_STORE=postgres scripts/with-docker cargo test --locked --test it -- --include-ignored
	$(MAKE) load
	CLUSTER_ROUNDS=60 scripts/cluster cargo test --locked --test cluster -- --ignored --nocapture

# Good and hostile clients at once, for ten minutes. `make test` has the same load for a shorter time.
load: build
	cargo test --locked --release --test hostile --no-run
	LOAD_SECONDS=$${LOAD_SECONDS:-600} scripts/with-docker \
		cargo test --locked --release --test hostile -- --include-ignored --nocapture load::

# About half an hour. `make bench PART=stores` runs one part: languages, programs, many, slots, doors, http or stores.
bench: build
	cargo build --release --locked --example bench
	scripts/with-docker target/release/examples/bench $(PART)

lint:
	scripts/lint
