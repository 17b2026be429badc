//! Follows the links of one connector account: asks the provider about links that are due, and stores what follows.
//!
//! Each account has a follower of its own, so that the links of one account never delay another's. New and due jobs go
//! first: while some wait for the account, only every tenth round asks.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, timeout};

use super::Pipeline;
use crate::{
    connectors::{Account, AskedLink},
    contract,
    domain::{
        ConnectorError, LinkAnswer, LinkReport,
        follow::{self, CancelReason, FollowDecision, FollowStep, StatusEvent},
        retry::{jittered, spread},
    },
    limits::{Health, PooledPermit},
    postgres::{AnswerRecord, FollowedLink, StoreError},
};

/// Pause between two rounds without a due link.
const INTERVAL: Duration = Duration::from_secs(1);
/// Links of one round, at most.
const MAX_LINKS: usize = 1000;
/// While jobs wait for the account, one round of so many asks.
const ROUNDS_WITH_JOBS: u32 = 10;
/// Tolerance of a call's own timeout.
const SLACK: Duration = Duration::from_secs(1);
/// Answers of one call that are stored at once.
const CONCURRENT_WRITES: usize = 64;
/// Cancels of one link in one claim. After each, the provider is asked whether it had an effect.
const MAX_CANCELS: u32 = 2;

/// The service that follows the links of one account.
pub(super) struct Follower {
    pipeline: Arc<Pipeline>,
    name: Arc<str>,
    is_failure_logged: bool,
    /// Rounds left out for jobs.
    left_out: u32,
}

impl Follower {
    pub(super) fn new(pipeline: Arc<Pipeline>, name: Arc<str>) -> Self {
        Self { pipeline, name, is_failure_logged: false, left_out: 0 }
    }

    /// Follows links until the pipeline is stopped.
    pub(super) async fn run(mut self) {
        while !self.pipeline.is_stopping() {
            match self.run_once().await {
                Ok(0) => self.wait().await,
                Ok(_) => {}
                Err(error) => {
                    self.report(&error);
                    self.wait().await;
                }
            }
        }
    }

    /// Claims due links once, begins to ask about them, and returns how many. The rest stays due.
    async fn run_once(&mut self) -> Result<usize, StoreError> {
        let pipeline = self.pipeline.clone();
        let Some(account) = pipeline.connectors.choose(Some(&self.name)) else { return Ok(0) };
        if pipeline.is_account_paused(&self.name) {
            return Ok(0);
        }
        if self.makes_way(account)
            || self.pipeline.unless_stopped(pin!(account.follow.permits.wait_until_free())).await.is_none()
        {
            return Ok(0);
        }
        let now = std::time::Instant::now();
        let calls = account.follow.permits.free().min(account.breaker.allowed_calls(now));
        let reserved = account.rate.reserve_now(now, calls);
        let each = account.kind.links_per_question;
        let claimed = match reserved {
            0 => Ok(Vec::new()),
            calls => {
                pipeline.store.claim_followed(&self.name, calls.saturating_mul(each).min(MAX_LINKS)).await
            }
        };
        let used = claimed.as_ref().map_or(0, |links| links.len().div_ceil(each));
        account.rate.give_back(reserved.saturating_sub(used));
        let mut links = claimed?;
        self.is_failure_logged = false;
        let count = links.len();
        while !links.is_empty() {
            let asked: Vec<FollowedLink> = links.drain(..each.min(links.len())).collect();
            let permit = account.follow.permits.take().await;
            let (pipeline, name) = (pipeline.clone(), self.name.clone());
            pipeline.clone().spawn(async move { pipeline.follow(&name, asked, permit).await });
        }
        Ok(count)
    }

    /// Returns whether this round is left out, because jobs wait for the account.
    fn makes_way(&mut self, account: &Account) -> bool {
        let jobs_wait = account.permits.due_waits() || account.permits.is_saturated();
        self.left_out = if jobs_wait { (self.left_out + 1) % ROUNDS_WITH_JOBS } else { 0 };
        self.left_out > 0
    }

    fn report(&mut self, error: &StoreError) {
        if let StoreError::Unusable(_) = error {
            return self.pipeline.report(error);
        }
        if self.is_failure_logged {
            tracing::debug!(%error, connector.name = %self.name, "links not claimed");
        } else {
            tracing::warn!(%error, connector.name = %self.name, "links not claimed, will retry");
            self.is_failure_logged = true;
        }
    }

    async fn wait(&self) {
        let pause = self.pipeline.sleep(jittered(INTERVAL, INTERVAL * 2));
        let woken = self.pipeline.follow_soon.woken(&self.name);
        tokio::select! {
            () = pause => {}
            () = woken => {}
        }
    }
}

