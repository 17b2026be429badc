//! Xendit's payout links (Indonesia): `POST /payouts`.
//!
//! Sources: docs.xendit.co/docs/integration-payout-links, docs.xendit.co/apidocs/rate-limits and the official SDKs.
//!
//! Replay rule: `external_id` is ours, derived from the record, and unique for an account. A repeat makes the link or
//! is answered with `DUPLICATE_PAYOUT_ERROR`, without the payout; and nobody can ask by `external_id`. Such an outcome
//! stays unknown: the recipient has the provider's mail all the same.

mod request;
mod response;
mod settings;
mod status;
mod webhook;

use reqwest::{
    RequestBuilder, StatusCode,
    header::{CONTENT_TYPE, HeaderMap},
};
use secrecy::{ExposeSecret, SecretString};
use time::OffsetDateTime;

pub(super) use self::settings::KIND;
use self::{
    response::{Payout, failure, reset},
    settings::XenditSettings,
    status::is_voided,
};
use super::{
    AskedLink, Call, ProviderWebhook, WebhookProblem,
    exchange::{
        OptionalFields, at, created, judge, judge_unreadable, lost, not_checked, parse, unasked, unreadable,
        unsettled, with_trace,
    },
    provider::Provider,
    question::{about_another, inconclusive, is_about, unheard},
};
use crate::{
    domain::{ConnectorError, CreateLink, Finding, LinkAnswer, Outcome, Rejection, ReplayRule},
    http_client::{Answer, Client},
};

struct Xendit {
    settings: XenditSettings,
    http: Client,
    optional: OptionalFields,
}

impl Xendit {
    /// Adds the credential: the key is the user, and the password is empty.
    fn request(&self, request: RequestBuilder, key: Option<&SecretString>) -> RequestBuilder {
        request.basic_auth(key.unwrap_or(&self.settings.api_key).expose_secret(), None::<&str>)
    }

    fn of_job(&self, request: RequestBuilder, call: Call<'_>) -> RequestBuilder {
        let request = with_trace(self.request(request, call.job.access_token.as_ref()), call.trace);
        match self.for_user_id(call.job) {
            Ok(Some(id)) => request.header("for-user-id", id),
            _ => request,
        }
    }

    /// Adds the configured credential and sub-account.
    fn own(&self, request: RequestBuilder) -> RequestBuilder {
        let request = self.request(request, None);
        match &self.settings.defaults.for_user_id {
            Some(id) => request.header("for-user-id", id),
            None => request,
        }
    }
}

impl Provider for Xendit {
    fn replay_rule(&self) -> ReplayRule {
        ReplayRule::SameKey { window: ReplayRule::NO_END, look_up: None }
    }

    fn supports(&self, job: &CreateLink) -> Result<(), Rejection> {
        self.body(job, "").map(drop)
    }

    async fn create(&self, call: Call<'_>) -> Outcome {
        let body = match self.body(call.job, call.idempotency_key) {
            Ok(body) => serde_json::to_vec(&body).unwrap_or_default(),
            Err(rejection) => return Outcome::Declined(rejection.into()),
        };
        let request = self
            .of_job(self.http.post(at(&self.settings.url, &["payouts"])), call)
            .header(CONTENT_TYPE, "application/json")
            .body(body);
        let answer = match self.http.call(request).await {
            Ok(answer) => answer,
            Err(error) => return lost(error),
        };
        let own_credential = call.job.access_token.is_none();
        if answer.status.is_success() {
            let found = parse(&answer).and_then(|payout| self.read(payout, call, &answer));
            return created(found, &answer);
        }
        let outcome = match failure(&answer) {
            None => judge_unreadable(&answer, own_credential),
            // The documentation does not say with which status it comes.
            Some(error) if error.code.as_deref() == Some("DUPLICATE_PAYOUT_ERROR") => {
                Outcome::AlreadyExists(error)
            }
            Some(error) => judge(&answer, error, own_credential),
        };
        match outcome {
            Outcome::TryLater { error, retry_after } => {
                Outcome::TryLater { error, retry_after: retry_after.or_else(|| reset(&answer)) }
            }
            outcome => outcome,
        }
    }

