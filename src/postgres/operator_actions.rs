//! `record_action`, `actions_of`: what operators did, who and why. Rows are never changed or deleted.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, acted::ConclusionBefore, connect::answered, error::StoreError, reader::Reader};

/// Who acts, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// The person, from `--actor` or the login name.
    pub actor: String,
    /// Why, in the person's words.
    pub reason: String,
}

/// An act of an operator.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OperatorAction {
    /// UUIDv7, in the order of the acts.
    pub id: Uuid,
    /// When the act was stored.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The person, from `--actor` or the login name.
    pub actor: String,
    /// Why, in the person's words.
    pub reason: String,
    /// The command, such as `resolve`.
    pub command: String,
    /// `None`: the act is about no single record.
    pub payout_link_id: Option<Uuid>,
    /// Arguments and effect, without secrets.
    pub details: Value,
}

impl OperatorAction {
    /// Returns the conclusion that the act ended, if it ended one.
    pub fn conclusion_before(&self) -> Option<ConclusionBefore> {
        ConclusionBefore::deserialize(self.details.get("before")?).ok()
    }
}

impl Store {
    /// Stores an act whose effect is outside the database. Other acts are stored in the transaction of their effect.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn record_action(
        &self,
        operator: &Operator,
        command: &str,
        payout_link_id: Option<Uuid>,
        details: &Value,
    ) -> Result<(), StoreError> {
        let recorded = async {
            let mut connection = self.pool.acquire().await?;
            write(&mut connection, operator, command, payout_link_id, details).await
        };
        answered(&self.pool, recorded).await
    }

    /// Reads the acts about a record, and the acts on letters of its payout before there was a record, in order.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn actions_of(
        &self,
        payout_link_id: Uuid,
        (merchant_id, merchant_payout_id): (&str, &str),
    ) -> Result<Vec<OperatorAction>, StoreError> {
        self.reader().actions_of(payout_link_id, (merchant_id, merchant_payout_id)).await
    }
}

impl Reader {
    /// Reads the acts about a record, and the acts on letters of its payout before there was a record, in order.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn actions_of(
        &self,
        payout_link_id: Uuid,
        (merchant_id, merchant_payout_id): (&str, &str),
    ) -> Result<Vec<OperatorAction>, StoreError> {
        let actions = sqlx::query_as!(
            OperatorAction,
            r#"
            SELECT id AS "id!", at AS "at!", actor AS "actor!", reason AS "reason!", command AS "command!",
                payout_link_id, details AS "details!"
            FROM (
                SELECT a.* FROM operator_actions a WHERE a.payout_link_id = $1
                UNION ALL
                -- Acts on its letters from before there was a record.
                SELECT a.* FROM operator_actions a WHERE a.payout_link_id IS NULL
                    AND a.details->>'merchant_id' = $2 AND a.details->>'merchant_payout_id' = $3
            ) acts
            ORDER BY id
            "#,
            payout_link_id,
            merchant_id,
            merchant_payout_id
        )
        .fetch_all(&self.pool);
        answered(&self.pool, actions).await
    }
}

/// Stores an act in the caller's transaction.
pub(super) async fn write(
    connection: &mut PgConnection,
    operator: &Operator,
    command: &str,
    payout_link_id: Option<Uuid>,
    details: &Value,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO operator_actions (id, actor, reason, command, payout_link_id, details)
         VALUES ($1, $2, $3, $4, $5, $6)",
        Uuid::now_v7(),
        operator.actor,
        operator.reason,
        command,
        payout_link_id,
        details,
    )
    .execute(connection)
    .await?;
    Ok(())
}
