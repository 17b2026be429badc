//! Announces what becomes of links: the webhooks that a provider sends to its client, with its own proof.
//!
//! A target can be set and changed while a simulator runs. Changes are announced in their order for each link, unless
//! the [`Behaviour`] says otherwise, and each webhook that is not taken (2xx) is sent again a few times.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

mod proof;
mod sender;

pub(crate) use proof::{Headers, Signable, hmac_hex};
pub(crate) use sender::{Announcement, Announcer, Log};

/// Where a simulator sends its webhooks, and how.
///
/// As JSON: `{"url": "http://127.0.0.1:8086/connectors/sandbox/webhooks", "secrets": ["…"], "behaviour": {"repeat": 1}}`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announce {
    /// Where each webhook is sent.
    pub url: String,
    /// The first one signs. Revolut signs with each of them, as it does while they rotate.
    pub secrets: Vec<String>,
    /// How they differ from correct webhooks, if they do.
    #[serde(default)]
    pub behaviour: Behaviour,
}

impl Announce {
    /// A target that gets every webhook once, in order and signed.
    pub fn to(url: impl Into<String>, secret: impl Into<String>) -> Self {
        Self { url: url.into(), secrets: vec![secret.into()], behaviour: Behaviour::default() }
    }

    /// Returns the target with another behaviour.
    #[must_use]
    pub fn with(self, behaviour: Behaviour) -> Self {
        Self { behaviour, ..self }
    }
}

/// How the webhooks differ from what one would wish. All of it can be combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Behaviour {
    /// Nothing is sent.
    pub lose: bool,
    /// Each webhook is sent so many times more, even after it was taken.
    pub repeat: u32,
    /// Each webhook of a link is held back until the next one of the link was sent.
    pub reorder: bool,
    /// The time that is signed is an hour ago, where the provider signs one (Revolut, sandbox).
    pub old_timestamp: bool,
    /// The body has the link's status from before the change.
    pub old_status: bool,
    /// The proof is missing.
    pub unsigned: bool,
    /// The proof is made with a secret that nobody knows.
    pub wrong_secret: bool,
    /// How often a webhook that is not taken is sent again.
    pub retries: u32,
    /// Before each of those.
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

/// One webhook that was sent, or that the behaviour lost or holds back.
#[derive(Clone, Debug, Serialize)]
pub struct Announced {
    /// When it was sent, or would have been.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The event's name at the provider.
    pub event: String,
    /// The id that a recipient recognizes repeats by.
    pub event_id: String,
    /// The provider's id of the link.
    pub link_id: String,
    /// The client's reference of the link.
    pub reference: String,
    /// The link's status that is announced, in the provider's words.
    pub link_status: String,
    /// Whether it was sent.
    pub fate: Fate,
    /// The HTTP status that the recipient answered; `None` if it did not answer.
    pub status: Option<u16>,
}

/// What became of a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It was sent.
    Sent,
    /// The behaviour suppressed it.
    Lost,
    /// It will be sent after the next one of its link.
    HeldBack,
}

mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}
