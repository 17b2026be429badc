//! Writes links, transactions and errors in the provider's form.

use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::super::fields::Problem;
use super::super::link::{Link, Payout};
use crate::fault_server::{ErrorReply, Form};

const TIMESTAMP: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

pub(super) static FORM: Form = Form {
    created: StatusCode::CREATED,
    wait: RETRY_AFTER,
    error: |status| {
        let (code, message) = match status.as_u16() {
            401 => (1000, "The request should be authorized."),
            403 => (9002, "This action is forbidden."),
            404 => (3006, "The requested resource was not found."),
            429 => (3162, "Too many requests."),
            400..=499 => (3000, "The request is invalid."),
            503 => (5003, "The service is not available."),
            _ => (5000, "Something went wrong."),
        };
        json!({ "code": code, "message": message })
    },
    link: || {
        json!({
            "id": "00000000-0000-4000-8000-000000000000",
            "state": "active",
            "created_at": "2026-01-01T00:00:00.000000Z",
            "updated_at": "2026-01-01T00:00:00.000000Z",
            "request_id": "none",
            "amount": 1,
            "currency": "GBP",
            "url": "https://links.example/p/none",
        })
    },
    url: ("", "url"),
};

pub(super) fn view(link: &Link) -> Value {
    let time = |at: OffsetDateTime| Value::from(timestamp(at));
    let asked = |name: &str| link.request.get(name).filter(|value| !value.is_null()).cloned();
    let default_methods = || json!(["revolut", "bank_account"]);
    let mut reply = json!({
        "id": link.id,
        "state": link.status,
        "created_at": time(link.created_at),
        "updated_at": time(link.changed_at),
        "counterparty_name": asked("counterparty_name"),
        "save_counterparty": asked("save_counterparty").unwrap_or(Value::Bool(false)),
        "request_id": link.reference,
        "payout_methods": asked("payout_methods").unwrap_or_else(default_methods),
        "account_id": asked("account_id"),
        "amount": asked("amount"),
        "currency": link.currency,
        "reference": asked("reference"),
    });
    let fields = reply.as_object_mut().unwrap_or_else(|| unreachable!("it is an object"));
    sometimes(link, asked("transfer_reason_code"), link.expires_at.map(time), fields);
    reply
}

/// Returns the fields that are not always present.
fn sometimes(link: &Link, reason: Option<Value>, expiry: Option<Value>, fields: &mut Map<String, Value>) {
    let status = link.status.as_str();
    let claimed = link.payout().filter(|_| matches!(status, "processing" | "processed"));
    let by_revolut = status == "cancelled" && !link.is_taken_back;
    let there = [
        ("url", (status == "active").then(|| link.url.clone().into())),
        ("expiry_date", expiry.filter(|_| status == "active")),
        ("transfer_reason_code", reason),
        ("counterparty_id", claimed.map(|transaction| transaction.recipient_id.clone().into())),
        // A link that failed after its claim has a transaction too.
        ("transaction_id", link.payout().map(|transaction| transaction.id.clone().into())),
        ("cancellation_reason", by_revolut.then(|| "too_many_name_check_attempts".into())),
    ];
    for (name, value) in there {
        if let Some(value) = value {
            fields.insert(name.to_owned(), value);
        }
    }
}

/// Rounds a time as it is written, so that a client that pages by it does not get the same link again.
pub(super) fn microseconds(at: OffsetDateTime) -> OffsetDateTime {
    at.replace_microsecond(at.microsecond()).unwrap_or(at)
}

pub(super) fn timestamp(at: OffsetDateTime) -> String {
    at.format(TIMESTAMP).unwrap_or_default()
}

/// Writes the transaction behind a claimed link. It names neither the link nor the link's `request_id`.
pub(super) fn transaction_view(link: &Link, transaction: &Payout) -> Value {
    let asked = |name: &str| link.request.get(name).cloned().unwrap_or_default();
    let amount: Value = serde_json::from_str(&format!("-{}", link.amount)).unwrap_or_default();
    let mut reply = json!({
        "id": transaction.id,
        "type": "transfer",
        "state": transaction.status,
        "created_at": timestamp(transaction.created_at),
        "updated_at": timestamp(transaction.changed_at),
        "reference": asked("reference"),
        "legs": [{
            "leg_id": transaction.recipient_id,
            "account_id": asked("account_id"),
            "amount": amount,
            "currency": link.currency,
            "description": "Payout link",
        }],
    });
    if transaction.status == "completed" {
        reply["completed_at"] = timestamp(transaction.changed_at).into();
    }
    reply
}

pub(super) fn bare(status: StatusCode) -> ErrorReply {
    ErrorReply(status, (FORM.error)(status))
}

pub(super) fn invalid(message: &str) -> ErrorReply {
    api_error(StatusCode::BAD_REQUEST, 3000, message)
}

pub(super) fn api_error(status: StatusCode, code: u32, message: &str) -> ErrorReply {
    ErrorReply(status, json!({ "code": code, "message": message }))
}

pub(super) fn wrong(problem: Problem) -> ErrorReply {
    match problem {
        Problem::NotAnObject => invalid("the body is no JSON object"),
        Problem::Missing(field) => {
            api_error(StatusCode::BAD_REQUEST, 3009, &format!("Required '{field}' is missing"))
        }
        Problem::Wrong { field, rule } => invalid(&format!("{field} is not {rule}")),
        Problem::Unknown(field) => invalid(&format!("{field} is not known")),
    }
}
