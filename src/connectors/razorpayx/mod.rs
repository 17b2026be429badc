//! RazorpayX payout links: `POST /v1/payout-links`.
//!
//! Sources: razorpay.com/docs/api/x/payout-links and razorpay/markdown-docs.
//!
//! Replay rule: there is no idempotency, and a repeat makes a second link. So before anything is repeated the list is
//! asked by `receipt`, which is the record's key, until what may still be under way is certain to show there.

mod request;
mod response;
mod settings;
mod status;
#[cfg(test)]
mod tests;
mod webhook;

use std::time::Duration;

use reqwest::{
    RequestBuilder, StatusCode,
    header::{CONTENT_TYPE, HeaderMap},
};
use secrecy::{ExposeSecret, SecretString};
use time::OffsetDateTime;
use url::Url;

pub(super) use self::settings::KIND;
use self::{
    response::{Link, Links, Payout, failure, oldest},
    settings::RazorpayXSettings,
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
    domain::{
        ConnectorError, CreateLink, Finding, LinkAnswer, LinkStatus, LookUp, Outcome, Rejection, ReplayRule,
    },
    http_client::Client,
};

struct RazorpayX {
    settings: RazorpayXSettings,
    http: Client,
    optional: OptionalFields,
}

impl RazorpayX {
    fn links(&self, parts: &[&str]) -> Url {
        at(&at(&self.settings.url, &["v1", "payout-links"]), parts)
    }

    fn of_job(&self, request: RequestBuilder, call: Call<'_>) -> RequestBuilder {
        let request = with_trace(request, call.trace);
        match self.pair(call.job) {
            Ok((id, secret)) => request.basic_auth(id, Some(secret)),
            Err(_) => request,
        }
    }

    fn own(&self, request: RequestBuilder) -> RequestBuilder {
        request.basic_auth(&self.settings.key_id, Some(self.settings.key_secret.expose_secret()))
    }

    fn search(&self, call: Call<'_>) -> Url {
        let mut url = self.links(&[]);
        url.query_pairs_mut().append_pair("receipt", call.idempotency_key).append_pair("count", "100");
        // Not narrowed by time: clocks that disagree would leave out a link that is there.
        url
    }

    async fn ask_about_link(&self, asked: &AskedLink) -> LinkAnswer {
        let request = self.own(self.http.get(self.links(&[&asked.connector_payout_id])));
        let answer = match self.http.call(request).await {
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
        if error.as_ref().is_some_and(is_not_there) {
            return LinkAnswer::NotFound { status_code: answer.status.as_u16() };
        }
        inconclusive(&answer, error)
    }

    /// Asks about the payout that came of a processed link. That it is not there says nothing about the link.
    async fn ask_about_payout(&self, payout_id: &str) -> LinkAnswer {
        let url = at(&self.settings.url, &["v1", "payouts", payout_id]);
        let answer = match self.http.call(self.own(self.http.get(url))).await {
            Ok(answer) => answer,
            Err(error) => return unheard(&error),
        };
        if !answer.status.is_success() {
            return inconclusive(&answer, failure(&answer));
        }
        match parse::<Payout>(&answer) {
            Some(payout) if payout.id == payout_id => {
                LinkAnswer::Reported(self.report_of_payout(payout, &answer))
            }
            Some(_) => about_another(&answer),
            None => inconclusive(&answer, None),
        }
    }
}

impl Provider for RazorpayX {
    fn replay_rule(&self) -> ReplayRule {
        ReplayRule::LookUp(LookUp { settle: Duration::from_secs(self.settings.settle_seconds) })
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
            .of_job(self.http.post(self.links(&[])), call)
            .header(CONTENT_TYPE, "application/json")
            .body(body);
        let answer = match self.http.call(request).await {
            Ok(answer) => answer,
            Err(error) => return lost(error),
        };
        let own_credential = call.job.access_token.is_none();
        if answer.status.is_success() {
            let found = parse(&answer).and_then(|link| self.read(link, call, &answer));
            return created(found, &answer);
        }
        match failure(&answer) {
            None => judge_unreadable(&answer, own_credential),
            Some(error) => judge(&answer, error, own_credential),
        }
    }

    async fn find(&self, call: Call<'_>) -> Finding {
        let url = match call.connector_payout_id {
            Some(id) => self.links(&[id]),
            None => self.search(call),
        };
        let answer = match self.http.call(self.of_job(self.http.get(url), call)).await {
            Ok(answer) => answer,
            Err(error) => return unasked(error),
        };
        if !answer.status.is_success() {
            return unsettled(&answer, failure(&answer).unwrap_or_else(|| unreadable(&answer)));
        }
        let link = match call.connector_payout_id {
            Some(_) => parse::<Link>(&answer),
            None => match parse::<Links>(&answer) {
                Some(Links { items }) if items.is_empty() => {
                    return Finding::NotFound { status_code: answer.status.as_u16() };
                }
                Some(Links { items }) => oldest(items, call.idempotency_key),
                None => None,
            },
        };
        let found = link.and_then(|link| self.read(link, call, &answer));
        found.unwrap_or_else(|| unsettled(&answer, unreadable(&answer)))
    }

    async fn cancel(&self, id: &str) -> Result<(), ConnectorError> {
        let request = self.own(self.http.post(self.links(&[id, "cancel"])));
        let answer =
            self.http.call(request).await.map_err(|error| ConnectorError::unanswered(&error.to_string()))?;
        match parse::<Link>(&answer) {
            Some(link) if answer.status.is_success() && link.id == id && link.status == "cancelled" => Ok(()),
            _ => Err(failure(&answer).unwrap_or_else(|| unreadable(&answer))),
        }
    }

    async fn ask_one(&self, asked: &AskedLink) -> LinkAnswer {
        match &asked.provider_payout_id {
            // The link stays processed whatever happens to its money.
            Some(payout_id) if asked.status == LinkStatus::Succeeded => {
                self.ask_about_payout(payout_id).await
            }
            _ => self.ask_about_link(asked).await,
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
        let mut url = self.links(&[]);
        url.query_pairs_mut().append_pair("count", "1");
        let answer = self.http.call(self.own(self.http.get(url))).await.map_err(|error| error.to_string())?;
        match answer.status.is_success() {
            true => Ok(()),
            false => Err(not_checked(&answer, failure(&answer))),
        }
    }

    fn credentials(&self) -> Vec<SecretString> {
        vec![self.settings.key_id.clone().into(), self.settings.key_secret.clone()]
    }

    fn http(&self) -> &Client {
        &self.http
    }

    fn optional(&self) -> &OptionalFields {
        &self.optional
    }
}

/// Returns whether an error says that there is no such link. The status of that answer is not documented.
fn is_not_there(error: &ConnectorError) -> bool {
    let is_missing = error.message == "The id provided does not exist";
    error.status_code == StatusCode::NOT_FOUND.as_u16()
        || (error.status_code == StatusCode::BAD_REQUEST.as_u16() && is_missing)
}
