//! Hyperswitch (Juspay): `POST /payouts/create` with `payout_link`.
//!
//! Sources: its OpenAPI document (`api-reference/v1/openapi_spec_v1.json` in juspay/hyperswitch), its error codes
//! (api-reference.hyperswitch.io/essentials/error_codes) and its payout link guide (docs.hyperswitch.io).
//!
//! Replay rule: `payout_id` is ours, derived from the record, and unique there without end. A repeat is answered with
//! `HE_01` and never with the payout, which is then asked for by that id.

mod request;
mod response;
mod settings;
mod status;
mod webhook;

use std::time::Duration;

use reqwest::{
    RequestBuilder, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName},
};
use secrecy::SecretString;
use time::OffsetDateTime;

pub(super) use self::settings::KIND;
use self::{
    request::payout_id,
    response::{Payout, failure},
    settings::HyperswitchSettings,
};
use super::{
    AskedLink, Call, ProviderWebhook, WebhookProblem,
    exchange::{
        OptionalFields, at, created, judge, judge_unreadable, lost, not_checked, parse, unasked, unreadable,
        unsettled, with_secret, with_trace,
    },
    provider::Provider,
    question::{about_another, inconclusive, is_about, unheard},
};
use crate::{
    domain::{ConnectorError, CreateLink, Finding, LinkAnswer, LookUp, Outcome, Rejection, ReplayRule},
    http_client::Client,
};

struct Hyperswitch {
    settings: HyperswitchSettings,
    http: Client,
    optional: OptionalFields,
}

impl Hyperswitch {
    fn request(&self, request: RequestBuilder, api_key: Option<&SecretString>) -> RequestBuilder {
        let api_key = api_key.unwrap_or(&self.settings.api_key);
        with_secret(
            request.header(ACCEPT, "application/json"),
            HeaderName::from_static("api-key"),
            "",
            api_key,
        )
    }
}

impl Provider for Hyperswitch {
    fn replay_rule(&self) -> ReplayRule {
        let look_up = LookUp { settle: Duration::from_secs(self.settings.settle_seconds) };
        ReplayRule::SameKey { window: ReplayRule::NO_END, look_up: Some(look_up) }
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
            .request(
                self.http.post(at(&self.settings.url, &["payouts", "create"])),
                call.job.access_token.as_ref(),
            )
            .header(CONTENT_TYPE, "application/json")
            .body(body);
        let answer = match self.http.call(with_trace(request, call.trace)).await {
            Ok(answer) => answer,
            Err(error) => return lost(error),
        };
        let own_credential = call.job.access_token.is_none();
        if answer.status.is_success() {
            let found = parse(&answer).and_then(|payout| self.read(payout, call, &answer));
            return created(found, &answer);
        }
        match failure(&answer) {
            None => judge_unreadable(&answer, own_credential),
            Some(error) => match error.code.as_deref() {
                Some("HE_01") => Outcome::AlreadyExists(error),
                // Out of order, or a processor's word: with whatever status they come, save "too many".
                Some("HE_00" | "HE_03" | "CE_00") if answer.status != StatusCode::TOO_MANY_REQUESTS => {
                    Outcome::Unknown(error)
                }
                _ => judge(&answer, error, own_credential),
            },
        }
    }

    async fn find(&self, call: Call<'_>) -> Finding {
        let mut url = at(&self.settings.url, &["payouts", &payout_id(call.idempotency_key)]);
        url.set_query(Some("force_sync=false"));
        let request = self.request(self.http.get(url), call.job.access_token.as_ref());
        let answer = match self.http.call(with_trace(request, call.trace)).await {
            Ok(answer) => answer,
            Err(error) => return unasked(error),
        };
        if answer.status.is_success() {
            let payout = parse(&answer).and_then(|payout| self.read(payout, call, &answer));
            return payout.unwrap_or_else(|| unsettled(&answer, unreadable(&answer)));
        }
        match failure(&answer) {
            Some(error) if error.code.as_deref() == Some("HE_02") => {
                Finding::NotFound { status_code: answer.status.as_u16() }
            }
            error => unsettled(&answer, error.unwrap_or_else(|| unreadable(&answer))),
        }
    }

    async fn cancel(&self, id: &str) -> Result<(), ConnectorError> {
        let url = at(&self.settings.url, &["payouts", id, "cancel"]);
        let body = serde_json::json!({ "payout_id": id }).to_string();
        let request =
            self.request(self.http.post(url), None).header(CONTENT_TYPE, "application/json").body(body);
        let answer =
            self.http.call(request).await.map_err(|error| ConnectorError::unanswered(&error.to_string()))?;
        match parse::<Payout>(&answer) {
            Some(payout) if answer.status.is_success() && payout.status == "cancelled" => Ok(()),
            // Asked to cancel a payout that it has already, the processor may refuse: that payout has failed.
            Some(payout) if answer.status.is_success() => {
                let reason = format!("the payout is {}", payout.status);
                Err(ConnectorError::new(answer.status.as_u16(), None, &reason, None))
            }
            _ => Err(failure(&answer).unwrap_or_else(|| unreadable(&answer))),
        }
    }

    async fn ask_one(&self, asked: &AskedLink) -> LinkAnswer {
        let mut url = at(&self.settings.url, &["payouts", &asked.connector_payout_id]);
        // A webhook of the processor's may be lost: a payout that is there is asked for.
        let asks_processor = asked.status.is_under_way();
        url.set_query(Some(if asks_processor { "force_sync=true" } else { "force_sync=false" }));
        let answer = match self.http.call(self.request(self.http.get(url), None)).await {
            Ok(answer) => answer,
            Err(error) => return unheard(&error),
        };
        if answer.status.is_success() {
            return match parse::<Payout>(&answer) {
                Some(payout) if is_about(asked, &payout.payout_id) => {
                    LinkAnswer::Reported(self.report(&payout, &answer))
                }
                Some(_) => about_another(&answer),
                None => inconclusive(&answer, None),
            };
        }
        match failure(&answer) {
            Some(error)
                if answer.status == StatusCode::NOT_FOUND && error.code.as_deref() == Some("HE_02") =>
            {
                LinkAnswer::NotFound { status_code: answer.status.as_u16() }
            }
            error => inconclusive(&answer, error),
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
        let url = at(&self.settings.url, &["payouts", "00000000-0000-8000-8000-000000000000"]);
        let answer = self
            .http
            .call(self.request(self.http.get(url), None))
            .await
            .map_err(|error| error.to_string())?;
        let error = failure(&answer);
        match error.as_ref().and_then(|error| error.code.as_deref()) {
            Some("HE_02") => Ok(()),
            _ if answer.status.is_success() => Ok(()),
            _ => Err(not_checked(&answer, error)),
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
