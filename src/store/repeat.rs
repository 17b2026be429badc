//! What a job gets whose key is taken: the first one's result, where that is finished; a place for its own reply, where
//! it is not; or the fields in which it is another request.

use std::collections::HashMap;

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Store, StoreError,
    accept::{Accepted, Row},
    batch::column,
    conclude,
    connect::answered,
    seal::Column,
};
use crate::{domain::CreateLink, wire};

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
    event_id: Uuid,
    result: Vec<u8>,
}

/// What was there before: a statement of its own, since only a new snapshot sees what a rival committed while
/// the insert waited for it.
pub(super) async fn find<'a>(
    connection: &mut PgConnection,
    keys: &[Key<'a>],
) -> Result<HashMap<Key<'a>, Found>, StoreError> {
    let found = sqlx::query!(
        r#"
        SELECT
            place AS "place!", p.id, request_fingerprint, connector, amount_minor, currency,
            destination_currency, request, state, event_id, result, created_at
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
            let finished = match (row.event_id, row.result) {
                (Some(event_id), Some(result)) => Some(Finished { state: row.state, event_id, result }),
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
    pub(super) async fn repeat(
        &self,
        first: Found,
        row: &Row,
        job: &CreateLink,
    ) -> Result<Accepted, StoreError> {
        if first.fingerprint != row.fingerprint {
            return Ok(Accepted::Conflict { fields: self.differences(&first, job, &row.connector) });
        }
        match first.finished {
            Some(finished) => self.finished(first.id, finished),
            None => self.patiently(|| self.redirect(first.id, row)).await,
        }
    }

    fn finished(&self, id: Uuid, finished: Finished) -> Result<Accepted, StoreError> {
        let result = self
            .keys
            .open(Column::Result, id, &finished.result)
            .map_err(|error| StoreError::inconsistent("payout_links", "result", id, error))?;
        let event_type = conclude::event_type(&finished.state).ok_or_else(|| {
            StoreError::inconsistent("payout_links", "state", id, format!("{:?}", finished.state))
        })?;
        Ok(Accepted::Finished { event_id: finished.event_id, event_type, result })
    }

    /// The result of a record that is not finished goes to whoever asked last.
    async fn redirect(&self, id: Uuid, row: &Row) -> Result<Accepted, StoreError> {
        if row.reply_to.is_none() {
            return Ok(Accepted::InProgress);
        }
        let redirected = sqlx::query!(
            // By its id alone: the planner knows an index of what is open, and might read all of it.
            "UPDATE payout_links SET reply_to = $2, correlation_id = $3 WHERE id = $1 AND concluded_at IS NULL",
            id,
            row.reply_to,
            row.correlation_id
        )
        .execute(&self.pool);
        let redirected = answered(&self.pool, redirected).await?;
        if redirected.rows_affected() == 1 {
            return Ok(Accepted::InProgress);
        }
        // Finished between the two statements.
        let row = sqlx::query!(
            r#"SELECT state, event_id AS "event_id!", result AS "result!" FROM payout_links WHERE id = $1"#,
            id
        )
        .fetch_one(&self.pool);
        let row = answered(&self.pool, row).await?;
        self.finished(id, Finished { state: row.state, event_id: row.event_id, result: row.result })
    }

    /// The paths that differ, never their values. When the first request has been erased, what the row has in the
    /// clear is left to tell by.
    fn differences(&self, first: &Found, job: &CreateLink, connector: &str) -> Vec<String> {
        let mut fields = Vec::new();
        if first.connector != connector {
            fields.push("x-connector".to_owned());
        }
        let stored = first
            .request
            .as_deref()
            .and_then(|sealed| self.keys.open(Column::Request, first.id, sealed).ok())
            .and_then(|request| wire::stored_request(&request).ok());
        if let Some(stored) = stored {
            fields.extend(wire::differences(&stored, job));
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
