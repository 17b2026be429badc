//! The worker that turns CreateLink jobs from RabbitMQ into payout links: one record, one link, one result and one
//! webhook for each (`merchant_id`, `merchant_payout_id`), whatever dies in between.
//!
//! The modules stand in reading order, and each uses only what stands above it: values and decisions, the
//! contract's JSON, what every call shares, the four ports (which do not know each other), then the pipeline that
//! joins them, and the program around it.

pub mod domain;
pub mod wire;

pub mod setting_url;

pub mod http;
pub mod limits;
pub mod tasks;

pub mod broker;
pub mod connector;
pub mod store;
pub mod webhook;

pub mod metrics;
pub mod pipeline;
pub mod audit;

pub mod cli;
pub mod config;
pub mod health;
pub mod listener;
pub mod open_files;
pub mod shutdown;
pub mod telemetry;
pub mod worker;

pub mod faulty_server;
pub mod sandbox;
pub mod stand_in;
