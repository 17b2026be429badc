//! `renew_for_call`, `renew_for_look_up`, `postpone`: the row stays open, and its progress is stored.

use std::{collections::HashMap, time::Duration};

use sqlx::PgConnection;
use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    Store,
    batch::{Statement, column},
    error::StoreError,
    leased::while_leased,
    numbers::{count, millis},
    seal::Column,
    timeline::Timeline,
};
use crate::{
    contract,
    domain::{AccountId, Attempt, OpenLink, ServiceClass, service_rank},
};

pub(super) struct Renew {
    pub(super) lease: Duration,
}

pub(super) struct Renewal {
    id: Uuid,
    holder: Uuid,
    attempts: i32,
    first_called_at: Option<OffsetDateTime>,
    in_doubt_since: Option<OffsetDateTime>,
    account: Option<AccountId>,
    connector_payout_id: Option<String>,
    status_code: i32,
    calls: Vec<Attempt>,
    service_rank: i16,
    then: Then,
}

/// The database's answer for a row that was written.
pub(super) struct Granted {
    /// Time of the database.
    now: OffsetDateTime,
    /// The encrypted request, where a duplicate has refreshed it.
    refreshed: Option<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Another call begins: counted, timed and leased.
    Call,
    /// A look-up begins: leased.
    LookUp,
    /// No lease: any worker may claim the row after this time.
    Due(Duration),
}

impl Store {
    /// Stores the next call with a new lease, before the call is made. The job gets the fresh values that a duplicate
    /// brought meanwhile.
    ///
    /// # Errors
    ///
    /// `LeaseLost` if the lease has expired or the row belongs to another claim. `Unavailable` if the database did
    /// not answer while the lease ran. In both cases no call may be made.
    pub async fn renew_for_call(&self, link: &mut OpenLink) -> Result<(), StoreError> {
        link.progress.attempts += 1;
        let Granted { now, refreshed } = self.renew(link, Then::Call).await?;
        link.progress.last_called_at = Some(now);
        link.progress.first_called_at.get_or_insert(now);
        if let Some(refreshed) = refreshed {
            let job = self.keys.open(Column::Request, link.id, &refreshed).ok();
            if let Some(job) = job.and_then(|request| contract::stored_request(&request).ok()) {
                *link.job = job;
            }
        }
        Ok(())
    }

    /// Stores a new lease for a look-up.
    ///
    /// # Errors
    ///
    /// As [`Store::renew_for_call`].
    pub async fn renew_for_look_up(&self, link: &mut OpenLink) -> Result<(), StoreError> {
        self.renew(link, Then::LookUp).await?;
        Ok(())
    }

    /// Ends the lease and makes the row due after `after`. A call that was stored and not made is taken back with it.
    ///
    /// Tries until the database answers, also past the lease: the holder decides whether the row still belongs to
    /// this claim.
    ///
    /// # Errors
    ///
    /// `LeaseLost` if the row belongs to another claim.
    pub async fn postpone(&self, mut link: Box<OpenLink>, after: Duration) -> Result<(), StoreError> {
        self.renew(&mut link, Then::Due(after)).await?;
        Ok(())
    }

    async fn renew(&self, link: &mut OpenLink, then: Then) -> Result<Granted, StoreError> {
        let asked_at = Instant::now();
        let calls = std::mem::take(&mut link.calls);
        let progress = &link.progress;
        let class = match then {
            Then::Call | Then::LookUp => ServiceClass::Unknown,
            Then::Due(_) if progress.in_doubt_since.is_some() => ServiceClass::Unknown,
            Then::Due(_) if progress.attempts > 0 => ServiceClass::Retry,
            Then::Due(_) => ServiceClass::New,
        };
        let service_rank = service_rank(class, link.job.priority);
        let renewal = || Renewal {
            id: link.id,
            holder: link.lease.holder,
            attempts: count(progress.attempts),
            first_called_at: progress.first_called_at,
            in_doubt_since: progress.in_doubt_since,
            account: progress.account.clone(),
            connector_payout_id: progress.connector_payout_id.clone(),
            status_code: progress.status_code.into(),
            calls: calls.clone(),
            service_rank,
            then,
        };
        let written = self.patiently(|| self.renewing.submit(renewal()));
        let granted = match then {
            // A call or a look-up needs a lease that runs.
            Then::Call | Then::LookUp => while_leased(&link.lease, written).await,
            Then::Due(_) => self.availability.watch_in_hand(written).await,
        };
        match granted {
            Ok(granted) => {
                let answered_at = Instant::now();
                self.clock.observe(granted.now, asked_at, answered_at);
                link.lease.granted_at = granted.now;
                link.lease.asked_at = asked_at;
                link.lease.answered_at = answered_at;
                Ok(granted)
            }
            Err(error) => {
                // The timeline has the attempts of a lost claim as late ones.
                if !matches!(error, StoreError::LeaseLost) {
                    link.calls = calls;
                }
                Err(error)
            }
        }
    }
}

