//! An open record, the connector, a conclusion, and the attempts between.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{
    Pipeline,
    called::{redact, redact_outcome, redact_status, tell_log},
    timeline,
};
use crate::{
    connectors::{Account, Call},
    contract,
    domain::{
        Circumstances, Conclusion, ConnectorError, Finding, OpenLink, Outcome, idempotency_key_of,
        retry::{self, Next},
    },
    limits::{Permit, PooledPermit},
    postgres::{DueEvent, StoreError, Unconcluded},
};

/// An event to be delivered, and its place among the records that are concluded.
type Concluded = (Box<DueEvent>, PooledPermit);

impl Pipeline {
    /// Works on a record that is ours until it is concluded, or until its next step is far enough away to be
    /// written down: then there is no event yet. `permit` comes with a place under the rate limit for the first call.
    ///
    /// Boxed: every step but the call. That is what thousands wait in at once, with room for what is largest.
    pub(super) async fn create_link(
        &self,
        mut link: Box<OpenLink>,
        account: &Account,
        permit: Permit,
    ) -> Result<Option<Concluded>, StoreError> {
        let rule = account.connector.replay_rule();
        let mut has_place = true;
        if link.progress.mark_lost_calls_unknown(&self.settings.retry, link.lease.now()) {
            link.call_is_written = false;
        }
        loop {
            // Asked before every call, also of a record that a dead worker left: what is in doubt is never
            // repeated blindly.
            let seen = self.circumstances(&link, account);
            match retry::next(&link.progress, rule, &self.settings.retry, &seen) {
                Next::Conclude(conclusion) => {
                    // It has no more calls: the next job's need not wait for this one's conclusion.
                    drop(permit);
                    give_place_back(account, has_place);
                    let concluding = self.concluding.take().await;
                    let event = Box::pin(self.conclude(link, account, &conclusion)).await?;
                    return Ok(Some((event, concluding)));
                }
                Next::Call { after } | Next::LookUp { after }
                    if self.is_too_long(after) || (waits_for_its_link(&link) && !after.is_zero()) =>
                {
                    give_place_back(account, has_place);
                    return self.postpone(link, after).await;
                }
                Next::Call { after } => {
                    self.sleep(after).await;
                    if self.is_stopping() {
                        continue;
                    }
                    if let Err(wait) = self.let_through(&link, account, &mut has_place).await {
                        return self.postpone(link, wait).await;
                    }
                    if !self.begin_call(&mut link, account).await? {
                        return self.postpone(link, Duration::ZERO).await;
                    }
                    self.call(&mut link, account).await;
                }
                Next::LookUp { after } => {
                    self.sleep(after).await;
                    if self.is_stopping() {
                        continue;
                    }
                    if let Err(wait) = self.let_through(&link, account, &mut has_place).await {
                        return self.postpone(link, wait).await;
                    }
                    match Box::pin(self.store.renew_for_look_up(&mut link)).await {
                        Ok(()) => {}
                        Err(StoreError::Unavailable(_)) => {
                            return self.postpone(link, Duration::ZERO).await;
                        }
                        Err(error) => return Err(error),
                    }
                    Box::pin(self.look_up(&mut link, account)).await?;
                }
            }
        }
    }

    /// Gives the row back until it is due. What became of its calls is known, and is not given up before shutdown.
    async fn postpone(&self, link: Box<OpenLink>, after: Duration) -> Result<Option<Concluded>, StoreError> {
        let id = link.id;
        match self.until_long_stopped(Box::pin(self.store.postpone(link, after))).await {
            Some(postponed) => postponed.map(|()| None),
            None => {
                tracing::warn!(payout_link.id = %id, "stopped before the record was given back; its lease expires");
                Ok(None)
            }
        }
    }

    /// Waits for the connector's rate limit and its breaker where that is short, and within the lease; else says how long it
    /// is. `has_place`: whether the rate limit has let the next call through already.
    async fn let_through(
        &self,
        link: &OpenLink,
        account: &Account,
        has_place: &mut bool,
    ) -> Result<(), Duration> {
        let limit = self.settings.wait_in_place.min(link.lease.left() / 2);
        if !std::mem::take(has_place) {
            let wait = account.rate.reserve(std::time::Instant::now(), limit)?;
            self.sleep(wait).await;
        }
        let started = Instant::now();
        loop {
            if self.is_stopping() {
                account.rate.give_back(1);
                return Err(Duration::ZERO);
            }
            let Err(wait) = account.breaker.pass(std::time::Instant::now()) else { return Ok(()) };
            if started.elapsed() + wait > limit {
                account.rate.give_back(1);
                return Err(wait);
            }
            self.sleep(wait).await;
        }
    }

