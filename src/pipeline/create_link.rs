//! Creates the link of an open record: attempts at the connector, then a conclusion.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{
    Pipeline,
    call_log::{log_attempt, redact, redact_outcome, redact_status},
    pauses::PAUSED_AGAIN_AFTER,
    timeline,
    work::{CallPermit, Deliverable, Work},
};
use crate::{
    connectors::{Account, Call},
    contract,
    domain::{
        Circumstances, Conclusion, ConnectorError, EventType, Finding, OpenLink, Outcome, idempotency_key_of,
        retry::{self, Next},
    },
    limits::Lane,
    postgres::{DueEvent, StoreError, Unconcluded},
};

impl Pipeline {
    /// Processes a claimed record until it is concluded. Returns `None` if its next step is so far away that the
    /// record was postponed.
    ///
    /// Every step but the call is boxed: thousands of records wait in the call at once, and the future is as large as
    /// its largest step.
    pub(super) async fn create_link(&self, work: Work<'_>) -> Result<Option<Deliverable>, StoreError> {
        let Work { mut link, account, call: mut permit } = work;
        let rule = account.connector.replay_rule();
        if link.progress.mark_lost_calls_unknown(&self.settings.retry, link.lease.time_at(Instant::now())) {
            link.call_is_written = false;
        }
        loop {
            // Checked before every call, also for a record of a dead worker: a call with an unknown outcome is never
            // repeated blindly.
            let seen = self.circumstances(&link, account);
            match retry::next(&link.progress, rule, &self.settings.retry, &seen) {
                Next::Conclude(conclusion) => {
                    // No more calls: the next job need not wait for this conclusion.
                    drop(permit);
                    return Box::pin(self.conclude(link, account, &conclusion)).await.map(Some);
                }
                Next::Call { after } | Next::LookUp { after }
                    if self.is_too_long(after) || (waits_for_its_link(&link) && !after.is_zero()) =>
                {
                    return self.postpone(link, after).await;
                }
                Next::Call { after } => {
                    self.sleep(after).await;
                    if self.is_stopping() {
                        continue;
                    }
                    if let Err(wait) = self.let_through(&link, account, &mut permit).await {
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
                    if let Err(wait) = self.let_through(&link, account, &mut permit).await {
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

    /// Postpones the record. Its attempts are known, so the write is not abandoned before shutdown.
    async fn postpone(
        &self,
        link: Box<OpenLink>,
        after: Duration,
    ) -> Result<Option<Deliverable>, StoreError> {
        let id = link.id;
        match self.until_long_stopped(Box::pin(self.store.postpone(link, after))).await {
            Some(postponed) => postponed.map(|()| None),
            None => {
                tracing::warn!(payout_link.id = %id, "stopped before the record was postponed; its lease will expire");
                Ok(None)
            }
        }
    }

    /// Waits for the rate limit and the circuit breaker, if that is short and within the lease; otherwise returns how
    /// long the wait would be.
    async fn let_through(
        &self,
        link: &OpenLink,
        account: &Account,
        permit: &mut CallPermit<'_>,
    ) -> Result<(), Duration> {
        if self.is_creation_paused(&account.name, &link.merchant_id) {
            return Err(PAUSED_AGAIN_AFTER);
        }
        let limit = self.settings.wait_in_place.min(link.lease.left_at(Instant::now()) / 2);
        if !permit.use_reservation() {
            let wait = permit.reserve(std::time::Instant::now(), limit)?;
            self.sleep(wait).await;
        }
        let started = Instant::now();
        loop {
            if self.is_stopping() {
                permit.give_back();
                return Err(Duration::ZERO);
            }
            let Err(wait) = account.breaker.pass(std::time::Instant::now()) else { return Ok(()) };
            if started.elapsed() + wait > limit {
                permit.give_back();
                return Err(wait);
            }
            self.sleep(wait).await;
        }
    }

    fn idempotency_key(&self, link: &OpenLink) -> String {
        self.key_of(&link.merchant_id, link.job.merchant_payout_id.as_str())
    }

    fn key_of(&self, merchant_id: &str, merchant_payout_id: &str) -> String {
        idempotency_key_of(&self.settings.deployment, merchant_id, merchant_payout_id)
    }

    fn circumstances(&self, link: &OpenLink, account: &Account) -> Circumstances {
        let now = link.lease.time_at(Instant::now());
        Circumstances { now, steady: self.store.steady(now), account: account.id.clone() }
    }

    /// Returns whether a wait is too long to sleep in place. Once the pipeline is stopped, every wait is.
    fn is_too_long(&self, after: Duration) -> bool {
        after > self.settings.wait_in_place || self.is_stopping()
    }

    /// Stores the call and its lease, and returns whether the call may be made.
    async fn begin_call(&self, link: &mut OpenLink, account: &Account) -> Result<bool, StoreError> {
        let uncalled = link.progress.clone();
        link.progress.account = Some(account.id.clone());
        if link.call_is_written && is_covered(link, account) {
            link.begin_written_call();
        } else {
            link.call_is_written = false;
            match Box::pin(self.store.renew_for_call(link)).await {
                Ok(()) => {}
                // The call has not begun: the row is postponed unchanged, if it still belongs to this claim.
                Err(StoreError::Unavailable(_) | StoreError::LeaseLost) => {
                    link.progress = uncalled;
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        // If the process was paused, or the database was slow, the lease may be too short by now. Then the call is
        // taken back, so that the next claim does not treat its outcome as unknown.
        let is_covered = is_covered(link, account);
        if !is_covered {
            link.progress = uncalled;
        }
        Ok(is_covered)
    }

    async fn call(&self, link: &mut OpenLink, account: &Account) {
        tracing::Span::current().record("attempt.number", link.progress.attempts);
        let (started_at, started) = (link.lease.time_at(Instant::now()), Instant::now());
        let key = self.idempotency_key(link);
        let deadline = account.connector.timeout() + SLACK;
        let mut outcome = timeout(deadline, account.connector.create_link(call(link, &key)))
            .await
            .unwrap_or_else(|_| Outcome::Unknown(ConnectorError::unanswered("timed out")));
        account.breaker.record(outcome.health(), std::time::Instant::now());
        redact_outcome(&mut outcome, link, account);
        let attempt = timeline::of_call(&outcome, link.progress.attempts, started_at, started.elapsed());
        log_attempt(
            &attempt,
            matches!(outcome, Outcome::TryLater { ref error, .. } if matches!(error.status_code, 401 | 403 | 404)),
        );
        self.metrics.called(account, &attempt);
        link.calls.push(attempt);
        let now = link.lease.time_at(Instant::now());
        link.progress.record(outcome, now);
    }

    async fn look_up(&self, link: &mut OpenLink, account: &Account) -> Result<(), StoreError> {
        let (asked_at, started) = (link.lease.time_at(Instant::now()), Instant::now());
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
        log_attempt(&attempt, false);
        self.metrics.called(account, &attempt);
        link.calls.push(attempt);
        // With the clock's current state: a step during the look-up counts.
        let asked = Circumstances { now: asked_at, ..self.circumstances(link, account) };
        link.progress.record_finding(finding, account.connector.replay_rule(), &asked);
        Ok(())
    }

    /// Concludes a record, and returns its event once it may be published. At most `worker.jobs_in_flight` records are
    /// between their last call and that.
    async fn conclude(
        &self,
        link: Box<OpenLink>,
        account: &Account,
        conclusion: &Conclusion,
    ) -> Result<Deliverable, StoreError> {
        let _concluding = self.concluding.take().await;
        let event = self.conclude_in_any_case(link, account, conclusion).await?;
        tracing::Span::current().record("event.id", tracing::field::display(event.id));
        let publishing = self.events.take().await;
        Ok(Deliverable { event, publishing, lane: Lane::New })
    }

    /// Concludes a record. If the database rejects the provider's values, the record is concluded as unknown without
    /// them.
    async fn conclude_in_any_case(
        &self,
        link: Box<OpenLink>,
        account: &Account,
        conclusion: &Conclusion,
    ) -> Result<Box<DueEvent>, StoreError> {
        match self.try_conclude(link, account, conclusion).await {
            Ok(event) => Ok(event),
            Err((StoreError::Rejected(reason), Some(mut link))) => {
                tracing::error!(reason, "conclusion rejected by the database, recorded as unknown");
                // The value that cannot be stored came from the provider.
                link.calls.iter_mut().for_each(|call| call.detail = None);
                link.progress.connector_payout_id = None;
                link.progress.in_doubt_since.get_or_insert(link.lease.time_at(Instant::now()));
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

    /// Concludes once. A conclusion is not abandoned before the grace period has ended, however long the database is
    /// away. An error returns the record, unless the conclusion was abandoned.
    async fn try_conclude(
        &self,
        link: Box<OpenLink>,
        account: &Account,
        conclusion: &Conclusion,
    ) -> Result<Box<DueEvent>, (StoreError, Option<Box<OpenLink>>)> {
        let progress = &link.progress;
        let now = link.lease.time_at(Instant::now());
        let mut written = contract::conclusion(
            link.job.merchant_payout_id.as_str(),
            conclusion,
            progress.connector_payout_id.as_deref(),
            progress.status_code,
            link.last_sequence + 1,
            now,
        );
        written.link = conclusion.link().map(|created| account.first_question(created, now));
        let (state, error_code) = (written.state, written.error_code);
        let answer = UnrecordedConclusion::of(&link);
        let concluding = Box::pin(self.store.conclude(link, written));
        let event = match self.until_abandoned(concluding).await {
            Some(Ok(event)) => event,
            Some(Err(Unconcluded { error, link })) => {
                self.log_abandoned(&answer, &error.to_string());
                return Err((error, Some(link)));
            }
            None => {
                self.log_abandoned(&answer, "the worker is stopped");
                return Err((StoreError::Unavailable("the worker is stopped".into()), None));
            }
        };
        self.metrics.concluded(account, state, error_code);
        let event_type = event.event_type.as_str();
        match error_code {
            None if event.event_type == EventType::Cancelled => {
                tracing::info!(event.id = %event.id, event.r#type = event_type, "payout link cancelled before its creation");
            }
            None => tracing::info!(event.id = %event.id, event.r#type = event_type, "payout link created"),
            Some(code) => {
                let code = code.as_str();
                tracing::warn!(event.id = %event.id, event.r#type = event_type, error.code = code, "payout link not created");
            }
        }
        Ok(event)
    }

    fn log_abandoned(&self, answer: &UnrecordedConclusion, reason: &str) {
        tracing::error!(
            payout_link.id = %answer.id,
            connector_payout_id = answer.connector_payout_id,
            idempotency_key = self.key_of(&answer.merchant_id, &answer.merchant_payout_id),
            reason,
            "conclusion abandoned, the provider's answer is not recorded"
        );
    }
}

/// The values that are lost with an abandoned conclusion: enough to find the payout link at the provider.
struct UnrecordedConclusion {
    id: uuid::Uuid,
    connector_payout_id: Option<String>,
    merchant_id: String,
    merchant_payout_id: String,
}

impl UnrecordedConclusion {
    fn of(link: &OpenLink) -> Self {
        let made = link.calls.iter().rev().find(|call| call.outcome.has_link());
        Self {
            id: link.id,
            connector_payout_id: made
                .and_then(|call| call.detail.clone())
                .or_else(|| link.progress.connector_payout_id.clone()),
            merchant_id: link.merchant_id.clone(),
            merchant_payout_id: link.job.merchant_payout_id.as_str().to_owned(),
        }
    }
}

/// Returns whether the link exists and is not ready yet. Then the provider, or a person there, has to act, so the
/// record holds no permit meanwhile.
fn waits_for_its_link(link: &OpenLink) -> bool {
    link.progress.connector_payout_id.is_some()
}

/// Tolerance of a call's own timeout.
const SLACK: Duration = Duration::from_secs(1);

/// Returns whether the lease outlasts a whole call.
fn is_covered(link: &OpenLink, account: &Account) -> bool {
    link.lease.left_at(Instant::now()) > account.connector.timeout() + SLACK
}

fn call<'a>(link: &'a OpenLink, idempotency_key: &'a str) -> Call<'a> {
    Call {
        job: &link.job,
        idempotency_key,
        connector_payout_id: link.progress.connector_payout_id.as_deref(),
        first_called_at: link.progress.first_called_at,
        now: link.lease.time_at(Instant::now()),
        trace: &link.trace,
    }
}
