//! `due_records`, `oldest_due_event`, `merchants_with_due_events`: how much waits, of whom, and since when.
//!
//! Due records are found by merchant: one index probe for each merchant of a rank, however many records it has (a loose
//! index scan). Records of paused merchants are not due.

use std::{collections::HashMap, time::Duration};

use sqlx::PgPool;

use super::{Store, availability::CONCLUSIONS_FIRST, connect::answered, error::StoreError, numbers::millis};
use crate::domain::{DueMerchants, PRIORITIES, SERVICE_RANKS, UNKNOWN_RANKS, event_rank};

/// Due records of one connector and rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueRecords {
    /// Name of the connector account.
    pub connector: String,
    /// `service_rank` of the records.
    pub rank: i16,
    /// The merchant of records that wait; `None` for records whose lease has expired.
    pub merchant_id: Option<String>,
    /// For how long the oldest has been due.
    pub overdue: Duration,
}

/// Where the search for merchants goes on in ranks with more merchants than one search finds.
#[derive(Debug, Default)]
pub struct DuePlaces(HashMap<(String, i16), String>);

/// Merchants with due records that one search finds in a rank.
const MAX_FOUND: i32 = 256;
/// Merchants that one search looks at in a rank. Some of them have no record that is due now.
const MAX_VISITED: i32 = 4096;

impl Store {
    /// Returns the due records of these connectors, by rank and merchant.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn due_records(
        &self,
        connectors: &[String],
        places: &mut DuePlaces,
    ) -> Result<Vec<DueRecords>, StoreError> {
        let mut due = waiting(&self.pool, connectors, places).await?;
        if !self.availability.has_conclusions_on_their_way() {
            due.extend(self.expired_leases(connectors).await?);
        }
        Ok(due)
    }

    /// Returns the ranks with records whose lease has expired.
    async fn expired_leases(&self, connectors: &[String]) -> Result<Vec<DueRecords>, StoreError> {
        let expired = sqlx::query!(
            r#"
            SELECT connectors.connector AS "connector!", rank AS "rank!",
                (extract(epoch FROM now() - due_at) * 1000)::bigint AS "overdue_ms!"
            FROM unnest($1::text[]) AS connectors (connector)
            CROSS JOIN unnest($2::smallint[]) AS ranks (rank)
            CROSS JOIN LATERAL (
                SELECT due_at FROM payout_links p
                WHERE rank <= 2 AND state = 'open' AND p.connector = connectors.connector AND service_rank = rank
                    AND due_at <= now() AND holder IS NOT NULL
                    AND merchant_id <> ALL (ARRAY(SELECT name FROM pauses WHERE kind = 'merchant'))
                ORDER BY due_at LIMIT 1
            ) AS next
            WHERE pg_postmaster_start_time() < now() - $3::bigint * interval '1 millisecond'
            UNION ALL
            SELECT connectors.connector, rank, (extract(epoch FROM now() - due_at) * 1000)::bigint
            FROM unnest($1::text[]) AS connectors (connector)
            CROSS JOIN unnest($2::smallint[]) AS ranks (rank)
            CROSS JOIN LATERAL (
                SELECT due_at FROM payout_links p
                WHERE state = 'open' AND p.connector = connectors.connector AND service_rank = rank
                    AND due_at <= now() AND holder IS NOT NULL AND service_rank > 2
                    AND merchant_id <> ALL (ARRAY(SELECT name FROM pauses WHERE kind = 'merchant'))
                ORDER BY due_at LIMIT 1
            ) AS next
            WHERE pg_postmaster_start_time() < now() - $3::bigint * interval '1 millisecond'
            "#,
            connectors,
            &SERVICE_RANKS[..],
            millis(CONCLUSIONS_FIRST),
        )
        .fetch_all(&self.pool);
        let due = |connector, rank, overdue_ms| DueRecords {
            connector,
            rank,
            merchant_id: None,
            overdue: duration(overdue_ms),
        };
        let rows = answered(&self.pool, expired).await?;
        Ok(rows.into_iter().map(|row| due(row.connector, row.rank, row.overdue_ms)).collect())
    }

    /// Returns whether there are concluded records of several merchants.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn has_several_merchants(&self) -> Result<bool, StoreError> {
        let several = sqlx::query_scalar!(
            r#"
            SELECT EXISTS (
                SELECT FROM payout_links
                WHERE payout_status IS NOT NULL AND merchant_id > (
                    SELECT merchant_id FROM payout_links WHERE payout_status IS NOT NULL ORDER BY merchant_id LIMIT 1
                )
            ) AS "several!"
            "#
        )
        .fetch_one(&self.pool);
        answered(&self.pool, several).await
    }

    /// Returns for how long the oldest due event has been due, if there is one.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn oldest_due_event(&self) -> Result<Option<Duration>, StoreError> {
        let oldest = sqlx::query_scalar!(
            r#"
            SELECT (extract(epoch FROM now() - due_at) * 1000)::bigint AS "overdue_ms!" FROM events
            WHERE due_at <= now() ORDER BY due_at LIMIT 1
            "#
        )
        .fetch_optional(&self.pool);
        Ok(answered(&self.pool, oldest).await?.map(duration))
    }
}

/// Where the search for merchants goes on in priorities with more merchants than one search finds.
#[derive(Debug, Default)]
pub struct EventPlaces(HashMap<i16, String>);

