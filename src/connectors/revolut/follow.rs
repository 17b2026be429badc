//! Questions about links: one list answers for many of them.
//!
//! A list shows the links of some states, the newest first, and cannot be asked for some ids. Most links that are
//! followed are open. So a question lists the open ones, from about when the links that it is about were created, and
//! asks singly about the few that are not among them: those have changed. Where many have, the links that are over are
//! listed as well.
//!
//! A minute has 60 calls at this provider, which creations need too. A question makes at most [`MAX_CALLS`] of them, and none
//! past the account's rate limit. A link that it does not reach is asked about again later.

use std::collections::{HashMap, HashSet};

use reqwest::{RequestBuilder, StatusCode};
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::Instant;

use super::{
    MARGIN, Revolut, Unanswered, page_before,
    response::{Link, Transaction, failure},
};
use crate::{
    connectors::{
        AskedLink,
        exchange::{at, parse},
        question::{about_another, inconclusive, is_about, unheard},
    },
    domain::{ConnectorError, LinkAnswer, LinkStatus},
    http_client::Answer,
    limits::RateLimit,
};

/// Calls of one question, a repeat after a refused token apart.
const MAX_CALLS: usize = 8;
/// Of these, lists of open links: a thousand links, at the default of `calls.max_response_bytes`.
const MAX_PAGES: usize = 4;
/// So many links are asked about singly before the links that are over are listed.
const MAX_SINGLES: usize = 3;
/// Links in one list, as documented.
const MAX_PAGE: usize = 1000;
/// The size of a link in a list, about. It need not be right: after an answer that is too large the next page is half
/// as long.
const LINK_BYTES: usize = 1024;
const OPEN: &[&str] = &["created", "awaiting", "active", "processing"];
const OVER: &[&str] = &["processed", "expired", "cancelled", "failed"];
/// How long a link lives, unless its job or the account's settings say otherwise.
const LIFETIME: time::Duration = time::Duration::days(7);

/// Returns the number of links that fit into one answer.
pub(super) fn page_size(max_response_bytes: usize) -> usize {
    (max_response_bytes / LINK_BYTES).clamp(1, MAX_PAGE)
}

/// One question, about several links.
struct Question<'a> {
    links: &'a [AskedLink],
    /// By the link's id.
    answers: HashMap<&'a str, LinkAnswer>,
    /// The answer to all that is asked from now on: the provider takes no further call.
    end: Option<LinkAnswer>,
    calls_left: usize,
    /// For the calls after the first, which is reserved already.
    limit: &'a RateLimit,
    page: usize,
    deadline: Instant,
}

impl<'a> Question<'a> {
    /// Returns the links whose status a list has. A processed link stays processed whatever happens to its money, so its
    /// transaction is asked about instead.
    fn wanted(&self) -> HashSet<&'a str> {
        let listed = self.links.iter().filter(|link| transaction_of(link).is_none());
        let ids = listed.map(|link| link.connector_payout_id.as_str());
        ids.filter(|id| !self.answers.contains_key(id)).collect()
    }

    /// Returns whether another call may be made, and counts it then.
    fn begin_call(&mut self) -> bool {
        let is_first = self.calls_left == MAX_CALLS;
        let may_call =
            self.calls_left > 0 && (is_first || self.limit.reserve_now(std::time::Instant::now(), 1) == 1);
        self.calls_left -= usize::from(may_call);
        may_call
    }

    /// Returns when the first and the last of the links were created, if they live as long as links usually do.
    fn window(&self, lifetime: time::Duration) -> Option<(OffsetDateTime, OffsetDateTime)> {
        let created = |link: &AskedLink| link.expires_at?.checked_sub(lifetime);
        let listed = self.links.iter().filter(|link| transaction_of(link).is_none());
        let times: Vec<OffsetDateTime> = listed.map(created).collect::<Option<_>>()?;
        let (first, last) = (times.iter().min()?, times.iter().max()?);
        Some((first.checked_sub(MARGIN.try_into().ok()?)?, last.checked_add(MARGIN.try_into().ok()?)?))
    }
}

