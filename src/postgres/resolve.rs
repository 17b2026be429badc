//! `resolve`, `reopen`: an operator ends an unknown record, or has a failed one tried again. State, event and act are one
//! commit, which counts only if the record is as the operator saw it.

use serde_json::Value;
use uuid::Uuid;

use super::{
    Store,
    acted::ActedRecord,
    conclude_again::{LastEvent, NextConclusion, conclude_again},
    connect::answered,
    error::StoreError,
    numbers::millis,
    operator_actions::{self, Operator},
    seal::Column,
};
use crate::{
    contract::EventContent,
    domain::{
        ConclusionCode, LinkStatus, PayoutLinkState, ServiceClass, WebhookUrl, retry::Reopening, service_rank,
    },
};

/// Whether an act counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acted {
    /// The act and its effect are stored.
    Done,
    /// The record is not as it was when it was read. Nothing is stored.
    Changed,
    /// The result of the last event is not published yet, or its reply. Nothing is stored.
    Unpublished,
}

/// An act as it is stored.
#[derive(Debug, Clone, Copy)]
pub struct NewAct<'a> {
    /// Who acts, and why.
    pub operator: &'a Operator,
    /// The command, such as `resolve`.
    pub command: &'a str,
    /// Arguments and effect, without secrets.
    pub details: &'a Value,
}

impl Store {
    /// Ends an unknown record: stores its conclusion, the event and the act. A running worker delivers the event.
    ///
    /// A record that an operator ended as not created can be ended as created: the further event corrects the failure.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`. After `Unavailable` the act may be stored.
    pub async fn resolve(
        &self,
        record: &ActedRecord,
        content: &EventContent,
        act: NewAct<'_>,
    ) -> Result<Acted, StoreError> {
        let resolved = async {
            let mut transaction = self.pool.begin().await?;
            let last = sqlx::query_as!(
                LastEvent,
                r#"SELECT coalesce(newest_event_id, event_id) AS "id!", sequence FROM payout_links
                 WHERE id = $1 AND coalesce(newest_event_id, event_id) = $2
                    AND (state = 'unknown' OR (state = 'failed' AND error_code = 'NOT_CREATED' AND $3))
                 FOR UPDATE"#,
                record.id,
                record.last_event,
                content.state == PayoutLinkState::Created,
            )
            .fetch_optional(&mut *transaction)
            .await?;
            let Some(last) = last else { return Ok(Acted::Changed) };
            keep_result(&mut transaction, record.id, last.id).await?;
            let result = self.keys.seal(Column::Result, record.id, &content.result);
            let next = NextConclusion {
                id: record.id,
                event_id: Uuid::now_v7(),
                event_type: content.event_type.as_str(),
                state: content.state.as_str(),
                payout_status: content.payout_status.as_str(),
                connector_payout_id: content.connector_payout_id.as_deref(),
                in_doubt_since: None,
                status_code: content.status_code.into(),
                error_code: content.error_code.map(ConclusionCode::as_str),
                result: &result,
                link_status: content.link.map(|_| LinkStatus::Unclaimed.as_str()),
                expires_at: content.link.and_then(|link| link.expires_at),
                ask_after_ms: content.link.and_then(|link| link.ask_after).map(millis),
                webhook_url: record
                    .job
                    .as_ref()
                    .and_then(|job| job.webhook_url.as_ref())
                    .map(WebhookUrl::as_str),
                lease: None,
            };
            conclude_again(&mut transaction, last, &next).await?;
            if content.state == PayoutLinkState::Failed {
                // As after a reliable "not found": the next call counts as a first call.
                sqlx::query!("UPDATE payout_links SET first_called_at = NULL WHERE id = $1", record.id)
                    .execute(&mut *transaction)
                    .await?;
            }
            let NewAct { operator, command, details } = act;
            operator_actions::write(&mut transaction, operator, command, Some(record.id), details).await?;
            transaction.commit().await?;
            Ok::<_, sqlx::Error>(Acted::Done)
        };
        answered(&self.pool, resolved).await
    }

    /// Opens a failed record again: it is due at once, and its next conclusion is its next event.
    ///
    /// Its limits of retries begin anew. The result of the last event stays with that event. A duplicate is answered
    /// with the next conclusion from now on.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`. After `Unavailable` the act may be stored.
    pub async fn reopen(
        &self,
        record: &ActedRecord,
        reopening: Reopening,
        act: NewAct<'_>,
    ) -> Result<Acted, StoreError> {
        let class = match reopening {
            Reopening::Call => ServiceClass::Retry,
            Reopening::LookUp => ServiceClass::Unknown,
        };
        let priority = record.job.as_ref().and_then(|job| job.priority);
        let reopened = async {
            let mut transaction = self.pool.begin().await?;
            let last = sqlx::query!(
                r#"SELECT coalesce(newest_event_id, event_id) AS "id!" FROM payout_links
                 WHERE id = $1 AND state = 'failed' AND coalesce(newest_event_id, event_id) = $2
                    AND request IS NOT NULL AND connector_payout_id IS NULL AND in_doubt_since IS NULL
                 FOR UPDATE"#,
                record.id,
                record.last_event,
            )
            .fetch_optional(&mut *transaction)
            .await?;
            let Some(last) = last else { return Ok(Acted::Changed) };
            // The reply of the last event goes to reply_to, which a duplicate may change from now on.
            let published = sqlx::query_scalar!(
                r#"SELECT published_at IS NOT NULL AND NOT reply_due AS "published!" FROM events WHERE id = $1 FOR UPDATE"#,
                last.id
            )
            .fetch_optional(&mut *transaction)
            .await?;
            if published == Some(false) {
                return Ok(Acted::Unpublished);
            }
            keep_result(&mut transaction, record.id, last.id).await?;
            sqlx::query!(
                "UPDATE payout_links SET
                    state = 'open', due_at = now(), holder = NULL, uncalled_holder = NULL, service_rank = $2,
                    newest_event_id = coalesce(newest_event_id, event_id), event_id = NULL, result = NULL,
                    payout_status = NULL, error_code = NULL, concluded_at = NULL,
                    in_doubt_since = CASE WHEN $3 THEN now() END,
                    retried_at = now(), attempts_before = attempts,
                    reply_to = NULL, reply_sequence = sequence + 1
                 WHERE id = $1",
                record.id,
                service_rank(class, priority),
                reopening == Reopening::LookUp,
            )
            .execute(&mut *transaction)
            .await?;
            let NewAct { operator, command, details } = act;
            operator_actions::write(&mut transaction, operator, command, Some(record.id), details).await?;
            transaction.commit().await?;
            Ok::<_, sqlx::Error>(Acted::Done)
        };
        answered(&self.pool, reopened).await
    }
}

/// Copies the record's result to the event of its conclusion, whose content must not change with the next one.
async fn keep_result(
    connection: &mut sqlx::PgConnection,
    record: Uuid,
    event: Uuid,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE events e SET earlier_result = p.result FROM payout_links p
         WHERE e.id = $2 AND p.id = $1 AND p.event_id = e.id",
        record,
        event
    )
    .execute(connection)
    .await?;
    Ok(())
}
