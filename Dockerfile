# The worker and the sandbox, in one small image. Queries are checked against .sqlx: no database is asked.
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc g++ cmake make && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --bins \
    && mkdir /out && cp target/release/payout-link-worker target/release/sandbox-connector /out/

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --no-create-home --uid 10001 worker
COPY --from=build /out/ /usr/local/bin/
USER 10001
ENTRYPOINT ["payout-link-worker"]
CMD ["run"]
