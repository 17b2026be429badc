//! Delivers webhooks to merchants.
//!
//! Each event is one signed POST to a public address (contract, section 5; Standard Webhooks). Delivery is at least once; a
//! merchant recognises replays by `webhook-id`. A merchant's answer never changes the state of a payout link.

mod address;
mod behind;
mod hosts;
mod resolver;
mod signature;

use std::{
    borrow::Cow,
    collections::HashMap,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex},
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
    behind::IntakePauses,
    signature::{SecretForm, SigningKey, signature},
};
use self::{
    hosts::{Host, Hosts},
    resolver::CheckedResolver,
};
use crate::{
    domain::{TraceContext, retry},
    http_client::{self, BodyEnd, CallError, Client, HttpSettings, StatusAnswer},
    limits::{KeyedPermitPools, Lane, LanePermit, LanePool},
    lock::lock,
};

/// The settings of webhook delivery.
#[derive(Debug, Clone)]
pub struct WebhookSettings {
    /// Signing keys for merchants without their own keys. There are several while keys rotate.
    pub default_keys: Vec<SigningKey>,
    /// Secrets from which the key of each merchant without its own keys is derived.
    pub master_secrets: Vec<SecretString>,
    /// The merchants' own keys, by `x-merchant-id`.
    pub merchant_keys: HashMap<String, Vec<SigningKey>>,
    /// The waits after the first attempt, the second, …. The webhook is abandoned when they run out.
    pub schedule: Vec<Duration>,
    /// The maximum of a merchant's Retry-After that is honoured.
    pub retry_after_limit: Duration,
    /// The settings of the client.
    pub http: HttpSettings,
    /// The maximum number of concurrent attempts, in total and to one host.
    pub concurrency: usize,
    /// The maximum number of concurrent attempts to one host.
    pub host_concurrency: usize,
    /// The maximum number of concurrent attempts of one merchant, to all its hosts.
    pub merchant_concurrency: usize,
    /// The maximum wait for a permit before an attempt is postponed. While the host answers, it is six times as long.
    pub patience: Duration,
    /// Which hosts may be reached.
    pub addresses: AddressPolicy,
    /// The DNS servers; the system's if empty.
    pub dns_servers: Vec<SocketAddr>,
}

/// The webhook client.
pub struct Webhooks {
    client: Client,
    settings: WebhookSettings,
    all: LanePool,
    hosts: Hosts,
    merchants: KeyedPermitPools,
    default_keys_use: Mutex<DefaultKeysUse>,
}

/// Which merchants' webhooks the default keys have signed.
enum DefaultKeysUse {
    Nobodys,
    /// One merchant's alone, with its id.
    Of(String),
    /// Those of several, and the warning was logged.
    Warned,
}

/// One webhook to deliver.
pub struct Post<'a> {
    /// `webhook-id`: the event's.
    pub id: Uuid,
    /// `x-merchant-id` of the job; it chooses the keys.
    pub merchant_id: &'a str,
    /// Where the webhook goes.
    pub url: &'a Url,
    /// The same in every attempt.
    pub body: Bytes,
    /// Sent as `traceparent` and `tracestate`.
    pub trace: &'a TraceContext,
}

/// The outcome of an attempt.
#[derive(Debug)]
pub enum Posted {
    /// The merchant answered with a 2xx status.
    Delivered {
        /// The HTTP status of the answer.
        status_code: u16,
        /// The reason why the body of the answer was not read to its end.
        body: Option<String>,
    },
    /// The merchant answered 410: it wants no further attempt.
    Gone {
        /// The HTTP status of the answer.
        status_code: u16,
    },
    /// There was no answer, or another one.
    Failed {
        /// The HTTP status, or 0 if there was no answer.
        status_code: u16,
        /// The reason, without the body of the answer.
        error: String,
        /// The wait that the merchant asked for.
        retry_after: Option<Duration>,
    },
}

/// The permission to attempt a delivery now.
pub enum Admitted {
    /// Attempt it, and keep the permits until it is over.
    Yes(Permits),
    /// The host is paused, or every permit is in use. This does not count as an attempt.
    Later(Duration),
}

/// One webhook's permits: of its host, of its merchant, and of all.
pub struct Permits {
    host: Arc<Host>,
    _permits: [LanePermit; 3],
}

/// The next step after a failed attempt.
#[derive(Debug, PartialEq, Eq)]
pub enum Then {
    /// Attempt it again after this time.
    Again(Duration),
    /// The schedule is exhausted, or the merchant wants no further attempt.
    GiveUp,
}

