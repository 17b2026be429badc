//! The webhooks of the sandbox.

use aws_lc_rs::hmac::HMAC_SHA256;
use reqwest::header::HeaderMap;
use secrecy::SecretString;
use serde::Deserialize;
use time::OffsetDateTime;

use crate::connectors::{
    LinkReference, ProviderWebhook, WebhookProblem,
    proof::{check_signature, check_time, header, read_body, read_identifier, v1_signatures},
};

#[derive(Deserialize)]
struct Event {
    id: String,
    #[serde(rename = "type")]
    event_type: String,
    link: Option<Link>,
}

#[derive(Deserialize)]
struct Link {
    id: String,
}

/// Authenticates a webhook and reads it.
///
/// The event's id is also in the header `Sandbox-Event-Id`, which is not signed.
pub(super) fn read(
    secrets: &[SecretString],
    headers: &HeaderMap,
    body: &[u8],
    now: OffsetDateTime,
) -> Result<ProviderWebhook, WebhookProblem> {
    let timestamp = header(headers, "sandbox-timestamp")?;
    let signatures = v1_signatures(header(headers, "sandbox-signature")?);
    check_signature(HMAC_SHA256, secrets, &[timestamp.as_bytes(), b".", body], &signatures)?;
    let signed_at = timestamp.parse().ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    check_time(signed_at, now)?;
    let event: Event = read_body(body)?;
    let link = match event.link {
        Some(link) => LinkReference::ConnectorPayoutId(read_identifier(link.id)?),
        None => LinkReference::None,
    };
    Ok(ProviderWebhook {
        dedupe_key: read_identifier(event.id)?,
        event_type: read_identifier(event.event_type)?,
        link,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::connectors::proof::tests::{Delivery, Reader, signed};

    const SECRET: &str = "sandbox-webhook-secret";
    const SIGNED_AT: i64 = 1_795_000_060;

    /// Builds a delivery of this body, signed as the sandbox signs.
    fn delivery(body: &str) -> Delivery {
        let signature = signed(HMAC_SHA256, SECRET, format!("{SIGNED_AT}.{body}").as_bytes());
        Delivery::new(
            &[
                ("sandbox-timestamp", &SIGNED_AT.to_string()),
                ("sandbox-event-id", "evt_header"),
                ("sandbox-signature", &format!("v1={signature}")),
            ],
            body,
        )
    }

    fn reader() -> Reader {
        Reader {
            read,
            secret: SECRET.to_owned(),
            now: OffsetDateTime::from_unix_timestamp(SIGNED_AT).unwrap(),
        }
    }

    #[test]
    fn an_authentic_webhook_names_its_link() {
        let body = json!({
            "id": "evt_1", "type": "link.status_changed", "created_at": "2026-11-18T09:00:00Z",
            "link": { "id": "lnk_1", "reference": "key", "status": "claimed" },
        });
        let read = reader().read(&delivery(&body.to_string()));
        let expected = ProviderWebhook {
            dedupe_key: "evt_1".to_owned(),
            event_type: "link.status_changed".to_owned(),
            link: LinkReference::ConnectorPayoutId("lnk_1".to_owned()),
        };
        assert_eq!(read, Ok(expected));
        let other = json!({ "id": "evt_2", "type": "account.changed" }).to_string();
        assert_eq!(reader().read(&delivery(&other)).map(|webhook| webhook.link), Ok(LinkReference::None));
    }

    #[test]
    fn every_other_webhook_is_refused() {
        let body = r#"{"id":"evt_1","type":"link.status_changed","link":{"id":"lnk_1"}}"#;
        reader().refuses_all_but(&delivery(body), &["sandbox-timestamp", "sandbox-signature"]);
        reader().refuses_other_bodies(&delivery(body));
        let (mut reader, delivery) = (reader(), delivery(body));
        for (seconds, accepted) in [(-301, false), (-300, true), (300, true), (301, false)] {
            reader.now = OffsetDateTime::from_unix_timestamp(SIGNED_AT + seconds).unwrap();
            assert_eq!(reader.read(&delivery).is_ok(), accepted, "{seconds}");
        }
    }

    #[test]
    fn an_authentic_webhook_of_another_form_is_unreadable() {
        for body in [
            "",
            "[]",
            "{}",
            r#"{"id":7,"type":"t"}"#,
            r#"{"id":"evt\n1","type":"link.status_changed"}"#,
            r#"{"id":"evt_1","type":"t","link":{}}"#,
            r#"{"id":"evt_1","type":"t","link":{"id":""}}"#,
        ] {
            assert_eq!(reader().read(&delivery(body)), Err(WebhookProblem::Unreadable), "{body}");
        }
    }
}
