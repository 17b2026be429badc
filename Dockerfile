# Builds the worker in one small image. `--target simulators` builds the image of the simulators, for trials.
# The compiler checks queries against .sqlx, without a database.
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc g++ cmake make && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --workspace --bins \
    && mkdir /out && cp target/release/payout-link-worker target/release/sandbox-connector /out/

FROM debian:bookworm-slim AS base
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --no-create-home --uid 10001 worker
USER 10001

FROM base AS simulators
COPY --from=build /out/sandbox-connector /usr/local/bin/
ENTRYPOINT ["sandbox-connector"]

FROM base
COPY --from=build /out/payout-link-worker /usr/local/bin/
ENTRYPOINT ["payout-link-worker"]
CMD ["run"]
