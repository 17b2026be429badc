//! `conclude`: stores the conclusion of a record and its event in one statement.

use std::{collections::HashMap, sync::Arc, time::Duration};

use sqlx::PgConnection;
use time::OffsetDateTime;
use tokio::time::Instant;
use url::Url;
use uuid::Uuid;

use super::{
    Store,
    batch::{Statement, column},
    conclude_again::{NextConclusion, Recipient, conclude_leased},
    due_event::{DueEvent, WebhookState},
    error::StoreError,
    numbers::{millis, whole_millis},
    seal::Column,
    timeline::Timeline,
};
use crate::{
    contract::EventContent,
    domain::{
        Attempt, AttemptKind, ConclusionCode, EventType, Lease, LinkStatus, NewLinkStatus, OpenLink,
        PayoutLinkState, WebhookUrl,
    },
};

pub(super) struct Conclude {
    pub(super) event_lease: Duration,
}

pub(super) struct Row {
    id: Uuid,
    holder: Uuid,
    event_id: Uuid,
    event_type: EventType,
    state: PayoutLinkState,
    payout_status: &'static str,
    connector_payout_id: Option<String>,
    in_doubt_since: Option<OffsetDateTime>,
    link: Option<NewLinkStatus>,
    status_code: i32,
    error_code: Option<&'static str>,
    result: Vec<u8>,
    webhook_url: Option<Url>,
    calls: Vec<Attempt>,
    /// Number of the record's last event; 0 if this is the first conclusion.
    last_sequence: u32,
}

impl Row {
    fn is_again(&self) -> bool {
        self.last_sequence > 0
    }

    /// Returns the row as a conclusion that follows another one.
    fn next(&self, event_lease_ms: i64) -> NextConclusion<'_> {
        NextConclusion {
            id: self.id,
            event_id: self.event_id,
            event_type: self.event_type.as_str(),
            state: self.state.as_str(),
            payout_status: self.payout_status,
            connector_payout_id: self.connector_payout_id.as_deref(),
            in_doubt_since: self.in_doubt_since,
            status_code: self.status_code,
            error_code: self.error_code,
            result: &self.result,
            link_status: self.link_status(),
            expires_at: self.expires_at(),
            ask_after_ms: self.ask_after_ms(),
            webhook_url: self.webhook_url.as_ref().map(Url::as_str),
            lease: Some((self.holder, event_lease_ms)),
        }
    }

    fn link_status(&self) -> Option<&'static str> {
        // Of a record that was cancelled before its call, the status is all that there is of a link.
        let cancelled = (self.event_type == EventType::Cancelled).then_some(LinkStatus::Cancelled);
        self.link.map(|_| LinkStatus::Unclaimed).or(cancelled).map(LinkStatus::as_str)
    }

    fn expires_at(&self) -> Option<OffsetDateTime> {
        self.link?.expires_at
    }

    fn ask_after_ms(&self) -> Option<i64> {
        self.link?.ask_after.map(millis)
    }
}

/// A record that could not be concluded.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Unconcluded {
    /// Why it was not concluded.
    pub error: StoreError,
    /// The record, unchanged.
    pub link: Box<OpenLink>,
}