impl Pipeline {
    /// Asks about links in one call, and stores what follows from each answer.
    async fn follow(&self, connector: &str, links: Vec<FollowedLink>, _permit: PooledPermit) {
        let Some(account) = self.connectors.choose(Some(connector)) else { return };
        let answers = self.ask(account, &links).await;
        let answered = stream::iter(links.into_iter().zip(answers));
        // At once: their writes share statements.
        let followed = answered.for_each_concurrent(CONCURRENT_WRITES, async |(link, answer)| {
            let span = tracing::info_span!(
                "followed_link",
                payout_link.id = %link.id,
                merchant.id = link.merchant_id,
                merchant_payout_id = link.merchant_payout_id,
                connector.name = connector,
            );
            let followed = tracing::Instrument::instrument(self.follow_link(account, link, answer), span);
            if let Err(error) = followed.await {
                self.report(&error);
            }
        });
        followed.await;
    }

    /// Decides what follows from an answer about a link, cancels the link if that is next, and stores the result.
    async fn follow_link(
        &self,
        account: &Account,
        mut link: FollowedLink,
        mut answer: LinkAnswer,
    ) -> Result<(), StoreError> {
        for cancels in 0.. {
            log_failure(&answer);
            let now = link.lease.time_at(Instant::now());
            let decision = follow::next(&link.followed, &answer, &account.follow.policy, now);
            let FollowStep::Cancel(reason) = decision.then else {
                return self.record_answer(account, &link, answer, decision).await;
            };
            if cancels >= MAX_CANCELS || !self.may_call(account) {
                let then = FollowStep::Ask { after: account.follow.policy.min_interval };
                return self.record_answer(account, &link, answer, FollowDecision { then, ..decision }).await;
            }
            self.cancel(account, &mut link, reason).await?;
            answer = self.ask(account, std::slice::from_ref(&link)).await.pop().unwrap_or(answer);
        }
        Ok(())
    }

    /// Returns whether two more calls fit into the account's limits. Reserves them then.
    fn may_call(&self, account: &Account) -> bool {
        if self.is_stopping() || self.is_account_paused(&account.name) {
            return false;
        }
        let reserved = account.rate.reserve_now(std::time::Instant::now(), 2);
        if reserved < 2 {
            account.rate.give_back(reserved);
        }
        reserved == 2
    }

    /// Cancels a link at the provider. A success counts for nothing: the provider is asked whether it had an effect. After
    /// an answer that rejects the cancel, the end of a link is not its effect.
    async fn cancel(
        &self,
        account: &Account,
        link: &mut FollowedLink,
        reason: CancelReason,
    ) -> Result<(), StoreError> {
        self.store.begin_cancel(link, reason).await?;
        let cancelling = account.connector.cancel_link(&link.connector_payout_id);
        let cancelled = timeout(account.connector.timeout() + SLACK, cancelling)
            .await
            .unwrap_or_else(|_| Err(ConnectorError::unanswered("timed out")));
        match cancelled {
            Ok(()) => tracing::info!(reason = reason.as_str(), "payout link cancelled"),
            Err(mut error) => {
                account.redact(&mut error, None);
                tracing::info!(
                    http.status = error.status_code,
                    error.message = error.message,
                    "payout link not cancelled"
                );
                if reason == CancelReason::Request && is_rejected(error.status_code) {
                    link.followed.cancelled = None;
                }
            }
        }
        Ok(())
    }

    /// Asks about links, and removes the account's secrets from the answers.
    async fn ask(&self, account: &Account, links: &[FollowedLink]) -> Vec<LinkAnswer> {
        let elsewhere = |link: &FollowedLink| link.account.as_ref().is_some_and(|id| *id != account.id);
        let (others, asked): (Vec<&FollowedLink>, Vec<&FollowedLink>) =
            links.iter().partition(|link| elsewhere(link));
        let questions: Vec<AskedLink> = asked.iter().map(|link| question(link)).collect();
        let mut answers = Vec::new();
        if !questions.is_empty() {
            let asking = account.connector.ask_about(&questions, &account.rate);
            answers = timeout(account.connector.timeout() + SLACK, asking).await.unwrap_or_default();
        }
        answers.resize_with(questions.len(), || unanswered("timed out"));
        // Once for the call, however many links it was about.
        if let Some(answer) = answers.iter().max_by_key(|answer| matches!(health(answer), Health::Works)) {
            account.breaker.record(health(answer), std::time::Instant::now());
        }
        for answer in &mut answers {
            redact(account, answer);
            self.metrics.asked(account, answer);
        }
        if !others.is_empty() {
            tracing::warn!(
                links = others.len(),
                "links belong to another account than the one that is configured"
            );
        }
        let mut answers = answers.into_iter();
        let answer = |link| match elsewhere(link) {
            true => unanswered("the link belongs to another account"),
            false => answers.next().unwrap_or_else(|| unanswered("no answer")),
        };
        links.iter().map(answer).collect()
    }

