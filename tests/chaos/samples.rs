//! Observes a run from outside: overdue work, progress, and the recovery after a SIGKILL. It reads the database as an
//! operator would, over a connection without planned faults.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use history_checker::{Event, LaterEvent, Overdue, Progress, key};
use sqlx::{PgPool, postgres::PgPoolOptions};
use time::OffsetDateTime;
use tokio::time::{sleep, timeout};

use crate::{
    connectors::{CONNECTORS, ROAMING},
    plan::{Fault, Service},
    saturation::{Overload, Variant},
    test_env::TestEnv,
};

/// Limits how long work may be overdue: a sweep, the claim, a pause of the breaker, and a busy machine.
const BOUND: Duration = Duration::from_secs(20);
/// The assumed calls a second of a connector without limits.
const UNLIMITED: u64 = 20;
/// Limits the time from a conclusion to its published result: an event's lease (13 s here), if the write after the
/// publish was lost with its database, and ten seconds more.
const PUBLISHED_WITHIN: Duration = Duration::from_secs(23);
/// A link about which the next question at the end of a run is later than this is not waited for.
const ASKED_WITHIN: Duration = Duration::from_mins(1);
/// Limits how long work may be overdue at the end of a run.
const BOUND_AT_END: Duration = Duration::from_mins(1);
const PATIENCE: Duration = Duration::from_mins(3);
/// Limits the time from the record of a call to its sending, on a busy machine.
const BEFORE_SENDING: Duration = Duration::from_secs(1);

pub struct Samples {
    pool: PgPool,
    started: Instant,
    /// The worst sample of each record.
    overdue: Mutex<HashMap<String, Overdue>>,
    /// The worst sample of each event.
    unpublished: Mutex<HashMap<String, Overdue>>,
    progress: Mutex<Vec<Progress>>,
    /// The times from each SIGKILL until all records that had been called and were open then were concluded.
    recoveries: Mutex<Vec<Option<Duration>>>,
    part_faults: Mutex<HashMap<Part, PartFaults>>,
    /// Periods in which a worker may have recorded a call that no proxy saw, by the clock of this machine.
    interruptions: Mutex<Vec<(OffsetDateTime, OffsetDateTime)>>,
    /// Periods in which a worker could not record a conclusion while others could take the record over.
    cut_off: Mutex<Vec<(usize, OffsetDateTime, OffsetDateTime)>>,
}

/// A part that due work needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    Database,
    /// The broker with its queues, and every worker's connection to it.
    RabbitMq,
    /// All workers, because others take over the events of a dead one.
    Workers,
    Connector(&'static str),
}

#[derive(Debug, Default)]
struct PartFaults {
    under_way: u32,
    ended: Option<Instant>,
}

impl Samples {
    pub fn new(database_url: &str) -> Result<Self, String> {
        let pool = PgPoolOptions::new().max_connections(4).acquire_timeout(Duration::from_secs(3));
        Ok(Self {
            pool: pool.connect_lazy(database_url).map_err(|error| error.to_string())?,
            started: Instant::now(),
            overdue: Mutex::default(),
            unpublished: Mutex::default(),
            progress: Mutex::default(),
            recoveries: Mutex::default(),
            part_faults: Mutex::default(),
            interruptions: Mutex::default(),
            cut_off: Mutex::default(),
        })
    }

    pub fn begin(&self, fault: Fault) {
        if matches!(fault, Fault::PauseWorker(_)) || resets_calls(fault) {
            self.interrupted(Duration::ZERO);
        }
        let mut part_faults = self.part_faults.lock().unwrap();
        for part in parts(fault) {
            part_faults.entry(part).or_default().under_way += 1;
        }
    }

    pub fn end(&self, fault: Fault, lasted: Duration) {
        if cuts_off_postgres(fault) {
            self.interrupted(lasted);
        }
        if resets_calls(fault) {
            self.interrupted(Duration::ZERO);
        }
        if let Fault::PauseWorker(worker) | Fault::Connection(worker, Service::Postgres, _) = fault {
            let now = OffsetDateTime::now_utc();
            self.cut_off.lock().unwrap().push((worker, now - lasted, now));
        }
        let mut part_faults = self.part_faults.lock().unwrap();
        for part in parts(fault) {
            let part_faults = part_faults.entry(part).or_default();
            (part_faults.under_way, part_faults.ended) = (part_faults.under_way - 1, Some(Instant::now()));
        }
    }

