//! The attempts of a batch, side by side as the columns that UNNEST takes.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::Attempt;

#[derive(Default)]
pub(super) struct Timeline {
    pub(super) links: Vec<Uuid>,
    /// Under which claim each was made.
    pub(super) callers: Vec<Uuid>,
    pub(super) kinds: Vec<&'static str>,
    pub(super) numbers: Vec<i32>,
    pub(super) started: Vec<OffsetDateTime>,
    pub(super) took_ms: Vec<i32>,
    pub(super) status_codes: Vec<i32>,
    pub(super) outcomes: Vec<&'static str>,
    pub(super) details: Vec<Option<String>>,
}

impl Timeline {
    pub(super) fn push(&mut self, link: Uuid, caller: Uuid, attempt: &Attempt) {
        self.links.push(link);
        self.callers.push(caller);
        self.kinds.push(attempt.kind.as_str());
        self.numbers.push(count(attempt.number));
        self.started.push(attempt.started_at);
        self.took_ms.push(i32::try_from(attempt.took.as_millis()).unwrap_or(i32::MAX));
        self.status_codes.push(attempt.status_code.into());
        self.outcomes.push(attempt.outcome);
        self.details.push(attempt.detail.clone());
    }
}

/// Counts are 32 bits on both sides; Postgres's have a sign.
pub(super) fn count(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
