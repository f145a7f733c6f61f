# What a newcomer needs: `make demo`, `make run`, `make test`. Each gets Docker and the base images ready first, and says what it installs.
.PHONY: demo run test nightly load bench lint build

build:
	@echo 'make: compiling a release build; about five minutes on two cores the first time'
	cargo build --release --locked

demo: build
	scripts/with-docker scripts/demo

run: build
	scripts/with-docker scripts/run

# Everything, also what is marked as needing Docker; what programs see also on the older base images.
test:
	scripts/test-tools
	cargo test --locked --no-run
	scripts/with-docker cargo test --locked -- --include-ignored
	SUITE=bookworm scripts/with-docker cargo test --locked --test it -- --include-ignored conformance::

# What takes hours: everything on both generations of base images, and the long load.
nightly:
	scripts/test-tools
	cargo test --locked --no-run
	SUITE=bookworm scripts/with-docker cargo test --locked -- --include-ignored
	SUITE=trixie scripts/with-docker cargo test --locked -- --include-ignored
	$(MAKE) load

# Good and hostile clients at once, for ten minutes; `make test` has the same for a shorter time.
load: build
	cargo test --locked --release --test hostile --no-run
	LOAD_SECONDS=$${LOAD_SECONDS:-600} scripts/with-docker cargo test --locked --release --test hostile -- --include-ignored --nocapture load::

bench: build
	cargo build --release --locked --example bench
	scripts/with-docker target/release/examples/bench

lint:
	scripts/lint
