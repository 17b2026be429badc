//! `accept`: stores a job as a row, once for its key.

use std::{sync::Arc, time::Duration};

use sqlx::PgConnection;
use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    Store,
    accepted::Accepted,
    batch::{Statement, column},
    duplicate::{Duplicate, Found, Key, find},
    error::StoreError,
    numbers::millis,
    record_id::Identity,
    seal::Column,
    timeline::note_duplicates,
};
use crate::{
    contract,
    domain::{AccountId, CreateLink, Lease, OpenLink, Progress, ServiceClass, TraceContext, service_rank},
};

/// A job that is not stored yet.
pub struct NewLink {
    /// Value of `x-merchant-id`; may be empty.
    pub merchant_id: String,
    /// The connector's name in the configuration.
    pub connector: String,
    /// Whether the job named the connector itself, or got the configured default.
    pub connector_is_named: bool,
    /// The request.
    pub job: Box<CreateLink>,
    /// The queue that the requester wants the result in.
    pub reply_to: Option<String>,
    /// Returned to the requester unchanged.
    pub correlation_id: Option<String>,
    /// The trace of the job, continued in results, calls and webhooks.
    pub trace: TraceContext,
    /// Whether the call is made at once, or the record is parked.
    pub hold: Hold,
    /// The account of a call that begins with the same write.
    pub account: AccountId,
    /// A worker whose writes were lost in a restore may have made a call for this job, at this time or later. Such a
    /// job is parked.
    pub lost_call_from: Option<OffsetDateTime>,
}

/// Whether the connector can be called at once, and how the row is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// It can be called. The row gets a lease, and its first call begins with the same write.
    BeginCall,
    /// It can be called. The row gets a lease. The call begins with a write of its own, after the answer to this
    /// write.
    ///
    /// For connectors that can neither look up a link nor repeat a call safely. If this write's answer is lost, or
    /// the worker dies before it calls, no call has begun, and the record does not end as unknown.
    Lease,
    /// It cannot be called now. The row has no lease and no call, and is due after this time.
    Park(Duration),
}

pub(super) struct Accept {
    pub(super) lease: Duration,
}

/// One row to insert, with everything expensive already computed.
pub(super) struct Row {
    id: Uuid,
    holder: Uuid,
    asked_at: Instant,
    merchant_id: String,
    merchant_payout_id: String,
    fingerprint: [u8; 32],
    connector: String,
    amount_minor: i64,
    currency: &'static str,
    destination_currency: &'static str,
    request: Vec<u8>,
    reply_to: Option<String>,
    correlation_id: Option<String>,
    trace: TraceContext,
    hold: Hold,
    account: AccountId,
    lost_call_from: Option<OffsetDateTime>,
    service_rank: i16,
}

/// The database's answer for one row.
pub(super) enum Answer {
    Inserted { created_at: OffsetDateTime },
    Found(Box<Found>),
}

impl Store {
    /// Stores a job. Once this returns a value, the job is accounted for.
    ///
    /// Tries until the database answers, or `wanted` returns false: the delivery's session has ended, and the broker
    /// delivers the job again.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`; `Unavailable` only for a job that is not wanted any more.
    pub async fn accept(
        &self,
        new: NewLink,
        wanted: impl Fn() -> bool + Send,
    ) -> Result<Accepted, StoreError> {
        let NewLink {
            merchant_id,
            connector,
            connector_is_named,
            job,
            reply_to,
            correlation_id,
            trace,
            hold,
            account,
            lost_call_from,
        } = new;
        let id = self.keys.record_id(Identity {
            merchant_id: &merchant_id,
            merchant_payout_id: job.merchant_payout_id.as_str(),
            connector: &connector,
        });
        let request = contract::canonical_request(&job);
        // The same row, id and holder in every try: a try finds the row of an earlier one whose answer was lost.
        let row = Arc::new(Row {
            id,
            holder: self.worker.claim_id(),
            asked_at: Instant::now(),
            merchant_id,
            merchant_payout_id: job.merchant_payout_id.as_str().to_owned(),
            fingerprint: contract::fingerprint(&request, &connector, &self.keys.fingerprints[0]),
            connector,
            amount_minor: job.amount.minor_units(),
            currency: job.amount.currency.as_str(),
            destination_currency: job.destination_currency.as_str(),
            request: self.keys.seal(Column::Request, id, request.as_bytes()),
            reply_to,
            correlation_id,
            trace,
            hold,
            account,
            lost_call_from,
            service_rank: service_rank(
                match hold {
                    // The row is due: its lease expired after a call had begun.
                    Hold::BeginCall | Hold::Lease => ServiceClass::Unknown,
                    Hold::Park(_) if lost_call_from.is_some() => ServiceClass::Unknown,
                    Hold::Park(_) => ServiceClass::New,
                },
                job.priority,
            ),
        });
        let accepting = self.patiently_while(wanted, || self.accepting.submit(row.clone()));
        match self.availability.watch(accepting).await? {
            Answer::Inserted { .. } if matches!(hold, Hold::Park(_)) => Ok(Accepted::Parked),
            Answer::Inserted { created_at } => {
                Ok(Accepted::New(Box::new(self.open_link(&row, job, created_at))))
            }
            // Boxed: duplicates are rare.
            Answer::Found(first) => {
                let duplicate = Duplicate {
                    job: &job,
                    request: &request,
                    connector: connector_is_named.then_some(&row.connector),
                    reply_to: row.reply_to.as_deref(),
                    correlation_id: row.correlation_id.as_deref(),
                };
                Box::pin(self.duplicate(*first, duplicate)).await
            }
        }
    }