impl Store {
    /// Returns the merchants with due events that wait, by priority.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn merchants_with_due_events(
        &self,
        places: &mut EventPlaces,
    ) -> Result<DueMerchants, StoreError> {
        let priorities: Vec<i16> = (0..PRIORITIES).collect();
        let begins_at: Vec<String> =
            priorities.iter().map(|priority| places.0.remove(priority).unwrap_or_default()).collect();
        let found = sqlx::query!(
            r#"
            SELECT
                place.priority AS "priority!", next.merchant_id AS "merchant_id!", next.is_due AS "is_due!",
                next.found = $3 OR next.visited = $4 AS "is_last!"
            FROM unnest($1::smallint[], $2::text[]) AS place (priority, begins_at)
            CROSS JOIN LATERAL (
                WITH RECURSIVE merchants AS (
                    (
                        SELECT turn_merchant_id AS merchant_id, due_at <= now() AS is_due, 1 AS visited,
                            (due_at <= now())::integer AS found
                        FROM events e
                        WHERE due_at IS NOT NULL AND turn_merchant_id IS NOT NULL AND turn_priority = place.priority
                            AND turn_merchant_id COLLATE "C" >= place.begins_at
                        ORDER BY turn_merchant_id COLLATE "C", due_at LIMIT 1
                    )
                    UNION ALL
                    SELECT later.merchant_id, later.is_due, visited + 1, found + later.is_due::integer
                    FROM merchants
                    CROSS JOIN LATERAL (
                        SELECT turn_merchant_id AS merchant_id, due_at <= now() AS is_due
                        FROM events e
                        WHERE due_at IS NOT NULL AND turn_merchant_id IS NOT NULL AND turn_priority = place.priority
                            AND e.turn_merchant_id COLLATE "C" > merchants.merchant_id
                        ORDER BY e.turn_merchant_id COLLATE "C", due_at LIMIT 1
                    ) AS later
                    WHERE found < $3 AND visited < $4
                )
                SELECT * FROM merchants
            ) AS next
            WHERE next.is_due OR next.visited = $4
            "#,
            &priorities,
            &begins_at,
            MAX_FOUND,
            MAX_VISITED,
        )
        .fetch_all(&self.pool);
        let mut due = DueMerchants::default();
        for row in answered(&self.pool, found).await? {
            if row.is_last {
                places.0.insert(row.priority, row.merchant_id.clone());
            }
            if row.is_due {
                due.add(event_rank(row.priority), row.merchant_id);
            }
        }
        Ok(due)
    }
}

/// Returns the due records without a holder.
pub(super) async fn waiting(
    pool: &PgPool,
    connectors: &[String],
    places: &mut DuePlaces,
) -> Result<Vec<DueRecords>, StoreError> {
    let all: Vec<(String, i16)> =
        connectors.iter().flat_map(|connector| SERVICE_RANKS.map(|rank| (connector.clone(), rank))).collect();
    let begins_at: Vec<String> = all.iter().map(|place| places.0.remove(place).unwrap_or_default()).collect();
    let found = sqlx::query!(
        r#"
        SELECT
            place.connector AS "connector!", place.rank AS "rank!", next.merchant_id AS "merchant_id!",
            next.is_due AS "is_due!", next.found = $4 OR next.visited = $5 AS "is_last!",
            (extract(epoch FROM now() - next.due_at) * 1000)::bigint AS "overdue_ms!"
        FROM unnest($1::text[], $2::smallint[], $3::text[]) AS place (connector, rank, begins_at)
        CROSS JOIN LATERAL (
            WITH RECURSIVE paused AS (
                SELECT ARRAY(SELECT name FROM pauses WHERE kind = 'merchant') AS merchants
            ), merchants AS (
                (
                    SELECT merchant_id, due_at, 1 AS visited,
                        (due_at <= now() AND merchant_id <> ALL ((SELECT merchants FROM paused)::text[])) AS is_due,
                        (due_at <= now() AND merchant_id <> ALL ((SELECT merchants FROM paused)::text[]))::integer AS found
                    FROM payout_links p
                    WHERE state = 'open' AND holder IS NULL AND p.connector = place.connector
                        AND service_rank = place.rank AND merchant_id COLLATE "C" >= place.begins_at
                    ORDER BY merchant_id COLLATE "C", due_at LIMIT 1
                )
                UNION ALL
                SELECT later.merchant_id, later.due_at, visited + 1, later.is_due, found + later.is_due::integer
                FROM merchants
                CROSS JOIN LATERAL (
                    SELECT merchant_id, due_at,
                        due_at <= now() AND merchant_id <> ALL ((SELECT merchants FROM paused)::text[]) AS is_due
                    FROM payout_links p
                    WHERE state = 'open' AND holder IS NULL AND p.connector = place.connector
                        AND service_rank = place.rank AND p.merchant_id COLLATE "C" > merchants.merchant_id
                    ORDER BY p.merchant_id COLLATE "C", due_at LIMIT 1
                ) AS later
                WHERE found < $4 AND visited < $5
            )
            SELECT * FROM merchants
        ) AS next
        WHERE next.is_due OR next.visited = $5
        "#,
        &all.iter().map(|(connector, _)| connector.clone()).collect::<Vec<_>>(),
        &all.iter().map(|(_, rank)| *rank).collect::<Vec<_>>(),
        &begins_at,
        MAX_FOUND,
        MAX_VISITED,
    )
    .fetch_all(pool);
    let mut due = Vec::new();
    for row in answered(pool, found).await? {
        if row.is_last {
            places.0.insert((row.connector.clone(), row.rank), row.merchant_id.clone());
        }
        if row.is_due {
            due.push(DueRecords {
                connector: row.connector,
                rank: row.rank,
                merchant_id: Some(row.merchant_id),
                overdue: duration(row.overdue_ms),
            });
        }
    }
    Ok(due)
}

fn duration(overdue_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(overdue_ms).unwrap_or_default())
}

// The statements name the ranks of unknown outcomes as numbers, as the index does.
const _: () = assert!(UNKNOWN_RANKS == 3);