    fn idempotency_key(&self, link: &OpenLink) -> String {
        let id = link.job.merchant_payout_id.as_str();
        idempotency_key_of(&self.settings.deployment, &link.merchant_id, id)
    }

    fn circumstances(&self, link: &OpenLink, account: &Account) -> Circumstances {
        let now = link.lease.now();
        Circumstances { now, steady: self.store.steady(now), account: account.id.clone() }
    }

    /// Once the pipeline is stopped, whatever has not begun is too long.
    fn is_too_long(&self, after: Duration) -> bool {
        after > self.settings.wait_in_place || self.is_stopping()
    }

    /// Whether the call may be made: it and its lease are on disk before it is.
    async fn begin_call(&self, link: &mut OpenLink, account: &Account) -> Result<bool, StoreError> {
        let uncalled = link.progress.clone();
        link.progress.account = Some(account.id.clone());
        if link.call_is_written && is_covered(link, account) {
            link.begin_written_call();
        } else {
            link.call_is_written = false;
            match Box::pin(self.store.renew_for_call(link)).await {
                Ok(()) => {}
                // It was not begun: the row is given back as it was, if it is still ours.
                Err(StoreError::Unavailable(_) | StoreError::LeaseLost) => {
                    link.progress = uncalled;
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        // A process that was paused since, or a database that took its time, must not send a call that others have
        // stopped counting on: it is taken back, and whoever comes next need not doubt it.
        let is_covered = is_covered(link, account);
        if !is_covered {
            link.progress = uncalled;
        }
        Ok(is_covered)
    }

    async fn call(&self, link: &mut OpenLink, account: &Account) {
        tracing::Span::current().record("attempt.number", link.progress.attempts);
        let (started_at, started) = (link.lease.now(), Instant::now());
        let key = self.idempotency_key(link);
        let deadline = account.connector.timeout() + SLACK;
        let mut outcome = timeout(deadline, account.connector.create_link(call(link, &key)))
            .await
            .unwrap_or_else(|_| Outcome::Unknown(ConnectorError::unanswered("timed out")));
        account.breaker.record(outcome.health(), std::time::Instant::now());
        redact_outcome(&mut outcome, link, account);
        let attempt = timeline::of_call(&outcome, link.progress.attempts, started_at, started.elapsed());
        tell_log(
            &attempt,
            matches!(outcome, Outcome::TryLater { ref error, .. } if matches!(error.status_code, 401 | 403 | 404)),
        );
        self.metrics.called(account, &attempt);
        link.calls.push(attempt);
        let now = link.lease.now();
        link.progress.record(outcome, now);
    }

    async fn look_up(&self, link: &mut OpenLink, account: &Account) -> Result<(), StoreError> {
        let (asked_at, started) = (link.lease.now(), Instant::now());
        let first_called_at = link.progress.first_call_to_narrow_by(&self.circumstances(link, account));
        let key = self.idempotency_key(link);
        let deadline = account.connector.timeout() + SLACK;
        let mut finding =
            timeout(deadline, account.connector.find_link(Call { first_called_at, ..call(link, &key) }))
                .await
                .unwrap_or_else(|_| Finding::Unanswered {
                    error: ConnectorError::unanswered("timed out"),
                    retry_after: None,
                });
        account.breaker.record(finding.health(), std::time::Instant::now());
        if let Finding::Found(found) = &mut finding {
            redact_status(found, link, account);
        }
        if let Finding::Ended { error, .. } | Finding::Unanswered { error, .. } = &mut finding {
            redact(error, link, account);
        }
        let attempt = timeline::of_look_up(&finding, link.progress.look_ups + 1, asked_at, started.elapsed());
        tell_log(&attempt, false);
        self.metrics.called(account, &attempt);
        link.calls.push(attempt);
        // As the clock is known now: what it did while the answer was on its way counts.
        let asked = Circumstances { now: asked_at, ..self.circumstances(link, account) };
        link.progress.record_finding(finding, account.connector.replay_rule(), &asked);
        Ok(())
    }

    async fn conclude(
        &self,
        link: Box<OpenLink>,
        account: &Account,
        conclusion: &Conclusion,
    ) -> Result<Box<DueEvent>, StoreError> {
        match self.try_conclude(link, account, conclusion).await {
            Ok(event) => Ok(event),
            Err((StoreError::Refused(reason), Some(mut link))) => {
                tracing::error!(
                    reason,
                    "the database refuses a conclusion, the outcome is recorded as unknown"
                );
                // Whatever it was that cannot be stored came from outside.
                link.calls.iter_mut().for_each(|call| call.detail = None);
                link.progress.connector_payout_id = None;
                link.progress.in_doubt_since.get_or_insert(link.lease.now());
                let error = ConnectorError::new(
                    link.progress.status_code,
                    None,
                    "the connector's answer cannot be stored",
                    None,
                );
                let unknown = self.try_conclude(link, account, &Conclusion::Unknown(error)).await;
                unknown.map_err(|(error, _)| error)
            }
            Err((error, _)) => Err(error),
        }
    }

    /// Concludes once. An answer in hand is not given up before the grace period of a shutdown has ended, however long the
    /// database is away. An error brings the record back, unless it was given up.
    async fn try_conclude(
        &self,
        link: Box<OpenLink>,
        account: &Account,
        conclusion: &Conclusion,
    ) -> Result<Box<DueEvent>, (StoreError, Option<Box<OpenLink>>)> {
        let progress = &link.progress;
        let told = contract::conclusion(
            &link.job,
            conclusion,
            progress.connector_payout_id.as_deref(),
            progress.status_code,
        );
        let error_code = told.error_code;
        let answer = InHand::of(&link, self.idempotency_key(&link));
        let concluding = Box::pin(self.store.conclude(link, told));
        let event = match self.until_given_up(concluding).await {
            Some(Ok(event)) => event,
            Some(Err(Unconcluded { error, link })) => {
                answer.say_given_up(&error.to_string());
                return Err((error, Some(link)));
            }
            None => {
                answer.say_given_up("the worker is stopped");
                return Err((StoreError::Unavailable("the worker is stopped".into()), None));
            }
        };
        self.metrics.concluded(account, event.event_type, error_code);
        let event_type = event.event_type.as_str();
        match error_code {
            None => tracing::info!(event.id = %event.id, event.r#type = event_type, "payout link created"),
            Some(code) => {
                tracing::warn!(event.id = %event.id, event.r#type = event_type, error.code = code, "no payout link");
            }
        }
        Ok(event)
    }
}

/// The place under the rate limit that a record was claimed with, and did not need.
fn give_place_back(account: &Account, has_place: bool) {
    if has_place {
        account.rate.give_back(1);
    }
}

/// What is lost with a conclusion that is given up: enough to find the payout link at the provider.
struct InHand {
    id: uuid::Uuid,
    connector_payout_id: Option<String>,
    idempotency_key: String,
}

impl InHand {
    fn of(link: &OpenLink, idempotency_key: String) -> Self {
        let made = link.calls.iter().rev().find(|call| matches!(call.outcome, "created" | "found"));
        Self {
            id: link.id,
            connector_payout_id: made
                .and_then(|call| call.detail.clone())
                .or_else(|| link.progress.connector_payout_id.clone()),
            idempotency_key,
        }
    }

    fn say_given_up(&self, reason: &str) {
        tracing::error!(
            payout_link.id = %self.id,
            connector_payout_id = self.connector_payout_id,
            idempotency_key = self.idempotency_key,
            reason,
            "conclusion given up, the connector's answer is not recorded"
        );
    }
}

/// Made, and not ready: that is the provider's work, or a person's there, and takes no slot of ours meanwhile.
fn waits_for_its_link(link: &OpenLink) -> bool {
    link.progress.connector_payout_id.is_some()
}

/// What a call's own timeout may be late by.
const SLACK: Duration = Duration::from_secs(1);

/// Does the lease outlast a whole call?
fn is_covered(link: &OpenLink, account: &Account) -> bool {
    link.lease.left() > account.connector.timeout() + SLACK
}

fn call<'a>(link: &'a OpenLink, idempotency_key: &'a str) -> Call<'a> {
    Call {
        job: &link.job,
        idempotency_key,
        connector_payout_id: link.progress.connector_payout_id.as_deref(),
        first_called_at: link.progress.first_called_at,
        now: link.lease.now(),
        trace: &link.trace,
    }
}
