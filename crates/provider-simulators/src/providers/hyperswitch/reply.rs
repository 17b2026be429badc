//! Writes payouts and errors in the provider's form.

use axum::http::StatusCode;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::super::fields::Problem;
use super::super::link::Link;
use super::MERCHANT;
use crate::fault_server::ErrorReply;

pub(super) fn view(link: &Link) -> Value {
    let asked = |name: &str| link.request.get(name).cloned().unwrap_or_default();
    let payout_link = (!link.url.is_empty())
        .then(|| json!({ "payout_link_id": format!("payout_link_{}", link.id), "link": link.url }));
    json!({
        "payout_id": link.id,
        "merchant_id": MERCHANT,
        "merchant_order_reference_id": asked("merchant_order_reference_id"),
        "amount": link.amount.parse::<i64>().unwrap_or_default(),
        "currency": link.currency,
        "customer_id": asked("customer_id"),
        "status": link.status,
        "client_secret": format!("payout_{}_secret_{}", link.id, Uuid::new_v4().simple()),
        "created": link.created_at.format(&Rfc3339).unwrap_or_default(),
        "profile_id": asked("profile_id"),
        "connector": null,
        "connector_transaction_id": null,
        "payout_link": payout_link,
        "error_code": (link.status == "failed").then_some("processor_declined"),
        "error_message": match link.status.as_str() {
            "failed" => Some("the processor declined the payout"),
            "cancelled" => Some("Cancelled by user"),
            _ => None,
        },
        "unified_code": null,
        "unified_message": null,
    })
}

/// Writes a payout of a list, which has no link.
pub(super) fn list_view(link: &Link) -> Value {
    let mut payout = view(link);
    payout["payout_link"] = Value::Null;
    payout
}

pub(super) fn invalid(message: &str) -> ErrorReply {
    api_error(StatusCode::BAD_REQUEST, "invalid_request", "IR_06", message)
}

pub(super) fn no_such_payout() -> ErrorReply {
    let message = "Payout does not exist in our records";
    api_error(StatusCode::NOT_FOUND, "invalid_request", "HE_02", message)
}

pub(super) fn api_error(status: StatusCode, kind: &str, code: &str, message: &str) -> ErrorReply {
    ErrorReply(status, json!({ "error": { "type": kind, "message": message, "code": code } }))
}

pub(super) fn wrong(problem: Problem) -> ErrorReply {
    let bad =
        |code: &str, message: &str| api_error(StatusCode::BAD_REQUEST, "invalid_request", code, message);
    match problem {
        Problem::NotAnObject => bad("IR_06", "Json deserialize error: expected an object"),
        Problem::Missing(field) => bad("IR_04", &format!("Missing required param: {field}")),
        Problem::Wrong { field, rule } => bad("IR_07", &format!("Invalid value provided: {field}: {rule}")),
        Problem::Unknown(field) => bad("IR_06", &format!("Json deserialize error: unknown field `{field}`")),
    }
}
