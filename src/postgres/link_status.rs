//! `record_answer`: stores the provider's answer about a link, its status and its events in one statement.

use std::{collections::HashMap, sync::Arc, time::Duration};

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Store,
    batch::{Statement, column},
    error::StoreError,
    follow::FollowedLink,
    leased::while_leased,
    numbers::{count, millis},
};
use crate::domain::{LinkStatus, follow::StatusEvent};

pub(super) struct RecordAnswer;

/// The provider's answer about a link, as it is stored.
#[derive(Debug)]
pub struct AnswerRecord {
    /// The status afterwards, and whether it is another one.
    pub status: LinkStatus,
    /// Whether `status` is another one than before.
    pub has_changed: bool,
    /// The provider's own word; `None` if it did not answer.
    pub provider_status: Option<String>,
    /// The provider's id of the payout or transaction that came of the link.
    pub provider_payout_id: Option<String>,
    /// The end of the link, if the provider said it.
    pub expires_at: Option<OffsetDateTime>,
    /// Whether the merchant knows that the link ends soon.
    pub expiring_is_announced: bool,
    /// A cancel that has begun had no effect.
    pub forgets_cancel: bool,
    /// Questions without an answer since the last one.
    pub failures: u32,
    /// Time until the next question; `None`: the link is not asked about any more.
    pub ask_after: Option<Duration>,
    /// The events of the change, in order, each with the JSON of its error.
    pub events: Vec<(StatusEvent, Option<String>)>,
}

pub(super) struct AnswerRow {
    id: Uuid,
    holder: Uuid,
    answer: AnswerRecord,
    /// UUIDv7, one for each event.
    event_ids: Vec<Uuid>,
}

impl Store {
    /// Stores the answer and its events, ends the lease, and sets the time of the next question. Returns whether that
    /// is now, because a webhook of the provider came during the lease: the answer may be older.
    ///
    /// A request to cancel the link is answered once the link is not unclaimed, or can be claimed again.
    ///
    /// A webhook that waits for a retry is brought forward if a later event of its record is stored.
    ///
    /// # Errors
    ///
    /// `LeaseLost` if the link belongs to another claim; `Unavailable` if the database did not answer while the lease
    /// ran; `Rejected` if the database does not accept the values. The link becomes due again after its lease.
    pub async fn record_answer(&self, link: &FollowedLink, answer: AnswerRecord) -> Result<bool, StoreError> {
        let event_ids = answer.events.iter().map(|_| Uuid::now_v7()).collect();
        let row = Arc::new(AnswerRow { id: link.id, holder: link.lease.holder, answer, event_ids });
        while_leased(&link.lease, self.patiently(|| self.answering.submit(row.clone()))).await
    }
}

impl Statement for RecordAnswer {
    type Item = Arc<AnswerRow>;
    type Answer = bool;

    fn weight(_: &Arc<AnswerRow>) -> usize {
        0
    }

    async fn run(
        &self,
        connection: &mut PgConnection,
        rows: &[Arc<AnswerRow>],
    ) -> Result<Vec<Result<bool, StoreError>>, StoreError> {
        let (same, changed): (Vec<&AnswerRow>, Vec<&AnswerRow>) =
            rows.iter().map(AsRef::as_ref).partition(|row| row.event_ids.is_empty());
        let mut written = without_events(connection, &same).await?;
        for row in changed {
            if let Some(asks_again) = with_events(connection, row).await? {
                written.insert((row.id, row.holder), asks_again);
            }
        }
        Ok(rows
            .iter()
            .map(|row| written.get(&(row.id, row.holder)).copied().ok_or(StoreError::LeaseLost))
            .collect())
    }
}

