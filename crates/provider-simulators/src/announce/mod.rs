//! Announces changes of links: sends the webhooks that a provider sends to its client, with the provider's own proof.
//!
//! The target can be set and changed while a simulator runs. The changes of a link are announced in their order,
//! unless the [`Behaviour`] says otherwise. A webhook without a 2xx answer is sent again a few times.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

mod proof;
mod sender;

pub(crate) use proof::{Headers, Signable, hmac_hex};
pub(crate) use sender::{Announcement, Announcer, Log};

/// The target of a simulator's webhooks, and how they are sent.
///
/// As JSON: `{"url": "http://127.0.0.1:8086/connectors/sandbox/webhooks", "secrets": ["…"], "behaviour": {"repeat":
/// 1}}`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announce {
    /// The URL to which each webhook is sent.
    pub url: String,
    /// The secrets. The first one signs; Revolut signs with each of them, as it does while they rotate.
    pub secrets: Vec<String>,
    /// The differences from correct webhooks.
    #[serde(default)]
    pub behaviour: Behaviour,
}

impl Announce {
    /// Creates a target that gets every webhook once, in order and signed.
    pub fn to(url: impl Into<String>, secret: impl Into<String>) -> Self {
        Self { url: url.into(), secrets: vec![secret.into()], behaviour: Behaviour::default() }
    }

    /// Returns the target with another behaviour.
    #[must_use]
    pub fn with(self, behaviour: Behaviour) -> Self {
        Self { behaviour, ..self }
    }
}

/// The differences from correct webhooks. They can be combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Behaviour {
    /// No webhook is sent.
    pub lose: bool,
    /// Each webhook is sent this many times more, even after an answer of 2xx.
    pub repeat: u32,
    /// Each webhook of a link is sent after the next one of the link.
    pub reorder: bool,
    /// The signed time is an hour ago, if the provider signs a time (Revolut, sandbox).
    pub old_timestamp: bool,
    /// The body has the link's status from before the change.
    pub old_status: bool,
    /// The proof is missing.
    pub unsigned: bool,
    /// The proof is made with an unknown secret.
    pub wrong_secret: bool,
    /// The number of retries of a webhook without a 2xx answer.
    pub retries: u32,
    /// The pause before each retry.
    #[serde(rename = "retry_pause_ms", with = "milliseconds")]
    pub retry_pause: Duration,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            lose: false,
            repeat: 0,
            reorder: false,
            old_timestamp: false,
            old_status: false,
            unsigned: false,
            wrong_secret: false,
            retries: 3,
            retry_pause: Duration::from_millis(200),
        }
    }
}

/// A webhook that was sent, or that the behaviour lost or delays.
#[derive(Clone, Debug, Serialize)]
pub struct Announced {
    /// The time when it was sent, or would have been sent.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The event's name at the provider.
    pub event: String,
    /// The id by which a recipient recognizes repeats.
    pub event_id: String,
    /// The provider's id of the link.
    pub link_id: String,
    /// The client's reference of the link.
    pub reference: String,
    /// The link's status that is announced, in the provider's words.
    pub link_status: String,
    /// Whether it was sent.
    pub fate: Fate,
    /// The HTTP status of the recipient's answer; `None` without an answer.
    pub status: Option<u16>,
}

/// Whether a webhook was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It was sent.
    Sent,
    /// The behaviour suppressed it.
    Lost,
    /// It is sent after the next webhook of its link.
    HeldBack,
}

mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}
