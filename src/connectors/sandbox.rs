//! The sandbox: a provider to try things with (`sandbox-connector` is its server).
//!
//! Settings: `url`, `token`, `replay` (`same-key`, `look-up` or `never`: which way out of doubt is exercised),
//! `window_seconds`, `settle_seconds`, `allow_http_links`.

use std::time::Duration;

use futures_util::{FutureExt, future::BoxFuture};
use reqwest::{
    RequestBuilder, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use url::Url;

use super::{
    Call, Connector, ErrorField, Kind, Settings, Supports,
    exchange::{
        OptionalFields, at, identifier, judge, link_url, lost, parse, unasked, unreadable, unsettled,
        with_secret, with_trace,
    },
    kind::read,
};
use crate::{
    contract::Rejection,
    domain::{ConnectorError, CreateLink, CreatedLink, Finding, LookUp, Outcome, PayoutStatus, ReplayRule},
    http_client::{Answer, Client, HttpSettings, NoClient},
    setting_url,
};

pub(super) const KIND: Kind = Kind {
    name: "sandbox",
    title: "Sandbox (sandbox-connector, to try things with)",
    needs: &["url", "token"],
    supports: Supports {
        currencies: None,
        amounts: &[],
        converts: true,
        job_fields: &[],
        feature_data: &[],
        expiry: "as its server is told",
        cancels: false,
    },
    error_fields: &[ErrorField::Code],
    read: read::<SandboxSettings>,
};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct SandboxSettings {
    #[serde(deserialize_with = "setting_url::service")]
    url: Url,
    token: SecretString,
    #[serde(default)]
    replay: Replay,
    #[serde(default = "a_day")]
    window_seconds: u64,
    /// No shorter than a lease.
    #[serde(default = "a_minute")]
    settle_seconds: u64,
    /// Unless it is given: where `url` is http.
    allow_http_links: Option<bool>,
}

/// Which way out of doubt the sandbox is taken to have.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Replay {
    #[default]
    SameKey,
    LookUp,
    Never,
}

fn a_day() -> u64 {
    86_400
}

fn a_minute() -> u64 {
    60
}

impl Settings for SandboxSettings {
    fn problems(&self, lease: Duration, _on_its_way: Duration) -> Vec<String> {
        // Its server is as near as a test has it: nothing stays on its way for long.
        let is_short = Duration::from_secs(self.settle_seconds) < lease;
        let problem = || {
            "settle_seconds is shorter than worker.lease_seconds: a call may begin late in its lease"
                .to_owned()
        };
        is_short.then(problem).into_iter().collect()
    }

    fn url(&self) -> &Url {
        &self.url
    }

    fn identity(&self) -> String {
        self.token.expose_secret().to_owned()
    }

    fn connect(&self, http: HttpSettings) -> Result<Box<dyn Connector>, NoClient> {
        let links = at(&self.url, &["v1", "payout-links"]);
        Ok(Box::new(Sandbox {
            http: Client::new(http)?,
            links,
            settings: self.clone(),
            optional: OptionalFields::default(),
        }))
    }
}

impl SandboxSettings {
    fn allows_http_links(&self) -> bool {
        self.allow_http_links.unwrap_or(self.url.scheme() == "http")
    }
}

struct Sandbox {
    links: Url,
    settings: SandboxSettings,
    http: Client,
    optional: OptionalFields,
}

#[derive(Serialize)]
struct CreateBody<'a> {
    reference: &'a str,
    amount: Amount,
    destination_currency: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    recipient: Option<Recipient<'a>>,
}

#[derive(Serialize)]
struct Amount {
    minor_amount: i64,
    currency: &'static str,
}

#[derive(Serialize)]
struct Recipient<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
}

#[derive(Deserialize)]
struct Link {
    id: String,
    status: String,
    url: String,
    #[serde(default)]
    expires_at: Value,
}

#[derive(Deserialize)]
struct Links {
    data: Vec<Link>,
}

#[derive(Deserialize)]
struct Failure {
    error: FailureDetails,
}

#[derive(Deserialize)]
struct FailureDetails {
    code: String,
    message: String,
}

impl Sandbox {
    fn request(&self, request: RequestBuilder, token: Option<&SecretString>) -> RequestBuilder {
        with_secret(request, AUTHORIZATION, "Bearer ", token.unwrap_or(&self.settings.token))
    }

    fn traced(&self, request: RequestBuilder, call: Call<'_>) -> RequestBuilder {
        with_trace(self.request(request, call.job.access_token.as_ref()), call.trace)
    }

    fn by_reference(&self, reference: &str) -> Url {
        let mut url = self.links.clone();
        url.query_pairs_mut().append_pair("reference", reference);
        url
    }

    async fn create(&self, call: Call<'_>) -> Outcome {
        let body = create_body(call);
        let request = self
            .traced(self.http.post(self.links.clone()), call)
            .header(CONTENT_TYPE, "application/json")
            .header("idempotency-key", call.idempotency_key)
            .body(body);
        match self.http.call(request).await {
            Err(error) => lost(error),
            Ok(answer) if answer.status.is_success() => {
                match parse(&answer).and_then(|link| self.read(link, &answer)) {
                    Some(Finding::Found(link)) => Outcome::Created(link),
                    // Something was made, or is there under our key and has ended: not for us to guess.
                    _ => Outcome::Unknown(self.unusable(&answer)),
                }
            }
            // With Retry-After the sandbox says that it did nothing.
            Ok(answer) if answer.status == StatusCode::SERVICE_UNAVAILABLE => {
                match answer.retry_after(OffsetDateTime::now_utc()) {
                    None => Outcome::Unknown(failure(&answer)),
                    retry_after => Outcome::TryLater { error: failure(&answer), retry_after },
                }
            }
            Ok(answer) => judge(&answer, failure(&answer), call.job.access_token.is_none()),
        }
    }

