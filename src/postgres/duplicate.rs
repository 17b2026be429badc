//! `duplicate`: handles a job whose key is taken. The job gets the stored result if the record is concluded. If the
//! record is open, it gets the job's `reply_to` and fresh secrets. If it is another request, the fields that differ
//! are returned.

use std::collections::HashMap;

use secrecy::{ExposeSecret, SecretString};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, accepted::Accepted, batch::column, connect::answered, error::StoreError, seal::Column};
use crate::{
    contract::{self, CanonicalRequest, StatusUpdate},
    domain::{CreateLink, EventType, LinkStatus, PayoutLinkState},
};

/// `merchant_id` and `merchant_payout_id`.
pub(super) type Key<'a> = (&'a str, &'a str);

/// The record that has the key.
#[derive(Clone)]
pub(super) struct Found {
    pub(super) id: Uuid,
    fingerprint: Vec<u8>,
    connector: String,
    amount_minor: i64,
    currency: String,
    destination_currency: String,
    request: Option<Vec<u8>>,
    pub(super) created_at: OffsetDateTime,
    finished: Option<Finished>,
}

#[derive(Clone)]
struct Finished {
    state: String,
    link_status: Option<String>,
    event_id: Uuid,
    result: Vec<u8>,
    newest: Option<Newest>,
}

/// The newest of the later events.
#[derive(Clone)]
struct Newest {
    event_id: Uuid,
    event_type: EventType,
    update: StatusUpdate,
}

/// A job whose key is taken.
pub(super) struct Duplicate<'a> {
    pub(super) job: &'a CreateLink,
    pub(super) request: &'a CanonicalRequest,
    /// The connector, if the job names one itself.
    pub(super) connector: Option<&'a str>,
    pub(super) reply_to: Option<&'a str>,
    pub(super) correlation_id: Option<&'a str>,
}

/// Values of a duplicate that its record does not have.
struct Fresh {
    /// The stored request with these values, encrypted.
    request: Vec<u8>,
    webhook_url: Option<String>,
}

/// Finds the records that have these keys. This is a statement of its own: only a new snapshot shows what another
/// transaction committed while the insert waited for it.
pub(super) async fn find<'a>(
    connection: &mut PgConnection,
    keys: &[Key<'a>],
) -> Result<HashMap<Key<'a>, Found>, StoreError> {
    let found = sqlx::query!(
        r#"
        SELECT
            place AS "place!", p.id, request_fingerprint, connector, amount_minor, currency,
            destination_currency, request, state, event_id, result, created_at, newest_event_id, newest_event_type,
            payout_status, occurred_at, sequence, status_error, link_status
        FROM UNNEST($1::text[], $2::text[]) WITH ORDINALITY AS wanted (merchant_id, merchant_payout_id, place)
        JOIN payout_links p ON p.merchant_payout_id = ANY (ARRAY[wanted.merchant_payout_id])
            AND p.merchant_id = wanted.merchant_id
        "#,
        &column(keys, |(merchant_id, _)| merchant_id) as &[&str],
        &column(keys, |(_, merchant_payout_id)| merchant_payout_id) as &[&str],
    )
    .fetch_all(connection)
    .await?;
    let place = |place: i64| usize::try_from(place - 1).ok().and_then(|place| keys.get(place));
    Ok(found
        .into_iter()
        .filter_map(|row| {
            let newest = row.newest_event_id.zip(row.payout_status).zip(row.occurred_at);
            let newest = newest.and_then(|((event_id, payout_status), occurred_at)| {
                let sequence = u32::try_from(row.sequence).unwrap_or_default();
                let update = StatusUpdate { sequence, payout_status, occurred_at, error: row.status_error };
                // A type of a later version: the conclusion is the newest event that this version knows.
                let event_type = EventType::parse(&row.newest_event_type?)?;
                Some(Newest { event_id, event_type, update })
            });
            let finished = match (row.event_id, row.result) {
                (Some(event_id), Some(result)) => Some(Finished {
                    state: row.state,
                    link_status: row.link_status,
                    event_id,
                    result,
                    newest,
                }),
                _ => None,
            };
            let found = Found {
                id: row.id,
                fingerprint: row.request_fingerprint,
                connector: row.connector,
                amount_minor: row.amount_minor,
                currency: row.currency,
                destination_currency: row.destination_currency,
                request: row.request,
                created_at: row.created_at,
                finished,
            };
            Some((*place(row.place)?, found))
        })
        .collect())
}

