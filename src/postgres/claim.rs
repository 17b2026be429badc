//! `claim`: gives due rows a lease under a new holder.

use tokio::time::Instant;
use uuid::Uuid;

use super::{
    Store, availability::CONCLUSIONS_FIRST, connect::answered, error::StoreError, numbers::millis,
    record_id::Identity,
};
use crate::{
    contract,
    domain::{AccountId, Lease, OpenLink, Progress, SERVICE_RANKS, Share, TraceContext, Turn},
};

impl Store {
    /// Claims at most `limit` due rows of one connector: those of a turn (`domain::turns`), of each merchant the oldest
    /// first. A row whose lease expired after a call had begun becomes unknown, because the call may have been carried
    /// out.
    ///
    /// For some seconds after an outage of the database, expired leases are left to their holders: their conclusions
    /// are waiting to be written, and go first.
    ///
    /// A claim begins no call: `uncalled_holder` says so until [`Store::renew_for_call`]. It moves the row to the ranks of
    /// unknown outcomes, where expired leases are searched. A row that cannot be read (its key is missing from the ring) is
    /// returned as an error and set aside.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`. Nothing is claimed then; if only the answer was lost, the claim expires.
    pub async fn claim(
        &self,
        connector: &str,
        limit: usize,
        turn: &Turn,
    ) -> Result<Vec<Result<Box<OpenLink>, StoreError>>, StoreError> {
        let (ranks, shares): (&[i16], &[Share]) = match turn {
            Turn::ExpiredLeases => (&[], &[]),
            Turn::Waiting { ranks, shares } => (ranks, shares),
        };
        let expired = *turn == Turn::ExpiredLeases && !self.availability.has_conclusions_on_their_way();
        let whole = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let (holder, asked_at) = (self.worker.claim_id(), Instant::now());
        let rows = sqlx::query!(
            r#"
            WITH due AS (
                SELECT id FROM (
                    SELECT next.id FROM unnest($5::smallint[]) AS ranks (rank)
                    CROSS JOIN LATERAL (
                        SELECT id FROM payout_links
                        WHERE $6 AND rank <= 2 AND state = 'open' AND connector = $1 AND service_rank = rank
                            AND due_at <= now() AND holder IS NOT NULL
                            AND merchant_id <> ALL (ARRAY(SELECT name FROM pauses WHERE kind = 'merchant'))
                            AND pg_postmaster_start_time() < now() - $7::bigint * interval '1 millisecond'
                        ORDER BY due_at LIMIT $2
                        FOR UPDATE SKIP LOCKED
                    ) AS next
                    UNION ALL
                    SELECT next.id FROM unnest($5::smallint[]) AS ranks (rank)
                    CROSS JOIN LATERAL (
                        SELECT id FROM payout_links
                        WHERE $6 AND state = 'open' AND connector = $1 AND service_rank = rank AND due_at <= now()
                            AND holder IS NOT NULL AND service_rank > 2
                            AND merchant_id <> ALL (ARRAY(SELECT name FROM pauses WHERE kind = 'merchant'))
                            AND pg_postmaster_start_time() < now() - $7::bigint * interval '1 millisecond'
                        ORDER BY due_at LIMIT $2
                        FOR UPDATE SKIP LOCKED
                    ) AS next
                    UNION ALL
                    -- The comparison of rows is one range of payout_links_waiting, and no other index has it.
                    SELECT next.id FROM unnest($8::text[], $9::bigint[]) AS share (merchant_id, records)
                    CROSS JOIN LATERAL (
                        SELECT of_rank.id FROM unnest($10::smallint[]) AS ranks (rank)
                        CROSS JOIN LATERAL (
                            SELECT id FROM payout_links p
                            WHERE state = 'open' AND holder IS NULL AND connector = $1 AND service_rank = rank
                                AND (p.merchant_id COLLATE "C", p.due_at)
                                    >= (share.merchant_id, '-infinity'::timestamptz)
                                AND (p.merchant_id COLLATE "C", p.due_at) <= (share.merchant_id, now())
                            ORDER BY p.merchant_id COLLATE "C", p.due_at LIMIT share.records
                            FOR UPDATE SKIP LOCKED
                        ) AS of_rank
                        LIMIT share.records
                    ) AS next
                ) AS found
                LIMIT $2
            )
            UPDATE payout_links p SET
                holder = $3,
                uncalled_holder = $3,
                due_at = now() + $4::bigint * interval '1 millisecond',
                service_rank = p.service_rank % 3::smallint,
                in_doubt_since = CASE
                    WHEN p.attempts > 0 AND p.holder IS NOT NULL AND p.holder IS DISTINCT FROM p.uncalled_holder
                    THEN coalesce(in_doubt_since, now())
                    ELSE in_doubt_since
                END
            FROM due WHERE p.id = ANY (ARRAY[due.id])
            RETURNING
                p.id, merchant_id, merchant_payout_id, connector, request, attempts, first_called_at,
                last_called_at, in_doubt_since, account, connector_payout_id, status_code, traceparent, tracestate,
                created_at, retried_at, attempts_before, cancel_requested_at IS NOT NULL AS "cancel_is_requested!",
                CASE WHEN newest_event_id IS NOT NULL THEN sequence END AS last_sequence, now() AS "now!"
            "#,
            connector,
            whole(limit),
            holder,
            millis(self.settings.lease),
            &SERVICE_RANKS[..],
            expired,
            millis(CONCLUSIONS_FIRST),
            &shares.iter().map(|share| share.merchant_id.clone()).collect::<Vec<_>>(),
            &shares.iter().map(|share| whole(share.records)).collect::<Vec<_>>(),
            ranks,
        )
        .fetch_all(&self.pool);
        let rows = answered(&self.pool, rows).await?;
        let answered_at = Instant::now();
        if let Some(row) = rows.first() {
            self.clock.observe(row.now, asked_at, answered_at);
        }
        let links: Vec<Result<Box<OpenLink>, StoreError>> = rows
            .into_iter()
            .map(|row| {
                let unreadable = |reason: String| StoreError::Inconsistent {
                    table: "payout_links",
                    column: "request",
                    id: row.id,
                    reason,
                };
                let sealed = row.request.as_deref().ok_or_else(|| unreadable("it is empty".into()))?;
                let identity = Identity {
                    merchant_id: &row.merchant_id,
                    merchant_payout_id: &row.merchant_payout_id,
                    connector: &row.connector,
                };
                let request = self
                    .keys
                    .open_request(row.id, identity, sealed)
                    .map_err(|error| unreadable(error.to_string()))?;
                let job =
                    contract::stored_request(&request).map_err(|rejection| unreadable(rejection.message))?;
                Ok(Box::new(OpenLink {
                    id: row.id,
                    merchant_id: row.merchant_id,
                    connector: row.connector,
                    job: Box::new(job),
                    progress: Progress {
                        opened_at: row.retried_at.unwrap_or(row.created_at),
                        attempts: u32::try_from(row.attempts).unwrap_or_default(),
                        attempts_before: u32::try_from(row.attempts_before).unwrap_or_default(),
                        first_called_at: row.first_called_at,
                        last_called_at: row.last_called_at,
                        in_doubt_since: row.in_doubt_since,
                        account: row.account.as_deref().map(AccountId::stored),
                        connector_payout_id: row.connector_payout_id,
                        cancel_is_requested: row.cancel_is_requested,
                        status_code: u16::try_from(row.status_code).unwrap_or_default(),
                        ..Progress::new(row.created_at)
                    },
                    last_sequence: row
                        .last_sequence
                        .and_then(|last| u32::try_from(last).ok())
                        .unwrap_or_default(),
                    lease: Lease {
                        holder,
                        granted_at: row.now,
                        asked_at,
                        answered_at,
                        length: self.settings.lease,
                    },
                    call_is_written: false,
                    trace: TraceContext { traceparent: row.traceparent, tracestate: row.tracestate },
                    calls: Vec::new(),
                }))
            })
            .collect();
        let unreadable: Vec<Uuid> = links
            .iter()
            .filter_map(|link| match link {
                Err(StoreError::Inconsistent { id, .. }) => Some(*id),
                _ => None,
            })
            .collect();
        if !unreadable.is_empty() {
            self.set_aside(&unreadable, holder).await?;
        }
        Ok(links)
    }

    /// Postpones records that cannot be read, as retries without a priority: it is in the request. They have no holder, so
    /// their outcome does not become unknown while they wait for the key.
    async fn set_aside(&self, ids: &[Uuid], holder: Uuid) -> Result<(), StoreError> {
        let statement = sqlx::query!(
            "UPDATE payout_links SET holder = NULL, due_at = now() + interval '5 minutes',
                 service_rank = CASE WHEN in_doubt_since IS NULL THEN 5 ELSE service_rank END
             WHERE id = ANY($1) AND holder = $2",
            ids,
            holder
        )
        .execute(&self.pool);
        answered(&self.pool, statement).await?;
        Ok(())
    }
}
