# The image of the service. The service needs the Docker socket of the machine:
# see "In a container" in docs/operations.md.
ARG BUILD_IMAGE=rust:1.95-slim-bookworm
ARG RUN_IMAGE=debian:bookworm-slim

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY examples examples
RUN cargo build --release --locked --bin youtube-serverless

FROM ${RUN_IMAGE}
# The service uses only the client of docker.io.
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates curl docker.io \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --create-home --home-dir /var/lib/youtube-serverless service
COPY --from=build /src/target/release/youtube-serverless /usr/local/bin/
ENV SERVER_HOST=0.0.0.0 DATA_DIR=/var/lib/youtube-serverless/data
USER service
WORKDIR /var/lib/youtube-serverless
VOLUME /var/lib/youtube-serverless
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
  CMD curl -fsS "http://127.0.0.1:${SERVER_PORT:-8080}/health" || exit 1
ENTRYPOINT ["youtube-serverless"]
