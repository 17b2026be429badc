//! Port: RabbitMQ. Deliveries in, to be acknowledged or dead-lettered; messages out, confirmed.
//!
//! One connection consumes, another publishes: an alarm at the broker blocks a connection that publishes, its
//! acknowledgements too. lapin's own recovery stays off (when its retries run out nothing is reported, and after a
//! channel error it hangs); one task a connection drops everything on any error and builds it again.

mod acks;
mod connection;
mod consumer;
mod delivery;
mod publisher;
mod screen;
mod submitter;
mod tls;
mod topology;
mod unread;

use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;

pub use self::{
    connection::{BrokerError, check, url_problem},
    consumer::{Consumer, Stopper, Unsettled},
    delivery::{Delivery, REJECTED_AT},
    publisher::{Message, Properties, PublishError, Publisher, Route},
    submitter::{Job, Submitter},
    tls::BrokerTls,
};

#[derive(Debug, Clone)]
pub struct BrokerSettings {
    /// `amqp://user:password@host:port/vhost`; the vhost `/` is written `%2f`.
    pub url: SecretString,
    pub tls: BrokerTls,
    pub heartbeat: Duration,
    pub connect_timeout: Duration,
    /// Deliveries that wait to be written down, at most.
    pub prefetch: u16,
    /// Publications under way at once, at most.
    pub publish_window: usize,
    pub delivery_limit: u32,
    /// The same for dead letters and unrouted results; 0: none is declared.
    pub letter_delivery_limit: u32,
    /// Messages kept of results that no queue was bound for; the oldest go first.
    pub unrouted_limit: u32,
    pub names: Names,
}

/// The topology's names (contract, section 1).
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Names {
    pub jobs_exchange: String,
    pub jobs_routing_key: String,
    pub jobs_queue: String,
    pub results_exchange: String,
    pub dead_exchange: String,
    pub dead_queue: String,
    /// Where a result goes that no queue is bound for.
    pub unrouted_exchange: String,
    pub unrouted_queue: String,
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
        }
    }
}

impl Names {
    /// Queues that a job's `reply_to` may not name.
    pub fn is_own_queue(&self, queue: &str) -> bool {
        [&self.jobs_queue, &self.dead_queue, &self.unrouted_queue].into_iter().any(|own| own == queue)
    }
}
