//! Writes links, payouts and errors in the provider's form.

use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::super::fields::Problem;
use super::super::link::{Link, Payout};
use crate::fault_server::{ErrorReply, Form};

pub(super) static FORM: Form = Form {
    created: StatusCode::OK,
    wait: RETRY_AFTER,
    error: |status| match status.as_u16() {
        401 => error("BAD_REQUEST_ERROR", "The api key provided is invalid", "input_validation_failed", None),
        404 => error("BAD_REQUEST_ERROR", "The requested URL was not found", "NA", None),
        429 => error("BAD_REQUEST_ERROR", "Request failed. Please try after sometime.", "NA", None),
        400..=499 => error("BAD_REQUEST_ERROR", "The request is invalid", "input_validation_failed", None),
        502 | 504 => error("GATEWAY_ERROR", "The gateway did not answer", "server_error", None),
        _ => error(
            "SERVER_ERROR",
            "We are facing some active_fault completing your request",
            "server_error",
            None,
        ),
    },
    link: || {
        json!({
            "id": "poutlk_00000000000000",
            "entity": "payout_link",
            "status": "issued",
            "amount": 100,
            "currency": "INR",
            "receipt": "none",
            "short_url": "https://links.example/i/none",
            "created_at": 1_767_225_600,
            "expire_by": null,
        })
    },
    url: ("", "short_url"),
};

pub(super) fn view(link: &Link) -> Value {
    let asked = |name: &str| link.request.get(name).cloned().unwrap_or_default();
    let seconds = |at: OffsetDateTime| at.unix_timestamp();
    let changed_to = |status: &str| (link.status == status).then(|| seconds(link.changed_at));
    let contact = asked("contact");
    let suffix = link.id.trim_start_matches("poutlk_");
    let contact_id = contact["id"].as_str().map_or_else(|| format!("cont_{suffix}"), str::to_owned);
    // If the end was moved after the creation, the requested end no longer applies.
    let end = if link.moved_end { link.expires_at.map(seconds).into() } else { asked("expire_by") };
    let processed = link.payout().filter(|_| link.status == "processed");
    json!({
        "id": link.id,
        "entity": "payout_link",
        "contact": {
            "name": contact["name"],
            "email": contact["email"],
            "contact": contact["contact"],
        },
        "contact_id": contact_id,
        "fund_account_id": link.payout().map(|payout| payout.recipient_id.clone()),
        "payout_id": processed.map(|payout| payout.id.clone()),
        "purpose": asked("purpose"),
        "status": link.status,
        "amount": link.amount.parse::<i64>().unwrap_or_default(),
        "currency": link.currency,
        "description": asked("description"),
        "attempt_count": link.payouts.len(),
        "receipt": asked("receipt"),
        "notes": link.request.get("notes").cloned().unwrap_or_else(|| json!({})),
        "short_url": link.url,
        "send_sms": asked("send_sms").as_bool().unwrap_or(false),
        "send_email": asked("send_email").as_bool().unwrap_or(false),
        "created_at": seconds(link.created_at),
        "cancelled_at": changed_to("cancelled"),
        "expire_by": end,
        "expired_at": changed_to("expired"),
    })
}

/// Writes the payout behind a claimed link. It does not name the link.
pub(super) fn payout_view(link: &Link, payout: &Payout) -> Value {
    let asked = |name: &str| link.request.get(name).cloned().unwrap_or_default();
    let details = |reason: &str, description: &str, source: &str| json!({ "description": description, "source": source, "reason": reason });
    json!({
        "id": payout.id,
        "entity": "payout",
        "fund_account_id": payout.recipient_id,
        "amount": link.amount.parse::<i64>().unwrap_or_default(),
        "currency": link.currency,
        "notes": {},
        "fees": 590,
        "tax": 90,
        "status": payout.status,
        "purpose": asked("purpose"),
        "utr": null,
        "mode": "IMPS",
        "reference_id": null,
        "narration": "Payout link",
        "batch_id": null,
        "status_details": match payout.status.as_str() {
            "processed" => details("payout_processed", "Payout processed", "beneficiary_bank"),
            "reversed" => details("beneficiary_bank_rejected", "Payout reversed", "beneficiary_bank"),
            "failed" => details("beneficiary_bank_rejected", "Payout failed", "beneficiary_bank"),
            _ => details("payout_bank_processing", "Payout is being processed", "business"),
        },
        "created_at": payout.created_at.unix_timestamp(),
    })
}

pub(super) fn no_such_link() -> ErrorReply {
    invalid("The id provided does not exist", Some("id"))
}

pub(super) fn invalid(description: &str, field: Option<&str>) -> ErrorReply {
    let body = error("BAD_REQUEST_ERROR", description, "input_validation_failed", field);
    ErrorReply(StatusCode::BAD_REQUEST, body)
}

fn error(code: &str, description: &str, reason: &str, field: Option<&str>) -> Value {
    let source = if code == "BAD_REQUEST_ERROR" { "business" } else { "internal" };
    json!({ "error": {
        "code": code,
        "description": description,
        "source": source,
        "step": null,
        "reason": reason,
        "metadata": {},
        "field": field,
    } })
}

pub(super) fn wrong(problem: Problem) -> ErrorReply {
    match problem {
        Problem::NotAnObject => invalid("The body is no JSON object", None),
        Problem::Missing(field) => invalid(&format!("The {field} field is required."), Some(&field)),
        Problem::Wrong { field, rule } => invalid(&format!("The {field} is not {rule}."), Some(&field)),
        Problem::Unknown(field) => {
            invalid(&format!("{field} is/are not required and should not be sent"), Some(&field))
        }
    }
}
