//! Encodes results (contract, section 3) and webhook bodies (section 5).

use bytes::Bytes;
use secrecy::ExposeSecret;
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::domain::{
    Conclusion, ConclusionCode, ConnectorError, EventType, NewLinkStatus, PayoutLinkState, PayoutStatus,
    Rejection,
};

/// Prism's response, with the one thing that it lacks: the link. Absent fields are left out, save `error`.
#[derive(Serialize)]
struct ResultBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    merchant_payout_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payout_status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connector_payout_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payout_link: Option<PayoutLinkBody<'a>>,
    error: Option<ErrorInfo<'a>>,
    status_code: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    occurred_at: Option<String>,
}

#[derive(Serialize)]
struct PayoutLinkBody<'a> {
    url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
}

#[derive(Serialize)]
struct ErrorInfo<'a> {
    unified_details: UnifiedDetails<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connector_details: Option<ConnectorDetails<'a>>,
}

#[derive(Serialize)]
struct UnifiedDetails<'a> {
    code: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_guidance_message: Option<&'static str>,
}

#[derive(Serialize)]
struct ConnectorDetails<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// A conclusion as it is stored and published.
pub struct EventContent {
    /// The state that the record comes to.
    pub state: PayoutLinkState,
    /// The type: `type` and routing key of the result.
    pub event_type: EventType,
    /// The status in Prism's words.
    pub payout_status: PayoutStatus,
    /// The provider's id of the payout, once it is known.
    pub connector_payout_id: Option<String>,
    /// The HTTP status of the provider's last answer, or 0.
    pub status_code: u16,
    /// `unified_details.code`, where there is an error.
    pub error_code: Option<ConclusionCode>,
    /// The result as it is published now and in every replay. JSON; holds the link: a secret.
    pub result: Bytes,
    /// How the link is followed, if it was created and its account follows links.
    pub link: Option<NewLinkStatus>,
}

/// Encodes the result of a concluded record. `connector_payout_id` and `status_code` are the last known ones; `sequence` is
/// the number of the event, and `now` its time.
pub fn conclusion(
    merchant_payout_id: &str,
    conclusion: &Conclusion,
    connector_payout_id: Option<&str>,
    status_code: u16,
    sequence: u32,
    now: OffsetDateTime,
) -> EventContent {
    let (link, payout_status) = (conclusion.link(), conclusion.payout_status());
    let connector_payout_id = link.map_or(connector_payout_id, |link| Some(&link.connector_payout_id));
    let body = ResultBody {
        merchant_payout_id: Some(merchant_payout_id),
        payout_status: Some(payout_status.as_str()),
        connector_payout_id,
        payout_link: link.map(|link| PayoutLinkBody {
            url: link.url.expose_secret(),
            expires_at: link.expires_at.and_then(in_utc),
        }),
        error: conclusion.error().map(|(code, error)| {
            let (message, guidance) = explained(code);
            ErrorInfo {
                unified_details: UnifiedDetails {
                    code: code.as_str(),
                    message,
                    description: None,
                    user_guidance_message: Some(guidance),
                },
                connector_details: error.map(connector_details),
            }
        }),
        status_code,
        sequence: Some(sequence),
        occurred_at: in_utc(now),
    };
    EventContent {
        state: conclusion.state(),
        event_type: conclusion.event_type(),
        payout_status,
        connector_payout_id: connector_payout_id.map(str::to_owned),
        status_code,
        error_code: conclusion.error().map(|(code, _)| code),
        result: json(&body),
        link: None,
    }
}

/// Returns the message and the guidance of a code.
fn explained(code: ConclusionCode) -> (&'static str, &'static str) {
    match code {
        ConclusionCode::ConnectorRejected => (
            "The provider declined to create the payout link.",
            "Correct the request and send it under a new merchant_payout_id.",
        ),
        ConclusionCode::ConnectorUnavailable => (
            "The connector could not be reached before retries ran out; no payout link was made.",
            "Send it again under a new merchant_payout_id.",
        ),
        ConclusionCode::OutcomeUnknown => (
            "The connector may have created a payout link, and cannot be asked.",
            "Do not pay again before the payout has been looked up at the connector.",
        ),
        ConclusionCode::NotCreated => (
            "An operator found that the connector created no payout link.",
            "Send it again under a new merchant_payout_id.",
        ),
    }
}

/// Encodes the result of a rejected job.
pub fn rejection(merchant_payout_id: Option<&str>, rejection: &Rejection) -> Bytes {
    json(&ResultBody {
        merchant_payout_id,
        payout_status: None,
        connector_payout_id: None,
        payout_link: None,
        error: Some(ErrorInfo {
            unified_details: UnifiedDetails {
                code: rejection.code.as_str(),
                message: &rejection.message,
                description: rejection.field.as_deref(),
                user_guidance_message: Some(rejection.guidance()),
            },
            connector_details: None,
        }),
        status_code: 0,
        sequence: None,
        occurred_at: None,
    })
}

/// Builds the body of a webhook: the unchanged result, and the time of the event, so that every repeat is the same. `result`:
/// JSON of the worker.
pub fn webhook(event_type: EventType, at: OffsetDateTime, result: &[u8]) -> Bytes {
    let (event_type, timestamp) = (event_type.as_str(), rfc3339(at));
    let parts = [
        br#"{"type":""#,
        event_type.as_bytes(),
        br#"","timestamp":""#,
        timestamp.as_bytes(),
        br#"","data":"#,
        result,
        b"}",
    ];
    parts.concat().into()
}

fn connector_details(error: &ConnectorError) -> ConnectorDetails<'_> {
    ConnectorDetails { code: error.code.as_deref(), message: &error.message, reason: error.reason.as_deref() }
}

fn rfc3339(at: OffsetDateTime) -> String {
    in_utc(at).unwrap_or_default()
}

/// Returns `None` for a time that UTC or RFC 3339 cannot represent.
fn in_utc(at: OffsetDateTime) -> Option<String> {
    at.checked_to_offset(time::UtcOffset::UTC)?.format(&Rfc3339).ok()
}

fn json(body: &impl Serialize) -> Bytes {
    // The capacity for a usual result.
    let mut json = Vec::with_capacity(512);
    #[expect(
        clippy::expect_used,
        reason = "string keys and plain values: nothing in them can fail to serialize"
    )]
    serde_json::to_writer(&mut json, body).expect("a body of ours serializes");
    json.into()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_time_at_the_calendars_end_is_left_out_and_no_panic() {
        assert_eq!(in_utc(datetime!(2026-12-01 01:00 +01:00)).as_deref(), Some("2026-12-01T00:00:00Z"));
        assert_eq!(in_utc(datetime!(9999-12-31 23:59:59 -01:00)), None);
        assert_eq!(in_utc(datetime!(0000-01-01 00:00 +01:00)), None);
    }
}