impl Statement for Renew {
    type Item = Renewal;
    type Answer = Granted;

    fn weight(_: &Renewal) -> usize {
        0
    }

    async fn run(
        &self,
        connection: &mut PgConnection,
        rows: &[Renewal],
    ) -> Result<Vec<Result<Granted, StoreError>>, StoreError> {
        let mut calls = Timeline::default();
        for row in rows {
            row.calls.iter().for_each(|call| calls.push(row.id, row.holder, call));
        }
        let rows: Vec<&Renewal> = rows.iter().collect();
        let due_in = |row: &Renewal| match row.then {
            Then::Call | Then::LookUp => millis(self.lease),
            Then::Due(after) => millis(after),
        };
        let renewed = sqlx::query!(
            r#"
            WITH renewed AS (
                UPDATE payout_links p SET
                    attempts = new.attempts,
                    first_called_at = CASE WHEN calls THEN coalesce(new.first_called_at, now()) ELSE new.first_called_at END,
                    last_called_at = CASE WHEN calls THEN now() ELSE p.last_called_at END,
                    in_doubt_since = new.in_doubt_since,
                    account = new.account,
                    connector_payout_id = new.connector_payout_id,
                    status_code = new.status_code,
                    due_at = now() + due_in_ms * interval '1 millisecond',
                    holder = CASE WHEN leased THEN p.holder END,
                    uncalled_holder = CASE WHEN leased AND NOT calls THEN p.uncalled_holder END,
                    service_rank = new.service_rank
                FROM UNNEST(
                    $1::uuid[], $2::uuid[], $3::integer[], $4::timestamptz[], $5::timestamptz[], $6::text[],
                    $7::integer[], $8::boolean[], $9::boolean[], $10::bigint[], $20::smallint[], $21::text[]
                ) AS new (
                    id, holder, attempts, first_called_at, in_doubt_since, connector_payout_id, status_code, calls,
                    leased, due_in_ms, service_rank, account
                )
                -- Only an open row has a holder: see conclude.
                WHERE p.id = ANY (ARRAY[new.id]) AND p.holder = new.holder
                    -- If the worker slept meanwhile, the facts behind its decision may have changed: it decides anew.
                    AND (NOT new.calls OR p.due_at > now())
                RETURNING
                    p.id, new.holder,
                    CASE WHEN calls AND p.refreshed_at IS NOT NULL THEN p.request END AS refreshed
            ), timeline AS (
                INSERT INTO attempts (
                    payout_link_id, kind, number, started_at, took_ms, status_code, outcome, detail, caller
                )
                SELECT
                    link, kind, number, started_at, took_ms, status_code,
                    CASE WHEN (link, caller) IN (SELECT id, holder FROM renewed) THEN '' ELSE 'late: ' END || outcome,
                    detail, caller
                FROM UNNEST(
                    $11::uuid[], $12::text[], $13::integer[], $14::timestamptz[], $15::integer[], $16::integer[],
                    $17::text[], $18::text[], $19::uuid[]
                ) AS call (link, kind, number, started_at, took_ms, status_code, outcome, detail, caller)
            )
            SELECT id, holder AS "holder!", refreshed, now() AS "now!" FROM renewed
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
            &column(&rows, |row| row.service_rank),
            &column(&rows, |row| row.account.as_ref().map(AccountId::as_str)) as &[Option<&str>],
        )
        .fetch_all(connection)
        .await?;
        // The key has the holder as well: a worker that lost a row and claimed it again may write under both claims
        // at once.
        let mut granted: HashMap<(Uuid, Uuid), Granted> = renewed
            .into_iter()
            .map(|row| ((row.id, row.holder), Granted { now: row.now, refreshed: row.refreshed }))
            .collect();
        Ok(rows
            .iter()
            .map(|row| granted.remove(&(row.id, row.holder)).ok_or(StoreError::LeaseLost))
            .collect())
    }
}
