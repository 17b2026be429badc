//! Revolut Business payout links: `POST /api/1.0/payout-links`.
//!
//! Source: its OpenAPI document (`yaml/business.yaml` in revolut-engineering/revolut-openapi), which is the reference at
//! developer.revolut.com/docs/api/business.
//!
//! Replay rule: `request_id` is the record's key, and the documentation asks for the same one in every try for a link.
//! A repeat that is answered with 3020 is looked up: the list is compared, since nobody can ask by `request_id`.
//!
//! A new link has no URL before it is `active`; until then it is asked for by its id.

mod auth;
mod follow;
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
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap},
};
use secrecy::SecretString;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::Instant;
use url::Url;

pub(super) use self::settings::KIND;
use self::{
    auth::{NoToken, Token, Tokens},
    response::{Link, failure},
    settings::RevolutSettings,
};
use super::{
    AskedLink, Call, ProviderWebhook, WebhookProblem,
    exchange::{
        OptionalFields, at, created, judge, judge_unreadable, lost, not_checked, parse, unasked, unreadable,
        unsettled, with_secret, with_trace,
    },
    provider::Provider,
};
use crate::{
    domain::{ConnectorError, CreateLink, Finding, LinkAnswer, LookUp, Outcome, Rejection, ReplayRule},
    http_client::{Answer, CallError, Client},
    limits::RateLimit,
};

/// Two weeks: how far back a repeated `request_id` is known, as documented for transfers.
const WINDOW: Duration = Duration::from_hours(14 * 24);
/// Links in one answer to a look-up: 1,000 are allowed, and would be more than `max_response_bytes`.
const PAGE: usize = 100;
/// Pages of one look-up. A minute has 60 calls at this provider.
const MAX_PAGES: usize = 20;
/// The error that two readings of clocks may have.
const MARGIN: Duration = Duration::from_mins(10);

struct Revolut {
    tokens: Tokens,
    settings: RevolutSettings,
    http: Client,
    optional: OptionalFields,
    /// Links in one answer to a question.
    page: usize,
}

/// Why the API was not asked, or did not answer.
enum Unanswered {
    NoToken(NoToken),
    Lost(CallError),
}

impl Revolut {
    fn address(&self, parts: &[&str]) -> Url {
        at(&at(&self.settings.url, &["api", "1.0", "payout-links"]), parts)
    }

    /// Sends a request with a token that is good, within the deadline. The API says 401 before it does anything, so
    /// one that it does not take any more leads to another token and one repeat.
    async fn send(
        &self,
        request: impl Fn() -> RequestBuilder,
        own: Option<&SecretString>,
        deadline: Instant,
    ) -> Result<Answer, Unanswered> {
        let with = async |token: &SecretString| {
            let left = deadline.saturating_duration_since(Instant::now());
            let request = with_secret(request(), AUTHORIZATION, "Bearer ", token).timeout(left);
            self.http.call(request).await.map_err(Unanswered::Lost)
        };
        if let Some(token) = own {
            return with(token).await;
        }
        let token: Token = self.tokens.current(deadline).await.map_err(Unanswered::NoToken)?;
        let answer = with(&token.secret).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        match self.tokens.instead_of(&token, deadline).await {
            Ok(another) => with(&another.secret).await,
            Err(no_token) => Err(Unanswered::NoToken(no_token)),
        }
    }

    async fn read_at(&self, url: Url, call: Call<'_>, deadline: Instant) -> Result<Answer, Finding> {
        let request = || with_trace(self.http.get(url.clone()), call.trace);
        self.send(request, call.job.access_token.as_ref(), deadline).await.map_err(Finding::from)
    }

    async fn get(&self, id: &str, call: Call<'_>, deadline: Instant) -> Finding {
        let answer = match self.read_at(self.address(&[id]), call, deadline).await {
            Ok(answer) => answer,
            Err(unanswered) => return unanswered,
        };
        if answer.status.is_success() {
            let link = parse(&answer).and_then(|link| self.read(link, call, &answer));
            return link.unwrap_or_else(|| unsettled(&answer, unreadable(&answer)));
        }
        unsettled(&answer, failure(&answer).unwrap_or_else(|| unreadable(&answer)))
    }

    /// Reads the list, the newest first, back to where the first call for this record was not made yet.
    async fn search(&self, call: Call<'_>, deadline: Instant) -> Finding {
        let mut before: Option<OffsetDateTime> = None;
        for _ in 0..MAX_PAGES {
            let mut url = self.address(&[]);
            url.query_pairs_mut().append_pair("limit", &PAGE.to_string());
            if let Some(before) = before.and_then(|before| before.format(&Rfc3339).ok()) {
                url.query_pairs_mut().append_pair("created_before", &before);
            }
            let answer = match self.read_at(url, call, deadline).await {
                Ok(answer) => answer,
                Err(unanswered) => return unanswered,
            };
            let status_code = answer.status.as_u16();
            if !answer.status.is_success() {
                return unsettled(&answer, failure(&answer).unwrap_or_else(|| unreadable(&answer)));
            }
            let Some(links) = parse::<Vec<Link>>(&answer) else {
                return unsettled(&answer, unreadable(&answer));
            };
            let Some(last) = links.last() else { return Finding::NotFound { status_code } };
            let (oldest, whole) = (last.created_at.clone(), links.len() >= PAGE);
            if let Some(ours) = links.into_iter().find(|link| link.request_id == call.idempotency_key) {
                let found = self.read(ours, call, &answer);
                return found.unwrap_or_else(|| unsettled(&answer, unreadable(&answer)));
            }
            let Ok(reached) = OffsetDateTime::parse(&oldest, &Rfc3339) else {
                return unsettled(&answer, unreadable(&answer));
            };
            if !whole || before_first_call(call, &answer).is_some_and(|since| reached < since) {
                return Finding::NotFound { status_code };
            }
            before = match page_before(reached, before) {
                Some(next) => Some(next),
                None => {
                    let error = ConnectorError::unanswered("more links of one time than an answer holds");
                    return Finding::Unanswered { error, retry_after: None };
                }
            };
        }
        let error = ConnectorError::unanswered("more links since the first call than one look-up reads");
        Finding::Unanswered { error, retry_after: None }
    }