impl Store {
    /// Concludes the record and returns its event, with a lease, so that it can be delivered at once.
    ///
    /// Tries until the database answers, also past the lease: the holder decides whether the conclusion counts. If
    /// another claim has the record, nothing changes, and the attempts are stored as late.
    ///
    /// # Errors
    ///
    /// `LeaseLost` if the record belongs to another claim or is concluded; `Rejected` if a value is not accepted.
    pub async fn conclude(
        &self,
        mut link: Box<OpenLink>,
        content: EventContent,
    ) -> Result<Box<DueEvent>, Unconcluded> {
        let asked_at = Instant::now();
        let row = Arc::new(Row {
            id: link.id,
            holder: link.lease.holder,
            event_id: Uuid::now_v7(),
            event_type: content.event_type,
            state: content.state,
            payout_status: content.payout_status.as_str(),
            connector_payout_id: content.connector_payout_id,
            in_doubt_since: link.progress.in_doubt_since,
            link: content.link,
            status_code: content.status_code.into(),
            error_code: content.error_code.map(ConclusionCode::as_str),
            result: self.keys.seal(Column::Result, link.id, &content.result),
            webhook_url: link.job.webhook_url.as_ref().map(|webhook| webhook.url().clone()),
            calls: std::mem::take(&mut link.calls),
            last_sequence: link.last_sequence,
        });
        let concluding = self.patiently(|| self.concluding.submit(row.clone()));
        let to = match self.availability.watch_in_hand(concluding).await {
            Ok(to) => to,
            Err(error) => {
                link.calls.clone_from(&row.calls);
                return Err(Unconcluded { error, link });
            }
        };
        let OpenLink { id, merchant_id, connector, job, lease, trace, .. } = *link;
        let fresh_url = to.webhook_url.as_deref().and_then(|url| Url::parse(url).ok());
        let webhook_url = fresh_url.or(job.webhook_url.map(WebhookUrl::into_url));
        Ok(Box::new(DueEvent {
            id: row.event_id,
            payout_link_id: id,
            event_type: row.event_type,
            merchant_id,
            connector,
            merchant_payout_id: job.merchant_payout_id.as_str().to_owned(),
            sequence: row.last_sequence + 1,
            result: content.result,
            reply_to: to.reply_to,
            correlation_id: to.correlation_id,
            trace,
            published: false,
            reply_due: false,
            publish_attempts: 0,
            publish_due_in: Duration::ZERO,
            result_waits: false, // A record is tried again only after its result is published.
            webhook: if webhook_url.is_some() { WebhookState::Pending } else { WebhookState::None },
            webhook_url,
            webhook_is_due: true,
            webhook_due_in: Duration::ZERO,
            webhook_waits: to.webhook_waits,
            redelivered_after: 0,
            webhook_attempts: 0,
            lease: Lease {
                holder: row.holder,
                granted_at: lease.time_at(Instant::now()),
                asked_at,
                answered_at: Instant::now(),
                length: self.settings.event_lease,
            },
        }))
    }
}

impl Statement for Conclude {
    type Item = Arc<Row>;
    type Answer = Recipient;

    fn weight(row: &Arc<Row>) -> usize {
        row.result.len()
    }

    async fn run(
        &self,
        connection: &mut PgConnection,
        rows: &[Arc<Row>],
    ) -> Result<Vec<Result<Recipient, StoreError>>, StoreError> {
        // By event, not by row: a worker that lost a row and claimed it again may write both conclusions at once.
        let rows: Vec<&Row> = rows.iter().map(AsRef::as_ref).collect();
        let (again, first): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.is_again());
        let mut recipients = self.update(connection, &first).await?;
        for row in again {
            let (next, mut calls) = (row.next(millis(self.event_lease)), Timeline::default());
            row.calls.iter().for_each(|call| calls.push(row.id, row.holder, call));
            let concluded = conclude_leased(connection, row.holder, &next, &calls).await?;
            recipients.extend(concluded.map(|to| (row.event_id, to)));
        }
        if recipients.len() < rows.len() {
            let missing: Vec<&Row> =
                rows.iter().copied().filter(|row| !recipients.contains_key(&row.event_id)).collect();
            recipients.extend(self.concluded_before(connection, &missing).await?);
            let mut late = Timeline::default();
            for row in missing.iter().filter(|row| !recipients.contains_key(&row.event_id)) {
                if first_call_took(row).is_some() || row.is_again() {
                    row.calls.iter().for_each(|call| late.push(row.id, row.holder, call));
                }
            }
            late.write(connection, "late: ").await?;
        }
        Ok(rows.iter().map(|row| recipients.remove(&row.event_id).ok_or(StoreError::LeaseLost)).collect())
    }
}