impl Store {
    /// Handles a job as a duplicate of an accepted one, if it is one. Returns `None` if its key is free or belongs to
    /// another request.
    ///
    /// The caller asks this before it rejects a job for a reason that depends on the configuration, which may have
    /// changed since the job was accepted. `connector` is the one that the job names itself.
    ///
    /// # Errors
    ///
    /// As [`Store::accept`].
    pub async fn accepted_before(
        &self,
        merchant_id: &str,
        job: &CreateLink,
        connector: Option<&str>,
        reply_to: Option<&str>,
        correlation_id: Option<&str>,
    ) -> Result<Option<Accepted>, StoreError> {
        let key = (merchant_id, job.merchant_payout_id.as_str());
        let found = self
            .patiently(|| async {
                let found = async {
                    let mut connection = self.pool.acquire().await.map_err(StoreError::from)?;
                    find(&mut connection, &[key]).await
                };
                Ok(answered(&self.pool, found).await?.remove(&key))
            })
            .await?;
        let Some(first) = found else { return Ok(None) };
        let request = &contract::canonical_request(job);
        let duplicate = Duplicate { job, request, connector, reply_to, correlation_id };
        match self.duplicate(first, duplicate).await? {
            Accepted::Conflict { .. } => Ok(None),
            accepted => Ok(Some(accepted)),
        }
    }

    /// Returns the newest event of a record; `None` if it is not concluded.
    pub(super) fn replayed(&self, found: Found) -> Result<Option<Accepted>, StoreError> {
        found.finished.map(|finished| self.finished(found.id, found.connector, finished)).transpose()
    }

    pub(super) async fn duplicate(
        &self,
        first: Found,
        duplicate: Duplicate<'_>,
    ) -> Result<Accepted, StoreError> {
        // A job that names no connector is for the connector of its record, even if the default has changed.
        let is_its_connector = duplicate.connector.is_none_or(|connector| connector == first.connector);
        if !is_its_connector || !self.is_same_request(&first, &duplicate) {
            return Ok(Accepted::Conflict { fields: self.differences(&first, &duplicate) });
        }
        match first.finished {
            Some(finished) => self.finished(first.id, first.connector, finished),
            None => self.patiently(|| self.take_over(&first, &duplicate)).await,
        }
    }

    /// Compares the fingerprint under every key of the ring, then the stored request if it is not erased.
    fn is_same_request(&self, first: &Found, duplicate: &Duplicate<'_>) -> bool {
        let matches = |key| {
            contract::fingerprint(duplicate.request, &first.connector, key)[..] == first.fingerprint[..]
        };
        self.keys.fingerprints.iter().any(matches)
            || self
                .stored(first)
                .is_some_and(|stored| contract::differences(&stored, duplicate.job).is_empty())
    }

    /// Returns the first request; `None` if it is erased or cannot be decrypted.
    fn stored(&self, first: &Found) -> Option<CreateLink> {
        let sealed = first.request.as_deref()?;
        let request = self.keys.open(Column::Request, first.id, sealed).ok()?;
        contract::stored_request(&request).ok()
    }

    fn finished(&self, id: Uuid, connector: String, finished: Finished) -> Result<Accepted, StoreError> {
        let result = self
            .keys
            .open(Column::Result, id, &finished.result)
            .map_err(|error| StoreError::inconsistent("payout_links", "result", id, error))?;
        if let Some(Newest { event_id, event_type, update }) = finished.newest {
            let result = contract::status_update(&result, &update)
                .ok_or_else(|| StoreError::inconsistent("payout_links", "status_error", id, "not JSON"))?;
            return Ok(Accepted::Finished { event_id, event_type, connector, result: result.into() });
        }
        let state = PayoutLinkState::parse(&finished.state);
        let is_cancelled = state == Some(PayoutLinkState::Failed)
            && finished.link_status.as_deref() == Some(LinkStatus::Cancelled.as_str());
        let of_state = || state.and_then(PayoutLinkState::event_type);
        // It was cancelled before its call.
        let event_type = is_cancelled.then_some(EventType::Cancelled).or_else(of_state).ok_or_else(|| {
            StoreError::inconsistent("payout_links", "state", id, format!("{:?}", finished.state))
        })?;
        Ok(Accepted::Finished { event_id: finished.event_id, event_type, connector, result })
    }

