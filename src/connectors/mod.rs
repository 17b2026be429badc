//! Port: providers that make payout links. One file each, and this trait, because there are several of them.
//!
//! A connector says what an answer means; it never decides what follows (that is `domain::retry`), never repeats a
//! call by itself, and never logs a body.

mod exchange;
mod kind;
mod supports;

mod hyperswitch;
mod razorpayx;
mod revolut;
mod sandbox;
mod xendit;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use secrecy::SecretString;
use time::OffsetDateTime;

pub use self::{
    kind::{ErrorField, KINDS, Kind, Settings},
    supports::Supports,
};
use crate::{
    contract::Rejection,
    domain::{
        AccountId, ConnectorError, CreateLink, Finding, Outcome, Redactor, ReplayRule, TraceContext,
        escape_control,
    },
    http_client::PeerClock,
    limits::{Breaker, Health, Permits, RateLimit},
};

/// Everything that a call may need. The idempotency key is the same in every call for one record.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    pub job: &'a CreateLink,
    /// 32 characters of `[a-z0-9]`.
    pub idempotency_key: &'a str,
    /// Known where an earlier call, or a look-up, told it.
    pub connector_payout_id: Option<&'a str>,
    /// When the first call that counts began, where a look-up need not search before it.
    pub first_called_at: Option<OffsetDateTime>,
    /// By the clock of `first_called_at`, which is the database's and need not be the provider's.
    pub now: OffsetDateTime,
    pub trace: &'a TraceContext,
}

pub trait Connector: Send + Sync {
    /// What may be done where the outcome of a call is not known.
    fn replay_rule(&self) -> ReplayRule;

    /// The longest that one call of either kind takes.
    fn timeout(&self) -> Duration;

    /// Refuses a job that this connector cannot carry out, before it is written down.
    fn supports(&self, job: &CreateLink) -> Result<(), Rejection>;

    /// Asks for a payout link.
    fn create_link<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Outcome>;

    /// Asks what became of it: by the connector's id where that is known, else by our reference.
    fn find_link<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Finding>;

    /// Takes a link back that nobody has claimed yet, with the configured credential. What it comes to is told to the
    /// person who asked for it; the record is not changed.
    fn cancel_link<'a>(&'a self, _connector_payout_id: &'a str) -> BoxFuture<'a, Result<(), ConnectorError>> {
        let error = ConnectorError::unanswered("this connector cannot take a link back");
        std::future::ready(Err(error)).boxed()
    }

    /// The account's own secrets, configured and fetched: a provider may repeat them in its texts.
    fn credentials(&self) -> Vec<SecretString>;

    /// Optional fields of its answers that were there and could not be read, since the start.
    fn unread_fields(&self) -> u64;

    /// Statuses of links that were not known, since the start.
    fn unknown_statuses(&self) -> u64;

    /// A harmless call that tells whether it can be reached with its credentials.
    fn check(&self) -> BoxFuture<'_, Result<(), String>>;
}

/// A connector as the configuration names it, with its limits.
pub struct Account {
    pub name: Arc<str>,
    pub kind: &'static Kind,
    pub id: AccountId,
    /// The provider's, by its answers.
    pub clock: Arc<PeerClock>,
    pub connector: Box<dyn Connector>,
    /// Calls under way at once.
    pub permits: Permits,
    /// Calls begun in a minute.
    pub rate: RateLimit,
    pub breaker: Breaker,
}

impl Account {
    /// Takes out of an error what nobody is told: the account's and the job's secrets, and the fields that are not among
    /// [`Kind::tells`].
    pub fn redact(&self, error: &mut ConnectorError, job: Option<&CreateLink>) {
        if !self.kind.error_fields.contains(&ErrorField::Code) {
            error.code = None;
        }
        if !self.kind.error_fields.contains(&ErrorField::Reason) {
            error.reason = None;
        }
        error.redact(&self.redactor(job));
    }

    /// A text of the connector's for an operator's terminal, without the account's secrets.
    pub fn redact_text(&self, text: &str) -> String {
        escape_control(&self.redactor(None).redact(text)).into_owned()
    }

    /// A provider's word that this version does not know, without the account's and the job's secrets.
    pub fn redact_status(&self, status: &str, job: &CreateLink) -> String {
        self.redactor(Some(job)).redact(status)
    }

    fn redactor(&self, job: Option<&CreateLink>) -> Redactor {
        let of_job = job.into_iter().flat_map(CreateLink::secrets);
        Redactor::new(self.connector.credentials().into_iter().chain(of_job))
    }
}

impl Outcome {
    /// What it says of the provider.
    pub fn health(&self) -> Health {
        match self {
            Self::Created(_) | Self::Underway { .. } | Self::Declined(_) | Self::AlreadyExists(_) => {
                Health::Works
            }
            Self::NotSent(_) => Health::Fails,
            Self::TryLater { error, .. } if error.status_code == 503 => Health::Fails,
            // A limit, or a credential of ours.
            Self::TryLater { .. } => Health::Silent,
            // Another call with our key is under way there.
            Self::Unknown(error) if error.status_code == 409 => Health::Silent,
            Self::Unknown(_) => Health::Fails,
        }
    }
}

impl Finding {
    pub fn health(&self) -> Health {
        match self {
            Self::Found(_) | Self::Underway { .. } | Self::Ended { .. } | Self::NotFound { .. } => {
                Health::Works
            }
            Self::Unanswered { error, .. } => match error.status_code {
                400..=407 | 409..=499 => Health::Silent,
                _ => Health::Fails,
            },
        }
    }
}

pub struct Connectors {
    by_name: BTreeMap<Arc<str>, Account>,
    default: Option<String>,
}

impl Connectors {
    pub fn new(accounts: impl IntoIterator<Item = Account>, default: Option<String>) -> Self {
        Self {
            by_name: accounts.into_iter().map(|account| (account.name.clone(), account)).collect(),
            default,
        }
    }

    /// The one named, or the default where none is.
    pub fn choose(&self, name: Option<&str>) -> Option<&Account> {
        self.by_name.get(name.or(self.default.as_deref())?)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Account> {
        self.by_name.values()
    }
}
