//! The schemas of results and webhooks: contract, sections 3, 5 and 7.

use serde_json::{Value, json};

use crate::domain::{ConclusionCode, EventType, PayoutStatus, RejectionCode};

/// `unified_details.code` of a payout that failed after its link was claimed.
const PAYOUT_FAILED: &str = "PAYOUT_FAILED";

pub(super) fn result() -> Value {
    let statuses: Vec<&str> = PayoutStatus::ALL.iter().map(|status| status.as_str()).collect();
    let codes: Vec<&str> = ConclusionCode::ALL
        .iter()
        .map(|code| code.as_str())
        .chain(RejectionCode::ALL.iter().map(|code| code.as_str()))
        .chain([PAYOUT_FAILED])
        .collect();
    json!({
        "type": "object",
        "description": "Further fields and further values of lists can be added: ignore what you do not know.",
        "required": ["error", "status_code"],
        "properties": {
            "merchant_payout_id": {"type": "string", "minLength": 1},
            "payout_status": {"type": "string", "examples": statuses},
            "connector_payout_id": {"type": "string", "minLength": 1},
            "payout_link": {
                "type": "object",
                "description": "A secret: anybody who has the URL can claim the payout.",
                "required": ["url"],
                "properties": {
                    "url": {"type": "string", "format": "uri"},
                    "expires_at": {"type": "string", "format": "date-time"},
                },
            },
            "error": {"anyOf": [{"type": "null"}, {
                "type": "object",
                "required": ["unified_details"],
                "properties": {
                    "unified_details": {
                        "type": "object",
                        "required": ["code", "message"],
                        "properties": {
                            "code": {"type": "string", "examples": codes},
                            "message": {"type": "string"},
                            "description": {"type": "string"},
                            "user_guidance_message": {"type": "string"},
                        },
                    },
                    "connector_details": {
                        "type": "object",
                        "required": ["message"],
                        "properties": {
                            "code": {"type": "string"},
                            "message": {"type": "string"},
                            "reason": {"type": "string"},
                        },
                    },
                },
            }]},
            "status_code": {"type": "integer", "minimum": 0, "maximum": 999, "description": "The provider's HTTP status; 0 without an answer."},
            "sequence": {"type": "integer", "minimum": 1, "description": "The number of the event. Absent in a rejection."},
            "occurred_at": {"type": "string", "format": "date-time"},
        },
    })
}

pub(super) fn webhook() -> Value {
    let types: Vec<&str> = EventType::ALL
        .iter()
        .filter(|event| **event != EventType::Rejected)
        .map(|event| event.as_str())
        .collect();
    json!({
        "type": "object",
        "description": "Further types can be added: ignore what you do not know.",
        "required": ["type", "timestamp", "data"],
        "properties": {
            "type": {"type": "string", "pattern": "^payout_link\\.[a-z_]+$", "examples": types},
            "timestamp": {"type": "string", "format": "date-time"},
            "data": result(),
        },
    })
}
