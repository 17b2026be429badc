//! `renew`, `postpone`: the row stays open, and what is known of it is written down.

use std::{collections::HashMap, time::Duration};

use sqlx::PgConnection;
use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    Store, StoreError,
    batch::{Statement, column},
    millis,
    timeline::{Timeline, count},
};
use crate::domain::{Attempt, OpenLink};

pub(super) struct Keep {
    pub(super) lease: Duration,
}

pub(super) struct Kept {
    id: Uuid,
    holder: Uuid,
    attempts: i32,
    first_called_at: Option<OffsetDateTime>,
    in_doubt_since: Option<OffsetDateTime>,
    connector_payout_id: Option<String>,
    status_code: i32,
    calls: Vec<Attempt>,
    then: Then,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Another call begins: counted, timed and leased.
    Call,
    /// A question is asked: leased.
    LookUp,
    /// Nobody's, due after this.
    Due(Duration),
}

impl Store {
    /// Writes the next call down, with a new lease, before it is made.
    pub async fn renew_for_call(&self, link: &mut OpenLink) -> Result<(), StoreError> {
        link.progress.attempts += 1;
        let granted_at = self.keep(link, Then::Call).await?;
        link.progress.last_called_at = Some(granted_at);
        link.progress.first_called_at.get_or_insert(granted_at);
        Ok(())
    }

    /// A new lease for asking the connector.
    pub async fn renew_for_look_up(&self, link: &mut OpenLink) -> Result<(), StoreError> {
        self.keep(link, Then::LookUp).await?;
        Ok(())
    }

    /// Lets go of the row until it is due. A call that was written down and never made is taken back with it.
    pub async fn postpone(&self, mut link: Box<OpenLink>, after: Duration) -> Result<(), StoreError> {
        self.keep(&mut link, Then::Due(after)).await?;
        Ok(())
    }

    async fn keep(&self, link: &mut OpenLink, then: Then) -> Result<OffsetDateTime, StoreError> {
        let asked_at = Instant::now();
        let calls = std::mem::take(&mut link.calls);
        let progress = &link.progress;
        let kept = || Kept {
            id: link.id,
            holder: link.lease.holder,
            attempts: count(progress.attempts),
            first_called_at: progress.first_called_at,
            in_doubt_since: progress.in_doubt_since,
            connector_payout_id: progress.connector_payout_id.clone(),
            status_code: progress.status_code.into(),
            calls: calls.clone(),
            then,
        };
        let granted_at = self.while_leased(&link.lease, || self.keeping.submit(kept())).await?;
        link.lease.granted_at = granted_at;
        link.lease.asked_at = asked_at;
        link.lease.heard_at = Instant::now();
        Ok(granted_at)
    }
}

impl Statement for Keep {
    type Item = Kept;
    /// The database's time.
    type Answer = OffsetDateTime;

    fn weight(_: &Kept) -> usize {
        0
    }

    async fn run(
        &self,
        connection: &mut PgConnection,
        rows: &[Kept],
    ) -> Result<Vec<Result<OffsetDateTime, StoreError>>, StoreError> {
        let mut calls = Timeline::default();
        for row in rows {
            row.calls.iter().for_each(|call| calls.push(row.id, row.holder, call));
        }
        let rows: Vec<&Kept> = rows.iter().collect();
        let due_in = |row: &Kept| match row.then {
            Then::Call | Then::LookUp => millis(self.lease),
            Then::Due(after) => millis(after),
        };
        let kept = sqlx::query!(
            r#"
            WITH kept AS (
                UPDATE payout_links p SET
                    attempts = new.attempts,
                    first_called_at = CASE WHEN calls THEN coalesce(new.first_called_at, now()) ELSE new.first_called_at END,
                    last_called_at = CASE WHEN calls THEN now() ELSE p.last_called_at END,
                    in_doubt_since = new.in_doubt_since,
                    connector_payout_id = new.connector_payout_id,
                    status_code = new.status_code,
                    due_at = now() + due_in_ms * interval '1 millisecond',
                    holder = CASE WHEN leased THEN p.holder END
                FROM UNNEST(
                    $1::uuid[], $2::uuid[], $3::integer[], $4::timestamptz[], $5::timestamptz[], $6::text[],
                    $7::integer[], $8::boolean[], $9::boolean[], $10::bigint[]
                ) AS new (
                    id, holder, attempts, first_called_at, in_doubt_since, connector_payout_id, status_code, calls,
                    leased, due_in_ms
                )
                -- Only an open row has a holder: see conclude.
                WHERE p.id = ANY (ARRAY[new.id]) AND p.holder = new.holder
                    -- What a call was decided by may be long past where its worker slept: it is decided anew.
                    AND (NOT new.calls OR p.due_at > now())
                RETURNING p.id, new.holder
            ), timeline AS (
                INSERT INTO attempts (payout_link_id, kind, number, started_at, took_ms, status_code, outcome, detail)
                SELECT
                    link, kind, number, started_at, took_ms, status_code,
                    CASE WHEN (link, caller) IN (SELECT id, holder FROM kept) THEN '' ELSE 'late: ' END || outcome,
                    detail
                FROM UNNEST(
                    $11::uuid[], $12::text[], $13::integer[], $14::timestamptz[], $15::integer[], $16::integer[],
                    $17::text[], $18::text[], $19::uuid[]
                ) AS call (link, kind, number, started_at, took_ms, status_code, outcome, detail, caller)
            )
            SELECT id, holder AS "holder!", now() AS "now!" FROM kept
            "#,
            &column(&rows, |row| row.id),
            &column(&rows, |row| row.holder),
            &column(&rows, |row| row.attempts),
            &column(&rows, |row| row.first_called_at) as &[Option<OffsetDateTime>],
            &column(&rows, |row| row.in_doubt_since) as &[Option<OffsetDateTime>],
            &column(&rows, |row| row.connector_payout_id.as_deref()) as &[Option<&str>],
            &column(&rows, |row| row.status_code),
            &column(&rows, |row| row.then == Then::Call),
            &column(&rows, |row| !matches!(row.then, Then::Due(_))),
            &column(&rows, due_in),
            &calls.links,
            &calls.kinds as &[&str],
            &calls.numbers,
            &calls.started,
            &calls.took_ms,
            &calls.status_codes,
            &calls.outcomes as &[&str],
            &calls.details as &[Option<String>],
            &calls.callers,
        )
        .fetch_all(connection)
        .await?;
        // By holder as well: a worker that lost a row and claimed it again may ask under both at once.
        let kept: HashMap<(Uuid, Uuid), OffsetDateTime> =
            kept.into_iter().map(|row| ((row.id, row.holder), row.now)).collect();
        Ok(rows
            .iter()
            .map(|row| kept.get(&(row.id, row.holder)).copied().ok_or(StoreError::LeaseLost))
            .collect())
    }
}