/// Stores the answers that change nothing: most of them. Returns the links that still belonged to the claim, each with
/// whether it is asked about again at once.
async fn without_events(
    connection: &mut PgConnection,
    rows: &[&AnswerRow],
) -> Result<HashMap<(Uuid, Uuid), bool>, StoreError> {
    if rows.is_empty() {
        return Ok(HashMap::new());
    }
    let written = sqlx::query!(
        r#"
        UPDATE payout_links p SET
            link_status = new.link_status,
            provider_status = coalesce(new.provider_status, p.provider_status),
            provider_payout_id = coalesce(new.provider_payout_id, p.provider_payout_id),
            expires_at = coalesce(new.expires_at, p.expires_at),
            expiring_announced = new.expiring_announced,
            follow_failures = new.failures,
            asked_at = now(),
            cancel_requested_at = CASE WHEN new.link_status = 'unclaimed' THEN p.cancel_requested_at END,
            cancelled_at = CASE WHEN NOT new.forgets_cancel THEN p.cancelled_at END,
            cancelled_because = CASE WHEN NOT new.forgets_cancel THEN p.cancelled_because END,
            follow_holder = NULL,
            follow_due_at =
                CASE WHEN p.ask_again THEN now() ELSE now() + new.ask_after_ms * interval '1 millisecond' END
        FROM (SELECT
            unnest($1::uuid[]), unnest($2::uuid[]), unnest($3::text[]), unnest($4::text[]), unnest($5::text[]),
            unnest($6::timestamptz[]), unnest($7::boolean[]), unnest($8::integer[]), unnest($9::bigint[]),
            unnest($10::boolean[])
        ) AS new (
            id, holder, link_status, provider_status, provider_payout_id, expires_at, expiring_announced, failures,
            ask_after_ms, forgets_cancel
        )
        WHERE p.id = ANY (ARRAY[new.id]) AND p.follow_holder = new.holder
        RETURNING p.id, new.holder AS "holder!", p.ask_again
        "#,
        &column(rows, |row| row.id),
        &column(rows, |row| row.holder),
        &column(rows, |row| row.answer.status.as_str()) as &[&str],
        &column(rows, |row| row.answer.provider_status.as_deref()) as &[Option<&str>],
        &column(rows, |row| row.answer.provider_payout_id.as_deref()) as &[Option<&str>],
        &column(rows, |row| row.answer.expires_at) as &[Option<OffsetDateTime>],
        &column(rows, |row| row.answer.expiring_is_announced),
        &column(rows, |row| count(row.answer.failures)),
        &column(rows, |row| row.answer.ask_after.map(millis)) as &[Option<i64>],
        &column(rows, |row| row.answer.forgets_cancel),
    )
    .fetch_all(connection)
    .await?;
    Ok(written.into_iter().map(|row| ((row.id, row.holder), row.ask_again)).collect())
}