impl Revolut {
    pub(super) async fn ask_all(&self, links: &[AskedLink], limit: &RateLimit) -> Vec<LinkAnswer> {
        let mut question = Question {
            links,
            answers: HashMap::with_capacity(links.len()),
            end: None,
            calls_left: MAX_CALLS,
            limit,
            page: self.page,
            deadline: self.deadline(),
        };
        if question.wanted().len() > 1 {
            self.list(&mut question, OPEN, MAX_PAGES).await;
            if question.wanted().len() > MAX_SINGLES {
                self.list(&mut question, OVER, 1).await;
            }
        }
        let mut answers = Vec::with_capacity(links.len());
        for link in links {
            let listed = question.answers.get(link.connector_payout_id.as_str()).cloned();
            answers.push(match listed {
                Some(answer) => answer,
                None => self.ask_singly(&mut question, link).await,
            });
        }
        answers
    }

    async fn ask_singly(&self, question: &mut Question<'_>, link: &AskedLink) -> LinkAnswer {
        if let Some(end) = &question.end {
            return end.clone();
        }
        if !question.begin_call() {
            return not_reached();
        }
        let answer = self.ask_alone(link, question.deadline).await;
        if let LinkAnswer::Unanswered { error, .. } = &answer
            && is_about_all(error.status_code)
        {
            question.end = Some(answer.clone());
        }
        answer
    }

    /// Lists links of some states and takes the answers to the question from there.
    async fn list(&self, question: &mut Question<'_>, states: &[&str], max_pages: usize) {
        let mut wanted = question.wanted();
        let window = question.window(self.lifetime());
        // By Revolut's clock, which need not be ours: a time that is about now is left out.
        let start = window.map(|(_, last)| last).filter(|last| *last < OffsetDateTime::now_utc() - MARGIN);
        let mut before = start;
        for _ in 0..max_pages {
            if wanted.is_empty() || question.end.is_some() || !question.begin_call() {
                return;
            }
            let answer = match self.page_of(question, states, before).await {
                Ok(answer) => answer,
                Err(unheard) => return question.end = Some(unheard),
            };
            if answer.cut && question.page > 1 {
                question.page /= 2;
                continue;
            }
            // An answer that is no list says nothing about any link, and neither does it about the next question.
            let Some(links) = parse::<Vec<Value>>(&answer).filter(|_| answer.status.is_success()) else {
                let is_error = !answer.status.is_success();
                if is_error && is_about_all(answer.status.as_u16()) {
                    question.end = Some(inconclusive(&answer, failure(&answer)));
                }
                return;
            };
            let (is_whole, oldest) = (links.len() >= question.page, links.last().and_then(created_at));
            // One that cannot be read is asked about singly, and its answer says why.
            for link in links.iter().filter_map(|link| serde::Deserialize::deserialize(link).ok()) {
                let link: Link = link;
                if let Some(id) = wanted.take(link.id.as_str()) {
                    question.answers.insert(id, LinkAnswer::Reported(self.report(&link, &answer)));
                }
            }
            let Some(oldest) = oldest.filter(|_| is_whole) else { return };
            if window.is_some_and(|(first, _)| oldest < first) {
                return;
            }
            before = match page_before(oldest, before) {
                Some(next) => Some(next),
                None => return,
            };
        }
    }

    async fn page_of(
        &self,
        question: &Question<'_>,
        states: &[&str],
        before: Option<OffsetDateTime>,
    ) -> Result<Answer, LinkAnswer> {
        let mut url = self.address(&[]);
        for state in states {
            url.query_pairs_mut().append_pair("state", state);
        }
        url.query_pairs_mut().append_pair("limit", &question.page.to_string());
        if let Some(before) = before.and_then(|before| before.format(&Rfc3339).ok()) {
            url.query_pairs_mut().append_pair("created_before", &before);
        }
        self.own(|| self.http.get(url.clone()), question.deadline).await
    }

