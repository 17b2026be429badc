//! Sends the sandbox's own webhook `link.status_changed`, for every change of a link after its creation.
//!
//! | header | value |
//! | --- | --- |
//! | `Sandbox-Timestamp` | Unix seconds, of this delivery |
//! | `Sandbox-Event-Id` | the event's id; the same when it is sent again |
//! | `Sandbox-Signature` | `v1=` and the hexadecimal HMAC-SHA256 of `{timestamp}.{body}` under the secret |

use aws_lc_rs::hmac::HMAC_SHA256;
use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::link::{Change, Link, LinkStatus};
use crate::announce::{Announcement, Headers, Signable, hmac_hex};

const EVENT: &str = "link.status_changed";

#[derive(Serialize)]
struct Body<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    event: &'static str,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    link: LinkBody<'a>,
}

#[derive(Serialize)]
struct LinkBody<'a> {
    id: &'a str,
    reference: &'a str,
    status: LinkStatus,
}

pub(super) fn announcement(link: &Link, before: LinkStatus, change: Change) -> Announcement {
    let event_id = format!("evt_{}", Uuid::new_v4().simple());
    let body = |status| {
        let link = LinkBody { id: &link.id, reference: &link.request.reference, status };
        let body = Body { id: &event_id, event: EVENT, created_at: change.at, link };
        serde_json::to_string(&body).unwrap_or_default()
    };
    Announcement {
        event: EVENT.to_owned(),
        link_id: link.id.clone(),
        reference: link.request.reference.clone(),
        link_status: change.status.name().to_owned(),
        body: body(change.status),
        stale_body: body(before),
        event_id,
    }
}

pub(super) fn headers(signable: &Signable<'_>) -> Headers {
    let timestamp = signable.at.unix_timestamp().to_string();
    let signed = hmac_hex(HMAC_SHA256, signable.secret(), &[timestamp.as_bytes(), b".", signable.body]);
    Headers {
        plain: vec![("sandbox-timestamp", timestamp), ("sandbox-event-id", signable.event_id.to_owned())],
        proof: vec![("sandbox-signature", format!("v1={signed}"))],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected signature comes from Python's `hmac.new(secret, b"1795000060." + body, "sha256").hexdigest()`.
    #[test]
    fn the_signature_is_over_time_and_body() {
        let headers = headers(&Signable {
            secrets: &["sandbox-secret".to_owned()],
            event_id: "evt_1",
            at: OffsetDateTime::from_unix_timestamp(1_795_000_060).unwrap(),
            body: br#"{"id":"evt_1"}"#,
        });
        let signature = "v1=edae13235b7f6370e8dc8afed822da3e9cc34c59f8c5a040bc2a4d3907f7d2c4";
        assert_eq!(headers.proof, [("sandbox-signature", signature.to_owned())]);
        assert_eq!(
            headers.plain,
            [("sandbox-timestamp", "1795000060".to_owned()), ("sandbox-event-id", "evt_1".to_owned())]
        );
    }
}
