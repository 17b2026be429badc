//! The sandbox: a provider to try things with (`sandbox-connector` is its server).
//!
//! Settings: `url`, `token`, `replay` (`same-key`, `look-up` or `never`: the replay rule to exercise),
//! `window_seconds`, `settle_seconds`, `allow_http_links`.

mod request;
mod response;
mod settings;
mod status;
mod webhook;

use std::time::Duration;

use reqwest::{
    RequestBuilder, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap},
};
use secrecy::SecretString;
use time::OffsetDateTime;
use url::Url;

pub(super) use self::settings::KIND;
use self::{
    request::create_body,
    response::{Link, Links, failure},
    settings::{Replay, SandboxSettings},
};
use super::{
    AskedLink, Call, ProviderWebhook, WebhookProblem,
    exchange::{
        OptionalFields, at, judge, lost, parse, unasked, unreadable, unsettled, with_secret, with_trace,
    },
    provider::Provider,
    question::{about_another, inconclusive, is_about, unheard},
};
use crate::{
    domain::{ConnectorError, CreateLink, Finding, LinkAnswer, LookUp, Outcome, Rejection, ReplayRule},
    http_client::Client,
};

struct Sandbox {
    links: Url,
    settings: SandboxSettings,
    http: Client,
    optional: OptionalFields,
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
}

impl Provider for Sandbox {
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

    fn supports(&self, job: &CreateLink) -> Result<(), Rejection> {
        KIND.supports.check(job)
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

    async fn cancel(&self, id: &str) -> Result<(), ConnectorError> {
        let request = self.request(self.http.post(at(&self.links, &[id, "cancel"])), None);
        let answer =
            self.http.call(request).await.map_err(|error| ConnectorError::unanswered(&error.to_string()))?;
        if !answer.status.is_success() {
            return Err(failure(&answer));
        }
        // The answer is the link as it is, also of one that was over before.
        match parse::<Link>(&answer) {
            Some(link) if link.id == id && link.status == "cancelled" => Ok(()),
            Some(link) if link.id == id => {
                let reason = format!("the link is {}", link.status);
                Err(ConnectorError::new(answer.status.as_u16(), None, &reason, None))
            }
            _ => Err(unreadable(&answer)),
        }
    }

    async fn ask_one(&self, asked: &AskedLink) -> LinkAnswer {
        let url = at(&self.links, &[&asked.connector_payout_id]);
        let answer = match self.http.call(self.request(self.http.get(url), None)).await {
            Ok(answer) => answer,
            Err(error) => return unheard(&error),
        };
        if answer.status.is_success() {
            return match parse::<Link>(&answer) {
                Some(link) if is_about(asked, &link.id) => LinkAnswer::Reported(self.report(&link, &answer)),
                Some(_) => about_another(&answer),
                None => inconclusive(&answer, None),
            };
        }
        let error = failure(&answer);
        if answer.status == StatusCode::NOT_FOUND && error.code.as_deref() == Some("not_found") {
            return LinkAnswer::NotFound { status_code: answer.status.as_u16() };
        }
        inconclusive(&answer, Some(error))
    }

    fn webhook(
        &self,
        secrets: &[SecretString],
        headers: &HeaderMap,
        body: &[u8],
        now: OffsetDateTime,
    ) -> Result<ProviderWebhook, WebhookProblem> {
        webhook::read(secrets, headers, body, now)
    }

    async fn try_credential(&self) -> Result<(), String> {
        let request = self.request(self.http.get(self.by_reference("check")), None);
        match self.http.call(request).await {
            Ok(answer) if answer.status.is_success() => Ok(()),
            Ok(answer) => Err(format!("answered {}: {}", answer.status, failure(&answer).message)),
            Err(error) => Err(error.to_string()),
        }
    }

    fn credentials(&self) -> Vec<SecretString> {
        vec![self.settings.token.clone()]
    }

    fn http(&self) -> &Client {
        &self.http
    }

    fn optional(&self) -> &OptionalFields {
        &self.optional
    }
}