/// Stores an answer with its events: the status, the numbers of the events and the events themselves in one
/// statement. Returns whether the link is asked about again at once, if it still belonged to the claim.
///
/// The update of the previous event's row names the next event in it and locks it. A worker that finishes its webhook
/// at the same time sees that name, and wakes the next webhook.
async fn with_events(connection: &mut PgConnection, row: &AnswerRow) -> Result<Option<bool>, StoreError> {
    let (answer, events) = (&row.answer, &row.answer.events);
    let Some((newest, newest_error)) = events.last() else { return Ok(None) };
    let previous: Vec<Option<Uuid>> =
        std::iter::once(None).chain(row.event_ids.iter().copied().map(Some)).take(events.len()).collect();
    let next: Vec<Option<Uuid>> =
        row.event_ids.iter().copied().skip(1).map(Some).chain(std::iter::once(None)).collect();
    let written = sqlx::query_scalar!(
        r#"
        WITH RECURSIVE before AS (
            SELECT id, coalesce(newest_event_id, event_id) AS event_id, sequence FROM payout_links
            WHERE id = $1 AND follow_holder = $2
            FOR UPDATE
        ), changed AS (
            UPDATE payout_links p SET
                link_status = $3,
                provider_status = coalesce($4, p.provider_status),
                provider_payout_id = coalesce($5, p.provider_payout_id),
                expires_at = coalesce($6, p.expires_at),
                expiring_announced = $7,
                follow_failures = 0,
                asked_at = now(),
                cancel_requested_at = CASE WHEN $3 = 'unclaimed' AND NOT $9 THEN p.cancel_requested_at END,
                -- The cancel had no effect. Otherwise a later end of the link would count as its effect.
                cancelled_at = CASE
                    WHEN $24 OR ($9 AND $3 NOT IN ('cancelled', 'expired')) THEN NULL ELSE p.cancelled_at
                END,
                cancelled_because = CASE
                    WHEN $24 OR ($9 AND $3 NOT IN ('cancelled', 'expired')) THEN NULL ELSE p.cancelled_because
                END,
                follow_holder = NULL,
                follow_due_at =
                    CASE WHEN p.ask_again THEN now() ELSE now() + $8::bigint * interval '1 millisecond' END,
                status_changed_at = CASE WHEN $9 THEN now() ELSE p.status_changed_at END,
                status_error = $10,
                payout_status = $11,
                occurred_at = $12,
                newest_event_id = $13,
                newest_event_type = $14,
                sequence = before.sequence + $15
            FROM before WHERE p.id = before.id
            RETURNING p.id, before.event_id, before.sequence, p.ask_again, p.merchant_id,
                p.service_rank % 3::smallint AS priority
        ), undelivered AS (
            SELECT e.id, e.previous_event_id, e.webhook_state FROM events e JOIN changed ON e.id = changed.event_id
            UNION ALL
            SELECT e.id, e.previous_event_id, e.webhook_state FROM events e JOIN undelivered ON e.id = undelivered.previous_event_id
            WHERE undelivered.webhook_state = 'pending'
        ), brought_forward AS (
            UPDATE events e SET
                next_event_id = CASE WHEN e.id = changed.event_id THEN $16 ELSE e.next_event_id END,
                webhook_due_at = CASE
                    WHEN e.webhook_state = 'pending' AND e.holder IS NULL THEN now() ELSE e.webhook_due_at
                END,
                due_at = CASE WHEN e.webhook_state = 'pending' AND e.holder IS NULL THEN now() ELSE e.due_at END
            FROM undelivered, changed WHERE e.id = undelivered.id
            RETURNING e.id, e.webhook_url, e.webhook_state
        ), announced AS (
            INSERT INTO events (
                id, payout_link_id, type, webhook_url, webhook_state, webhook_due_at, due_at, sequence, new_payout_status,
                occurred_at, error, previous_event_id, next_event_id, webhook_waits, turn_priority, turn_merchant_id
            )
            SELECT
                new.id, changed.id, new.type, previous.webhook_url,
                CASE WHEN previous.webhook_url IS NULL THEN 'none' ELSE 'pending' END,
                CASE WHEN previous.webhook_url IS NOT NULL THEN now() END,
                now(), changed.sequence + new.place, new.payout_status, new.occurred_at, new.error,
                coalesce(new.previous_event_id, changed.event_id), new.next_event_id,
                previous.webhook_url IS NOT NULL AND (new.place > 1 OR previous.webhook_state = 'pending'),
                changed.priority, changed.merchant_id
            FROM changed LEFT JOIN brought_forward previous ON previous.id = changed.event_id
            CROSS JOIN UNNEST(
                $17::uuid[], $18::text[], $19::text[], $20::timestamptz[], $21::text[], $22::uuid[], $23::uuid[]
            ) WITH ORDINALITY AS new (
                id, type, payout_status, occurred_at, error, previous_event_id, next_event_id, place
            )
        )
        SELECT ask_again FROM changed
        "#,
        row.id,
        row.holder,
        answer.status.as_str(),
        answer.provider_status.as_deref(),
        answer.provider_payout_id.as_deref(),
        answer.expires_at,
        answer.expiring_is_announced,
        answer.ask_after.map(millis),
        answer.has_changed,
        newest_error.as_deref(),
        newest.payout_status.as_str(),
        newest.occurred_at,
        row.event_ids.last().copied(),
        newest.event_type.as_str(),
        i32::try_from(events.len()).unwrap_or(i32::MAX),
        row.event_ids.first().copied(),
        &row.event_ids,
        &column(&events.iter().collect::<Vec<_>>(), |(event, _)| event.event_type.as_str()) as &[&str],
        &column(&events.iter().collect::<Vec<_>>(), |(event, _)| event.payout_status.as_str()) as &[&str],
        &column(&events.iter().collect::<Vec<_>>(), |(event, _)| event.occurred_at),
        &column(&events.iter().collect::<Vec<_>>(), |(_, error)| error.as_deref()) as &[Option<&str>],
        &previous as &[Option<Uuid>],
        &next as &[Option<Uuid>],
        answer.forgets_cancel,
    )
    .fetch_optional(connection)
    .await?;
    Ok(written)
}
