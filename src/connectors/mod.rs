//! Connectors: the code that calls providers of payout links.
//!
//! A connector classifies the provider's answers. It never decides the next step (`domain::retry` does), never retries a create
//! call by itself, and never logs a body.

mod exchange;
mod kind;
mod proof;
mod provider;
mod question;
mod supports;

mod hyperswitch;
mod razorpayx;
mod revolut;
mod sandbox;
mod xendit;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use reqwest::header::HeaderMap;
use secrecy::SecretString;
use time::OffsetDateTime;

pub(crate) use self::exchange::link_url;
pub use self::{
    kind::{ErrorField, KINDS, Kind, Settings},
    supports::Supports,
};
use crate::{
    domain::{
        AccountId, ConnectorError, CreateLink, CreatedLink, Finding, LinkAnswer, LinkStatus, NewLinkStatus,
        Outcome, Redactor, Rejection, ReplayRule, TraceContext, escape_control,
        follow::{self, FollowPolicy},
    },
    http_client::PeerClock,
    limits::{Breaker, Health, Merchants, PermitPool, Permits, RateLimit},
};

/// The inputs of a call. The idempotency key is the same in every call for one record.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// The request, with its secrets.
    pub job: &'a CreateLink,
    /// 32 characters of `[a-z0-9]`.
    pub idempotency_key: &'a str,
    /// The provider's id of the payout, if an earlier call or look-up returned it.
    pub connector_payout_id: Option<&'a str>,
    /// The start of the first call. A look-up need not search before it.
    pub first_called_at: Option<OffsetDateTime>,
    /// By the clock of `first_called_at`, which is the database's and need not be the provider's.
    pub now: OffsetDateTime,
    /// Sent to providers that continue a trace.
    pub trace: &'a TraceContext,
}

/// A link that the provider is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedLink {
    /// The provider's id of the link.
    pub connector_payout_id: String,
    /// The provider's id of the payout or transaction that came of the link, once it is known.
    pub provider_payout_id: Option<String>,
    /// The status that was announced last.
    pub status: LinkStatus,
    /// The end of the link, as the provider said it last.
    pub expires_at: Option<OffsetDateTime>,
    /// Whether the worker cancelled the link. Some providers have one word for a cancelled and for an expired link.
    pub is_cancelled: bool,
}

/// An authentic webhook of a provider. It is a trigger only: the provider is asked about the link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderWebhook {
    /// The provider's id of the webhook, or a digest of it: equal in every delivery of one webhook.
    pub dedupe_key: String,
    /// The provider's name of the event, for operators.
    pub event_type: String,
    /// The link that the provider has to be asked about.
    pub link: LinkReference,
}

/// How a provider's webhook names its link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkReference {
    /// The link's own id.
    ConnectorPayoutId(String),
    /// The id of the payout or transaction that came of the link.
    ProviderPayoutId(String),
    /// The webhook is about no link.
    None,
}

/// Why a webhook of a provider is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookProblem {
    /// It has no proof, a wrong one, or one of another time.
    NotAuthentic,
    /// It is authentic and not what the provider documents.
    Unreadable,
}

/// A connector account.
pub trait Connector: Send + Sync {
    /// Returns how an unknown outcome is resolved.
    fn replay_rule(&self) -> ReplayRule;

    /// Returns the maximum duration of one call of either kind.
    fn timeout(&self) -> Duration;

    /// Checks a job before it is stored.
    ///
    /// # Errors
    ///
    /// Returns a rejection if this connector cannot carry out the job.
    fn supports(&self, job: &CreateLink) -> Result<(), Rejection>;

    /// Creates a payout link.
    fn create_link<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Outcome>;

    /// Looks a payout link up, by the provider's id if known, otherwise by the idempotency key.
    fn find_link<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Finding>;

    /// Cancels an unclaimed link with the configured credential. The record is not changed. A link that is cancelled
    /// already counts as cancelled.
    ///
    /// # Errors
    ///
    /// Returns the provider's error if the link was not cancelled.
    fn cancel_link<'a>(&'a self, connector_payout_id: &'a str) -> BoxFuture<'a, Result<(), ConnectorError>>;