    fn open_link(&self, row: &Row, job: Box<CreateLink>, created_at: OffsetDateTime) -> OpenLink {
        OpenLink {
            id: row.id,
            merchant_id: row.merchant_id.clone(),
            connector: row.connector.clone(),
            job,
            progress: Progress::new(created_at),
            last_sequence: 0,
            lease: Lease {
                holder: row.holder,
                granted_at: created_at,
                asked_at: row.asked_at,
                answered_at: Instant::now(),
                length: self.settings.lease,
            },
            call_is_written: row.hold == Hold::BeginCall,
            trace: row.trace.clone(),
            calls: Vec::new(),
        }
    }
}

impl Statement for Accept {
    type Item = Arc<Row>;
    type Answer = Answer;

    fn weight(row: &Arc<Row>) -> usize {
        row.request.len()
    }

    async fn run(
        &self,
        connection: &mut PgConnection,
        rows: &[Arc<Row>],
    ) -> Result<Vec<Result<Answer, StoreError>>, StoreError> {
        // Sorted by key: unsorted batches deadlock on each other's keys. The sort is stable, so the first of two
        // equal jobs stays first.
        let mut sorted: Vec<&Row> = rows.iter().map(AsRef::as_ref).collect();
        sorted.sort_by_key(|row| row.key());
        let inserted = self.insert(connection, &sorted).await?;
        if inserted.len() == rows.len() {
            return Ok(inserted.into_iter().map(|created_at| Ok(Answer::Inserted { created_at })).collect());
        }
        let keys = column(&sorted, |row| row.key());
        let found = find(connection, &keys).await?;
        let again = |row: &&Row| found.get(&row.key()).map(|first| first.id).filter(|id| *id != row.id);
        note_duplicates(connection, &sorted.iter().filter_map(again).collect::<Vec<_>>()).await?;
        Ok(rows
            .iter()
            .map(|row| match found.get(&row.key()) {
                Some(first) if first.id == row.id => Ok(Answer::Inserted { created_at: first.created_at }),
                Some(first) => Ok(Answer::Found(Box::new(first.clone()))),
                // Neither inserted nor found: a record is never deleted, so a snapshot is late. Try again.
                None => Err(StoreError::Unavailable("a conflicting record is not visible yet".into())),
            })
            .collect())
    }
}

impl Row {
    fn key(&self) -> Key<'_> {
        (&self.merchant_id, &self.merchant_payout_id)
    }
}

/// The statement, for rows as columns and for a single row as parameters. The second form costs PostgreSQL a fifth
/// less.
macro_rules! insert {
    ($rows:literal, $($parameters:tt)*) => {
        sqlx::query_scalar!(
            "
            INSERT INTO payout_links (
                id, holder, merchant_id, merchant_payout_id, request_fingerprint, connector, amount_minor, currency,
                destination_currency, request, reply_to, correlation_id, traceparent, tracestate, state, attempts,
                first_called_at, last_called_at, in_doubt_since, uncalled_holder, account, due_at, service_rank
            )
            SELECT
                id, CASE WHEN leased THEN holder END, merchant_id, merchant_payout_id, request_fingerprint,
                connector, amount_minor, currency, destination_currency, request, reply_to, correlation_id,
                traceparent, tracestate, 'open', CASE WHEN called THEN 1 ELSE 0 END,
                CASE WHEN called THEN now() ELSE lost_call_from END, CASE WHEN called THEN now() END,
                CASE WHEN lost_call_from IS NOT NULL THEN now() END,
                CASE WHEN leased AND NOT called THEN holder END, account,
                now() + due_in_ms * interval '1 millisecond', service_rank
            FROM " + $rows + " AS new (
                id, holder, merchant_id, merchant_payout_id, request_fingerprint, connector, amount_minor, currency,
                destination_currency, request, reply_to, correlation_id, traceparent, tracestate, leased, called, due_in_ms,
                service_rank, account, lost_call_from
            )
            ON CONFLICT ON CONSTRAINT payout_links_key DO NOTHING
            RETURNING created_at
            ",
            $($parameters)*
        )
    };
}

