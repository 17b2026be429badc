//! `be_present`, `take_over_leases`: detect workers that are gone, and make their leases due.
//!
//! Each worker holds an advisory lock on a database session of its own, and its claim ids carry its number. When the
//! session ends, PostgreSQL releases the lock, and others may claim the worker's leases at once instead of waiting
//! until they expire. The holder stays in the row: the replay rule and every check of the holder work as for an
//! expired lease.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use sqlx::{Connection, Executor, PgConnection, postgres::PgConnectOptions};
use tokio::time::{sleep, timeout};
use uuid::{Builder, Uuid};

use super::{Store, connect::answered, error::StoreError, numbers::millis};
use crate::{domain::SERVICE_RANKS, lock::lock};

/// First half of the key of every worker's advisory lock: "plw1".
pub(super) const LOCK_CLASS: i32 = 0x706c_7731;
/// The name of the session that holds it. Every role may read it, and so which versions run.
const PRESENCE: &str = concat!("payout-link-worker presence ", env!("CARGO_PKG_VERSION"));
/// For this time after a start the database does not show which workers are gone: they reconnect.
const AFTER_START: Duration = Duration::from_secs(10);
/// Interval between two tests of the worker's own session.
const LOOK: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(5);

/// The number of this worker, unique among the connected ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerNumber(u32);