    /// Asks about links, with the configured credential. Returns one answer for each link, in order.
    ///
    /// One question may be about at most [`Kind::links_per_question`] links. Its first call is reserved already; each further
    /// one is made only if `limit` has a permit for it at once.
    fn ask_about<'a>(
        &'a self,
        links: &'a [AskedLink],
        limit: &'a RateLimit,
    ) -> BoxFuture<'a, Vec<LinkAnswer>>;

    /// Authenticates a webhook of the provider and reads which link it is about.
    ///
    /// # Errors
    ///
    /// Returns a problem if no secret of `secrets` authenticates the webhook, or if it cannot be read.
    fn read_webhook(
        &self,
        secrets: &[SecretString],
        headers: &HeaderMap,
        body: &[u8],
        now: OffsetDateTime,
    ) -> Result<ProviderWebhook, WebhookProblem>;

    /// Returns the account's own secrets, because a provider may repeat them in its texts.
    fn credentials(&self) -> Vec<SecretString>;

    /// Returns the number of optional fields that could not be read since the start.
    fn unread_fields(&self) -> u64;

    /// Returns the number of unknown link statuses since the start.
    fn unknown_statuses(&self) -> u64;

    /// Makes a harmless call to check the URL and the credential.
    ///
    /// # Errors
    ///
    /// Returns a text for the operator if the check failed.
    fn check(&self) -> BoxFuture<'_, Result<(), String>>;
}

/// A connector as the configuration names it, with its limits.
pub struct Account {
    /// `NAME` of `[connectors.NAME]`, stored with each record.
    pub name: Arc<str>,
    /// The kind of the connector.
    pub kind: &'static Kind,
    /// The identity of the account at the provider.
    pub id: AccountId,
    /// The provider's, by its answers.
    pub clock: Arc<PeerClock>,
    /// Makes the calls.
    pub connector: Box<dyn Connector>,
    /// The permits of concurrent calls.
    pub permits: Permits,
    /// The rate limit.
    pub rate: RateLimit,
    /// The records in process and the limits of each merchant.
    pub merchants: Merchants,
    /// Stops calls to a provider that fails.
    pub breaker: Breaker,
    /// How its links are followed.
    pub follow: FollowSettings,
}

/// How an account follows its links.
pub struct FollowSettings {
    /// Whether links are followed at all.
    pub enabled: bool,
    /// When the provider is asked about a link.
    pub policy: FollowPolicy,
    /// The permits of concurrent questions.
    pub permits: PermitPool,
    /// The secrets that authenticate the provider's webhooks.
    pub webhook_secrets: Vec<SecretString>,
}

impl Account {
    /// Returns how a new link is followed.
    pub fn first_question(&self, link: &CreatedLink, now: OffsetDateTime) -> NewLinkStatus {
        let ask_after = follow::first_question(&self.follow.policy, link.expires_at, now);
        NewLinkStatus { expires_at: link.expires_at, ask_after: self.follow.enabled.then_some(ask_after) }
    }

    /// Removes the account's and the job's secrets from an error, and the fields that are not in [`Kind::error_fields`].
    pub fn redact(&self, error: &mut ConnectorError, job: Option<&CreateLink>) {
        if !self.kind.error_fields.contains(&ErrorField::Code) {
            error.code = None;
        }
        if !self.kind.error_fields.contains(&ErrorField::Reason) {
            error.reason = None;
        }
        error.redact(&self.redactor(job));
    }

    /// Prepares a text for an operator's terminal: removes the account's secrets and escapes control characters.
    pub fn redact_text(&self, text: &str) -> String {
        escape_control(&self.redactor(None).redact(text)).into_owned()
    }

    /// Removes the account's and the job's secrets from a status that this version does not know.
    pub fn redact_status(&self, status: &str, job: &CreateLink) -> String {
        self.redactor(Some(job)).redact(status)
    }

    fn redactor(&self, job: Option<&CreateLink>) -> Redactor {
        let of_job = job.into_iter().flat_map(CreateLink::secrets);
        Redactor::new(self.connector.credentials().into_iter().chain(of_job))
    }
}

impl Outcome {
    /// Returns the provider's health as this outcome shows it.
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
    /// Returns the state of the provider that this finding shows to the circuit breaker.
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

/// Every configured account.
pub struct Connectors {
    by_name: BTreeMap<Arc<str>, Account>,
    default: Option<String>,
}

impl Connectors {
    /// Collects the accounts; `default` is the account of jobs without `x-connector`.
    pub fn new(accounts: impl IntoIterator<Item = Account>, default: Option<String>) -> Self {
        Self {
            by_name: accounts.into_iter().map(|account| (account.name.clone(), account)).collect(),
            default,
        }
    }

    /// Returns the named account, or the default one.
    pub fn choose(&self, name: Option<&str>) -> Option<&Account> {
        self.by_name.get(name.or(self.default.as_deref())?)
    }

    /// Returns the accounts in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Account> {
        self.by_name.values()
    }
}
