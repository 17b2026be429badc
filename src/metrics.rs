//! Counts and measures: every metric of the worker, served at `/metrics` of `worker.health_listen` as OpenMetrics text.
//!
//! | metric | type | labels | meaning |
//! | --- | --- | --- | --- |
//! | `payout_links_jobs_total` | counter | `outcome` | deliveries that were settled: `accepted` (written to the database), `duplicate` (its record is open), `replayed` (its result was published again), `rejected` |
//! | `payout_links_ignored_fields_total` | counter | `field` | fields of jobs that are unknown and were ignored (`jobs.unknown_fields`): a hundred paths, and `(others)` |
//! | `payout_links_rejected_total` | counter | `code` | the rejected ones by `error.unified_details.code` |
//! | `payout_links_concluded_total` | counter | `connector`, `state`, `code` | records concluded by this worker: `created`, `failed`, `unknown`, and why |
//! | `payout_links_connector_calls_total` | counter | `connector`, `kind`, `outcome` | attempts (`create`, `look_up`) by outcome, named as in `show` |
//! | `payout_links_connector_call_duration_seconds` | histogram | `connector`, `kind` | their duration, from connecting to the last byte |
//! | `payout_links_connector_breaker_state` | gauge | `connector` | 0 closed, 1 half-open, 2 open |
//! | `payout_links_connector_unread_fields_total` | counter | `connector` | optional fields of answers, such as `expires_at`, that could not be read and were left out |
//! | `payout_links_connector_unknown_statuses_total` | counter | `connector` | links whose status this version does not know; they count as created |
//! | `payout_links_connector_permits_taken` | gauge | `connector` | of `calls.concurrency`: records being processed |
//! | `payout_links_link_questions_total` | counter | `connector`, `outcome` | questions about created links: `reported`, `unknown_status` (the provider's word is not known), `not_found`, `unanswered` |
//! | `payout_links_link_changes_total` | counter | `connector`, `status` | changes of created links that were announced, by the status afterwards |
//! | `payout_links_provider_webhooks_total` | counter | `connector`, `outcome` | webhooks of providers: `accepted` (the provider is asked about the link), `duplicate`, `unknown_link` (the account has other links), `unreadable` (authentic, and not what the provider documents), `not_authentic`, `unavailable` (not stored; the provider sends it again) |
//! | `payout_links_results_total` | counter | `outcome` | publications of results: `published`, `unrouted` (no queue is bound for it), `failed` (will be retried) |
//! | `payout_links_webhooks_total` | counter | `outcome` | webhook attempts: `delivered`, `failed` (will be retried), `abandoned` (the last attempt failed, or 410) |
//! | `payout_links_abandoned_total` | counter | `reason` | work abandoned after a database error; it becomes due again |
//! | `payout_links_jobs_in_flight` | gauge | | deliveries being accepted and records being processed |
//! | `payout_links_events_in_flight` | gauge | | of `worker.events_in_flight`: events being delivered |
//! | `payout_links_consuming` | gauge | | 1: RabbitMQ delivers jobs |
//! | `payout_links_publishing` | gauge | | 1: results can be published |
//! | `payout_links_open_records` | gauge | `account` | open records, up to 10,000 a connector, by where they were called: `current`, `other` (in another account than their connector is configured with), `missing` (their connector is not configured) |
//! | `payout_links_clock_offset_seconds` | gauge | `clock` | by how much another clock is ahead of the worker's: `database`, `merchants` (the median, by the `Date` of their answers) |
//! | `payout_links_connector_clock_offset_seconds` | gauge | `connector` | the same for the provider; 0 before its first answer |
//! | `payout_links_database_clock_steps_total` | counter | | steps of the database's clock |
//! | `payout_links_database_up` | gauge | | 1: the database can be used; while it is 0, consumption is paused |
//! | `payout_links_deliveries_unread` | gauge | | deliveries that wait to be processed |
//! | `payout_links_oldest_due_record_seconds` | gauge | | for how long the oldest due record has been due |
//! | `payout_links_oldest_due_event_seconds` | gauge | | the same for events |
//! | `payout_links_most_delayed_merchant_seconds` | gauge | | for how long the oldest due record has been due whose merchant is at no limit of `[limits.per_merchant]`; `status` names the merchant |
//! | `payout_links_merchants_waiting` | gauge | | merchants with due records |
//! | `payout_links_due_work_neglected_seconds` | gauge | | for how long nothing has looked for due work, or due work was not claimed although it could be |
//! | `payout_links_replies_dropped_total` | counter | | replies to duplicates and rejected jobs that their queue did not accept |
//! | `payout_links_dead_letters_deleted_total` | counter | | dead letters that were deleted after `retention.dead_letters_days` |
//! | `payout_links_sealing_key_seals` | gauge | | values that the first key of `keys.sealing` has encrypted, by all workers, as recorded once a minute; its limit is 2³² |
//! | `payout_links_task_panics` | gauge | `task` | panics of long-lived tasks, each of which is restarted |
//! | `payout_links_build_info` | gauge | `version` | always 1 |
//!
//! All values are of this worker, since its start. Label values come from the program and, for `connector`, from the
//! configuration. They never come from an answer or a URL, which would be unbounded and might be secret; from a job
//! come only the names of a limited number of unknown fields. Other labels are a `&'static str` or an account's name,
//! and counting allocates nothing. Every series exists from the start, so that the first "unknown" is a step from 0.

