//! The webhooks of Hyperswitch.
//!
//! Source: `crates/api_models/src/webhooks.rs` and `crates/router/src/core/webhooks/outgoing.rs` in juspay/hyperswitch.

use aws_lc_rs::hmac::HMAC_SHA512;
use reqwest::header::HeaderMap;
use secrecy::SecretString;
use serde::Deserialize;

use crate::connectors::{
    LinkReference, ProviderWebhook, WebhookProblem,
    proof::{check_signature, from_hex, header, read_body, read_identifier},
};

/// The fields that are read. The payout's link and `client_secret` are not among them.
#[derive(Deserialize)]
struct Event {
    event_id: String,
    event_type: String,
    content: Content,
}

/// Also of payments, refunds, disputes and mandates.
#[derive(Deserialize)]
struct Content {
    #[serde(rename = "type")]
    kind: String,
    object: Object,
}

#[derive(Deserialize)]
struct Object {
    payout_id: Option<String>,
}

/// Authenticates a webhook and reads it. No time is signed, so that there is no replay window.
pub(super) fn read(
    secrets: &[SecretString],
    headers: &HeaderMap,
    body: &[u8],
) -> Result<ProviderWebhook, WebhookProblem> {
    // A profile without a key signs nothing.
    let signature = from_hex(header(headers, "x-webhook-signature-512")?);
    let signature = signature.ok_or(WebhookProblem::NotAuthentic)?;
    check_signature(HMAC_SHA512, secrets, &[body], &[signature])?;
    let event: Event = read_body(body)?;
    let link = match (event.content.kind.as_str(), event.content.object.payout_id) {
        ("payout_details", Some(payout_id)) => LinkReference::ConnectorPayoutId(read_identifier(payout_id)?),
        ("payout_details", None) => return Err(WebhookProblem::Unreadable),
        _ => LinkReference::None,
    };
    Ok(ProviderWebhook {
        dedupe_key: read_identifier(event.event_id)?,
        event_type: read_identifier(event.event_type)?,
        link,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::connectors::proof::tests::{Deliveries, Delivery, Reader, signed};

    const PROOFS: &[&str] = &["x-webhook-signature-512"];

    fn deliveries() -> (Reader, Deliveries) {
        let deliveries = Deliveries::of(include_str!("../fixtures/hyperswitch.json"));
        let read =
            |secrets: &[SecretString], headers: &HeaderMap, body: &[u8], _| read(secrets, headers, body);
        (deliveries.reader(read), deliveries)
    }

    #[test]
    fn every_documented_webhook_names_its_link() {
        let (reader, deliveries) = deliveries();
        let link = LinkReference::ConnectorPayoutId("0199a7c2-3f1e-7d40-9b1a-2c6f5e8d7a10".to_owned());
        for (event, delivery) in &deliveries.all {
            let body: Value = serde_json::from_slice(&delivery.body).unwrap();
            let expected = ProviderWebhook {
                dedupe_key: body["event_id"].as_str().unwrap().to_owned(),
                event_type: event.clone(),
                link: link.clone(),
            };
            assert_eq!(reader.read(delivery), Ok(expected));
        }
    }

    #[test]
    fn every_other_webhook_is_refused() {
        let (reader, deliveries) = deliveries();
        for (_, delivery) in &deliveries.all {
            reader.refuses_all_but(delivery, PROOFS);
        }
        reader.refuses_other_bodies(&deliveries.all[0].1);
    }

    #[test]
    fn webhooks_about_something_else_name_no_link() {
        let (reader, _) = deliveries();
        let read = |body: Value| {
            let body = body.to_string();
            let signature = signed(HMAC_SHA512, &reader.secret, body.as_bytes());
            reader.read(&Delivery::new(&[(PROOFS[0], &signature)], &body))
        };
        let event = |content: Value| json!({ "event_id": "e", "event_type": "t", "content": content });
        let payment = event(json!({ "type": "payment_details", "object": { "payment_id": "pay_1" } }));
        assert_eq!(read(payment).map(|webhook| webhook.link), Ok(LinkReference::None));
        for unreadable in [
            json!([]),
            json!({ "event_id": "e", "event_type": "t" }),
            event(json!({ "type": "payout_details", "object": { "payout_id": "" } })),
            event(json!({ "type": "payout_details", "object": { "payment_id": "pay_1" } })),
            json!({ "event_id": "\n", "event_type": "t", "content": { "type": "t", "object": {} } }),
        ] {
            let text = unreadable.to_string();
            assert_eq!(read(unreadable), Err(WebhookProblem::Unreadable), "{text}");
        }
    }
}
