//! Port: merchants. One event is one POST, signed (contract, section 5; Standard Webhooks), to a public address.
//!
//! At least once: a merchant tells repeats by `webhook-id`. Whatever a merchant answers, or does not, the payout
//! link's own state is never touched by it.

mod address;
mod hosts;
mod resolver;
mod signature;

use std::{
    borrow::Cow,
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use reqwest::{RequestBuilder, StatusCode, header::CONTENT_TYPE};
use secrecy::SecretString;
use time::OffsetDateTime;
use tokio::time::timeout;
use url::Url;
use uuid::Uuid;

pub use self::{
    address::{AddressError, AddressPolicy},
    signature::{SecretForm, SigningKey, signature},
};
use self::{
    hosts::{Host, Hosts},
    resolver::CheckedResolver,
};
use crate::{
    domain::{TraceContext, retry},
    http_client::{self, BodyEnd, CallError, Client, HttpSettings, StatusAnswer},
    limits::{KeyedPermitPools, PermitPool, PooledPermit},
};

#[derive(Debug, Clone)]
pub struct WebhookSettings {
    /// Signing keys for merchants that have none of their own; several while keys rotate.
    pub default_keys: Vec<SigningKey>,
    /// Where these are given, a merchant that has no keys of its own gets some that are derived from them.
    pub master_secrets: Vec<SecretString>,
    /// By `x-merchant-id`.
    pub merchant_keys: HashMap<String, Vec<SigningKey>>,
    /// Waits after the first try, the second, …; the webhook is given up when they run out.
    pub schedule: Vec<Duration>,
    /// A merchant's Retry-After is honoured up to this.
    pub retry_after_limit: Duration,
    pub http: HttpSettings,
    /// Posts under way at once, and to one host.
    pub concurrency: usize,
    pub host_concurrency: usize,
    /// The same of one merchant, whose webhooks may go to many hosts.
    pub merchant_concurrency: usize,
    /// How long a post waits for a permit before it is put off.
    pub patience: Duration,
    pub addresses: AddressPolicy,
    /// Asked for the addresses of hosts; the system's where empty.
    pub dns_servers: Vec<SocketAddr>,
}

pub struct Webhooks {
    client: Client,
    settings: WebhookSettings,
    all: PermitPool,
    hosts: Hosts,
    merchants: KeyedPermitPools,
    /// The first merchant that was signed for with the default keys; `None` once a second one was, which is said once.
    only_default: Mutex<Option<Option<String>>>,
}

/// One webhook to be posted.
pub struct Post<'a> {
    /// `webhook-id`: the event's.
    pub id: Uuid,
    pub merchant_id: &'a str,
    pub url: &'a Url,
    /// The same in every try.
    pub body: Bytes,
    pub trace: &'a TraceContext,
}

/// What a merchant made of it.
#[derive(Debug)]
pub enum Posted {
    Delivered {
        status_code: u16,
        /// What became of the body, where it was not read to its end.
        body: Option<String>,
    },
    /// 410: it wants no more of this.
    Gone {
        status_code: u16,
    },
    Failed {
        status_code: u16,
        error: String,
        retry_after: Option<Duration>,
    },
}

/// Whether a webhook may be posted now.
pub enum Admitted {
    Yes(Permits),
    /// Its host is paused, or every permit is in use: not tried, and not counted as an attempt.
    Later(Duration),
}

/// One webhook's permits: of its host, of its merchant, and of all.
pub struct Permits {
    host: Arc<Host>,
    _slots: [PooledPermit; 3],
}

/// What follows a try.
#[derive(Debug, PartialEq, Eq)]
pub enum Then {
    Again(Duration),
    GiveUp,
}

