//! What is counted, for whoever is on call: every metric of the worker, served at `/metrics` of `worker.health_listen`
//! as OpenMetrics text.
//!
//! | metric | type | labels | what it says |
//! | --- | --- | --- | --- |
//! | `payout_links_jobs_total` | counter | `outcome` | deliveries that were settled: `accepted` (written to the database), `duplicate` (its record is open), `replayed` (its result was published again), `rejected` |
//! | `payout_links_ignored_fields_total` | counter | `field` | fields of jobs that are unknown and were ignored (`jobs.unknown_fields`): a hundred paths, and `(others)` |
//! | `payout_links_rejected_total` | counter | `code` | the rejected ones by `error.unified_details.code` |
//! | `payout_links_concluded_total` | counter | `connector`, `state`, `code` | records that came to their end here: `created`, `failed`, `unknown`, and why |
//! | `payout_links_connector_calls_total` | counter | `connector`, `kind`, `outcome` | calls (`create`, `look_up`) by what they came to, named as in `show` |
//! | `payout_links_connector_call_duration_seconds` | histogram | `connector`, `kind` | how long they took, from connecting to the last byte |
//! | `payout_links_connector_breaker_state` | gauge | `connector` | 0 closed, 1 half-open, 2 open |
//! | `payout_links_connector_unread_fields_total` | counter | `connector` | optional fields of answers, such as `expires_at`, that could not be read and were left out |
//! | `payout_links_connector_unknown_statuses_total` | counter | `connector` | links whose status this version does not know; they count as created |
//! | `payout_links_connector_permits_taken` | gauge | `connector` | of `calls.concurrency`: records being worked on |
//! | `payout_links_results_total` | counter | `outcome` | publications of results: `published`, `unrouted` (nobody is bound for it), `failed` (to be repeated) |
//! | `payout_links_webhooks_total` | counter | `outcome` | posts of webhooks: `delivered`, `failed` (to be repeated), `abandoned` (failed for good, or 410) |
//! | `payout_links_abandoned_total` | counter | `reason` | work that an error of the store ended before its end, to come due again |
//! | `payout_links_jobs_in_flight` | gauge | | deliveries that are being taken in and records that are being worked on |
//! | `payout_links_events_in_flight` | gauge | | of `worker.events_in_flight`: events being told |
//! | `payout_links_consuming` | gauge | | 1: RabbitMQ delivers jobs |
//! | `payout_links_publishing` | gauge | | 1: results can leave |
//! | `payout_links_open_records` | gauge | `account` | open records, up to 10,000 a connector, by where they were called: `current`, `other` (in another account than their connector is configured with), `missing` (their connector is not configured) |
//! | `payout_links_clock_offset_seconds` | gauge | `clock` | by how much another clock is ahead of the worker's: `database`, `merchants` (the one in the middle, by the `Date` of their answers) |
//! | `payout_links_connector_clock_offset_seconds` | gauge | `connector` | the same for the provider; 0 before its first answer |
//! | `payout_links_database_clock_steps_total` | counter | | steps of the database's clock |
//! | `payout_links_database_up` | gauge | | 1: the database can be used; while it is 0 nothing is consumed |
//! | `payout_links_deliveries_unread` | gauge | | deliveries that wait to be taken |
//! | `payout_links_oldest_due_record_seconds` | gauge | | for how long the oldest due record has been due |
//! | `payout_links_oldest_due_event_seconds` | gauge | | the same for events |
//! | `payout_links_replies_dropped_total` | counter | | replies to duplicates and rejected jobs that their queue did not take |
//! | `payout_links_sealing_key_seals` | gauge | | values that the first key of `keys.sealing` has encrypted, by all workers, as recorded once a minute; it is worn out at 2³² |
//! | `payout_links_task_panics` | gauge | `task` | panics of long-lived tasks, each of which is started again |
//! | `payout_links_build_info` | gauge | `version` | always 1 |
//!
//! All of it is this worker's, since its start. The values of labels come from this program and, for `connector`, from
//! the configuration: never from an answer or a URL, which would be unbounded and might be secret, and from a job only the names
//! of so many unknown fields. A label is otherwise a `&'static str` or an account's name, and counting allocates nothing. Every series is there from the
//! start, so that the first "unknown" is a step from 0.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