impl WorkerNumber {
    pub(super) fn random() -> Self {
        let bytes = Uuid::new_v4().into_bytes();
        Self(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// Returns a new claim id: a UUIDv8 (RFC 9562) that begins with the number. Earlier versions made UUIDv4.
    pub(super) fn claim_id(self) -> Uuid {
        let mut bytes = Uuid::new_v4().into_bytes();
        bytes[..4].copy_from_slice(&self.0.to_be_bytes());
        Builder::from_custom_bytes(bytes).into_uuid()
    }

    /// Returns the number as `pg_locks` shows it in `objid`.
    pub(super) fn objid(self) -> i64 {
        self.0.into()
    }

    /// Returns the key of the lock, a signed number for PostgreSQL.
    fn key(self) -> i32 {
        i32::from_be_bytes(self.0.to_be_bytes())
    }
}

/// The workers that were gone in the last look, and the time of that look.
#[derive(Debug, Default)]
pub struct Absences {
    seen: HashSet<Vec<u8>>,
    at: Option<Instant>,
}

/// Minimum time between two looks that agree: the time that a worker may need to reconnect.
const TWO_LOOKS: Duration = Duration::from_millis(900);

impl Store {
    /// Holds the worker's advisory lock for as long as it is polled, over one connection after another.
    pub async fn be_present(&self) {
        let options = (*self.pool.connect_options()).clone();
        loop {
            if let Err(error) = self.hold_lock(&options).await {
                tracing::debug!(%error, "worker presence lost, will reconnect");
                *lock(&self.presence_lost_at) = Some(Instant::now());
            }
            sleep(LOOK / 2).await;
        }
    }

    /// Returns whether the own session was lost recently. After a failover every worker reconnects, and none counts
    /// as gone before it had the time for that.
    fn worker_presence_was_lost_lately(&self) -> bool {
        let lost_at = *lock(&self.presence_lost_at);
        lost_at.is_some_and(|at| at.elapsed() < AFTER_START)
    }

    async fn hold_lock(&self, options: &PgConnectOptions) -> Result<(), sqlx::Error> {
        let lost = |_| sqlx::Error::PoolTimedOut;
        let options = options.clone().application_name(PRESENCE);
        let mut connection =
            timeout(PATIENCE, PgConnection::connect_with(&options)).await.map_err(lost)??;
        // The server detects a machine that is gone within ten seconds or so. Set by a statement, because a pooler
        // accepts no settings at the start of a session.
        let keepalives = sqlx::raw_sql(
            "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3",
        );
        timeout(PATIENCE, connection.execute(keepalives)).await.map_err(lost)??;
        let lock = sqlx::query("SELECT pg_advisory_lock($1, $2)").bind(LOCK_CLASS).bind(self.worker.key());
        timeout(PATIENCE, lock.execute(&mut connection)).await.map_err(lost)??;
        loop {
            sleep(LOOK).await;
            timeout(PATIENCE, connection.ping()).await.map_err(lost)??;
        }
    }

    /// Makes the leases of workers due that were gone in this look and in the one before it, and returns their
    /// number.
    ///
    /// `unsettled` are connectors whose replay rule cannot resolve an unknown outcome. Of these, only records without
    /// a call are taken over. An early claim of the others would conclude a record as unknown while its worker may
    /// still be calling.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`. The next look tries again.
    pub async fn take_over_leases(
        &self,
        connectors: &[String],
        unsettled: &[String],
        absences: &mut Absences,
    ) -> Result<u64, StoreError> {
        if self.worker_presence_was_lost_lately() {
            return Ok(0);
        }
        let gone = self.absent_holders(connectors, unsettled).await?;
        let is_later = absences.at.is_some_and(|at| at.elapsed() >= TWO_LOOKS);
        let both: Vec<Vec<u8>> =
            gone.iter().filter(|number| is_later && absences.seen.contains(*number)).cloned().collect();
        if is_later || absences.at.is_none() {
            *absences = Absences { seen: gone, at: Some(Instant::now()) };
        }
        if both.is_empty() {
            return Ok(0);
        }
        let records = sqlx::query!(
            "UPDATE payout_links SET due_at = now()
             WHERE state = 'open' AND connector = ANY ($1) AND service_rank = ANY ($2) AND due_at > now()
                 AND due_at <= now() + $3::bigint * interval '1 millisecond'
                 AND get_byte(uuid_send(holder), 6) >> 4 = 8 AND substr(uuid_send(holder), 1, 4) = ANY ($4)
                 AND (connector <> ALL ($5) OR holder = uncalled_holder)",
            connectors,
            &SERVICE_RANKS[..],
            millis(self.settings.lease),
            &both,
            unsettled,
        )
        .execute(&self.pool);
        let records = answered(&self.pool, records).await?.rows_affected();
        let events = sqlx::query!(
            "UPDATE events SET due_at = now()
             WHERE due_at > now() AND due_at <= now() + $1::bigint * interval '1 millisecond'
                 AND get_byte(uuid_send(holder), 6) >> 4 = 8 AND substr(uuid_send(holder), 1, 4) = ANY ($2)",
            millis(self.settings.event_lease),
            &both,
        )
        .execute(&self.pool);
        let events = answered(&self.pool, events).await?.rows_affected();
        tracing::info!(records, events, "leases of absent workers taken over");
        Ok(records + events)
    }

    /// Returns the worker numbers in the holders of running leases whose workers hold no lock.
    async fn absent_holders(
        &self,
        connectors: &[String],
        unsettled: &[String],
    ) -> Result<HashSet<Vec<u8>>, StoreError> {
        let absent = sqlx::query_scalar!(
            r#"
            WITH numbers AS (
                SELECT substr(uuid_send(holder), 1, 4) AS number FROM payout_links
                WHERE state = 'open' AND connector = ANY ($1) AND service_rank = ANY ($2) AND due_at > now()
                    AND due_at <= now() + $3::bigint * interval '1 millisecond'
                    AND get_byte(uuid_send(holder), 6) >> 4 = 8
                    AND (connector <> ALL ($6) OR holder = uncalled_holder)
                UNION
                SELECT substr(uuid_send(holder), 1, 4) FROM events
                WHERE due_at > now() AND due_at <= now() + $3::bigint * interval '1 millisecond'
                    AND get_byte(uuid_send(holder), 6) >> 4 = 8
            )
            SELECT number AS "number!" FROM numbers
            WHERE pg_postmaster_start_time() < now() - $4::bigint * interval '1 millisecond'
                AND NOT EXISTS (
                    SELECT FROM pg_locks
                    WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND classid::bigint = $5
                        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                        AND decode(lpad(to_hex(objid::bigint), 8, '0'), 'hex') = number
                )
            "#,
            connectors,
            &SERVICE_RANKS[..],
            millis(self.settings.lease.max(self.settings.event_lease)),
            millis(AFTER_START),
            i64::from(LOCK_CLASS),
            unsettled,
        )
        .fetch_all(&self.pool);
        Ok(answered(&self.pool, absent).await?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_id_carries_the_number_and_differs_from_those_of_earlier_versions() {
        let worker = WorkerNumber::random();
        let (one, other) = (worker.claim_id(), worker.claim_id());
        assert_ne!(one, other);
        assert_eq!(one.as_bytes()[..4], worker.0.to_be_bytes());
        assert_eq!((one.get_version_num(), Uuid::new_v4().get_version_num()), (8, 4));
    }
}