    /// Records that a worker or its calls were interrupted until now, for as long as `lasted`.
    fn interrupted(&self, lasted: Duration) {
        let now = OffsetDateTime::now_utc();
        self.interruptions.lock().unwrap().push((now - lasted - BEFORE_SENDING, now + BEFORE_SENDING));
    }

    /// Lists unknown records whose last call was recorded while a worker or its calls were interrupted. That call may
    /// not have reached a proxy, so these records are no evidence for R13.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn unknown_by_interruption(&self) -> Result<Vec<String>, String> {
        let (from, to): (Vec<_>, Vec<_>) = self.interruptions.lock().unwrap().iter().copied().unzip();
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT merchant_id, merchant_payout_id FROM payout_links
            WHERE state = 'unknown' AND EXISTS (
                SELECT FROM unnest($1::timestamptz[], $2::timestamptz[]) AS interruption (began, ended)
                WHERE last_called_at BETWEEN began AND ended
            )",
        )
        .bind(from)
        .bind(to)
        .fetch_all(&self.pool)
        .await
        .map_err(|error| error.to_string())?;
        Ok(rows.into_iter().map(|(merchant_id, id)| key(&merchant_id, &id)).collect())
    }

    /// Says whether the worker ran without a pause and with a connection to the database for the whole period.
    pub fn lived(&self, env: &TestEnv, worker: usize, from: OffsetDateTime, to: OffsetDateTime) -> bool {
        let (from, to) = (from - BEFORE_SENDING, to + BEFORE_SENDING);
        let ends = env.fleet.ends.lock().unwrap();
        let cut_off = self.cut_off.lock().unwrap();
        !ends.iter().any(|(ended, at)| *ended == worker && (from..=to).contains(at))
            && !cut_off.iter().any(|(cut, began, ended)| *cut == worker && *began <= to && *ended >= from)
    }

    /// Returns how long the connector's provider, all connections to it and the database have been without a fault.
    fn well(&self, connector: &str) -> Duration {
        self.without_fault(|part| {
            matches!(part, Part::Database) || matches!(part, Part::Connector(name) if *name == connector)
        })
    }

    fn without_fault(&self, concerns: impl Fn(&Part) -> bool) -> Duration {
        let part_faults = self.part_faults.lock().unwrap();
        let of_part = |(part, part_faults): (&Part, &PartFaults)| match part_faults {
            _ if !concerns(part) => None,
            PartFaults { under_way: 0, ended } => ended.map(|ended| ended.elapsed()),
            PartFaults { .. } => Some(Duration::ZERO),
        };
        part_faults.iter().filter_map(of_part).min().unwrap_or(self.started.elapsed())
    }

    /// Samples called records that are due, until it is aborted.
    pub async fn watch(self: Arc<Self>, variant: Option<Variant>) {
        loop {
            sleep(Duration::from_secs(1)).await;
            // Without a database there is no sample, and every part counts as faulty.
            let _ = timeout(Duration::from_secs(3), self.look(variant)).await;
        }
    }

    async fn look(&self, variant: Option<Variant>) -> Result<(), sqlx::Error> {
        // Reads the oldest record of each connector, and the number of due ones.
        let rows: Vec<(String, String, String, i64, i64)> = sqlx::query_as(
            "SELECT DISTINCT ON (connector) connector, merchant_id, merchant_payout_id,
                (extract(epoch FROM now() - due_at) * 1000)::bigint, count(*) OVER (PARTITION BY connector)
            FROM payout_links WHERE state = 'open' AND attempts > 0 AND due_at < now()
            ORDER BY connector, due_at",
        )
        .fetch_all(&self.pool)
        .await?;
        for (connector, merchant_id, id, milliseconds, count) in rows {
            let capacity = variant.map_or(UNLIMITED, |variant| variant.capacity(&connector));
            // At least half of a connector's permits are for due work.
            let turns = Duration::from_millis(count.unsigned_abs() * 2000 / capacity);
            let sample = Overdue {
                what: format!("{} of {connector}, with {count} due", key(&merchant_id, &id)),
                overdue: Duration::from_millis(milliseconds.unsigned_abs()),
                well: self.well(&connector),
                bound: BOUND + turns,
            };
            let mut overdue = self.overdue.lock().unwrap();
            let known = overdue.remove(&id);
            overdue.insert(id, known.map_or(sample.clone(), |known| known.worse(sample)));
        }
        // A later event is as old as its id says.
        let oldest: Option<(String, i64)> = sqlx::query_as(
            "SELECT e.id::text, (extract(epoch FROM now() - began.at) * 1000)::bigint
            FROM events e JOIN payout_links p ON p.id = e.payout_link_id CROSS JOIN LATERAL (
                SELECT CASE WHEN e.sequence = 1 THEN p.concluded_at ELSE to_timestamp(
                    ('x0000' || left(replace(e.id::text, '-', ''), 12))::bit(64)::bigint / 1000.0
                ) END AS at
            ) AS began
            WHERE e.due_at IS NOT NULL AND e.published_at IS NULL ORDER BY began.at LIMIT 1",
        )
        .fetch_optional(&self.pool)
        .await?;
        if let Some((id, milliseconds)) = oldest {
            let sample = Overdue {
                what: id.clone(),
                overdue: Duration::from_millis(milliseconds.unsigned_abs()),
                well: self.without_fault(|part| !matches!(part, Part::Connector(_))),
                bound: PUBLISHED_WITHIN,
            };
            let mut unpublished = self.unpublished.lock().unwrap();
            let known = unpublished.remove(&id);
            unpublished.insert(id, known.map_or(sample.clone(), |known| known.worse(sample)));
        }
        Ok(())
    }

    /// Counts unfinished and finished work; `None` if the database does not answer. The second figure counts events
    /// that are finished except for a reply to a queue that rejects it.
    pub async fn progress(&self, env: &TestEnv, healed: Instant) -> Option<(Progress, usize)> {
        let counts = sqlx::query_as::<_, (i64, i64, i64, i64)>(
            "SELECT (SELECT count(*) FROM payout_links WHERE state = 'open'),
                count(*) FILTER (WHERE due_at IS NOT NULL), count(*) FILTER (WHERE due_at IS NULL),
                count(*) FILTER (WHERE due_at IS NOT NULL AND reply_due AND published_at IS NOT NULL
                    AND webhook_state <> 'pending') FROM events",
        );
        let counted = timeout(Duration::from_secs(5), counts.fetch_one(&self.pool)).await;
        let (open, due, done, replies) = counted.ok()?.ok()?;
        let (concluded, rejected) = {
            let inbox = env.upstream.inbox.lock().unwrap();
            (inbox.concluded.len(), inbox.rejected.len())
        };
        let left = (open + due - replies).unsigned_abs() as usize + env.upstream.unanswered();
        let finished = concluded + rejected + (done + replies).unsigned_abs() as usize;
        let progress = Progress { after: healed.elapsed(), finished, left };
        self.progress.lock().unwrap().push(progress);
        Some((progress, replies.unsigned_abs() as usize))
    }

    /// Lists records and events that are due now.
    pub async fn overdue_at_end(&self) -> Result<Vec<Overdue>, String> {
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "SELECT merchant_payout_id, (extract(epoch FROM now() - due_at) * 1000)::bigint
            FROM payout_links WHERE state = 'open' AND due_at < now()
            UNION ALL SELECT id::text, (extract(epoch FROM now() - due_at) * 1000)::bigint
            FROM events WHERE due_at < now()",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(|error| error.to_string())?;
        let overdue = rows.into_iter().map(|(what, milliseconds)| Overdue {
            what,
            overdue: Duration::from_millis(milliseconds.unsigned_abs()),
            well: Duration::ZERO,
            bound: BOUND_AT_END,
        });
        Ok(overdue.collect())
    }

    pub fn all(&self) -> (Vec<Overdue>, Vec<Progress>) {
        let overdue = self.overdue.lock().unwrap().values().cloned().collect();
        (overdue, self.progress.lock().unwrap().clone())
    }

    pub fn unpublished(&self) -> Vec<Overdue> {
        self.unpublished.lock().unwrap().values().cloned().collect()
    }

    /// Returns when each record was concluded.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn concluded_at(&self) -> Result<HashMap<String, OffsetDateTime>, String> {
        let rows: Vec<(String, String, OffsetDateTime)> = sqlx::query_as(
            "SELECT merchant_id, merchant_payout_id, concluded_at FROM payout_links WHERE concluded_at IS NOT NULL",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(|error| error.to_string())?;
        Ok(rows.into_iter().map(|(merchant_id, id, at)| (key(&merchant_id, &id), at)).collect())
    }

    /// Lists the events after the first ones of their records.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn later(&self) -> Result<Vec<LaterEvent>, String> {
        type Row = (String, String, String, String, bool, bool, bool, String, i32);
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT merchant_id, merchant_payout_id, e.id::text, e.type, e.published_at IS NOT NULL,
                e.due_at IS NOT NULL, e.holder IS NOT NULL, e.webhook_state, e.webhook_attempts
            FROM events e JOIN payout_links p ON p.id = e.payout_link_id WHERE e.sequence > 1",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(|error| error.to_string())?;
        let later = rows.into_iter().map(
            |(merchant_id, merchant_payout_id, id, kind, published, due, leased, webhook_state, attempts)| {
                let webhook_attempts = attempts.unsigned_abs();
                let event = Event { id, kind, published, due, leased, webhook_state, webhook_attempts };
                LaterEvent { key: key(&merchant_id, &merchant_payout_id), event }
            },
        );
        Ok(later.collect())
    }

    /// Lists keys of links with a next question too late for the run to wait for it, so a reversal may go unnoticed.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn asked_later(&self) -> Result<HashSet<String>, String> {
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT merchant_id, merchant_payout_id FROM payout_links
            WHERE follow_due_at > now() + $1 * interval '1 second'",
        )
        .bind(ASKED_WITHIN.as_secs_f64())
        .fetch_all(&self.pool)
        .await
        .map_err(|error| error.to_string())?;
        Ok(rows.into_iter().map(|(merchant_id, id)| key(&merchant_id, &id)).collect())
    }

    pub fn recoveries(&self) -> Vec<Option<Duration>> {
        self.recoveries.lock().unwrap().clone()
    }

    async fn now(&self) -> Option<OffsetDateTime> {
        let now = sqlx::query_scalar("SELECT now()").fetch_one(&self.pool);
        timeout(Duration::from_secs(3), now).await.ok()?.ok()
    }

    /// Measures the time until no record that had been called before is open any more.
    async fn recovered(self: Arc<Self>, before: OffsetDateTime) {
        let killed = Instant::now();
        let recovered = loop {
            let left = sqlx::query_scalar::<_, i64>(
                "SELECT count(*) FROM payout_links WHERE state = 'open' AND first_called_at <= $1",
            );
            let left = left.bind(before).fetch_one(&self.pool);
            if let Ok(Ok(0)) = timeout(Duration::from_secs(3), left).await {
                break Some(killed.elapsed());
            }
            if killed.elapsed() > PATIENCE {
                break None;
            }
            sleep(Duration::from_millis(100)).await;
        };
        self.recoveries.lock().unwrap().push(recovered);
    }
}

