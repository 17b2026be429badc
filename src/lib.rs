//! The worker that turns CreateLink jobs from RabbitMQ into payout links: one record, one link, one result and one
//! webhook for each (`merchant_id`, `merchant_payout_id`), whatever dies in between.
//!
//! The modules stand in reading order, and each uses only what stands above it: values and decisions, the
//! contract's JSON, what every call shares, the four ports (which do not know each other), then the pipeline that
//! joins them, and the program around it.

pub mod domain;
pub mod contract;

pub mod setting_url;

pub mod http_client;
pub mod limits;
pub mod tasks;

pub mod rabbitmq;
pub mod connectors;
pub mod postgres;
pub mod webhooks;

pub mod metrics;
pub mod pipeline;

pub mod cli;
pub mod config;
pub mod runtime;
