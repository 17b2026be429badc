//! `delivered`: stores how far the delivery of an event has come.

use std::{collections::HashSet, sync::Arc, time::Duration};

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Store,
    batch::{Statement, column},
    delivered_at_once::AtOnce,
    delivered_row::{DeliveredRow, Written},
    due_event::{DueEvent, EventProgress, WebhookState},
    error::StoreError,
    leased::while_leased,
    numbers::{count, millis, whole_millis},
    timeline::Timeline,
};

pub(super) struct Delivered;

impl Store {
    /// Stores how far publishing and delivering have come. Returns whether an event of the record is due now: the next one,
    /// or this one if the previous one, which it waited for, was finished meanwhile.
    ///
    /// # Errors
    ///
    /// `LeaseLost` if the event belongs to another claim; `Unavailable` if the database did not answer while the
    /// lease ran. The event becomes due again under the same id.
    pub async fn delivered(&self, event: &DueEvent, progress: EventProgress) -> Result<bool, StoreError> {
        let row = Arc::new(DeliveredRow {
            id: event.id,
            payout_link_id: event.payout_link_id,
            holder: event.lease.holder,
            progress,
        });
        while_leased(&event.lease, self.patiently(|| self.delivering.submit(row.clone()))).await
    }
}

impl Statement for Delivered {
    type Item = Arc<DeliveredRow>;
    type Answer = bool;

    fn weight(_: &Arc<DeliveredRow>) -> usize {
        0
    }

    async fn run(
        &self,
        connection: &mut PgConnection,
        rows: &[Arc<DeliveredRow>],
    ) -> Result<Vec<Result<bool, StoreError>>, StoreError> {
        let rows: Vec<&DeliveredRow> = rows.iter().map(AsRef::as_ref).collect();
        let written = match AtOnce::all(&rows) {
            Some(events) => events.write(connection).await?,
            None => write(connection, &rows).await?,
        };
        let is_any_lost = written.iter().any(|row| row.id.is_none());
        let due_now = wake_next(connection, &rows, &written).await?;
        let is_due_now = |row: &&DeliveredRow| due_now.contains(&row.id);
        if !is_any_lost {
            return Ok(rows.iter().map(|row| Ok(is_due_now(row))).collect());
        }
        let held: HashSet<(Uuid, Uuid)> = written.iter().filter_map(|row| row.id.zip(row.holder)).collect();
        let mut late = Timeline::default();
        for row in rows.iter().filter(|row| !held.contains(&(row.id, row.holder))) {
            if let Some(post) = row.first_webhook_call() {
                late.push(row.payout_link_id, row.holder, post);
            }
        }
        late.write(connection, "").await?;
        Ok(rows
            .iter()
            .map(|row| {
                if held.contains(&(row.id, row.holder)) {
                    Ok(is_due_now(row))
                } else {
                    Err(StoreError::LeaseLost)
                }
            })
            .collect())
    }
}

