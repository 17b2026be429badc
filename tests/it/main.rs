//! Tests the whole worker: the real binary, a real RabbitMQ, a real PostgreSQL, and real HTTP servers on loopback.
//!
//! Each test has its own database and queues. `DATABASE_URL` and `AMQP_URL` name the servers (`scripts/test` sets
//! them).

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

use test_support as support;
use test_support::proxy;

mod accounts;
mod addresses;
mod alerts;
mod audit;
mod backlog;
mod batches;
mod bulk;
mod clocks;
mod connections;
mod configuration;
mod crashes;
mod database;
mod dead_letters;
mod fairness;
mod examples;
mod fitness;
mod follow;
mod hostile;
mod idempotency;
mod intake;
mod keys;
mod leases;
mod link_requests;
mod limits;
mod local_webhooks;
mod log_lines;
mod merchants;
mod metrics;
mod mistakes;
mod newer;
mod on_call;
mod operators;
mod outages;
mod outside;
mod pauses;
mod permissions;
mod plans;
mod poison;
mod provider_webhooks;
mod program;
mod readme;
mod reconcile;
mod redelivery;
mod republish;
mod restores;
mod retention;
mod retries;
mod saturation;
mod sealing;
mod shutdown;
mod streams;
mod takeover;
mod tls;
mod webhooks;