    async fn record_answer(
        &self,
        account: &Account,
        link: &FollowedLink,
        answer: LinkAnswer,
        decision: FollowDecision,
    ) -> Result<(), StoreError> {
        let FollowDecision { status, events, expiring_is_announced, cancel_had_no_effect, then } = decision;
        let ask_after = match then {
            FollowStep::Ask { after } => Some(spread(after)),
            FollowStep::Cancel(_) | FollowStep::Stop => None,
        };
        let is_answered = matches!(answer, LinkAnswer::Reported(_));
        let (provider_status, provider_payout_id, expires_at) = match answer {
            LinkAnswer::Reported(LinkReport { provider_status, provider_payout_id, expires_at, .. }) => {
                (Some(provider_status), provider_payout_id, expires_at)
            }
            LinkAnswer::NotFound { .. } | LinkAnswer::Unanswered { .. } => (None, None, None),
        };
        let types: Vec<&str> = events.iter().map(|event| event.event_type.as_str()).collect();
        if !types.is_empty() {
            tracing::info!(link.status = status.as_str(), events = types.join(" "), "link status changed");
        }
        let has_events = !events.is_empty();
        let events = self.without_secrets(account, link, events).await?;
        let record = AnswerRecord {
            status,
            has_changed: status != link.followed.status,
            provider_status,
            provider_payout_id,
            expires_at,
            expiring_is_announced,
            forgets_cancel: cancel_had_no_effect || link.followed.cancelled.is_none(),
            failures: if is_answered { 0 } else { link.followed.failures.saturating_add(1) },
            ask_after,
            events,
        };
        if self.store.record_answer(link, record).await? {
            self.follow_soon.wake(&account.name);
        }
        if has_events || link.followed.cancel_is_requested {
            self.answer_soon.notify_one();
        }
        if has_events {
            self.metrics.status_changed(account, status);
            self.look_soon.notify_one();
        }
        Ok(())
    }

    /// Encodes the errors of events without the job's secrets, which a provider may repeat. Once the request is erased,
    /// nobody knows the secrets: then only the code is left.
    async fn without_secrets(
        &self,
        account: &Account,
        link: &FollowedLink,
        events: Vec<StatusEvent>,
    ) -> Result<Vec<(StatusEvent, Option<String>)>, StoreError> {
        let mut encoded = Vec::with_capacity(events.len());
        for mut event in events {
            if let Some(error) = &mut event.error {
                match self.store.job_of(link, &account.name).await? {
                    Some(job) => account.redact(error, Some(&job)),
                    None => {
                        ERASED.clone_into(&mut error.message);
                        error.reason = None;
                    }
                }
            }
            let error = event.error.as_ref().map(contract::status_error);
            encoded.push((event, error));
        }
        Ok(encoded)
    }
}

/// Replaces a provider's text that cannot be searched for the job's secrets.
const ERASED: &str = "the provider's text is left out, because the request is erased";

/// Returns whether the provider certainly did not carry a call out. A repeated one may have been rejected because the
/// first was carried out.
fn is_rejected(status_code: u16) -> bool {
    matches!(status_code, 400..=499)
}

fn question(link: &FollowedLink) -> AskedLink {
    AskedLink {
        connector_payout_id: link.connector_payout_id.clone(),
        provider_payout_id: link.provider_payout_id.clone(),
        status: link.followed.status,
        expires_at: link.followed.expires_at,
        is_cancelled: link.followed.cancelled.is_some(),
    }
}

fn unanswered(reason: &str) -> LinkAnswer {
    LinkAnswer::Unanswered { error: ConnectorError::unanswered(reason), retry_after: None }
}

/// Returns the provider's health as the answer shows it.
fn health(answer: &LinkAnswer) -> Health {
    match answer {
        LinkAnswer::Reported(_) | LinkAnswer::NotFound { .. } => Health::Works,
        LinkAnswer::Unanswered { error, .. } => match error.status_code {
            400..=499 => Health::Silent,
            _ => Health::Fails,
        },
    }
}

/// Logs an answer without a status, in the span of its link.
fn log_failure(answer: &LinkAnswer) {
    match answer {
        LinkAnswer::Reported(_) => {}
        LinkAnswer::Unanswered { error, .. } => tracing::info!(
            http.status = error.status_code,
            error.message = error.message,
            "link status not answered, will ask again"
        ),
        LinkAnswer::NotFound { status_code } => {
            tracing::warn!(http.status = status_code, "link not found at the provider, will ask again");
        }
    }
}

fn redact(account: &Account, answer: &mut LinkAnswer) {
    match answer {
        LinkAnswer::Reported(report) => {
            // Its error waits for the job's secrets: a text is redacted once, before it is cut.
            report.provider_status = account.redact_text(&report.provider_status);
        }
        LinkAnswer::Unanswered { error, .. } => account.redact(error, None),
        LinkAnswer::NotFound { .. } => {}
    }
}
