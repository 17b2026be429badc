//! The kinds of job that the matrix tests.

use payout_link_worker::domain::{Money, idempotency_key};
use provider_simulators::sandbox::{Fault, FaultRule};
use serde_json::Value;

use crate::{
    accounts::{self, Account},
    history::Rule,
    letters,
    support::{Job, job},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Plain,
    /// The same request twice at once.
    Duplicate,
    /// The same request again after its conclusion.
    Repeated,
    /// Another request under the same key after the conclusion.
    Conflicting,
    /// Two different requests under one key at once.
    Rivals,
    Invalid,
    Refused,
    Retried,
    UnknownSameKey,
    UnknownLookUp,
    UnknownNever,
    /// No fault at the provider, at connectors where a repeat creates a second link.
    PlainLookUp,
    PlainNever,
    Rpc,
    WebhookFails,
    /// Several jobs at once.
    Batch,
    /// At the simulator of a real provider; with `Unknown`, its answer is lost.
    Hyperswitch,
    HyperswitchUnknown,
    Revolut,
    RevolutUnknown,
    /// The provider creates the link some time after its answer.
    RevolutUnderway,
    RazorpayX,
    RazorpayXUnknown,
    Xendit,
    XenditUnknown,
    /// The only permit of the connector is in use when the job arrives. The job is parked, and claimed later.
    FullLookUp,
    FullNever,
    /// The rate limit is reached when the job arrives.
    PacedNever,
    /// One job in flight, and two deliveries from the broker.
    Narrow,
    /// A merchant that does not answer has the only permit for webhooks.
    MerchantHangs,
    /// As many rejected jobs as the worker processes at once name a full reply queue.
    FullReplies,
    /// The link is claimed and paid, and the provider announces both.
    ClaimAnnounced,
    /// The link is claimed, and the worker finds that by asking.
    ClaimAsked,
    CancelledByMessage,
    Expired,
    Reversed,
    /// An operator retries a failed record.
    RetriedByOperator,
    /// An operator resolves an unknown record as created.
    ResolvedByOperator,
    /// An operator cancels a link.
    CancelledByOperator,
    /// An operator corrects a dead letter and requeues it.
    RequeuedByOperator,
    /// An operator redelivers the two webhooks of a record.
    RedeliveredByOperator,
    /// Dead letters past their retention are deleted, and others stay.
    OldLetters,
}

/// A job, and the facts that the checker needs.
pub struct PlannedJob {
    pub job: Job,
    pub key: String,
    pub message_id: String,
    pub fingerprint: String,
    pub is_valid: bool,
    pub came_late: bool,
}

impl PlannedJob {
    pub fn replied_to(mut self, queue: Option<&str>) -> Self {
        if let Some(queue) = queue {
            self.job = self.job.reply_to(queue);
        }
        self
    }
}

impl Kind {
    pub const ALL: [Self; 42] = [
        Self::Plain,
        Self::Duplicate,
        Self::Repeated,
        Self::Conflicting,
        Self::Rivals,
        Self::Invalid,
        Self::Refused,
        Self::Retried,
        Self::UnknownSameKey,
        Self::UnknownLookUp,
        Self::UnknownNever,
        Self::PlainLookUp,
        Self::PlainNever,
        Self::Rpc,
        Self::WebhookFails,
        Self::Batch,
        Self::Hyperswitch,
        Self::HyperswitchUnknown,
        Self::Revolut,
        Self::RevolutUnknown,
        Self::RevolutUnderway,
        Self::RazorpayX,
        Self::RazorpayXUnknown,
        Self::Xendit,
        Self::XenditUnknown,
        Self::FullLookUp,
        Self::FullNever,
        Self::PacedNever,
        Self::Narrow,
        Self::MerchantHangs,
        Self::FullReplies,
        Self::ClaimAnnounced,
        Self::ClaimAsked,
        Self::CancelledByMessage,
        Self::Expired,
        Self::Reversed,
        Self::RetriedByOperator,
        Self::ResolvedByOperator,
        Self::CancelledByOperator,
        Self::RequeuedByOperator,
        Self::RedeliveredByOperator,
        Self::OldLetters,
    ];

    /// Returns whether something is full when the job arrives.
    pub fn is_saturated(self) -> bool {
        !self.settings().is_empty() && self.course().is_none()
    }

    /// Returns whether a run takes longer than that of a single job.
    pub fn is_long(self) -> bool {
        !self.settings().is_empty()
    }

