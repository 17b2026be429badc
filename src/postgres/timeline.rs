//! Collects the attempts of a batch as columns for UNNEST.
//!
//! Two attempts are not stored here, because their rows describe them (`took_ms`): a first call that created the
//! link, and a first webhook that was delivered. Most jobs have no others. If such a row turns out to belong to
//! another claim, its attempt is stored after all.
//!
//! Another job with the key of a record has a row as well, of the kind `duplicate`: the same request again, or a conflict.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    error::StoreError,
    numbers::{count, whole_millis},
};
use crate::domain::Attempt;

#[derive(Default)]
pub(super) struct Timeline {
    pub(super) links: Vec<Uuid>,
    /// The claim of each attempt.
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
        self.took_ms.push(whole_millis(attempt.took));
        self.status_codes.push(attempt.status_code.into());
        self.outcomes.push(attempt.outcome.as_str());
        self.details.push(attempt.detail.clone());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// Stores the attempts of lost claims, with `prefix` before their outcomes.
    pub(super) async fn write(&self, connection: &mut PgConnection, prefix: &str) -> Result<(), sqlx::Error> {
        if self.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            "INSERT INTO attempts (payout_link_id, kind, number, started_at, took_ms, status_code, outcome, detail, caller)
             SELECT link, kind, number, started_at, took_ms, status_code, $1::text || outcome, detail, caller
             FROM UNNEST(
                $2::uuid[], $3::text[], $4::integer[], $5::timestamptz[], $6::integer[], $7::integer[], $8::text[],
                $9::text[], $10::uuid[]
             ) AS attempt (link, kind, number, started_at, took_ms, status_code, outcome, detail, caller)",
            prefix,
            &self.links,
            &self.kinds as &[&str],
            &self.numbers,
            &self.started,
            &self.took_ms,
            &self.status_codes,
            &self.outcomes as &[&str],
            &self.details as &[Option<String>],
            &self.callers,
        )
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// Stores that other jobs with the keys of these records were received: one row a minute for each record, so that a publisher that repeats
/// without end does not fill the table.
///
/// A row that the database rejects is logged and left out: it must not decide about a job.
pub(super) async fn note_duplicates(
    connection: &mut PgConnection,
    records: &[Uuid],
) -> Result<(), StoreError> {
    if records.is_empty() {
        return Ok(());
    }
    let noted = sqlx::query!(
        "INSERT INTO attempts (payout_link_id, kind, number, started_at, took_ms, status_code, outcome)
         SELECT DISTINCT id, 'duplicate', 0, now(), 0, 0, 'received' FROM unnest($1::uuid[]) AS again (id)
         WHERE NOT EXISTS (
            SELECT FROM attempts a
            WHERE a.payout_link_id = again.id AND a.kind = 'duplicate' AND a.started_at > now() - interval '1 minute'
         )",
        records
    )
    .execute(connection)
    .await;
    match noted.map_err(StoreError::from) {
        Err(StoreError::Rejected(error)) => {
            tracing::warn!(error, "duplicates are missing in the timeline");
            Ok(())
        }
        noted => noted.map(|_| ()),
    }
}
