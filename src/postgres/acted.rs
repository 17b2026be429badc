//! `acted`: reads records that an operator wants to act on.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, connect::answered, error::StoreError, record_id::Identity};
use crate::{
    contract,
    domain::{
        AccountId, ConclusionCode, CreateLink, LinkStatus, PayoutLinkState, TraceContext, retry::Concluded,
    },
};

/// A record as an operator's act finds it. The act counts only if the record has not changed until it is stored.
#[derive(Debug)]
pub struct ActedRecord {
    /// The id of the record.
    pub id: Uuid,
    /// `x-merchant-id` of the job; empty if it has none.
    pub merchant_id: String,
    /// The merchant's identifier of the payout.
    pub merchant_payout_id: String,
    /// The connector's name in the configuration.
    pub connector: String,
    /// How the record was concluded, as far as it decides about another attempt.
    pub concluded: Concluded,
    /// When the last call of any kind began.
    pub last_called_at: Option<OffsetDateTime>,
    /// When the last call or look-up that is in the timeline began.
    pub last_attempt_at: Option<OffsetDateTime>,
    /// HTTP status of the provider's last answer, or 0.
    pub status_code: u16,
    /// The code of the conclusion.
    pub error_code: Option<String>,
    /// When the record was concluded; `None` while it is open.
    pub concluded_at: Option<OffsetDateTime>,
    /// The status of the created link that was announced last.
    pub link_status: Option<String>,
    /// The newest event; `None` before the first conclusion.
    pub last_event: Option<Uuid>,
    /// Its number in the record.
    pub last_sequence: u32,
    /// The request; `None` if it is erased or cannot be decrypted.
    pub job: Option<Box<CreateLink>>,
    /// The trace of the job, continued in results, calls and webhooks.
    pub trace: TraceContext,
    /// When the record is due; `None` unless it is open.
    pub due_at: Option<OffsetDateTime>,
    /// Whether a worker has claimed the record.
    pub is_leased: bool,
    /// When the provider was asked about the link last.
    pub asked_at: Option<OffsetDateTime>,
    /// Questions about the link without an answer since the last one.
    pub follow_failures: i32,
    /// The database's time.
    pub now: OffsetDateTime,
}

/// A conclusion that an operator's act ended: `before` in the details of the act.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConclusionBefore {
    /// The state of the record.
    pub state: String,
    /// The code of the conclusion.
    pub error_code: Option<String>,
    /// When the record was concluded.
    #[serde(with = "time::serde::rfc3339::option")]
    pub concluded_at: Option<OffsetDateTime>,
    /// Since when the outcome of its call was unknown.
    #[serde(with = "time::serde::rfc3339::option")]
    pub unknown_since: Option<OffsetDateTime>,
}

impl ActedRecord {
    /// Returns the state of the record.
    pub fn state(&self) -> PayoutLinkState {
        self.concluded.state
    }

    /// Returns the conclusion that an act ends. The next one replaces it in the record, and the act keeps it.
    pub fn conclusion_before(&self) -> ConclusionBefore {
        ConclusionBefore {
            state: self.state().as_str().to_owned(),
            error_code: self.error_code.clone(),
            concluded_at: self.concluded_at,
            unknown_since: self.concluded.in_doubt_since,
        }
    }

    /// Returns whether an operator ended the record as not created, and nothing has happened to it since then.
    pub fn is_resolved_as_not_created(&self) -> bool {
        self.state() == PayoutLinkState::Failed
            && self.error_code.as_deref() == Some(ConclusionCode::NotCreated.as_str())
    }
}

impl Store {
    /// Reads the records that have this id: record id, event id, `merchant_payout_id`, `connector_payout_id` or the
    /// provider's id of the payout that came of the link. Several merchants may use one `merchant_payout_id`.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn acted(&self, id: &str) -> Result<Vec<ActedRecord>, StoreError> {
        let rows = sqlx::query!(
            r#"
            SELECT
                id, merchant_id, merchant_payout_id, connector, account, state, connector_payout_id, link_status,
                status_code, error_code, concluded_at, attempts, first_called_at, last_called_at, in_doubt_since, request,
                coalesce(newest_event_id, event_id) AS last_event, sequence, traceparent, tracestate,
                due_at,
                holder IS NOT NULL AS "is_leased!", asked_at, follow_failures, now() AS "now!", (
                    SELECT max(started_at) FROM attempts
                    WHERE attempts.payout_link_id = p.id AND kind IN ('create', 'look_up')
                ) AS last_attempt_at
            FROM payout_links p
            WHERE p.id IN (
                SELECT id FROM payout_links WHERE id = $1
                UNION ALL SELECT payout_link_id FROM events WHERE id = $1
                UNION ALL SELECT id FROM payout_links WHERE merchant_payout_id = $2
                UNION ALL SELECT id FROM payout_links WHERE connector_payout_id = $2
                UNION ALL SELECT id FROM payout_links WHERE provider_payout_id = $2
            )
            ORDER BY created_at
            "#,
            Uuid::parse_str(id).ok(),
            id
        )
        .fetch_all(&self.pool);
        let rows = answered(&self.pool, rows).await?;
        rows.into_iter()
            .map(|row| {
                let state = PayoutLinkState::parse(&row.state).ok_or_else(|| {
                    StoreError::inconsistent("payout_links", "state", row.id, format!("{:?}", row.state))
                })?;
                let identity = Identity {
                    merchant_id: &row.merchant_id,
                    merchant_payout_id: &row.merchant_payout_id,
                    connector: &row.connector,
                };
                let opened =
                    row.request.as_deref().map(|sealed| self.keys.open_request(row.id, identity, sealed));
                let job =
                    opened.and_then(Result::ok).and_then(|request| contract::stored_request(&request).ok());
                Ok(ActedRecord {
                    id: row.id,
                    concluded: Concluded {
                        state,
                        attempts: u32::try_from(row.attempts).unwrap_or_default(),
                        first_called_at: row.first_called_at,
                        in_doubt_since: row.in_doubt_since,
                        account: row.account.as_deref().map(AccountId::stored),
                        connector_payout_id: row.connector_payout_id,
                        is_cancelled: state == PayoutLinkState::Failed
                            && row.link_status.as_deref() == Some(LinkStatus::Cancelled.as_str()),
                        has_request: job.is_some(),
                    },
                    merchant_id: row.merchant_id,
                    merchant_payout_id: row.merchant_payout_id,
                    connector: row.connector,
                    last_called_at: row.last_called_at,
                    last_attempt_at: row.last_attempt_at,
                    status_code: u16::try_from(row.status_code).unwrap_or_default(),
                    error_code: row.error_code,
                    concluded_at: row.concluded_at,
                    link_status: row.link_status,
                    last_event: row.last_event,
                    last_sequence: u32::try_from(row.sequence).unwrap_or_default(),
                    job: job.map(Box::new),
                    trace: TraceContext { traceparent: row.traceparent, tracestate: row.tracestate },
                    due_at: row.due_at,
                    is_leased: row.is_leased,
                    asked_at: row.asked_at,
                    follow_failures: row.follow_failures,
                    now: row.now,
                })
            })
            .collect()
    }
}
