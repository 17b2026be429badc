//! Registers the metrics, and creates every series.

use std::sync::Arc;

use prometheus_client::{encoding::EncodeLabelSet, metrics::info::Info, registry::Unit};

use super::{Metrics, OTHER_FIELDS};
use crate::{
    connectors::Account,
    domain::{AttemptKind, AttemptOutcome, ConclusionCode, LinkStatus, PayoutLinkState, RejectionCode},
};

impl Metrics {
    /// Creates every series, so that each one starts at 0.
    pub(super) fn with_every_series<'a>(self, accounts: impl Iterator<Item = &'a Account>) -> Self {
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
        for reason in ["lease_lost", "unavailable", "inconsistent", "rejected", "unusable", "panic"] {
            drop(self.abandoned.get_or_create(&[("reason", reason)]));
        }
        for Account { name, .. } in accounts {
            for (state, code) in ENDS {
                let (state, code) = (state.as_str(), code.map_or("", ConclusionCode::as_str));
                drop(self.concluded.get_or_create(&End { connector: name.clone(), state, code }));
            }
            for (kind, outcomes) in [
                (AttemptKind::Create, AttemptOutcome::OF_CREATE),
                (AttemptKind::LookUp, AttemptOutcome::OF_LOOK_UP),
            ] {
                let kind = kind.as_str();
                drop(self.durations.get_or_create(&Calls { connector: name.clone(), kind }));
                for outcome in outcomes {
                    let outcome = outcome.as_str();
                    drop(self.calls.get_or_create(&Called { connector: name.clone(), kind, outcome }));
                }
            }
            for outcome in ["reported", "unknown_status", "not_found", "unanswered"] {
                drop(self.questions.get_or_create(&Asked { connector: name.clone(), outcome }));
            }
            for outcome in PROVIDER_WEBHOOKS {
                drop(self.provider_webhooks.get_or_create(&Asked { connector: name.clone(), outcome }));
            }
            for status in LinkStatus::ALL {
                let status = status.as_str();
                drop(self.link_changes.get_or_create(&Changed { connector: name.clone(), status }));
            }
        }
        self
    }

    /// Registers every metric with its help text.
    pub(super) fn registered(mut self) -> Self {
        let registry = &mut self.registry;
        registry.register("jobs", "Deliveries of jobs that were settled", self.jobs.clone());
        registry.register("rejected", "Rejected jobs by code", self.rejected.clone());
        registry.register("ignored_fields", "Unknown fields of jobs, ignored", self.ignored_fields.clone());
        registry.register("concluded", "Concluded records", self.concluded.clone());
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
        registry.register("connector_permits_taken", "Records being processed", self.permits.clone());
        let unread = "Optional fields of answers that could not be read and were left out";
        registry.register("connector_unread_fields", unread, self.unread_fields.clone());
        let statuses = "Links whose status is not known";
        registry.register("connector_unknown_statuses", statuses, self.unknown_statuses.clone());
        let questions = "Questions about created links by outcome";
        registry.register("link_questions", questions, self.questions.clone());
        let changes = "Announced changes of created links by status";
        registry.register("link_changes", changes, self.link_changes.clone());
        let webhooks = "Webhooks of providers by outcome";
        registry.register("provider_webhooks", webhooks, self.provider_webhooks.clone());
        registry.register("results", "Publications of results by outcome", self.results.clone());
        registry.register("webhooks", "Webhook attempts by outcome", self.webhooks.clone());
        registry.register("abandoned", "Work abandoned after a database error", self.abandoned.clone());
        registry.register("jobs_in_flight", "Jobs taken and not concluded", self.jobs_in_flight.clone());
        registry.register("events_in_flight", "Events being delivered", self.events_in_flight.clone());
        registry.register("consuming", "Whether RabbitMQ delivers jobs", self.consuming.clone());
        registry.register("publishing", "Whether results can be published", self.publishing.clone());
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
        let delayed = "For how long the oldest due record of a merchant at no limit has been due";
        registry.register_with_unit(
            "most_delayed_merchant",
            delayed,
            Unit::Seconds,
            self.most_delayed_merchant.clone(),
        );
        registry.register("merchants_waiting", "Merchants with due records", self.merchants_waiting.clone());
        let neglected = "For how long nothing has looked for due work, or due work was not claimed";
        registry.register_with_unit(
            "due_work_neglected",
            neglected,
            Unit::Seconds,
            self.due_work_neglected.clone(),
        );
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
            "Replies to duplicates and rejected jobs that their queue did not accept",
            self.replies_dropped.clone(),
        );
        registry.register(
            "dead_letters_deleted",
            "Dead letters that were deleted after retention.dead_letters_days",
            self.dead_letters_deleted.clone(),
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
}

/// Upper limits of the histogram's buckets: providers answer within a second, or hang until a timeout.
pub(super) const CALL_SECONDS: [f64; 9] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

const ENDS: [(PayoutLinkState, Option<ConclusionCode>); 4] = [
    (PayoutLinkState::Created, None),
    (PayoutLinkState::Failed, Some(ConclusionCode::ConnectorRejected)),
    (PayoutLinkState::Failed, Some(ConclusionCode::ConnectorUnavailable)),
    (PayoutLinkState::Unknown, Some(ConclusionCode::OutcomeUnknown)),
];

const PROVIDER_WEBHOOKS: [&str; 6] =
    ["accepted", "duplicate", "unknown_link", "unreadable", "not_authentic", "unavailable"];

/// A label's name and its value.
pub(super) type Fixed = [(&'static str, &'static str); 1];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct End {
    pub(super) connector: Arc<str>,
    pub(super) state: &'static str,
    pub(super) code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Called {
    pub(super) connector: Arc<str>,
    pub(super) kind: &'static str,
    pub(super) outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Calls {
    pub(super) connector: Arc<str>,
    pub(super) kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Connector {
    pub(super) connector: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Asked {
    pub(super) connector: Arc<str>,
    pub(super) outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Changed {
    pub(super) connector: Arc<str>,
    pub(super) status: &'static str,
}