    /// Stores the recipient and the fresh values of a duplicate of an open record. The result goes to the last job's
    /// `reply_to`. The record is processed with the access token, browser information and webhook URL of the last job
    /// that had them.
    async fn take_over(&self, first: &Found, duplicate: &Duplicate<'_>) -> Result<Accepted, StoreError> {
        let fresh = self.refreshed(first, duplicate.job)?;
        if duplicate.reply_to.is_none() && fresh.is_none() {
            return Ok(Accepted::InProgress);
        }
        let (request, webhook_url) = fresh.map(|fresh| (fresh.request, fresh.webhook_url)).unzip();
        let taken_over = sqlx::query!(
            // Selected by its id alone: with another condition the planner might read the whole index of open rows.
            "UPDATE payout_links SET
                reply_to = coalesce($2, reply_to),
                correlation_id = CASE WHEN $2::text IS NULL THEN correlation_id ELSE $3 END,
                request = coalesce($4, request),
                fresh_webhook_url = coalesce($5, fresh_webhook_url),
                refreshed_at = CASE WHEN $4::bytea IS NULL THEN refreshed_at ELSE now() END
             WHERE id = $1 AND concluded_at IS NULL",
            first.id,
            duplicate.reply_to,
            duplicate.correlation_id,
            request,
            webhook_url.flatten(),
        )
        .execute(&self.pool);
        let taken_over = answered(&self.pool, taken_over).await?;
        if taken_over.rows_affected() == 1 {
            return Ok(Accepted::InProgress);
        }
        // The record was concluded between the two statements.
        let row = sqlx::query!(
            r#"SELECT state, link_status, event_id AS "event_id!", result AS "result!" FROM payout_links WHERE id = $1"#,
            first.id
        )
        .fetch_one(&self.pool);
        let row = answered(&self.pool, row).await?;
        let finished = Finished {
            state: row.state,
            link_status: row.link_status,
            event_id: row.event_id,
            result: row.result,
            newest: None,
        };
        self.finished(first.id, first.connector.clone(), finished)
    }

    /// Returns the stored request with the fresh values of the duplicate, encrypted, and the webhook URL if that is
    /// fresh.
    fn refreshed(&self, first: &Found, job: &CreateLink) -> Result<Option<Fresh>, StoreError> {
        if job.access_token.is_none() && job.browser_info.is_none() && job.webhook_url.is_none() {
            return Ok(None);
        }
        let Some(sealed) = first.request.as_deref() else { return Ok(None) };
        let unreadable =
            |reason: String| StoreError::inconsistent("payout_links", "request", first.id, reason);
        let request = self
            .keys
            .open(Column::Request, first.id, sealed)
            .map_err(|error| unreadable(error.to_string()))?;
        let mut stored =
            contract::stored_request(&request).map_err(|rejection| unreadable(rejection.message))?;
        let before = contract::canonical_request(&stored);
        if let Some(token) = &job.access_token
            && stored.access_token.as_ref().map(SecretString::expose_secret) != Some(token.expose_secret())
        {
            stored.access_token = Some(token.clone());
        }
        if job.browser_info.is_some() {
            stored.browser_info.clone_from(&job.browser_info);
        }
        let is_fresh_url = job.webhook_url.is_some() && job.webhook_url != stored.webhook_url;
        if is_fresh_url {
            stored.webhook_url.clone_from(&job.webhook_url);
        }
        let after = contract::canonical_request(&stored);
        if before.as_bytes() == after.as_bytes() {
            return Ok(None);
        }
        let webhook_url =
            job.webhook_url.as_ref().filter(|_| is_fresh_url).map(|url| url.as_str().to_owned());
        let request = self.keys.seal(Column::Request, first.id, after.as_bytes());
        Ok(Some(Fresh { request, webhook_url }))
    }

    /// Returns the paths that differ, never their values. If the first request is erased, the row's unencrypted
    /// columns are compared.
    fn differences(&self, first: &Found, duplicate: &Duplicate<'_>) -> Vec<String> {
        let job = duplicate.job;
        let mut fields = Vec::new();
        if duplicate.connector.is_some_and(|connector| connector != first.connector) {
            fields.push("x-connector".to_owned());
        }
        if let Some(stored) = self.stored(first) {
            fields.extend(contract::differences(&stored, job));
            return fields;
        }
        let clear = [
            ("amount.minor_amount", first.amount_minor != job.amount.minor_units()),
            ("amount.currency", first.currency != job.amount.currency.as_str()),
            ("destination_currency", first.destination_currency != job.destination_currency.as_str()),
        ];
        fields.extend(clear.into_iter().filter(|(_, differs)| *differs).map(|(path, _)| path.to_owned()));
        fields
    }
}
