# What a newcomer needs: `make demo`, `make run`, `make test`. Each gets Docker and the base images ready first.
.PHONY: demo run test bench lint build

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

bench: build
	cargo build --release --locked --example bench
	scripts/with-docker target/release/examples/bench

lint:
	scripts/lint