    /// Asks about one link with a call of its own.
    pub(super) async fn ask_alone(&self, link: &AskedLink, deadline: Instant) -> LinkAnswer {
        match transaction_of(link) {
            Some(id) => self.ask_about_transaction(id, deadline).await,
            None => self.ask_about_link(link, deadline).await,
        }
    }

    async fn ask_about_link(&self, asked: &AskedLink, deadline: Instant) -> LinkAnswer {
        let url = self.address(&[&asked.connector_payout_id]);
        let answer = match self.own(|| self.http.get(url.clone()), deadline).await {
            Ok(answer) => answer,
            Err(unheard) => return unheard,
        };
        if answer.status.is_success() {
            return match parse::<Link>(&answer) {
                Some(link) if is_about(asked, &link.id) => LinkAnswer::Reported(self.report(&link, &answer)),
                Some(_) => about_another(&answer),
                None => inconclusive(&answer, None),
            };
        }
        match failure(&answer) {
            Some(_) if answer.status == StatusCode::NOT_FOUND => {
                LinkAnswer::NotFound { status_code: answer.status.as_u16() }
            }
            error => inconclusive(&answer, error),
        }
    }

    /// Asks about the transaction that came of a processed link. That it is not there says nothing about the link.
    async fn ask_about_transaction(&self, id: &str, deadline: Instant) -> LinkAnswer {
        let url = at(&self.settings.url, &["api", "1.0", "transaction", id]);
        let answer = match self.own(|| self.http.get(url.clone()), deadline).await {
            Ok(answer) => answer,
            Err(unheard) => return unheard,
        };
        if !answer.status.is_success() {
            return inconclusive(&answer, failure(&answer));
        }
        match parse::<Transaction>(&answer) {
            Some(transaction) if transaction.id == id => {
                LinkAnswer::Reported(self.report_of_transaction(transaction, &answer))
            }
            Some(_) => about_another(&answer),
            None => inconclusive(&answer, None),
        }
    }

    async fn own(
        &self,
        request: impl Fn() -> RequestBuilder,
        deadline: Instant,
    ) -> Result<Answer, LinkAnswer> {
        self.send(request, None, deadline).await.map_err(LinkAnswer::from)
    }

    /// Returns the lifetime of a link whose job gives none.
    fn lifetime(&self) -> time::Duration {
        let period = self.settings.defaults.expiry_period.as_deref();
        let days = period.and_then(|period| period.strip_prefix('P')?.strip_suffix('D')?.parse().ok());
        days.map_or(LIFETIME, time::Duration::days)
    }
}

impl From<Unanswered> for LinkAnswer {
    fn from(unanswered: Unanswered) -> Self {
        let retry_after = unanswered.retry_after();
        match unanswered {
            Unanswered::Lost(error) => unheard(&error),
            Unanswered::NoToken(_) => Self::Unanswered { error: unanswered.into_error(), retry_after },
        }
    }
}

/// Returns the transaction of a link that was processed: from then on it says what happens to the money.
fn transaction_of(link: &AskedLink) -> Option<&str> {
    link.provider_payout_id.as_deref().filter(|_| link.status == LinkStatus::Succeeded)
}

/// Returns whether an answer of this status, or none, is also the answer to every further call of the question.
fn is_about_all(status_code: u16) -> bool {
    matches!(status_code, 0 | 401 | 403 | 429 | 500..)
}

/// Builds the answer about a link that the question did not reach. That is our limit, and no failure of the provider.
fn not_reached() -> LinkAnswer {
    let reason = "not asked: the links before it took all calls of this question";
    let error = ConnectorError::new(StatusCode::TOO_MANY_REQUESTS.as_u16(), None, reason, None);
    LinkAnswer::Unanswered { error, retry_after: None }
}

fn created_at(link: &Value) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(link["created_at"].as_str()?, &Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_fits_into_an_answer() {
        for (max_response_bytes, expected) in [(262_144, 256), (10_000_000, 1000), (100_000, 97), (1, 1)] {
            assert_eq!(page_size(max_response_bytes), expected);
        }
    }
}
