//! `delivered` of a batch whose results are all published and whose webhooks were all delivered at their first attempt.
//!
//! Most batches are of this kind. Their statement has a third of the columns of the general one in `outbox.rs`, and leaves the rows
//! as that one does.

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{
    batch::column,
    delivered_row::{DeliveredRow, Written},
    numbers::{count, whole_millis},
};
use crate::domain::Attempt;

/// Events of which nothing is left to do.
pub(super) struct AtOnce<'a>(Vec<(&'a DeliveredRow, &'a Attempt)>);

impl<'a> AtOnce<'a> {
    /// Returns `None` if something is left to do for one of the events, or if it needs a row in the timeline.
    pub(super) fn all(rows: &[&'a DeliveredRow]) -> Option<Self> {
        rows.iter().map(|row| Some((*row, complete(row)?))).collect::<Option<Vec<_>>>().map(Self)
    }

    /// Stores the progress of all events.
    pub(super) async fn write(&self, connection: &mut PgConnection) -> Result<Vec<Written>, sqlx::Error> {
        let rows = &self.0.iter().collect::<Vec<_>>()[..];
        sqlx::query_as!(
            Written,
            r#"
            WITH written AS (
                UPDATE events e SET
                    published_at = coalesce(published_at, now()),
                    reply_due = false,
                    publish_attempts = new.publish_attempts,
                    publish_due_at = NULL,
                    webhook_state = 'delivered',
                    webhook_attempts = new.webhook_attempts,
                    webhook_waits = false,
                    webhook_due_at = NULL,
                    due_at = NULL,
                    holder = NULL,
                    posted_at = new.posted_at,
                    took_ms = new.took_ms,
                    status_code = new.status_code,
                    delivered_by = new.holder
                FROM (SELECT
                    unnest($1::uuid[]), unnest($2::uuid[]), unnest($3::integer[]), unnest($4::integer[]),
                    unnest($5::timestamptz[]), unnest($6::integer[]), unnest($7::integer[])
                ) AS new (id, holder, publish_attempts, webhook_attempts, posted_at, took_ms, status_code)
                WHERE e.id = ANY (ARRAY[new.id]) AND e.holder = new.holder
                RETURNING new.holder, e.id, e.next_event_id
            ), woken AS (
                -- As in `outbox.rs`: in this statement, without the rows of the batch, without locked rows.
                UPDATE events e SET
                    webhook_waits = false,
                    webhook_due_at = now(),
                    due_at = CASE WHEN holder IS NULL THEN now() ELSE due_at END
                FROM (
                    SELECT next.id FROM written JOIN events next ON next.id = ANY (ARRAY[written.next_event_id])
                    WHERE written.next_event_id IS NOT NULL AND next.webhook_waits AND next.webhook_state = 'pending'
                        AND next.id <> ALL ($1)
                    FOR UPDATE OF next SKIP LOCKED
                ) AS next
                WHERE e.id = ANY (ARRAY[next.id])
            )
            SELECT
                id AS "id?", holder AS "holder?", next_event_id, next_event_id AS next_result_id,
                false AS "previous_is_finished!"
            FROM written
            WHERE next_event_id IS NOT NULL OR (SELECT count(*) FROM written) < cardinality($1)
            UNION ALL
            SELECT NULL, NULL, NULL, NULL, false WHERE (SELECT count(*) FROM written) < cardinality($1)
            "#,
            &column(rows, |(row, _)| row.id),
            &column(rows, |(row, _)| row.holder),
            &column(rows, |(row, _)| count(row.progress.publish_attempts)),
            &column(rows, |(row, _)| count(row.progress.webhook_attempts)),
            &column(rows, |(_, post)| post.started_at) as &[OffsetDateTime],
            &column(rows, |(_, post)| whole_millis(post.took)),
            &column(rows, |(_, post)| i32::from(post.status_code)),
        )
        .fetch_all(connection)
        .await
    }
}

/// Returns the webhook attempt of an event of which nothing is left to do and which describes that attempt completely.
fn complete(row: &DeliveredRow) -> Option<&Attempt> {
    let progress = &row.progress;
    let is_left = !progress.published
        || progress.reply_due
        || progress.keeps_lease
        || progress.publish_after.is_some()
        || progress.webhook_after.is_some()
        || progress.webhook_waits
        || progress.result_waits;
    if is_left { None } else { row.first_webhook_call() }
}
