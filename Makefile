# What a newcomer needs: `make demo`, `make run`, `make test`. Each gets Docker and the base images ready first.
.PHONY: demo run test load bench lint build

build:
	cargo build --release --locked

demo: build
	scripts/with-docker scripts/demo

run: build
	scripts/with-docker scripts/run

# Everything, also what is marked as needing Docker.
test:
	cargo test --locked --no-run
	scripts/with-docker cargo test --locked -- --include-ignored

# Good and hostile clients at once, for ten minutes; `make test` has the same for a shorter time.
load: build
	cargo test --locked --release --test hostile --no-run
	LOAD_SECONDS=$${LOAD_SECONDS:-600} scripts/with-docker cargo test --locked --release --test hostile -- --include-ignored --nocapture load::

bench: build
	cargo build --release --locked --example bench
	scripts/with-docker target/release/examples/bench

lint:
	scripts/lint