/// The statement, for rows as columns and for a single row as parameters. The second form costs PostgreSQL a fifth
/// less. `timeline` is written with it. A new event is leased under the claim of its record.
macro_rules! update {
    ($rows:literal, $timeline:literal, $($parameters:tt)*) => {
        sqlx::query!(
            r#"
            WITH new AS (
                SELECT * FROM "# + $rows + r#" AS new (
                    id, holder, event_id, type, state, payout_status, connector_payout_id, in_doubt_since,
                    status_code, error_code, result, webhook_url, took_ms, link_status, expires_at, ask_after_ms
                )
            ), concluded AS (
                UPDATE payout_links p SET
                    state = new.state, payout_status = new.payout_status,
                    connector_payout_id = new.connector_payout_id, in_doubt_since = new.in_doubt_since,
                    status_code = new.status_code, error_code = new.error_code, result = new.result, event_id = new.event_id,
                    took_ms = new.took_ms, due_at = NULL, holder = NULL, concluded_at = now(), concluded_by = new.holder, link_status = new.link_status,
                    expires_at = new.expires_at, cancel_requested_at = CASE WHEN new.state = 'created' THEN p.cancel_requested_at END,
                    follow_due_at = now() + new.ask_after_ms * interval '1 millisecond'
                FROM new
                -- Only an open row has a holder. With a condition on the state, the planner might read every open row
                -- by the sweeper's index instead of these rows by their ids.
                WHERE p.id = ANY (ARRAY[new.id]) AND p.holder = new.holder
                RETURNING
                    p.id, p.reply_to, p.correlation_id, new.holder, new.event_id, new.type, p.fresh_webhook_url,
                    coalesce(p.fresh_webhook_url, new.webhook_url) AS webhook_url
            ), outbox AS (
                INSERT INTO events (
                    id, payout_link_id, type, webhook_url, webhook_state, webhook_due_at, holder, due_at
                )
                SELECT
                    event_id, id, type, webhook_url,
                    CASE WHEN webhook_url IS NULL THEN 'none' ELSE 'pending' END,
                    CASE WHEN webhook_url IS NOT NULL THEN now() END, holder,
                    now() + $14::bigint * interval '1 millisecond'
                FROM concluded
            )"# + $timeline + r#"
            SELECT event_id AS "event_id!", reply_to, correlation_id, fresh_webhook_url AS webhook_url FROM concluded
            "#,
            $($parameters)*
        )
        .map(|row| {
            let (reply_to, correlation_id, webhook_url) = (row.reply_to, row.correlation_id, row.webhook_url);
            (row.event_id, Recipient { reply_to, correlation_id, webhook_url, webhook_waits: false })
        })
    };
}

