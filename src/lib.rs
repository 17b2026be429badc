//! The worker that turns CreateLink jobs from RabbitMQ into payout links.
//!
//! The modules stand in reading order; each uses only what stands above it.

pub mod domain;
pub mod sandbox;
pub mod wire;