/// Stores the progress of all events.
async fn write(connection: &mut PgConnection, rows: &[&DeliveredRow]) -> Result<Vec<Written>, sqlx::Error> {
    let mut posts = Timeline::default();
    // Attempts that the event itself describes are left out: they would add nine columns for the rows of every job.
    for row in rows.iter().filter(|row| row.first_webhook_call().is_none()) {
        row.progress.webhook_calls.iter().for_each(|post| posts.push(row.payout_link_id, row.holder, post));
    }
    let is_finished = |row: &&&DeliveredRow| row.progress.webhook != WebhookState::Pending;
    let finished: Vec<Uuid> = rows.iter().filter(is_finished).map(|row| row.id).collect();
    sqlx::query_as!(
        Written,
        r#"
        WITH written AS (
            UPDATE events e SET
                published_at = CASE WHEN published THEN coalesce(published_at, now()) END,
                reply_due = new.reply_due,
                publish_attempts = new.publish_attempts,
                webhook_state = new.webhook_state,
                webhook_attempts = new.webhook_attempts,
                -- The row's current value: the previous webhook may have been finished meanwhile.
                webhook_waits = e.webhook_waits AND (keeps_lease OR new.webhook_waits),
                webhook_due_at = CASE
                    WHEN keeps_lease THEN e.webhook_due_at
                    WHEN new.webhook_waits THEN now() + CASE WHEN e.webhook_waits THEN wait_ms ELSE 0 END * interval '1 millisecond'
                    ELSE now() + post_after_ms * interval '1 millisecond'
                END,
                publish_due_at = CASE
                    WHEN keeps_lease THEN e.publish_due_at
                    ELSE now() + publish_after_ms * interval '1 millisecond'
                END,
                -- least() ignores NULL.
                due_at = CASE
                    WHEN keeps_lease THEN e.due_at
                    WHEN new.webhook_waits THEN now() + least(
                        publish_after_ms, CASE WHEN e.webhook_waits THEN wait_ms ELSE 0 END
                    ) * interval '1 millisecond'
                    ELSE now() + least(publish_after_ms, post_after_ms) * interval '1 millisecond'
                END,
                holder = CASE WHEN keeps_lease THEN e.holder END,
                -- Read for an event that waits only.
                turn_priority = CASE
                    WHEN keeps_lease OR publish_after_ms IS NULL AND post_after_ms IS NULL AND NOT new.webhook_waits
                    THEN e.turn_priority
                    ELSE (SELECT p.service_rank % 3::smallint FROM payout_links p WHERE p.id = e.payout_link_id)
                END,
                turn_merchant_id = CASE
                    WHEN keeps_lease OR publish_after_ms IS NULL AND post_after_ms IS NULL AND NOT new.webhook_waits
                    THEN e.turn_merchant_id
                    ELSE (SELECT p.merchant_id FROM payout_links p WHERE p.id = e.payout_link_id)
                END,
                posted_at = coalesce(new.posted_at, e.posted_at),
                took_ms = coalesce(new.took_ms, e.took_ms),
                status_code = coalesce(new.status_code, e.status_code),
                delivered_by = CASE WHEN new.posted_at IS NULL THEN e.delivered_by ELSE new.holder END
            FROM (
                SELECT given.*, CASE WHEN given.webhook_waits THEN coalesce((
                    -- The previous webhook may be finished in this statement, or its worker may have died before it woke this one.
                    SELECT $23::bigint FROM events waiting JOIN events before ON before.id = waiting.previous_event_id
                    WHERE waiting.id = given.id AND before.webhook_state = 'pending' AND before.id <> ALL ($24)
                ), 0) END AS wait_ms
                FROM (SELECT
                    unnest($1::uuid[]), unnest($2::uuid[]), unnest($3::boolean[]), unnest($4::text[]),
                    unnest($5::integer[]), unnest($6::bigint[]), unnest($7::bigint[]),
                    unnest($16::timestamptz[]), unnest($17::integer[]), unnest($18::integer[]),
                    unnest($19::boolean[]), unnest($20::integer[]), unnest($21::boolean[]),
                    unnest($22::boolean[])
                ) AS given (
                    id, holder, published, webhook_state, webhook_attempts, publish_after_ms, post_after_ms,
                    posted_at, took_ms, status_code, reply_due, publish_attempts, keeps_lease, webhook_waits
                )
            ) AS new
            WHERE e.id = ANY (ARRAY[new.id]) AND e.holder = new.holder
            RETURNING
                new.holder, e.id, CASE WHEN e.webhook_state <> 'pending' THEN e.next_event_id END AS next_event_id,
                CASE WHEN new.published THEN e.next_event_id END AS next_result_id,
                new.webhook_waits AND (NOT e.webhook_waits OR wait_ms = 0) AS previous_is_finished
        ), woken AS (
            -- In this statement: a worker that dies after it leaves no webhook to its check in five minutes. The rows of the
            -- batch are written above. A row that another transaction has locked is left to the next statement.
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
        ), timeline AS (
            INSERT INTO attempts (
                payout_link_id, kind, number, started_at, took_ms, status_code, outcome, detail, caller
            )
            SELECT link, kind, number, started_at, took_ms, status_code, outcome, detail, caller
            FROM UNNEST(
                $8::uuid[], $9::text[], $10::integer[], $11::timestamptz[], $12::integer[], $13::integer[],
                $14::text[], $15::text[], $25::uuid[]
            ) AS post (link, kind, number, started_at, took_ms, status_code, outcome, detail, caller)
        )
        -- Few events have a next one. Rows without news are not returned, unless an event belongs to another claim: a row
        -- without an id says so.
        SELECT id AS "id?", holder AS "holder?", next_event_id, next_result_id, previous_is_finished AS "previous_is_finished!"
        FROM written
        WHERE next_event_id IS NOT NULL OR next_result_id IS NOT NULL OR previous_is_finished
            OR (SELECT count(*) FROM written) < cardinality($1)
        UNION ALL
        SELECT NULL, NULL, NULL, NULL, false WHERE (SELECT count(*) FROM written) < cardinality($1)
        "#,
        &column(rows, |row| row.id),
        &column(rows, |row| row.holder),
        &column(rows, |row| row.progress.published),
        &column(rows, |row| row.progress.webhook.as_str()) as &[&str],
        &column(rows, |row| count(row.progress.webhook_attempts)),
        &column(rows, |row| row.progress.publish_after.map(millis)) as &[Option<i64>],
        &column(rows, |row| row.progress.webhook_after.map(millis)) as &[Option<i64>],
        &posts.links,
        &posts.kinds as &[&str],
        &posts.numbers,
        &posts.started,
        &posts.took_ms,
        &posts.status_codes,
        &posts.outcomes as &[&str],
        &posts.details as &[Option<String>],
        &column(rows, |row| row.first_webhook_call().map(|post| post.started_at)) as &[Option<OffsetDateTime>],
        &column(rows, |row| row.first_webhook_call().map(|post| whole_millis(post.took))) as &[Option<i32>],
        &column(rows, |row| row.first_webhook_call().map(|post| post.status_code.into())) as &[Option<i32>],
        &column(rows, |row| row.progress.reply_due),
        &column(rows, |row| count(row.progress.publish_attempts)),
        &column(rows, |row| row.progress.keeps_lease),
        &column(rows, |row| row.progress.webhook_waits),
        millis(PREVIOUS_WEBHOOK_CHECK),
        &finished,
        &posts.callers,
    )
    .fetch_all(connection)
    .await
}