impl Accept {
    /// Inserts the rows whose keys are new. Returns one time for each inserted row: the time of the statement.
    async fn insert(
        &self,
        connection: &mut PgConnection,
        rows: &[&Row],
    ) -> Result<Vec<OffsetDateTime>, StoreError> {
        let leased = |row: &Row| matches!(row.hold, Hold::BeginCall | Hold::Lease);
        let called = |row: &Row| row.hold == Hold::BeginCall;
        let account = account_called;
        let due_in = |row: &Row| match row.hold {
            Hold::BeginCall | Hold::Lease => millis(self.lease),
            Hold::Park(pause) => millis(pause),
        };
        Ok(match rows {
            [row] => insert!(
                "(VALUES (
                    $1::uuid, $2::uuid, $3::text, $4::text, $5::bytea, $6::text, $7::bigint, $8::text, $9::text,
                    $10::bytea, $11::text, $12::text, $13::text, $14::text, $15::boolean, $16::boolean,
                    $17::bigint, $18::smallint, $19::text, $20::timestamptz
                ))",
                row.id,
                row.holder,
                row.merchant_id,
                row.merchant_payout_id,
                &row.fingerprint[..],
                row.connector,
                row.amount_minor,
                row.currency,
                row.destination_currency,
                &row.request[..],
                row.reply_to.as_deref(),
                row.correlation_id.as_deref(),
                row.trace.traceparent.as_deref(),
                row.trace.tracestate.as_deref(),
                leased(row),
                called(row),
                due_in(row),
                row.service_rank,
                account(row),
                row.lost_call_from,
            )
            .fetch_all(connection)
            .await?,
            rows => insert!(
                "(SELECT
                    unnest($1::uuid[]), unnest($2::uuid[]), unnest($3::text[]), unnest($4::text[]),
                    unnest($5::bytea[]), unnest($6::text[]), unnest($7::bigint[]), unnest($8::text[]),
                    unnest($9::text[]), unnest($10::bytea[]), unnest($11::text[]), unnest($12::text[]),
                    unnest($13::text[]), unnest($14::text[]), unnest($15::boolean[]), unnest($16::boolean[]),
                    unnest($17::bigint[]), unnest($18::smallint[]), unnest($19::text[]),
                    unnest($20::timestamptz[])
                )",
                &column(rows, |row| row.id),
                &column(rows, |row| row.holder),
                &column(rows, |row| &*row.merchant_id) as &[&str],
                &column(rows, |row| &*row.merchant_payout_id) as &[&str],
                &column(rows, |row| &row.fingerprint[..]) as &[&[u8]],
                &column(rows, |row| &*row.connector) as &[&str],
                &column(rows, |row| row.amount_minor),
                &column(rows, |row| row.currency) as &[&str],
                &column(rows, |row| row.destination_currency) as &[&str],
                &column(rows, |row| &row.request[..]) as &[&[u8]],
                &column(rows, |row| row.reply_to.as_deref()) as &[Option<&str>],
                &column(rows, |row| row.correlation_id.as_deref()) as &[Option<&str>],
                &column(rows, |row| row.trace.traceparent.as_deref()) as &[Option<&str>],
                &column(rows, |row| row.trace.tracestate.as_deref()) as &[Option<&str>],
                &column(rows, leased),
                &column(rows, called),
                &column(rows, due_in),
                &column(rows, |row| row.service_rank),
                &column(rows, account) as &[Option<&str>],
                &column(rows, |row| row.lost_call_from) as &[Option<OffsetDateTime>],
            )
            .fetch_all(connection)
            .await?,
        })
    }
}

/// Returns the account of a call that begins with the insert.
fn account_called(row: &Row) -> Option<&str> {
    (row.hold == Hold::BeginCall).then(|| row.account.as_str())
}