    /// Returns the deadline of a call, with the request for an access token. A lease lasts longer.
    fn deadline(&self) -> Instant {
        Instant::now() + self.http.timeout()
    }
}

impl Provider for Revolut {
    fn replay_rule(&self) -> ReplayRule {
        let look_up = LookUp { settle: Duration::from_secs(self.settings.settle_seconds) };
        ReplayRule::SameKey { window: WINDOW, look_up: Some(look_up) }
    }

    fn supports(&self, job: &CreateLink) -> Result<(), Rejection> {
        self.settings.body(job, "").map(drop)
    }

    async fn create(&self, call: Call<'_>) -> Outcome {
        let body = match self.settings.body(call.job, call.idempotency_key) {
            Ok(body) => serde_json::to_vec(&body).unwrap_or_default(),
            Err(rejection) => return Outcome::Declined(rejection.into()),
        };
        let request = || {
            let request = self.http.post(self.address(&[])).header(CONTENT_TYPE, "application/json");
            with_trace(request, call.trace).body(body.clone())
        };
        let answer = match self.send(request, call.job.access_token.as_ref(), self.deadline()).await {
            Ok(answer) => answer,
            Err(Unanswered::NoToken(no_token)) => return no_token.into(),
            Err(Unanswered::Lost(error)) => return lost(error),
        };
        let own_credential = call.job.access_token.is_none();
        if answer.status.is_success() {
            let found = parse(&answer).and_then(|link| self.read(link, call, &answer));
            return created(found, &answer);
        }
        match failure(&answer) {
            None => judge_unreadable(&answer, own_credential),
            Some(error) if error.code.as_deref() == Some("3020") => Outcome::AlreadyExists(error),
            Some(error) => judge(&answer, error, own_credential),
        }
    }

    async fn find(&self, call: Call<'_>) -> Finding {
        let deadline = self.deadline();
        match call.connector_payout_id {
            Some(id) => self.get(id, call, deadline).await,
            None => self.search(call, deadline).await,
        }
    }

    async fn cancel(&self, id: &str) -> Result<(), ConnectorError> {
        let url = self.address(&[id, "cancel"]);
        let answer = self.send(|| self.http.post(url.clone()), None, self.deadline()).await;
        let answer = answer.map_err(Unanswered::into_error)?;
        match answer.status.is_success() {
            true => Ok(()),
            false => Err(failure(&answer).unwrap_or_else(|| unreadable(&answer))),
        }
    }

    async fn ask_one(&self, link: &AskedLink) -> LinkAnswer {
        self.ask_alone(link, self.deadline()).await
    }

    async fn ask(&self, links: &[AskedLink], limit: &RateLimit) -> Vec<LinkAnswer> {
        self.ask_all(links, limit).await
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
        let mut url = self.address(&[]);
        url.query_pairs_mut().append_pair("limit", "1");
        let answer = self.send(|| self.http.get(url.clone()), None, self.deadline()).await;
        let answer = answer.map_err(|unanswered| {
            let error = unanswered.into_error();
            match error.status_code {
                0 => error.message,
                status => format!("no access token, answered {status}: {}", error.message),
            }
        })?;
        match answer.status.is_success() {
            true => Ok(()),
            false => Err(not_checked(&answer, failure(&answer))),
        }
    }

    fn credentials(&self) -> Vec<SecretString> {
        self.tokens.secrets()
    }

    fn http(&self) -> &Client {
        &self.http
    }

    fn optional(&self) -> &OptionalFields {
        &self.optional
    }
}

/// Returns the time that the next page is requested for. `created_before` leaves out what was created at that very time, so that a moment later
/// is asked for: links of one time may stand on both sides of a page's edge. `None` where that is no further back.
fn page_before(reached: OffsetDateTime, before: Option<OffsetDateTime>) -> Option<OffsetDateTime> {
    // Revolut's times have six decimals.
    let next = reached.checked_add(time::Duration::MICROSECOND)?;
    before.is_none_or(|before| next < before).then_some(next)
}

/// Returns a time by Revolut's clock before the first call for this record. How long ago that was is the same by each clock.
/// Returns `None` if Revolut does not send its time; then no link is left out by time.
fn before_first_call(call: Call<'_>, answer: &Answer) -> Option<OffsetDateTime> {
    let elapsed = call.now - call.first_called_at?;
    answer.date()?.checked_sub(elapsed)?.checked_sub(MARGIN.try_into().ok()?)
}

impl Unanswered {
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::NoToken(NoToken::Refused { retry_after, .. }) => *retry_after,
            Self::NoToken(NoToken::Unanswered(_)) | Self::Lost(_) => None,
        }
    }

    fn into_error(self) -> ConnectorError {
        match self {
            Self::NoToken(NoToken::Unanswered(error) | NoToken::Refused { error, .. }) => error,
            Self::Lost(error) => ConnectorError::unanswered(&error.to_string()),
        }
    }
}

impl From<Unanswered> for Finding {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Lost(error) => unasked(error),
            Unanswered::NoToken(NoToken::Unanswered(error)) => Self::Unanswered { error, retry_after: None },
            Unanswered::NoToken(NoToken::Refused { error, retry_after }) => {
                Self::Unanswered { error, retry_after }
            }
        }
    }
}