/// Wakes the next events of the records, and returns the events of which one is due now: the next one or itself.
async fn wake_next(
    connection: &mut PgConnection,
    rows: &[&DeliveredRow],
    written: &[Written],
) -> Result<HashSet<Uuid>, StoreError> {
    let next: Vec<Uuid> = written.iter().filter_map(|row| row.next_event_id).collect();
    wake(connection, &next).await?;
    let waiting = rows.iter().filter(|row| row.progress.result_waits).map(|row| row.id);
    let results: Vec<Uuid> = written.iter().filter_map(|row| row.next_result_id).chain(waiting).collect();
    let results = wake_results(connection, &results).await?;
    let is_next_woken =
        |row: &Written| row.next_result_id.is_some_and(|next_result| results.contains(&next_result));
    let is_due_now =
        |row: &&Written| row.next_event_id.is_some() || row.previous_is_finished || is_next_woken(row);
    let due_now = written.iter().filter(is_due_now).filter_map(|row| row.id);
    Ok(due_now.chain(results.iter().copied()).collect())
}

/// A webhook that waits for the previous one looks again after this time, if nobody woke it.
const PREVIOUS_WEBHOOK_CHECK: Duration = Duration::from_mins(5);

/// Makes webhooks due whose previous webhooks are finished.
async fn wake(connection: &mut PgConnection, events: &[Uuid]) -> Result<(), StoreError> {
    if events.is_empty() {
        return Ok(());
    }
    // A statement of its own: only a new snapshot shows an event that was stored meanwhile, or was locked.
    sqlx::query!(
        "UPDATE events SET
            webhook_waits = false,
            webhook_due_at = now(),
            due_at = CASE WHEN holder IS NULL THEN now() ELSE due_at END
         WHERE id = ANY($1) AND webhook_waits AND webhook_state = 'pending'",
        events
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Makes results due whose previous ones are published, and returns their events.
async fn wake_results(connection: &mut PgConnection, events: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    // A result that was rejected keeps its pause. A row that another transaction has locked is left to its own check: two
    // batches could wait for each other.
    Ok(sqlx::query_scalar!(
        "UPDATE events e SET publish_due_at = now(), due_at = now()
         FROM (
            SELECT id FROM events waiting
            WHERE id = ANY($1) AND published_at IS NULL AND publish_attempts = 0 AND holder IS NULL AND due_at > now()
                AND NOT EXISTS (
                    SELECT FROM (
                        SELECT published_at, due_at FROM events WHERE id = ANY (ARRAY[waiting.previous_event_id]) OFFSET 0
                    ) AS before WHERE before.published_at IS NULL AND before.due_at IS NOT NULL
                )
            FOR UPDATE SKIP LOCKED
         ) AS waiting
         WHERE e.id = ANY (ARRAY[waiting.id])
         RETURNING e.id",
        events
    )
    .fetch_all(connection)
    .await?)
}
