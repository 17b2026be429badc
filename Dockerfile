# The worker and the sandbox connector in one image: `payout-link-worker` is what it runs unless told otherwise.

FROM rust:1.95-slim-bookworm AS build
# aws-lc is compiled from its C sources.
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ cmake \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
# No database at build time: the queries are checked against .sqlx.
ENV SQLX_OFFLINE=true

# Dependencies first, from the manifest alone, so that a changed source file does not compile them again. The
# example and the tests stay outside (.dockerignore), so cargo is shown only the library and the two binaries.
COPY Cargo.toml Cargo.lock build.rs ./
COPY .cargo .cargo
RUN mkdir -p src/bin migrations \
    && touch src/lib.rs \
    && echo 'fn main() {}' | tee src/main.rs > src/bin/sandbox-connector.rs \
    && cargo build --release --locked --bins \
    && rm -rf src migrations

COPY .sqlx .sqlx
COPY migrations migrations
COPY src src
# Cargo goes by modification times, and a checkout may be older than the stand-ins above.
RUN find src -name '*.rs' -exec touch {} + \
    && cargo build --release --locked --bins \
    && strip target/release/payout-link-worker target/release/sandbox-connector

FROM debian:bookworm-slim
# The certificates of public authorities: connectors and webhooks are called by https.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin worker
COPY --from=build /build/target/release/payout-link-worker /build/target/release/sandbox-connector /usr/local/bin/
# By number: an orchestrator that insists on a user other than root cannot tell from a name.
USER 10001:10001
CMD ["payout-link-worker", "run"]
