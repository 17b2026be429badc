//! Turns CreateLink jobs from RabbitMQ into payout links.
//!
//! Every accepted job ends as `created`, `failed` or `unknown`, even if a worker, RabbitMQ, PostgreSQL or the network
//! fails while it is processed. Each (`merchant_id`, `merchant_payout_id`) has one record with one conclusion, and a retry
//! never creates a second link. A created link is followed until the recipient is paid or the link has ended. Each change
//! is one more event of its record, with a result and a webhook.
//!
//! ```text
//!             RabbitMQ                       the worker                       PostgreSQL
//!
//!  jobs queue ────── delivery ──▶ decode and validate ── rejected ──▶ payout_link.rejected, dead letter
//!                                          │
//!                                       accept ────────────────────▶ row, lease, first call
//!  jobs queue ◀── acknowledgement ─────────┤
//!                                          │
//!                                  call the provider ◀── due rows ── sweeper: retries, expired leases,
//!                                          │                         unknown outcomes
//!                                      conclude ───────────────────▶ conclusion and event, one statement
//!                                          │
//!  results exchange ◀──── result ──────────┼─ webhook ──▶ the merchant
//!                                          │
//!                                      delivered ──────────────────▶ progress of the event
//! ```
//!
//! A job is stored before it is acknowledged, and a call is stored before it is made. A worker owns a row only while its
//! lease runs. If the worker dies, the lease expires, and any worker may claim the row. A call whose outcome is unknown is
//! resolved by the connector's replay rule: repeat it with the same idempotency key, look the link up, or conclude as
//! `unknown`.
//!
//! A follower for each connector account asks the provider about created links that are due (`pipeline::follow`). It
//! stores status and events in one statement, and the events are delivered as above.
//!
//! # Layers
//!
//! The modules are in reading order. A module uses only modules above it.
//!
//! 1. [`domain`]: values and decisions, without I/O. [`contract`]: JSON to domain values and back.
//! 2. [`setting_url`], [`lock`], [`http_client`], [`limits`], [`tasks`]: what every call and every service shares.
//! 3. [`rabbitmq`], [`connectors`], [`postgres`], [`webhooks`]: the ports. They do not use each other.
//! 4. [`metrics`] and [`pipeline`]: process a job from its delivery to its webhook.
//! 5. [`config`], [`runtime`], [`cli`]: the program.

pub mod domain;
pub mod contract;

pub mod setting_url;

pub mod lock;
pub mod http_client;
pub mod limits;
pub mod tasks;

pub mod rabbitmq;
pub mod connectors;
pub mod postgres;
pub mod webhooks;

pub mod metrics;
pub mod pipeline;

pub mod config;
pub mod runtime;
pub mod cli;