/// Nothing can be posted at all.
#[derive(Debug, thiserror::Error)]
pub enum NoClient {
    #[error(transparent)]
    Http(#[from] http_client::NoClient),
    #[error("DNS: {0}")]
    Dns(#[from] hickory_resolver::net::NetError),
}

impl Webhooks {
    pub fn new(settings: WebhookSettings) -> Result<Self, NoClient> {
        let resolver = CheckedResolver::new(settings.addresses.clone(), &settings.dns_servers)?;
        Ok(Self {
            client: Client::with_resolver(resolver, settings.http.clone())?,
            all: PermitPool::new(settings.concurrency),
            hosts: Hosts::new(settings.host_concurrency),
            merchants: KeyedPermitPools::new(settings.merchant_concurrency),
            only_default: Mutex::new(Some(None)),
            settings,
        })
    }

    /// May a webhook go there, as far as the URL itself can tell?
    pub fn check(&self, url: &Url) -> Result<(), AddressError> {
        self.settings.addresses.check(url)
    }

    /// Waits a moment for what a post needs, or says when to come again.
    pub async fn admit(&self, merchant_id: &str, url: &Url) -> Admitted {
        let host = self.hosts.of(url.host_str().unwrap_or_default());
        let merchant = self.merchants.of(merchant_id);
        let slots = async { [host.take().await, merchant.take().await, self.all.take().await] };
        let Ok(slots) = timeout(self.settings.patience, slots).await else {
            return Admitted::Later(host.put_off(Instant::now()));
        };
        // After the wait: it may have been paused meanwhile.
        match host.pass(Instant::now()) {
            Ok(()) => Admitted::Yes(Permits { host, _slots: slots }),
            Err(after) => Admitted::Later(after),
        }
    }

    /// By how much the clocks of merchants are ahead of this worker's; `None` before the first answer.
    pub fn clock_offset(&self) -> Option<time::Duration> {
        self.settings.http.clock.offset()
    }

    /// The longest that one post takes, with its permits in hand.
    pub fn longest_post(&self) -> Duration {
        self.settings.http.timeout + Duration::from_secs(1)
    }

    /// One try: everything from the name to the last byte of the answer under one deadline. Its status line decides.
    pub async fn post(&self, permits: Permits, post: Post<'_>) -> Posted {
        let failed = |error: &dyn ToString| Posted::Failed {
            status_code: 0,
            error: error.to_string(),
            retry_after: None,
        };
        if let Err(error) = self.check(post.url) {
            return failed(&error);
        }
        let called = self.client.call_for_status(self.request(&post)).await;
        permits.host.record(called.is_ok(), Instant::now());
        match called {
            Ok(answer) => judge(&answer),
            Err(CallError::NotSent(error) | CallError::Unknown(error)) => failed(&error),
        }
    }

    fn request(&self, post: &Post<'_>) -> RequestBuilder {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let id = post.id.to_string();
        let keys = self.keys_of(post.merchant_id);
        let mut request = self
            .client
            .post(post.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-timestamp", now)
            .header("webhook-signature", signature(&keys, &id, now, &post.body))
            .header("webhook-id", id)
            .body(post.body.clone());
        for (name, value) in
            [("traceparent", &post.trace.traceparent), ("tracestate", &post.trace.tracestate)]
        {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        request
    }

    fn keys_of(&self, merchant_id: &str) -> Cow<'_, [SigningKey]> {
        let settings = &self.settings;
        if let Some(own) = settings.merchant_keys.get(merchant_id) {
            return own.into();
        }
        if !settings.master_secrets.is_empty() {
            // Each was tried when the configuration was read.
            let derived = settings
                .master_secrets
                .iter()
                .filter_map(|master| SigningKey::new(&SigningKey::derive(master, merchant_id).ok()?).ok());
            return derived.collect::<Vec<_>>().into();
        }
        if settings.default_keys.iter().any(SigningKey::is_shared) {
            self.note_shared(merchant_id);
        }
        (&settings.default_keys[..]).into()
    }

    /// Says it once when two merchants have one secret: each of them could sign webhooks to the other.
    fn note_shared(&self, merchant_id: &str) {
        let mut only = self.only_default.lock().unwrap_or_else(PoisonError::into_inner);
        match &*only {
            Some(None) => *only = Some(Some(merchant_id.to_owned())),
            Some(Some(first)) if first != merchant_id => {
                tracing::warn!(
                    "merchants share webhooks.secrets, so that each can sign to the others: set webhooks.master_secrets"
                );
                *only = None;
            }
            Some(Some(_)) | None => {}
        }
    }

    /// What follows the `attempts`th try, which failed.
    pub fn then(&self, attempts: u32, retry_after: Option<Duration>) -> Then {
        let done = usize::try_from(attempts).unwrap_or(usize::MAX).saturating_sub(1);
        match self.settings.schedule.get(done) {
            Some(&wait) => {
                let asked = retry_after.unwrap_or_default().min(self.settings.retry_after_limit);
                Then::Again(retry::later(wait.max(asked)))
            }
            None => Then::GiveUp,
        }
    }
}

/// Judges by the status line alone: a merchant has taken the webhook by then, whatever becomes of the body.
fn judge(answer: &StatusAnswer) -> Posted {
    let status_code = answer.status.as_u16();
    if answer.status.is_success() {
        let body = match &answer.body {
            BodyEnd::Whole | BodyEnd::Cut => None,
            BodyEnd::Broken(reason) => Some(format!("the body was not read: {reason}")),
        };
        Posted::Delivered { status_code, body }
    } else if answer.status == StatusCode::GONE {
        Posted::Gone { status_code }
    } else {
        let error = if answer.status.is_redirection() {
            "redirected; redirects are not followed".to_owned()
        } else {
            format!("answered {status_code}")
        };
        Posted::Failed { status_code, error, retry_after: answer.retry_after(OffsetDateTime::now_utc()) }
    }
}