mod series;

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use self::series::{Asked, CALL_SECONDS, Called, Calls, Changed, Connector, End, Fixed};
use crate::{
    connectors::Account,
    domain::{Attempt, ConclusionCode, LinkAnswer, LinkReport, LinkStatus, PayoutLinkState, RejectionCode},
    postgres::{Accepted, ClockState, StoreError, WebhookState},
    rabbitmq::{PublishError, Route},
    tasks,
};

/// The metrics of a worker.
pub struct Metrics {
    registry: Registry,
    jobs: Family<Fixed, Counter>,
    rejected: Family<Fixed, Counter>,
    ignored_fields: Family<[(&'static str, String); 1], Counter>,
    concluded: Family<End, Counter>,
    calls: Family<Called, Counter>,
    durations: Family<Calls, Histogram>,
    breakers: Family<Connector, Gauge>,
    permits: Family<Connector, Gauge>,
    unread_fields: Family<Connector, Counter>,
    unknown_statuses: Family<Connector, Counter>,
    questions: Family<Asked, Counter>,
    link_changes: Family<Changed, Counter>,
    provider_webhooks: Family<Asked, Counter>,
    results: Family<Fixed, Counter>,
    webhooks: Family<Fixed, Counter>,
    abandoned: Family<Fixed, Counter>,
    jobs_in_flight: Gauge,
    events_in_flight: Gauge,
    consuming: Gauge,
    publishing: Gauge,
    deliveries_unread: Gauge,
    oldest_due_record: Gauge,
    oldest_due_event: Gauge,
    most_delayed_merchant: Gauge,
    merchants_waiting: Gauge,
    due_work_neglected: Gauge,
    database_up: Gauge,
    open_records: Family<Fixed, Gauge>,
    clock_offsets: Family<Fixed, Gauge>,
    connector_clock_offsets: Family<Connector, Gauge>,
    database_clock_steps: Counter,
    replies_dropped: Counter,
    dead_letters_deleted: Counter,
    sealing_key_seals: Gauge,
    task_panics: Family<Fixed, Gauge>,
}

/// Values that are read at a scrape, not counted.
pub struct Now {
    /// Accepted jobs that this worker processes.
    pub jobs_in_flight: usize,
    /// Events that this worker delivers.
    pub events_in_flight: usize,
    /// Deliveries that wait to be processed.
    pub deliveries_unread: usize,
    /// How long the oldest due record has waited.
    pub oldest_due_record: Duration,
    /// How long the oldest due event has waited.
    pub oldest_due_event: Duration,
    /// How long the oldest due record has waited whose merchant is at no limit of its own.
    pub most_delayed_merchant: Duration,
    /// Merchants with due records.
    pub merchants_waiting: usize,
    /// How long nothing has looked for due work, or due work was not claimed although it could be.
    pub due_work_neglected: Duration,
    /// Whether the last statement was answered.
    pub database_up: bool,
    /// Open records by where they were called: `current`, `other`, `missing`.
    pub open_records: [(&'static str, i64); 3],
    /// The database's clock beside the worker's.
    pub database_clock: ClockState,
    /// How far the merchants' clocks are ahead of the worker's, by their answers.
    pub merchants_clock: Option<time::Duration>,
    /// Whether RabbitMQ delivers jobs.
    pub consuming: bool,
    /// Whether the worker has a connection to publish on.
    pub publishing: bool,
}

impl Metrics {
    /// Makes the metrics, with every series of these accounts.
    pub fn new<'a>(accounts: impl Iterator<Item = &'a Account>) -> Self {
        let metrics = Self {
            registry: Registry::with_prefix("payout_links"),
            jobs: Family::default(),
            rejected: Family::default(),
            ignored_fields: Family::default(),
            concluded: Family::default(),
            calls: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(CALL_SECONDS)),
            breakers: Family::default(),
            permits: Family::default(),
            unread_fields: Family::default(),
            unknown_statuses: Family::default(),
            questions: Family::default(),
            link_changes: Family::default(),
            provider_webhooks: Family::default(),
            results: Family::default(),
            webhooks: Family::default(),
            abandoned: Family::default(),
            jobs_in_flight: Gauge::default(),
            events_in_flight: Gauge::default(),
            consuming: Gauge::default(),
            publishing: Gauge::default(),
            deliveries_unread: Gauge::default(),
            oldest_due_record: Gauge::default(),
            oldest_due_event: Gauge::default(),
            most_delayed_merchant: Gauge::default(),
            merchants_waiting: Gauge::default(),
            due_work_neglected: Gauge::default(),
            database_up: Gauge::default(),
            open_records: Family::default(),
            clock_offsets: Family::default(),
            connector_clock_offsets: Family::default(),
            database_clock_steps: Counter::default(),
            replies_dropped: Counter::default(),
            dead_letters_deleted: Counter::default(),
            sealing_key_seals: Gauge::default(),
            task_panics: Family::default(),
        };
        metrics.with_every_series(accounts).registered()
    }

    /// Counts an accepted job. A conflict is counted as a rejection, once that is published.
    pub fn accepted(&self, accepted: &Accepted) {
        let outcome = match accepted {
            Accepted::New(_) | Accepted::Parked => "accepted",
            Accepted::InProgress => "duplicate",
            Accepted::Finished { .. } | Accepted::Conflict { .. } => return,
        };
        self.jobs.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Counts a replay.
    pub fn replayed(&self) {
        self.jobs.get_or_create(&[("outcome", "replayed")]).inc();
    }

    /// Counts a rejection.
    pub fn rejected(&self, code: RejectionCode) {
        self.jobs.get_or_create(&[("outcome", "rejected")]).inc();
        self.rejected.get_or_create(&[("code", code.as_str())]).inc();
    }

    /// Counts an ignored field.
    pub fn field_ignored(&self, path: String) {
        self.ignored_fields.get_or_create(&[("field", path)]).inc();
    }

    /// Counts a conclusion. `code`: `unified_details.code`, if there is an error.
    pub fn concluded(&self, account: &Account, state: PayoutLinkState, code: Option<ConclusionCode>) {
        let state = state.as_str();
        let (connector, code) = (account.name.clone(), code.map_or("", ConclusionCode::as_str));
        self.concluded.get_or_create(&End { connector, state, code }).inc();
    }

    /// Counts an attempt at a connector.
    pub fn called(&self, account: &Account, attempt: &Attempt) {
        let (connector, kind, outcome) =
            (account.name.clone(), attempt.kind.as_str(), attempt.outcome.as_str());
        self.durations
            .get_or_create(&Calls { connector: connector.clone(), kind })
            .observe(attempt.took.as_secs_f64());
        self.calls.get_or_create(&Called { connector, kind, outcome }).inc();
    }

    /// Counts a question about a link by its answer.
    pub fn asked(&self, account: &Account, answer: &LinkAnswer) {
        let outcome = match answer {
            LinkAnswer::Reported(LinkReport { status: Some(_), .. }) => "reported",
            LinkAnswer::Reported(_) => "unknown_status",
            LinkAnswer::NotFound { .. } => "not_found",
            LinkAnswer::Unanswered { .. } => "unanswered",
        };
        self.questions.get_or_create(&Asked { connector: account.name.clone(), outcome }).inc();
    }

    /// Counts an announced change of a link.
    pub fn status_changed(&self, account: &Account, status: LinkStatus) {
        let (connector, status) = (account.name.clone(), status.as_str());
        self.link_changes.get_or_create(&Changed { connector, status }).inc();
    }

    /// Counts a webhook of a provider by its outcome.
    pub fn provider_webhook(&self, account: &Account, outcome: &'static str) {
        self.provider_webhooks.get_or_create(&Asked { connector: account.name.clone(), outcome }).inc();
    }

    /// Counts a publication of a result.
    pub fn published(&self, published: &Result<Route, PublishError>) {
        let outcome = match published {
            Ok(Route::Queued) => "published",
            Ok(Route::Returned) => "unrouted",
            Err(_) => "failed",
        };
        self.results.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Counts a webhook attempt by the state that it led to.
    pub fn posted(&self, state: WebhookState) {
        let outcome = match state {
            WebhookState::Delivered => "delivered",
            WebhookState::Pending => "failed",
            WebhookState::Abandoned => "abandoned",
            WebhookState::None => return,
        };
        self.webhooks.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Counts work that was abandoned after an error of the store.
    pub fn abandoned_for(&self, error: &StoreError) {
        let reason = match error {
            StoreError::LeaseLost => "lease_lost",
            StoreError::Unavailable(_) => "unavailable",
            StoreError::Inconsistent { .. } => "inconsistent",
            StoreError::Rejected(_) => "rejected",
            StoreError::Unusable(_) => "unusable",
        };
        self.abandoned(reason);
    }

    /// Counts abandoned work.
    pub fn abandoned(&self, reason: &'static str) {
        self.abandoned.get_or_create(&[("reason", reason)]).inc();
    }

    /// Sets the number of values that the first sealing key has encrypted.
    pub fn seals(&self, seals: u64) {
        self.sealing_key_seals.set(i64::try_from(seals).unwrap_or(i64::MAX));
    }

    /// Counts dead letters that were deleted after their retention.
    pub fn dead_letters_deleted(&self, letters: usize) {
        self.dead_letters_deleted.inc_by(letters as u64);
    }

    /// Counts a reply that its queue did not accept.
    pub fn reply_dropped(&self) {
        self.replies_dropped.inc();
    }

    /// Returns every metric as OpenMetrics text.
    #[expect(clippy::expect_used, clippy::missing_panics_doc, reason = "writing to a String cannot fail")]
    pub fn text<'a>(&self, now: &Now, accounts: impl Iterator<Item = &'a Account>) -> String {
        self.jobs_in_flight.set(whole(now.jobs_in_flight));
        self.events_in_flight.set(whole(now.events_in_flight));
        self.consuming.set(now.consuming.into());
        self.publishing.set(now.publishing.into());
        self.deliveries_unread.set(whole(now.deliveries_unread));
        self.oldest_due_record.set(seconds(now.oldest_due_record));
        self.oldest_due_event.set(seconds(now.oldest_due_event));
        self.most_delayed_merchant.set(seconds(now.most_delayed_merchant));
        self.merchants_waiting.set(whole(now.merchants_waiting));
        self.due_work_neglected.set(seconds(now.due_work_neglected));
        self.database_up.set(now.database_up.into());
        for (account, count) in now.open_records {
            self.open_records.get_or_create(&[("account", account)]).set(count);
        }
        for (clock, offset) in [("database", now.database_clock.offset), ("merchants", now.merchants_clock)] {
            if let Some(offset) = offset {
                self.clock_offsets.get_or_create(&[("clock", clock)]).set(offset.whole_seconds());
            }
        }
        self.database_clock_steps.inner().store(now.database_clock.steps, Relaxed);
        for (task, panics) in tasks::panics() {
            self.task_panics.get_or_create(&[("task", task)]).set(i64::try_from(panics).unwrap_or(i64::MAX));
        }
        for account in accounts {
            let connector = Connector { connector: account.name.clone() };
            self.breakers.get_or_create(&connector).set(account.breaker.level());
            self.permits.get_or_create(&connector).set(whole(account.permits.taken()));
            let offset = account.clock.offset().unwrap_or_default();
            self.connector_clock_offsets.get_or_create(&connector).set(offset.whole_seconds());
            let unread_fields = self.unread_fields.get_or_create(&connector);
            unread_fields.inner().store(account.connector.unread_fields(), Relaxed);
            let statuses = self.unknown_statuses.get_or_create(&connector);
            statuses.inner().store(account.connector.unknown_statuses(), Relaxed);
        }
        let mut written = String::new();
        text::encode(&mut written, &self.registry).expect("metrics are text");
        written
    }
}

/// Label of the ignored fields beyond those that are counted separately.
pub const OTHER_FIELDS: &str = "(others)";

/// Content type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
