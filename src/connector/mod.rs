//! Port: providers that make payout links. One file each, and this trait, because there are several of them.
//!
//! A connector says what an answer means; it never decides what follows (that is `domain::retry`), never repeats a
//! call by itself, and never logs a body.

mod sandbox;

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::BoxFuture;
use secrecy::SecretString;
use time::OffsetDateTime;
use url::Url;

pub use self::sandbox::{Sandbox, SandboxSettings};
use crate::{
    domain::{ConnectorError, CreateLink, Finding, Outcome, ReplayRule, TraceContext},
    http::Answer,
    limits::Slots,
    wire::Rejection,
};

/// Everything that a call may need. The idempotency key is the same in every call for one record.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    pub job: &'a CreateLink,
    /// 32 characters of `[a-z0-9]`.
    pub idempotency_key: &'a str,
    /// Known where an earlier call, or a look-up, told it.
    pub connector_payout_id: Option<&'a str>,
    /// When the first call that counts began: a look-up need not search before it.
    pub first_called_at: Option<OffsetDateTime>,
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

    /// A harmless call that tells whether it can be reached with its credentials.
    fn check(&self) -> BoxFuture<'_, Result<(), String>>;
}

/// A connector as the configuration names it, with its limits.
pub struct Account {
    pub name: String,
    pub connector: Box<dyn Connector>,
    /// Calls under way at once.
    pub slots: Slots,
}

pub struct Connectors {
    by_name: BTreeMap<String, Account>,
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

    pub fn is_only_one(&self) -> bool {
        self.by_name.len() == 1
    }
}

/// What an answer without a link means, where a connector has nothing of its own to say of it.
///
/// `own_credential`: it was called with the configuration's credential, not with the job's `access_token`. A
/// deployment's mistake must not fail payouts.
fn judge(answer: &Answer, error: ConnectorError, own_credential: bool) -> Outcome {
    let retry_after = answer.retry_after(OffsetDateTime::now_utc());
    match answer.status.as_u16() {
        401 | 403 if own_credential => Outcome::TryLater { error, retry_after },
        400 | 401 | 403 | 404 | 422 => Outcome::Refused(error),
        429 => Outcome::TryLater { error, retry_after },
        503 if retry_after.is_some() => Outcome::TryLater { error, retry_after },
        _ => Outcome::InDoubt(error),
    }
}

/// A link that may be passed on: an absolute `https` URL (`http` where a stand-in is configured), without
/// user-info or control characters, 2,048 bytes at most.
fn link_url(text: &str, allow_http: bool) -> Option<SecretString> {
    let url = Url::parse(text).ok()?;
    let scheme = url.scheme() == "https" || (allow_http && url.scheme() == "http");
    let sound = scheme
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && text.len() <= 2048
        && !text.chars().any(|c| c.is_control() || c.is_whitespace());
    sound.then(|| text.into())
}