/// The webhook client cannot be created.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum NoClient {
    #[error(transparent)]
    Http(#[from] http_client::NoClient),
    #[error("DNS: {0}")]
    Dns(#[from] hickory_resolver::net::NetError),
}

impl Webhooks {
    /// Creates the client.
    ///
    /// # Errors
    ///
    /// Returns an error if TLS or DNS cannot be set up.
    pub fn new(settings: WebhookSettings) -> Result<Self, NoClient> {
        let resolver = CheckedResolver::new(settings.addresses.clone(), &settings.dns_servers)?;
        Ok(Self {
            client: Client::with_resolver(resolver, settings.http.clone())?,
            all: LanePool::new(settings.concurrency),
            hosts: Hosts::new(settings.host_concurrency),
            merchants: KeyedPermitPools::new(settings.merchant_concurrency),
            default_keys_use: Mutex::new(DefaultKeysUse::Nobodys),
            settings,
        })
    }

    /// Checks whether the URL itself is allowed.
    ///
    /// # Errors
    ///
    /// Returns the reason if it is not.
    pub fn check(&self, url: &Url) -> Result<(), AddressError> {
        self.settings.addresses.check(url)
    }

    /// Waits briefly for the permits of an attempt, or returns when to try again. While the host answers, it waits longer,
    /// and about `most` at most.
    pub async fn admit(&self, merchant_id: &str, url: &Url, lane: Lane, most: Duration) -> Admitted {
        let name = url.host_str().unwrap_or_default();
        if let Err(after) = self.hosts.is_open(name) {
            return Admitted::Later(after);
        }
        let host = self.hosts.of(name);
        let merchant = self.merchants.of(merchant_id);
        let free = [host.try_take(lane), merchant.try_take(lane), self.all.try_take(lane)];
        let permits = match free {
            [Some(of_host), Some(of_merchant), Some(of_all)] => [of_host, of_merchant, of_all],
            free => {
                drop(free);
                match self.wait_for_permits(&host, &merchant, lane, most).await {
                    Ok(permits) => permits,
                    Err(after) => return Admitted::Later(after),
                }
            }
        };
        // After the wait, because the host may have been paused meanwhile.
        match host.pass(Instant::now()) {
            Ok(()) => Admitted::Yes(Permits { host, _permits: permits }),
            Err(after) => Admitted::Later(after),
        }
    }

    async fn wait_for_permits(
        &self,
        host: &Host,
        merchant: &LanePool,
        lane: Lane,
        most: Duration,
    ) -> Result<[LanePermit; 3], Duration> {
        let Some(_waiting) = host.try_wait(lane, Instant::now()) else {
            return Err(host.put_off(Instant::now()));
        };
        let patience = self.settings.patience;
        let most = most.min(patience * LONGEST_WAIT);
        let started = Instant::now();
        let mut permits =
            pin!(async { [host.take(lane).await, merchant.take(lane).await, self.all.take(lane).await] });
        loop {
            if let Ok(permits) = timeout(patience, &mut permits).await {
                return Ok(permits);
            }
            // A webhook to a host that answers is next soon. To postpone it would cost three writes.
            if started.elapsed() + patience > most || host.hangs(Instant::now()) {
                return Err(host.put_off(Instant::now()));
            }
        }
    }

    /// Slows down the intake of new jobs while webhooks to a host that answers quickly fall behind.
    pub async fn slow_down(&self, pauses: &mut IntakePauses) {
        pauses.pause(self.hosts.behind()).await;
    }

    /// Sends no webhook to these hosts from now on, and to all others again.
    pub fn set_paused_hosts(&self, hosts: Vec<String>) {
        self.hosts.set_paused(hosts);
    }

    /// Returns how far merchants' clocks are ahead of this worker's, or `None` before the first answer.
    pub fn clock_offset(&self) -> Option<time::Duration> {
        self.settings.http.clock.offset()
    }

    /// Returns the maximum duration of one attempt, without the wait for permits.
    pub fn longest_post(&self) -> Duration {
        self.settings.http.timeout + Duration::from_secs(1)
    }

    /// Makes one attempt, from name resolution to the last byte of the answer, under one deadline. The status line decides.
    pub async fn post(&self, permits: Permits, post: Post<'_>) -> Posted {
        let failed = |error: &dyn ToString| Posted::Failed {
            status_code: 0,
            error: error.to_string(),
            retry_after: None,
        };
        if let Err(error) = self.check(post.url) {
            return failed(&error);
        }
        let started = Instant::now();
        let called = self.client.call_for_status(self.request(&post)).await;
        permits.host.record(called.is_ok(), started.elapsed(), Instant::now());
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
            // Each secret was validated when the configuration was read.
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

    /// Warns once if two merchants share a secret, because each could sign webhooks to the other.
    fn note_shared(&self, merchant_id: &str) {
        let mut seen = lock(&self.default_keys_use);
        match &*seen {
            DefaultKeysUse::Nobodys => *seen = DefaultKeysUse::Of(merchant_id.to_owned()),
            DefaultKeysUse::Of(first) if first != merchant_id => {
                tracing::warn!(
                    "merchants share webhooks.secrets, so each can sign webhooks to the others: set webhooks.master_secrets"
                );
                *seen = DefaultKeysUse::Warned;
            }
            DefaultKeysUse::Of(_) | DefaultKeysUse::Warned => {}
        }
    }

    /// Decides the next step after the failed attempt number `attempts`.
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

/// The maximum wait for a permit, in units of `patience`.
const LONGEST_WAIT: u32 = 6;

/// Decides by the status line alone, because the merchant has accepted the webhook by then.
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
