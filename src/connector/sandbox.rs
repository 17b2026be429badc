//! The sandbox: a provider to try things with (`sandbox-connector` is its server).
//!
//! Settings: `url`, `token`, `replay` (`same-key`, `look-up` or `never`: which way out of doubt is exercised),
//! `window_seconds`, `settle_seconds`, `allow_http_links`.

use std::time::Duration;

use futures_util::{FutureExt, future::BoxFuture};
use reqwest::{
    Client, RequestBuilder,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use time::OffsetDateTime;
use url::Url;

use super::{Call, Connector, judge, link_url};
use crate::{
    domain::{ConnectorError, CreateLink, CreatedLink, Finding, Outcome, PayoutStatus, ReplayRule},
    http::{self, Answer, CallError, HttpSettings},
    wire::Rejection,
};

#[derive(Debug, Clone)]
pub struct SandboxSettings {
    pub url: Url,
    pub token: SecretString,
    pub replay: ReplayRule,
    pub allow_http_links: bool,
    pub http: HttpSettings,
}

pub struct Sandbox {
    client: Client,
    links: String,
    settings: SandboxSettings,
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
    #[serde(default, with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
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
    pub fn new(settings: SandboxSettings) -> reqwest::Result<Self> {
        let links = format!("{}/v1/payout-links", settings.url.as_str().trim_end_matches('/'));
        Ok(Self { client: http::client(&settings.http).build()?, links, settings })
    }

    fn request(&self, request: RequestBuilder, call: Option<Call<'_>>) -> RequestBuilder {
        let token = call.and_then(|call| call.job.access_token.as_ref()).unwrap_or(&self.settings.token);
        let mut request = request;
        if let Ok(mut value) = HeaderValue::try_from(format!("Bearer {}", token.expose_secret())) {
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let trace = call.map(|call| call.trace);
        if let Some(traceparent) = trace.and_then(|trace| trace.traceparent.as_deref()) {
            request = request.header("traceparent", traceparent);
        }
        if let Some(tracestate) = trace.and_then(|trace| trace.tracestate.as_deref()) {
            request = request.header("tracestate", tracestate);
        }
        request
    }

    async fn create(&self, call: Call<'_>) -> Outcome {
        let body = create_body(call);
        let request = self
            .request(self.client.post(&self.links), Some(call))
            .header(CONTENT_TYPE, "application/json")
            .header("idempotency-key", call.idempotency_key)
            .body(body);
        match http::call(request, &self.settings.http).await {
            Err(CallError::NotSent(reason)) => Outcome::NotSent(ConnectorError::unanswered(&reason)),
            Err(CallError::InDoubt(reason)) => Outcome::InDoubt(ConnectorError::unanswered(&reason)),
            Ok(answer) if answer.status.is_success() => {
                match parse(&answer).and_then(|link| self.read(link, &answer)) {
                    Some(Finding::Found(link)) => Outcome::Created(link),
                    // Something was made, or is there under our key and has ended: not for us to guess.
                    _ => Outcome::InDoubt(unreadable(&answer)),
                }
            }
            Ok(answer) => judge(&answer, failure(&answer), call.job.access_token.is_none()),
        }
    }

    async fn find(&self, call: Call<'_>) -> Finding {
        let by_reference = format!("{}?reference={}", self.links, call.idempotency_key);
        let request = self.request(self.client.get(by_reference), Some(call));
        let answer = match http::call(request, &self.settings.http).await {
            Ok(answer) => answer,
            Err(CallError::NotSent(reason) | CallError::InDoubt(reason)) => {
                return Finding::Unanswered { error: ConnectorError::unanswered(&reason), retry_after: None };
            }
        };
        let unanswered =
            |error| Finding::Unanswered { error, retry_after: answer.retry_after(OffsetDateTime::now_utc()) };
        if !answer.status.is_success() {
            return unanswered(failure(&answer));
        }
        match parse(&answer) {
            Some(Links { data }) => match data.into_iter().next() {
                Some(link) => self.read(link, &answer).unwrap_or_else(|| unanswered(unreadable(&answer))),
                None => Finding::NotThere { status_code: answer.status.as_u16() },
            },
            None => unanswered(unreadable(&answer)),
        }
    }

    /// A link as the sandbox has it; `None` where it cannot be passed on.
    fn read(&self, link: Link, answer: &Answer) -> Option<Finding> {
        let status_code = answer.status.as_u16();
        let payout_status = match link.status.as_str() {
            "issued" => PayoutStatus::RequiresFulfillment,
            "claimed" => PayoutStatus::Pending,
            "cancelled" => PayoutStatus::Cancelled,
            "expired" => PayoutStatus::Expired,
            _ => return None,
        };
        if matches!(payout_status, PayoutStatus::Cancelled | PayoutStatus::Expired) {
            let error = ConnectorError::new(status_code, None, &format!("the link is {}", link.status), None);
            return Some(Finding::Ended { error, payout_status, connector_payout_id: link.id });
        }
        Some(Finding::Found(CreatedLink {
            url: link_url(&link.url, self.settings.allow_http_links)?,
            connector_payout_id: link.id,
            payout_status,
            expires_at: link.expires_at,
            status_code,
        }))
    }
}

impl Connector for Sandbox {
    fn replay_rule(&self) -> ReplayRule {
        self.settings.replay
    }

    fn timeout(&self) -> Duration {
        self.settings.http.timeout
    }

    fn supports(&self, _job: &CreateLink) -> Result<(), Rejection> {
        Ok(())
    }

    fn create_link<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Outcome> {
        self.create(call).boxed()
    }

    fn find_link<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Finding> {
        self.find(call).boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), String>> {
        async {
            let request = self.request(self.client.get(format!("{}?reference=check", self.links)), None);
            match http::call(request, &self.settings.http).await {
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
    let customer = job.customer.as_ref();
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

/// A whole answer of the form that is expected.
fn parse<T: DeserializeOwned>(answer: &Answer) -> Option<T> {
    serde_json::from_slice(&answer.body).ok().filter(|_| !answer.cut)
}

fn failure(answer: &Answer) -> ConnectorError {
    let status_code = answer.status.as_u16();
    match serde_json::from_slice::<Failure>(&answer.body) {
        Ok(Failure { error }) => ConnectorError::new(status_code, Some(&error.code), &error.message, None),
        Err(_) => ConnectorError::new(status_code, None, &format!("answered {status_code}"), None),
    }
}

fn unreadable(answer: &Answer) -> ConnectorError {
    let reason = if answer.cut { "the answer is too large" } else { "the answer is not a payout link" };
    ConnectorError::new(answer.status.as_u16(), None, reason, None)
}