impl Conclude {
    async fn update(
        &self,
        connection: &mut PgConnection,
        rows: &[&Row],
    ) -> Result<HashMap<Uuid, Recipient>, StoreError> {
        let mut calls = Timeline::default();
        // Attempts that the record itself describes are left out: they would add nine columns for the rows of every job.
        for row in rows.iter().filter(|row| first_call_took(row).is_none()) {
            row.calls.iter().for_each(|call| calls.push(row.id, row.holder, call));
        }
        let concluded = match rows {
            [] => Vec::new(),
            [row] if calls.is_empty() => update!(
                "(VALUES (
                    $1::uuid, $2::uuid, $3::uuid, $4::text, $5::text, $6::text, $7::text, $8::timestamptz, $9::integer,
                    $10::text, $11::bytea, $12::text, $13::integer, $15::text, $16::timestamptz, $17::bigint
                ))",
                "",
                row.id,
                row.holder,
                row.event_id,
                row.event_type.as_str(),
                row.state.as_str(),
                row.payout_status,
                row.connector_payout_id.as_deref(),
                row.in_doubt_since,
                row.status_code,
                row.error_code,
                &row.result[..],
                row.webhook_url.as_ref().map(Url::as_str),
                first_call_took(row),
                millis(self.event_lease),
                row.link_status(),
                row.expires_at(),
                row.ask_after_ms(),
            )
            .fetch_all(connection)
            .await?,
            rows => update!(
                "(SELECT
                    unnest($1::uuid[]), unnest($2::uuid[]), unnest($3::uuid[]), unnest($4::text[]),
                    unnest($5::text[]), unnest($6::text[]), unnest($7::text[]), unnest($8::timestamptz[]),
                    unnest($9::integer[]), unnest($10::text[]), unnest($11::bytea[]), unnest($12::text[]),
                    unnest($13::integer[]), unnest($24::text[]), unnest($25::timestamptz[]), unnest($26::bigint[])
                )",
                ", timeline AS (
                    INSERT INTO attempts (
                        payout_link_id, kind, number, started_at, took_ms, status_code, outcome, detail, caller
                    )
                    SELECT
                        link, kind, number, started_at, took_ms, status_code,
                        CASE WHEN (link, caller) IN (SELECT id, holder FROM concluded) THEN '' ELSE 'late: ' END
                            || outcome,
                        detail, caller
                    FROM UNNEST(
                        $15::uuid[], $16::text[], $17::integer[], $18::timestamptz[], $19::integer[], $20::integer[],
                        $21::text[], $22::text[], $23::uuid[]
                    ) AS call (link, kind, number, started_at, took_ms, status_code, outcome, detail, caller)
                )",
                &column(rows, |row| row.id),
                &column(rows, |row| row.holder),
                &column(rows, |row| row.event_id),
                &column(rows, |row| row.event_type.as_str()) as &[&str],
                &column(rows, |row| row.state.as_str()) as &[&str],
                &column(rows, |row| row.payout_status) as &[&str],
                &column(rows, |row| row.connector_payout_id.as_deref()) as &[Option<&str>],
                &column(rows, |row| row.in_doubt_since) as &[Option<OffsetDateTime>],
                &column(rows, |row| row.status_code),
                &column(rows, |row| row.error_code) as &[Option<&str>],
                &column(rows, |row| &row.result[..]) as &[&[u8]],
                &column(rows, |row| row.webhook_url.as_ref().map(Url::as_str)) as &[Option<&str>],
                &column(rows, |row| first_call_took(row)) as &[Option<i32>],
                millis(self.event_lease),
                &calls.links,
                &calls.kinds as &[&str],
                &calls.numbers,
                &calls.started,
                &calls.took_ms,
                &calls.status_codes,
                &calls.outcomes as &[&str],
                &calls.details as &[Option<String>],
                &calls.callers,
                &column(rows, Row::link_status) as &[Option<&str>],
                &column(rows, Row::expires_at) as &[Option<OffsetDateTime>],
                &column(rows, Row::ask_after_ms) as &[Option<i64>],
            )
            .fetch_all(connection)
            .await?,
        };
        Ok(concluded.into_iter().collect())
    }

    /// Finds rows that have our event already: an earlier try was committed and its answer lost.
    async fn concluded_before(
        &self,
        connection: &mut PgConnection,
        rows: &[&Row],
    ) -> Result<HashMap<Uuid, Recipient>, StoreError> {
        let concluded = sqlx::query!(
            "SELECT ours.event_id AS \"event_id!\", reply_to, correlation_id, fresh_webhook_url FROM payout_links p
             JOIN UNNEST($1::uuid[], $2::uuid[]) AS ours (id, event_id) ON p.id = ANY (ARRAY[ours.id]) AND p.event_id = ours.event_id",
            &column(rows, |row| row.id),
            &column(rows, |row| row.event_id),
        )
        .fetch_all(connection)
        .await?;
        let again: Vec<Uuid> = rows.iter().filter(|row| row.is_again()).map(|row| row.event_id).collect();
        Ok(concluded
            .into_iter()
            .map(|row| {
                let (reply_to, correlation_id) = (row.reply_to, row.correlation_id);
                let (webhook_url, webhook_waits) = (row.fresh_webhook_url, again.contains(&row.event_id));
                (row.event_id, Recipient { reply_to, correlation_id, webhook_url, webhook_waits })
            })
            .collect())
    }
}

/// Returns the duration of the only call, if the record itself describes that call completely.
fn first_call_took(row: &Row) -> Option<i32> {
    match &row.calls[..] {
        [only]
            if row.state == PayoutLinkState::Created
                && only.number == 1
                && only.detail == row.connector_payout_id
                && only.kind == AttemptKind::Create =>
        {
            Some(whole_millis(only.took))
        }
        _ => None,
    }
}