    /// Returns settings of the worker that limit it, or make it ask about links more often.
    pub fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::FullLookUp => &[("PAYOUT_LINK__CONNECTORS__ASKED__CALLS__CONCURRENCY", "1")],
            Self::FullNever => &[("PAYOUT_LINK__CONNECTORS__MUTE__CALLS__CONCURRENCY", "1")],
            // Three at once, and one in 2.2 s.
            Self::PacedNever => &[("PAYOUT_LINK__CONNECTORS__MUTE__CALLS__REQUESTS_PER_MINUTE", "30")],
            Self::Narrow | Self::FullReplies => {
                &[("PAYOUT_LINK__WORKER__JOBS_IN_FLIGHT", "1"), ("PAYOUT_LINK__BROKER__PREFETCH", "2")]
            }
            Self::MerchantHangs => &[("PAYOUT_LINK__WEBHOOKS__CONCURRENCY", "1")],
            Self::OldLetters => &[letters::SETTING],
            // A question without an answer is repeated after this time.
            _ if self.course().is_some() => {
                &[("PAYOUT_LINK__CONNECTORS__SANDBOX__FOLLOW__MIN_INTERVAL_SECONDS", "5")]
            }
            _ => &[],
        }
    }

    /// Returns the ids of the jobs that fill what is full.
    pub fn ahead(self, id: &str) -> Vec<String> {
        let count = match self {
            Self::FullLookUp | Self::FullNever | Self::Narrow | Self::MerchantHangs => 1,
            Self::PacedNever => 3,
            _ => 0,
        };
        (1..=count).map(|number| format!("{id}-ahead-{number}")).collect()
    }

    /// Returns the connector's fault for the jobs ahead.
    pub fn ahead_at_connector(self) -> Option<FaultRule> {
        matches!(self, Self::FullLookUp | Self::FullNever | Self::Narrow)
            .then(|| FaultRule::new(Fault::Slow { milliseconds: 600 }))
    }

    /// Returns the merchant's fault for the jobs ahead.
    pub fn ahead_at_merchant(self) -> Option<FaultRule> {
        (self == Self::MerchantHangs).then(|| FaultRule::new(Fault::Silence))
    }

    /// Returns the account, if its connector belongs to a real provider.
    pub fn account(self) -> Option<&'static Account> {
        Some(match self {
            Self::Hyperswitch | Self::HyperswitchUnknown => &accounts::HYPERSWITCH,
            Self::Revolut | Self::RevolutUnknown | Self::RevolutUnderway => &accounts::REVOLUT,
            Self::RazorpayX | Self::RazorpayXUnknown => &accounts::RAZORPAYX,
            Self::Xendit | Self::XenditUnknown => &accounts::XENDIT,
            _ => return None,
        })
    }

    pub fn rule(self) -> Rule {
        match self {
            Self::UnknownLookUp | Self::PlainLookUp | Self::FullLookUp => Rule::LookUp,
            Self::UnknownNever
            | Self::PlainNever
            | Self::FullNever
            | Self::PacedNever
            | Self::ResolvedByOperator => Rule::Never,
            // This provider refuses a repeat, and returns nothing about the link.
            Self::Xendit | Self::XenditUnknown => Rule::SameKey,
            // These providers can be asked, whatever they do with a repeat.
            _ if self.account().is_some() => Rule::LookUp,
            _ => Rule::SameKey,
        }
    }

    pub fn connector(self) -> &'static str {
        match (self.account(), self.rule()) {
            (Some(account), _) => account.kind,
            (None, Rule::SameKey) => "sandbox",
            (None, Rule::LookUp) => "asked",
            (None, Rule::Never) => "mute",
        }
    }

    /// Returns the connector's reference of a record's link.
    pub fn reference(self, id: &str) -> String {
        let key = idempotency_key("", id);
        self.account().map_or(key.clone(), |account| (account.reference)(&key))
    }

    pub fn wants_webhook(self) -> bool {
        !matches!(self, Self::Rpc | Self::Invalid | Self::UnknownSameKey)
    }

    /// Returns whether the rejected jobs name a full reply queue.
    pub fn replies_are_refused(self) -> bool {
        self == Self::FullReplies
    }

    pub fn wants_reply(self) -> bool {
        self == Self::Rpc
    }

    /// Returns the connector's fault for the payout, if it has one.
    pub fn at_connector(self) -> Option<FaultRule> {
        Some(match self {
            Self::Refused => FaultRule::new(Fault::status(422)).always(),
            Self::RetriedByOperator => FaultRule::new(Fault::status(422)),
            Self::Retried => FaultRule::new(Fault::status_with_retry_after(503, "1")),
            Self::UnknownSameKey
            | Self::UnknownLookUp
            | Self::UnknownNever
            | Self::ResolvedByOperator
            | Self::HyperswitchUnknown
            | Self::RevolutUnknown
            | Self::RazorpayXUnknown
            | Self::XenditUnknown => FaultRule::new(Fault::Reset).after_the_work(),
            _ => return None,
        })
    }

    /// Returns the statuses that a new link passes by itself, if they are not the same for all kinds of this connector.
    pub fn stages(self) -> Option<&'static [&'static str]> {
        Some(match self {
            Self::RevolutUnderway => &["created", "awaiting", "active"],
            Self::Revolut | Self::RevolutUnknown => &["active"],
            _ => return None,
        })
    }

    pub fn at_merchant(self) -> Option<FaultRule> {
        (self == Self::WebhookFails).then(|| FaultRule::new(Fault::status(503)))
    }

    /// Returns the job that is published and finished before chunks are counted.
    pub fn first(self, id: &str, webhook: &Value) -> Option<PlannedJob> {
        let has_first = matches!(self, Self::Repeated | Self::Conflicting) || self.course().is_some();
        has_first.then(|| match self {
            Self::RequeuedByOperator | Self::OldLetters => {
                PlannedJob { is_valid: false, ..self.planned(id, "first", -5, webhook) }
            }
            _ => self.planned(id, "first", 1250, webhook),
        })
    }

    /// Returns whether that job is rejected.
    pub fn first_is_rejected(self) -> bool {
        matches!(self, Self::RequeuedByOperator | Self::OldLetters)
    }

    /// Returns the jobs that are published while chunks are counted.
    pub fn planned_jobs(self, id: &str, webhook: &Value) -> Vec<PlannedJob> {
        let planned = |message: &str, amount| self.planned(id, message, amount, webhook);
        match self {
            Self::Duplicate => vec![planned("one", 1250), planned("two", 1250)],
            Self::Repeated => vec![PlannedJob { came_late: true, ..planned("again", 1250) }],
            Self::Conflicting => vec![planned("other", 1251)],
            Self::Rivals => vec![planned("one", 1250), planned("other", 1251)],
            Self::Invalid => vec![PlannedJob { is_valid: false, ..planned("bad", -5) }],
            Self::Batch => {
                let ids = ["a", "b", "c"].map(|part| format!("{id}-{part}"));
                ids.iter().map(|id| self.planned(id, "one", 1250, webhook)).collect()
            }
            Self::FullReplies => {
                let bad = ["a", "b"].map(|part| self.planned(&format!("{id}-{part}"), "bad", -5, webhook));
                let bad = bad.into_iter().map(|planned| PlannedJob { is_valid: false, ..planned });
                bad.chain([planned("one", 1250)]).collect()
            }
            _ if self.course().is_some() => Vec::new(),
            _ => {
                let ahead = self.ahead(id).into_iter().map(|id| self.planned(&id, "one", 1250, webhook));
                ahead.chain([planned("one", 1250)]).collect()
            }
        }
    }

    /// Returns the job that shows whether a worker still works.
    pub fn after(self, id: &str, webhook: &Value) -> PlannedJob {
        self.planned(&format!("{id}-after"), "after", 1250, webhook)
    }

    /// Returns the number of jobs that become dead letters.
    pub fn refusals(self) -> usize {
        match self {
            Self::FullReplies => 2,
            _ => usize::from(matches!(self, Self::Conflicting | Self::Rivals | Self::Invalid)),
        }
    }

    fn planned(self, id: &str, message: &str, amount: i64, webhook: &Value) -> PlannedJob {
        let message_id = format!("{id}-{message}");
        let (mut job, mut fingerprint) = (job(id).amount(amount), format!("{amount} EUR"));
        if let Some(account) = self.account() {
            let theirs = (account.job)();
            fingerprint = in_words(account.money());
            for (field, value) in theirs.as_object().unwrap() {
                job = job.with(field, value.clone());
            }
        }
        if self.wants_webhook() {
            job = job.with("webhook_url", webhook.clone());
        }
        PlannedJob {
            job: job.connector(self.connector()).message_id(&message_id),
            key: id.to_owned(),
            message_id,
            fingerprint,
            is_valid: true,
            came_late: false,
        }
    }
}

/// Formats an amount for the checker: `1250 EUR`.
pub fn in_words(money: Money) -> String {
    format!("{} {}", money.minor_units(), money.currency.as_str())
}