    async fn find(&self, call: Call<'_>) -> Finding {
        let Some(id) = call.connector_payout_id else {
            let error = ConnectorError::unanswered("Xendit cannot be asked by our reference");
            return Finding::Unanswered { error, retry_after: None };
        };
        let request = self.of_job(self.http.get(at(&self.settings.url, &["payouts", id])), call);
        let answer = match self.http.call(request).await {
            Ok(answer) => answer,
            Err(error) => return unasked(error),
        };
        if answer.status.is_success() {
            let payout = parse(&answer).and_then(|payout| self.read(payout, call, &answer));
            return payout.unwrap_or_else(|| unsettled(&answer, unreadable(&answer)));
        }
        unsettled(&answer, failure(&answer).unwrap_or_else(|| unreadable(&answer)))
    }

    async fn cancel(&self, id: &str) -> Result<(), ConnectorError> {
        let request = self.own(self.http.post(at(&self.settings.url, &["payouts", id, "void"])));
        let answer =
            self.http.call(request).await.map_err(|error| ConnectorError::unanswered(&error.to_string()))?;
        match parse::<Payout>(&answer) {
            Some(payout) if answer.status.is_success() && is_voided(&payout.status) => Ok(()),
            _ => Err(failure(&answer).unwrap_or_else(|| unreadable(&answer))),
        }
    }

    async fn ask_one(&self, asked: &AskedLink) -> LinkAnswer {
        let url = at(&self.settings.url, &["payouts", &asked.connector_payout_id]);
        let answer = match self.http.call(self.own(self.http.get(url))).await {
            Ok(answer) => answer,
            Err(error) => return unheard(&error),
        };
        if answer.status.is_success() {
            return match parse::<Payout>(&answer) {
                Some(payout) if is_about(asked, &payout.id) => {
                    LinkAnswer::Reported(self.report(&payout, asked, &answer))
                }
                Some(_) => about_another(&answer),
                None => inconclusive(&answer, None),
            };
        }
        match failure(&answer) {
            Some(_) if answer.status == StatusCode::NOT_FOUND => {
                LinkAnswer::NotFound { status_code: answer.status.as_u16() }
            }
            error => with_reset(inconclusive(&answer, error), &answer),
        }
    }

    fn webhook(
        &self,
        secrets: &[SecretString],
        headers: &HeaderMap,
        body: &[u8],
        _now: OffsetDateTime,
    ) -> Result<ProviderWebhook, WebhookProblem> {
        webhook::read(secrets, headers, body)
    }

    async fn try_credential(&self) -> Result<(), String> {
        // No payout has this id. Only a request with a valid key is answered with 404.
        let url = at(&self.settings.url, &["payouts", "00000000-0000-4000-8000-000000000000"]);
        let answer = self
            .http
            .call(self.request(self.http.get(url), None))
            .await
            .map_err(|error| error.to_string())?;
        match (answer.status.as_u16(), failure(&answer)) {
            (200, _) | (404, Some(_)) => Ok(()),
            (_, error) => Err(not_checked(&answer, error)),
        }
    }

    fn credentials(&self) -> Vec<SecretString> {
        vec![self.settings.api_key.clone()]
    }

    fn http(&self) -> &Client {
        &self.http
    }

    fn optional(&self) -> &OptionalFields {
        &self.optional
    }
}

/// Adds the time of the next question, which Xendit sends in its own header.
fn with_reset(unanswered: LinkAnswer, answer: &Answer) -> LinkAnswer {
    match unanswered {
        LinkAnswer::Unanswered { error, retry_after } if error.status_code == 429 => {
            LinkAnswer::Unanswered { error, retry_after: retry_after.or_else(|| reset(answer)) }
        }
        unanswered => unanswered,
    }
}
