//! Consumes jobs from RabbitMQ, acknowledges or dead-letters them, and publishes messages with confirms.
//!
//! One connection consumes and another one publishes: an alarm at the broker blocks a publishing connection, its
//! acknowledgements included. lapin's own recovery stays off: it reports nothing when its retries run out, and it
//! hangs after a channel error. Instead, one task a connection drops everything on any error and connects again.

mod acks;
mod connection;
mod consumer;
mod counts;
mod deadline;
mod delivery;
mod error;
mod letter;
mod letters;
mod message;
mod properties;
mod publisher;
mod screen;
mod submitter;
mod tls;
mod topology;
mod unread;

use std::{borrow::Cow, time::Duration};

use secrecy::SecretString;
use serde::Deserialize;

pub use self::{
    connection::{check, target, url_problem},
    consumer::{Consumer, Stopper, Unsettled},
    counts::{QueueCounts, queue_counts},
    delivery::{Delivery, REJECTED_AT, Source},
    error::BrokerError,
    letter::{DELIVERY_COUNT, Letter},
    letters::Letters,
    message::{Message, ResultMessage},
    publisher::{PublishError, Publisher, Route},
    submitter::{Job, Submitter},
    tls::BrokerTls,
};

/// Settings of the broker's connections and topology.
#[derive(Debug, Clone)]
pub struct BrokerSettings {
    /// `amqp://user:password@host:port/vhost`; the vhost `/` is written `%2f`.
    pub url: SecretString,
    /// Certificates of an `amqps://` connection.
    pub tls: BrokerTls,
    /// RabbitMQ closes a connection that is silent for two of these periods.
    pub heartbeat: Duration,
    /// Limit of a connection with its TLS and login.
    pub connect_timeout: Duration,
    /// Maximum number of unacknowledged deliveries.
    pub prefetch: u16,
    /// Maximum number of unconfirmed publications.
    pub publish_window: usize,
    /// `x-delivery-limit` of the jobs queue.
    pub delivery_limit: u32,
    /// `x-delivery-limit` of dead letters and unrouted results; 0: none is declared.
    pub letter_delivery_limit: u32,
    /// Maximum length of the unrouted queue; the oldest messages are dropped first.
    pub unrouted_limit: u32,
    /// Names of exchanges, queues and routing keys.
    pub names: Names,
}

/// The names of the topology (contract, section 1).
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Names {
    /// Jobs are published here.
    pub jobs_exchange: String,
    /// Binds the jobs queue.
    pub jobs_routing_key: String,
    /// The worker consumes this queue.
    pub jobs_queue: String,
    /// Topic exchange; its routing keys are event types.
    pub results_exchange: String,
    /// The jobs queue dead-letters to it.
    pub dead_exchange: String,
    /// Rejected jobs with their reasons.
    pub dead_queue: String,
    /// The exchange for results without a queue.
    pub unrouted_exchange: String,
    /// Results without a queue, for `results`.
    pub unrouted_queue: String,
    /// Messages that cancel a link; `None`: named after the jobs exchange, as a second deployment's have to be.
    pub cancel_queue: Option<String>,
    /// Binds the queue of messages that cancel a link.
    pub cancel_routing_key: String,
    /// Messages that ask for the status of a link; `None`: named after the jobs exchange.
    pub status_queue: Option<String>,
    /// Binds the queue of messages that ask for a status.
    pub status_routing_key: String,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            jobs_exchange: "payout_links".into(),
            jobs_routing_key: "create".into(),
            jobs_queue: "payout_links.create".into(),
            results_exchange: "payout_links.results".into(),
            dead_exchange: "payout_links.dead".into(),
            dead_queue: "payout_links.create.dead".into(),
            unrouted_exchange: "payout_links.unrouted".into(),
            unrouted_queue: "payout_links.results.unrouted".into(),
            cancel_queue: None,
            cancel_routing_key: "cancel".into(),
            status_queue: None,
            status_routing_key: "status".into(),
        }
    }
}

impl Names {
    /// Returns whether a queue is one of the worker's own, which a job's `reply_to` may not name.
    pub fn is_own_queue(&self, queue: &str) -> bool {
        [&self.jobs_queue, &self.dead_queue, &self.unrouted_queue].into_iter().any(|own| own == queue)
            || self.cancel_queue() == queue
            || self.status_queue() == queue
    }

    /// Returns the queue of messages that cancel a link.
    pub fn cancel_queue(&self) -> Cow<'_, str> {
        self.named(self.cancel_queue.as_deref(), "cancel")
    }

    /// Returns the queue of messages that ask for the status of a link.
    pub fn status_queue(&self) -> Cow<'_, str> {
        self.named(self.status_queue.as_deref(), "status")
    }

    fn named<'a>(&'a self, queue: Option<&'a str>, kind: &str) -> Cow<'a, str> {
        queue.map_or_else(|| format!("{}.{kind}", self.jobs_exchange).into(), Into::into)
    }
}
