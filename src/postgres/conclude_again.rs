//! Stores a conclusion that follows another one of the same record, with its event, in the caller's transaction. Its event
//! is the next one of the record's chain.
//!
//! It happens after an operator's act only, so it takes several statements, and the one of a job's conclusion stays as it is.

use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::timeline::Timeline;

/// The end of a record's chain of events.
#[derive(Debug, Clone, Copy)]
pub(super) struct LastEvent {
    pub(super) id: Uuid,
    pub(super) sequence: i32,
}

/// The next conclusion of a record whose row the caller has locked.
pub(super) struct NextConclusion<'a> {
    pub(super) id: Uuid,
    pub(super) event_id: Uuid,
    pub(super) event_type: &'static str,
    pub(super) state: &'static str,
    pub(super) payout_status: &'static str,
    pub(super) connector_payout_id: Option<&'a str>,
    pub(super) in_doubt_since: Option<OffsetDateTime>,
    pub(super) status_code: i32,
    pub(super) error_code: Option<&'static str>,
    /// Encrypted.
    pub(super) result: &'a [u8],
    pub(super) link_status: Option<&'static str>,
    pub(super) expires_at: Option<OffsetDateTime>,
    pub(super) ask_after_ms: Option<i64>,
    /// The job's, if it is known.
    pub(super) webhook_url: Option<&'a str>,
    /// The claim under which the caller delivers the event, and its length; `None`: any worker may at once.
    pub(super) lease: Option<(Uuid, i64)>,
}

/// The recipient of the result, read together with the conclusion: a duplicate may have changed it until then.
pub(super) struct Recipient {
    pub(super) reply_to: Option<String>,
    pub(super) correlation_id: Option<String>,
    pub(super) webhook_url: Option<String>,
    /// The webhook of the previous event is not delivered yet, or may not be.
    pub(super) webhook_waits: bool,
}

/// Concludes a record that is tried again, and stores its attempts. Returns `None` if it does not belong to the claim.
pub(super) async fn conclude_leased(
    connection: &mut PgConnection,
    holder: Uuid,
    next: &NextConclusion<'_>,
    calls: &Timeline,
) -> Result<Option<Recipient>, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let last = sqlx::query_as!(
        LastEvent,
        r#"SELECT newest_event_id AS "id!", sequence FROM payout_links WHERE id = $1 AND holder = $2 FOR UPDATE"#,
        next.id,
        holder,
    )
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(last) = last else { return Ok(None) };
    let recipient = conclude_again(&mut transaction, last, next).await?;
    calls.write(&mut transaction, "").await?;
    transaction.commit().await?;
    Ok(Some(recipient))
}

/// Stores the conclusion and its event after `last`.
///
/// The update of the previous event's row names the next event in it and locks it. A worker that finishes its webhook
/// at the same time sees that name, and wakes the next webhook.
pub(super) async fn conclude_again(
    connection: &mut PgConnection,
    last: LastEvent,
    next: &NextConclusion<'_>,
) -> Result<Recipient, sqlx::Error> {
    let previous = sqlx::query!(
        "UPDATE events SET next_event_id = $2 WHERE id = $1 RETURNING webhook_url, webhook_state",
        last.id,
        next.event_id
    )
    .fetch_optional(&mut *connection)
    .await?;
    bring_forward(connection, last.id).await?;
    let written = sqlx::query!(
        r#"
        UPDATE payout_links p SET
            state = $2, payout_status = $3, connector_payout_id = $4, in_doubt_since = $5, status_code = $6,
            error_code = $7, result = $8, event_id = $9, sequence = $10, link_status = $11, expires_at = $12,
            follow_due_at = now() + $13::bigint * interval '1 millisecond', follow_holder = NULL,
            newest_event_id = NULL, newest_event_type = NULL, occurred_at = NULL, status_error = NULL,
            status_changed_at = NULL, took_ms = NULL, due_at = NULL, holder = NULL, concluded_at = now()
        WHERE id = $1
        RETURNING reply_to, correlation_id, fresh_webhook_url
        "#,
        next.id,
        next.state,
        next.payout_status,
        next.connector_payout_id,
        next.in_doubt_since,
        next.status_code,
        next.error_code,
        next.result,
        next.event_id,
        last.sequence + 1,
        next.link_status,
        next.expires_at,
        next.ask_after_ms,
    )
    .fetch_one(&mut *connection)
    .await?;
    let (previous_url, previous_state) =
        previous.map_or((None, String::new()), |row| (row.webhook_url, row.webhook_state));
    let webhook_url =
        written.fresh_webhook_url.or(previous_url).or_else(|| next.webhook_url.map(str::to_owned));
    let webhook_waits = webhook_url.is_some() && previous_state == "pending";
    sqlx::query!(
        r#"
        INSERT INTO events (
            id, payout_link_id, type, webhook_url, webhook_state, webhook_due_at, holder, due_at, sequence,
            previous_event_id, webhook_waits, turn_priority, turn_merchant_id
        )
        SELECT
            $1, $2, $3, $4, CASE WHEN $4::text IS NULL THEN 'none' ELSE 'pending' END,
            CASE WHEN $4::text IS NOT NULL THEN now() END, $5, now() + $6::bigint * interval '1 millisecond', $7, $8, $9,
            CASE WHEN $5::uuid IS NULL THEN service_rank % 3::smallint END, CASE WHEN $5::uuid IS NULL THEN merchant_id END
        FROM payout_links WHERE id = $2
        "#,
        next.event_id,
        next.id,
        next.event_type,
        webhook_url,
        next.lease.map(|(holder, _)| holder),
        next.lease.map_or(0, |(_, length_ms)| length_ms),
        last.sequence + 1,
        last.id,
        webhook_waits,
    )
    .execute(&mut *connection)
    .await?;
    let (reply_to, correlation_id) = (written.reply_to, written.correlation_id);
    Ok(Recipient { reply_to, correlation_id, webhook_url, webhook_waits })
}

/// Makes webhooks due that wait for a retry: those of the event and of the ones before it.
async fn bring_forward(connection: &mut PgConnection, event_id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "WITH RECURSIVE undelivered AS (
            SELECT id, previous_event_id, webhook_state FROM events WHERE id = $1
            UNION ALL
            SELECT e.id, e.previous_event_id, e.webhook_state
            FROM undelivered JOIN events e ON e.id = ANY (ARRAY[undelivered.previous_event_id])
            WHERE undelivered.webhook_state = 'pending'
         )
         UPDATE events e SET webhook_due_at = now(), due_at = now()
         FROM undelivered
         WHERE e.id = ANY (ARRAY[undelivered.id]) AND e.webhook_state = 'pending' AND e.holder IS NULL",
        event_id
    )
    .execute(connection)
    .await?;
    Ok(())
}