/// Kills a worker with SIGKILL, and measures in the background when all its open records are concluded.
pub async fn kill(env: &TestEnv, worker: usize) {
    let now = env.samples.now().await;
    env.samples.interrupted(Duration::ZERO);
    env.fleet.kill(worker);
    if let Some(now) = now {
        tokio::spawn(env.samples.clone().recovered(now));
    }
}

/// Says whether a worker may wait for the answer to a write that was committed.
fn cuts_off_postgres(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::KillPostgres
            | Fault::Connection(_, Service::Postgres, _)
            | Fault::Overload(Overload::FreezePostgres | Overload::PostgresAway)
    )
}

/// Says whether the fault begins or ends with a reset. A proxy may not have read the bytes that were sent at that
/// moment.
fn resets_calls(fault: Fault) -> bool {
    matches!(fault, Fault::Connection(_, Service::Connector(_), _))
}

/// Lists the parts that the fault takes from due work. If one worker is away, the others do the work.
fn parts(fault: Fault) -> Vec<Part> {
    match fault {
        Fault::KillPostgres | Fault::Overload(Overload::FreezePostgres | Overload::PostgresAway) => {
            vec![Part::Database]
        }
        Fault::Connector(place, _) | Fault::Connection(_, Service::Connector(place), _) => {
            vec![Part::Connector(CONNECTORS[place].name)]
        }
        Fault::Overload(Overload::Breaks(_)) => {
            let connectors = CONNECTORS.iter().map(|connector| Part::Connector(connector.name));
            connectors.chain([Part::RabbitMq]).collect()
        }
        Fault::KillNode(_)
        | Fault::RestartNode(_)
        | Fault::KillLeader
        | Fault::KillMajority(_)
        | Fault::Alarm(_)
        | Fault::Connection(_, Service::RabbitMq, _)
        | Fault::Overload(Overload::Closes(_) | Overload::ConsumerTimeout | Overload::FullResults) => {
            vec![Part::RabbitMq]
        }
        Fault::KillWorker(_)
        | Fault::PauseWorker(_)
        | Fault::RestartWorker(_)
        | Fault::RollingRestart
        | Fault::Connection(_, Service::Postgres, _)
        | Fault::Overload(Overload::Kills | Overload::Stops) => vec![Part::Workers],
        Fault::Overload(Overload::Rename) => {
            vec![Part::Connector(ROAMING.name), Part::Workers]
        }
        _ => Vec::new(),
    }
}
