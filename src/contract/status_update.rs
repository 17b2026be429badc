//! Encodes the result of a later event (contract, section 7): the result of the conclusion, with the values of the event.

use bytes::Bytes;
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

use crate::domain::ConnectorError;

/// The values of a later event that differ from the result of the conclusion.
#[derive(Debug, Clone)]
pub struct StatusUpdate {
    /// 2 for the first event after the conclusion, then without gaps.
    pub sequence: u32,
    /// The status that the event stands for.
    pub payout_status: String,
    /// When the provider says that it happened; otherwise when it was seen.
    pub occurred_at: OffsetDateTime,
    /// Why the payout failed, as [`status_error`] encodes it.
    pub error: Option<String>,
}

/// Encodes the result of a later event. It is the same in every publication. Returns `None` if `created`, the result of
/// the conclusion, or the error is no JSON object.
pub fn status_update(created: &[u8], update: &StatusUpdate) -> Option<Bytes> {
    let mut result: Map<String, Value> = serde_json::from_slice(created).ok()?;
    let error: Option<Value> = update.error.as_deref().map(serde_json::from_str).transpose().ok()?;
    let occurred_at = update.occurred_at.checked_to_offset(UtcOffset::UTC)?.format(&Rfc3339).ok()?;
    result.insert("payout_status".to_owned(), update.payout_status.as_str().into());
    result.insert("sequence".to_owned(), update.sequence.into());
    result.insert("occurred_at".to_owned(), occurred_at.into());
    result.insert("error".to_owned(), error.unwrap_or(Value::Null));
    Some(serde_json::to_vec(&result).ok()?.into())
}

/// Encodes the error of a payout that failed after its link was claimed. `error`: the provider's, redacted.
pub fn status_error(error: &ConnectorError) -> String {
    let mut details = Map::new();
    if let Some(code) = &error.code {
        details.insert("code".to_owned(), code.as_str().into());
    }
    details.insert("message".to_owned(), error.message.as_str().into());
    if let Some(reason) = &error.reason {
        details.insert("reason".to_owned(), reason.as_str().into());
    }
    json!({
        "unified_details": {
            "code": "PAYOUT_FAILED",
            "message": "The recipient claimed the link, and the payout failed.",
            "user_guidance_message": "Ask the recipient for other bank details and send the payout under a new merchant_payout_id.",
        },
        "connector_details": details,
    })
    .to_string()
}

/// Returns a result without the link and the provider's texts, for a record whose person's data are erased. Returns `None`
/// if `result` is no JSON object.
pub fn anonymous(result: &[u8]) -> Option<Vec<u8>> {
    let mut result: Map<String, Value> = serde_json::from_slice(result).ok()?;
    result.remove("payout_link");
    if let Some(Value::Object(error)) = result.get_mut("error") {
        error.remove("connector_details");
    }
    serde_json::to_vec(&result).ok()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn an_update_is_the_conclusion_with_the_values_of_its_event() {
        let created = br#"{"merchant_payout_id":"po_1","payout_status":"REQUIRES_FULFILLMENT","connector_payout_id":"l_1","payout_link":{"url":"https://pay.example/1"},"error":null,"status_code":201,"sequence":1,"occurred_at":"2026-12-01T00:00:00Z"}"#;
        let error = ConnectorError::new(200, Some("CLOSED"), "the account is closed", None);
        let update = StatusUpdate {
            sequence: 3,
            payout_status: "FAILED".into(),
            occurred_at: datetime!(2026-12-01 13:00 +01:00),
            error: Some(status_error(&error)),
        };
        let result: Value = serde_json::from_slice(&status_update(created, &update).unwrap()).unwrap();
        assert_eq!(result["sequence"], 3);
        assert_eq!(result["occurred_at"], "2026-12-01T12:00:00Z");
        assert_eq!(result["payout_status"], "FAILED");
        assert_eq!(result["payout_link"]["url"], "https://pay.example/1");
        assert_eq!(result["error"]["unified_details"]["code"], "PAYOUT_FAILED");
        assert_eq!(
            result["error"]["connector_details"],
            json!({"code": "CLOSED", "message": "the account is closed"})
        );
        let paid = StatusUpdate { payout_status: "SUCCESS".into(), error: None, ..update };
        let result: Value = serde_json::from_slice(&status_update(created, &paid).unwrap()).unwrap();
        assert_eq!((result["error"].is_null(), &result["status_code"]), (true, &json!(201)));
        assert!(status_update(b"[]", &paid).is_none());
    }
}