    async fn find(&self, call: Call<'_>) -> Finding {
        let by_reference = self.by_reference(call.idempotency_key);
        let request = self.traced(self.http.get(by_reference), call);
        let answer = match self.http.call(request).await {
            Ok(answer) => answer,
            Err(error) => return unasked(error),
        };
        if !answer.status.is_success() {
            return unsettled(&answer, failure(&answer));
        }
        match parse(&answer) {
            Some(Links { data }) => match data.into_iter().next() {
                Some(link) => {
                    self.read(link, &answer).unwrap_or_else(|| unsettled(&answer, self.unusable(&answer)))
                }
                None => Finding::NotFound { status_code: answer.status.as_u16() },
            },
            None => unsettled(&answer, unreadable(&answer)),
        }
    }

    /// Why an answer of success is none. A link that the settings keep from being passed on is said to be one.
    fn unusable(&self, answer: &Answer) -> ConnectorError {
        let url = parse::<Link>(answer).map(|link| link.url);
        let is_kept_back =
            url.is_some_and(|url| link_url(&url, false).is_none() && link_url(&url, true).is_some());
        if is_kept_back && !self.settings.allows_http_links() {
            let reason = "the link is http, and allow_http_links is false in this connector's section";
            return ConnectorError::new(answer.status.as_u16(), None, reason, None);
        }
        unreadable(answer)
    }

    /// A link as the sandbox has it; `None` where it cannot be passed on.
    fn read(&self, link: Link, answer: &Answer) -> Option<Finding> {
        let status_code = answer.status.as_u16();
        let connector_payout_id = identifier(link.id)?;
        let mut unknown_status = None;
        let payout_status = match link.status.as_str() {
            "issued" => PayoutStatus::RequiresFulfillment,
            "claimed" => PayoutStatus::Pending,
            "cancelled" => PayoutStatus::Cancelled,
            "expired" => PayoutStatus::Expired,
            status => {
                unknown_status = Some(self.optional.unknown_status(status));
                PayoutStatus::RequiresFulfillment
            }
        };
        if matches!(payout_status, PayoutStatus::Cancelled | PayoutStatus::Expired) {
            let error = ConnectorError::new(status_code, None, &format!("the link is {}", link.status), None);
            return Some(Finding::Ended { error, payout_status, connector_payout_id });
        }
        Some(Finding::Found(CreatedLink {
            url: link_url(&link.url, self.settings.allows_http_links())?,
            connector_payout_id,
            payout_status,
            unknown_status,
            expires_at: self.optional.time("expires_at", &link.expires_at),
            status_code,
        }))
    }
}

impl Connector for Sandbox {
    fn replay_rule(&self) -> ReplayRule {
        match self.settings.replay {
            Replay::SameKey => ReplayRule::SameKey {
                window: Duration::from_secs(self.settings.window_seconds),
                look_up: None,
            },
            Replay::LookUp => {
                ReplayRule::LookUp(LookUp { settle: Duration::from_secs(self.settings.settle_seconds) })
            }
            Replay::Never => ReplayRule::Never,
        }
    }

    fn timeout(&self) -> Duration {
        self.http.timeout()
    }

    fn supports(&self, job: &CreateLink) -> Result<(), Rejection> {
        KIND.supports.check(job)
    }

    fn create_link<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Outcome> {
        self.create(call).boxed()
    }

    fn find_link<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Finding> {
        self.find(call).boxed()
    }

    fn credentials(&self) -> Vec<SecretString> {
        vec![self.settings.token.clone()]
    }

    fn unread_fields(&self) -> u64 {
        self.optional.unread()
    }

    fn unknown_statuses(&self) -> u64 {
        self.optional.unknown_statuses()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), String>> {
        async {
            let request = self.request(self.http.get(self.by_reference("check")), None);
            match self.http.call(request).await {
                Ok(answer) if answer.status.is_success() => Ok(()),
                Ok(answer) => Err(format!("answered {}: {}", answer.status, failure(&answer).message)),
                Err(error) => Err(error.to_string()),
            }
        }
        .boxed()
    }
}

fn create_body(call: Call<'_>) -> Vec<u8> {
    let job = call.job;
    let customer = job.customer.as_deref();
    let name = customer.and_then(|customer| customer.name.as_deref());
    let email = customer.and_then(|customer| customer.email.as_ref()).map(|email| email.expose_secret());
    let body = CreateBody {
        reference: call.idempotency_key,
        amount: Amount { minor_amount: job.amount.minor_units(), currency: job.amount.currency.as_str() },
        destination_currency: job.destination_currency.as_str(),
        recipient: (name.is_some() || email.is_some()).then_some(Recipient { name, email }),
    };
    serde_json::to_vec(&body).unwrap_or_default()
}

fn failure(answer: &Answer) -> ConnectorError {
    let status_code = answer.status.as_u16();
    match parse(answer) {
        Some(Failure { error }) => ConnectorError::new(status_code, Some(&error.code), &error.message, None),
        None => ConnectorError::new(status_code, None, &format!("answered {status_code}"), None),
    }
}