use crate::{
    connectors::Account,
    contract::RejectionCode,
    domain::{Attempt, AttemptKind, EventType},
    postgres::{Accepted, ClockState, StoreError, WebhookState},
    rabbitmq::{PublishError, Route},
    tasks,
};

pub struct Metrics {
    registry: Registry,
    jobs: Family<Fixed, Counter>,
    rejected: Family<Fixed, Counter>,
    ignored_fields: Family<[(&'static str, String); 1], Counter>,
    concluded: Family<End, Counter>,
    calls: Family<Called, Counter>,
    durations: Family<Calls, Histogram>,
    breakers: Family<Connector, Gauge>,
    slots: Family<Connector, Gauge>,
    unread_fields: Family<Connector, Counter>,
    unknown_statuses: Family<Connector, Counter>,
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
    database_up: Gauge,
    open_records: Family<Fixed, Gauge>,
    clock_offsets: Family<Fixed, Gauge>,
    connector_clock_offsets: Family<Connector, Gauge>,
    database_clock_steps: Counter,
    replies_dropped: Counter,
    sealing_key_seals: Gauge,
    task_panics: Family<Fixed, Gauge>,
}

/// What is looked at when it is asked for, not counted.
pub struct Now {
    pub jobs_in_flight: usize,
    pub events_in_flight: usize,
    pub deliveries_unread: usize,
    pub oldest_due_record: Duration,
    pub oldest_due_event: Duration,
    pub database_up: bool,
    pub open_records: [(&'static str, i64); 3],
    pub database_clock: ClockState,
    pub merchants_clock: Option<time::Duration>,
    pub consuming: bool,
    pub publishing: bool,
}

impl Metrics {
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
            slots: Family::default(),
            unread_fields: Family::default(),
            unknown_statuses: Family::default(),
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
            database_up: Gauge::default(),
            open_records: Family::default(),
            clock_offsets: Family::default(),
            connector_clock_offsets: Family::default(),
            database_clock_steps: Counter::default(),
            replies_dropped: Counter::default(),
            sealing_key_seals: Gauge::default(),
            task_panics: Family::default(),
        };
        metrics.with_every_series(accounts).registered()
    }

    fn with_every_series<'a>(self, accounts: impl Iterator<Item = &'a Account>) -> Self {
        for outcome in ["accepted", "duplicate", "replayed", "rejected"] {
            drop(self.jobs.get_or_create(&[("outcome", outcome)]));
        }
        for code in RejectionCode::ALL {
            drop(self.rejected.get_or_create(&[("code", code.as_str())]));
        }
        drop(self.ignored_fields.get_or_create(&[("field", OTHER_FIELDS.to_owned())]));
        for outcome in ["published", "unrouted", "failed"] {
            drop(self.results.get_or_create(&[("outcome", outcome)]));
        }
        for outcome in ["delivered", "failed", "abandoned"] {
            drop(self.webhooks.get_or_create(&[("outcome", outcome)]));
        }
        for reason in ["lease_lost", "unavailable", "inconsistent", "refused", "unusable", "panic"] {
            drop(self.abandoned.get_or_create(&[("reason", reason)]));
        }
        for Account { name, .. } in accounts {
            for (state, code) in ENDS {
                drop(self.concluded.get_or_create(&End { connector: name.clone(), state, code }));
            }
            for (kind, outcomes) in [(AttemptKind::Create, CREATED), (AttemptKind::LookUp, LOOKED_UP)] {
                let kind = kind.as_str();
                drop(self.durations.get_or_create(&Calls { connector: name.clone(), kind }));
                for outcome in outcomes {
                    drop(self.calls.get_or_create(&Called { connector: name.clone(), kind, outcome }));
                }
            }
        }
        self
    }

    fn registered(mut self) -> Self {
        let registry = &mut self.registry;
        registry.register("jobs", "Deliveries of jobs that were settled", self.jobs.clone());
        registry.register("rejected", "Rejected jobs by code", self.rejected.clone());
        registry.register("ignored_fields", "Unknown fields of jobs, ignored", self.ignored_fields.clone());
        registry.register("concluded", "Records that came to their end", self.concluded.clone());
        registry.register("connector_calls", "Calls to connectors by outcome", self.calls.clone());
        let duration = "Duration of calls to connectors";
        registry.register_with_unit(
            "connector_call_duration",
            duration,
            Unit::Seconds,
            self.durations.clone(),
        );
        let breaker = "Circuit breaker: 0 closed, 1 half-open, 2 open";
        registry.register("connector_breaker_state", breaker, self.breakers.clone());
        registry.register("connector_permits_taken", "Records being worked on", self.slots.clone());
        let unread = "Optional fields of answers that could not be read and were left out";
        registry.register("connector_unread_fields", unread, self.unread_fields.clone());
        let statuses = "Links whose status is not known";
        registry.register("connector_unknown_statuses", statuses, self.unknown_statuses.clone());
        registry.register("results", "Publications of results by outcome", self.results.clone());
        registry.register("webhooks", "Posts of webhooks by outcome", self.webhooks.clone());
        registry.register("abandoned", "Work abandoned for an error of the store", self.abandoned.clone());
        registry.register("jobs_in_flight", "Jobs taken and not concluded", self.jobs_in_flight.clone());
        registry.register("events_in_flight", "Events being told", self.events_in_flight.clone());
        registry.register("consuming", "Whether RabbitMQ delivers jobs", self.consuming.clone());
        registry.register("publishing", "Whether results can leave", self.publishing.clone());
        registry.register(
            "deliveries_unread",
            "Deliveries that wait to be taken",
            self.deliveries_unread.clone(),
        );
        let record = "For how long the oldest due record has been due";
        registry.register_with_unit(
            "oldest_due_record",
            record,
            Unit::Seconds,
            self.oldest_due_record.clone(),
        );
        let event = "For how long the oldest due event has been due";
        registry.register_with_unit("oldest_due_event", event, Unit::Seconds, self.oldest_due_event.clone());
        registry.register("database_up", "Whether the database can be used", self.database_up.clone());
        let open = "Open records by the account that they were called in";
        registry.register("open_records", open, self.open_records.clone());
        let offset = "By how much another clock is ahead of the worker's";
        registry.register_with_unit("clock_offset", offset, Unit::Seconds, self.clock_offsets.clone());
        let offset = "By how much the provider's clock is ahead of the worker's";
        let offsets = self.connector_clock_offsets.clone();
        registry.register_with_unit("connector_clock_offset", offset, Unit::Seconds, offsets);
        let steps = "Steps of the database's clock";
        registry.register("database_clock_steps", steps, self.database_clock_steps.clone());
        registry.register(
            "replies_dropped",
            "Replies to duplicates and rejected jobs that their queue did not take",
            self.replies_dropped.clone(),
        );
        registry.register(
            "sealing_key_seals",
            "Values that the first sealing key has encrypted",
            self.sealing_key_seals.clone(),
        );
        registry.register("task_panics", "Panics of long-lived tasks", self.task_panics.clone());
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The program", build);
        self
    }

    /// A conflict is counted as a rejection, once it is told.
    pub fn accepted(&self, accepted: &Accepted) {
        let outcome = match accepted {
            Accepted::New(_) | Accepted::Parked => "accepted",
            Accepted::InProgress => "duplicate",
            Accepted::Finished { .. } | Accepted::Conflict { .. } => return,
        };
        self.jobs.get_or_create(&[("outcome", outcome)]).inc();
    }

    pub fn replayed(&self) {
        self.jobs.get_or_create(&[("outcome", "replayed")]).inc();
    }

    pub fn rejected(&self, code: RejectionCode) {
        self.jobs.get_or_create(&[("outcome", "rejected")]).inc();
        self.rejected.get_or_create(&[("code", code.as_str())]).inc();
    }

    pub fn field_ignored(&self, path: String) {
        self.ignored_fields.get_or_create(&[("field", path)]).inc();
    }

    /// `code`: `unified_details.code`, where there is an error.
    pub fn concluded(&self, account: &Account, event: EventType, code: Option<&'static str>) {
        let state = match event {
            EventType::Created => "created",
            EventType::Failed => "failed",
            EventType::Pending => "unknown",
            EventType::Rejected => "rejected",
        };
        let (connector, code) = (account.name.clone(), code.unwrap_or_default());
        self.concluded.get_or_create(&End { connector, state, code }).inc();
    }

    pub fn called(&self, account: &Account, attempt: &Attempt) {
        let (connector, kind, outcome) = (account.name.clone(), attempt.kind.as_str(), attempt.outcome);
        self.durations
            .get_or_create(&Calls { connector: connector.clone(), kind })
            .observe(attempt.took.as_secs_f64());
        self.calls.get_or_create(&Called { connector, kind, outcome }).inc();
    }

    pub fn published(&self, told: &Result<Route, PublishError>) {
        let outcome = match told {
            Ok(Route::Queued) => "published",
            Ok(Route::Returned) => "unrouted",
            Err(_) => "failed",
        };
        self.results.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// How a post left its webhook.
    pub fn posted(&self, state: WebhookState) {
        let outcome = match state {
            WebhookState::Delivered => "delivered",
            WebhookState::Pending => "failed",
            WebhookState::Abandoned => "abandoned",
            WebhookState::None => return,
        };
        self.webhooks.get_or_create(&[("outcome", outcome)]).inc();
    }

    pub fn abandoned_for(&self, error: &StoreError) {
        let reason = match error {
            StoreError::LeaseLost => "lease_lost",
            StoreError::Unavailable(_) => "unavailable",
            StoreError::Inconsistent { .. } => "inconsistent",
            StoreError::Rejected(_) => "refused",
            StoreError::Unusable(_) => "unusable",
        };
        self.abandoned(reason);
    }

    /// Work that ended before its end, for one of the reasons that are there from the start.
    pub fn abandoned(&self, reason: &'static str) {
        self.abandoned.get_or_create(&[("reason", reason)]).inc();
    }

    /// What the first sealing key has encrypted in all.
    pub fn seals(&self, seals: u64) {
        self.sealing_key_seals.set(i64::try_from(seals).unwrap_or(i64::MAX));
    }

    pub fn reply_dropped(&self) {
        self.replies_dropped.inc();
    }

    /// All of it, as OpenMetrics text.
    pub fn text<'a>(&self, now: &Now, accounts: impl Iterator<Item = &'a Account>) -> String {
        self.jobs_in_flight.set(whole(now.jobs_in_flight));
        self.events_in_flight.set(whole(now.events_in_flight));
        self.consuming.set(now.consuming.into());
        self.publishing.set(now.publishing.into());
        self.deliveries_unread.set(whole(now.deliveries_unread));
        self.oldest_due_record.set(seconds(now.oldest_due_record));
        self.oldest_due_event.set(seconds(now.oldest_due_event));
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
            self.slots.get_or_create(&connector).set(whole(account.permits.taken()));
            let offset = account.clock.offset().unwrap_or_default();
            self.connector_clock_offsets.get_or_create(&connector).set(offset.whole_seconds());
            let unread_fields = self.unread_fields.get_or_create(&connector);
            unread_fields.inner().store(account.connector.unread_fields(), Relaxed);
            let statuses = self.unknown_statuses.get_or_create(&connector);
            statuses.inner().store(account.connector.unknown_statuses(), Relaxed);
        }
        let mut written = String::new();
        #[expect(clippy::expect_used, reason = "a String takes whatever is written into it")]
        text::encode(&mut written, &self.registry).expect("metrics are text");
        written
    }
}

/// Ignored fields beyond those that are told apart.
pub const OTHER_FIELDS: &str = "(others)";

/// Of the format that [`Metrics::text`] is in.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper limits of the histogram's buckets: providers answer within a second, or hang until a timeout.
const CALL_SECONDS: [f64; 9] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

const ENDS: [(&str, &str); 4] = [
    ("created", ""),
    ("failed", "CONNECTOR_REJECTED"),
    ("failed", "CONNECTOR_UNAVAILABLE"),
    ("unknown", "OUTCOME_UNKNOWN"),
];
const CREATED: &[&str] =
    &["created", "underway", "declined", "not_sent", "try_later", "already_there", "unknown"];
const LOOKED_UP: &[&str] = &["found", "underway", "ended", "not_there", "unanswered"];

/// A label's name and its value.
type Fixed = [(&'static str, &'static str); 1];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct End {
    connector: Arc<str>,
    state: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Called {
    connector: Arc<str>,
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Calls {
    connector: Arc<str>,
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Connector {
    connector: Arc<str>,
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
