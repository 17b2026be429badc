//! The webhooks of RazorpayX.
//!
//! Source: razorpay.com/docs/webhooks (payloads of RazorpayX, validate and test).

use aws_lc_rs::hmac::HMAC_SHA256;
use reqwest::header::HeaderMap;
use secrecy::SecretString;
use serde::Deserialize;

use crate::connectors::{
    LinkReference, ProviderWebhook, WebhookProblem,
    proof::{body_digest, check_signature, from_hex, header, read_body, read_identifier},
};

/// The event's name says what happened. The status of its entity need not: an expired link is `cancelled` there.
#[derive(Deserialize)]
struct Event {
    event: String,
    payload: Payload,
}

#[derive(Deserialize)]
struct Payload {
    payout_link: Option<Holder>,
    payout: Option<Holder>,
}

#[derive(Deserialize)]
struct Holder {
    entity: Entity,
}

#[derive(Deserialize)]
struct Entity {
    id: String,
}

/// Authenticates a webhook and reads it. No time is signed, so that there is no replay window.
pub(super) fn read(
    secrets: &[SecretString],
    headers: &HeaderMap,
    body: &[u8],
) -> Result<ProviderWebhook, WebhookProblem> {
    // A webhook that was set up without a secret is not signed.
    let signature = from_hex(header(headers, "x-razorpay-signature")?);
    let signature = signature.ok_or(WebhookProblem::NotAuthentic)?;
    check_signature(HMAC_SHA256, secrets, &[body], &[signature])?;
    let Event { event, payload } = read_body(body)?;
    let id = |holder: Option<Holder>| {
        holder.ok_or(WebhookProblem::Unreadable).and_then(|holder| read_identifier(holder.entity.id))
    };
    let link = if event.starts_with("payout_link.") {
        LinkReference::ConnectorPayoutId(id(payload.payout_link)?)
    } else if event.starts_with("payout.") {
        // It has no link's id: the link names its payout, from `processed` on.
        LinkReference::ProviderPayoutId(id(payload.payout)?)
    } else {
        LinkReference::None
    };
    // The event's id is not in the signed body. An event without one is known by its body.
    let event_id = header(headers, "x-razorpay-event-id").ok().map(str::to_owned);
    let dedupe_key = event_id.and_then(|id| read_identifier(id).ok()).unwrap_or_else(|| body_digest(body));
    Ok(ProviderWebhook { dedupe_key, event_type: read_identifier(event)?, link })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::connectors::proof::tests::{Deliveries, Delivery, Reader, signed};

    const PROOFS: &[&str] = &["x-razorpay-signature"];

    fn deliveries() -> (Reader, Deliveries) {
        let deliveries = Deliveries::of(include_str!("../fixtures/razorpayx.json"));
        let read =
            |secrets: &[SecretString], headers: &HeaderMap, body: &[u8], _| read(secrets, headers, body);
        (deliveries.reader(read), deliveries)
    }

    #[test]
    fn every_documented_webhook_names_its_link() {
        let (reader, deliveries) = deliveries();
        for (event, delivery) in &deliveries.all {
            let link = match event.as_str() {
                "payout.reversed" => LinkReference::ProviderPayoutId("pout_Synthetic00001".to_owned()),
                _ => LinkReference::ConnectorPayoutId("poutlk_Synthetic00001".to_owned()),
            };
            let dedupe_key = delivery.headers["x-razorpay-event-id"].to_str().unwrap().to_owned();
            let expected = ProviderWebhook { dedupe_key, event_type: event.clone(), link };
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
    fn an_event_without_an_id_is_known_by_its_body() {
        let (reader, deliveries) = deliveries();
        let mut delivery = deliveries.all[0].1.clone();
        delivery.headers.remove("x-razorpay-event-id");
        let webhook = reader.read(&delivery).unwrap();
        assert_eq!(webhook.dedupe_key, body_digest(&delivery.body));
    }

    #[test]
    fn webhooks_about_something_else_name_no_link() {
        let (reader, _) = deliveries();
        let read = |body: serde_json::Value| {
            let body = body.to_string();
            let signature = signed(HMAC_SHA256, &reader.secret, body.as_bytes());
            reader.read(&Delivery::new(&[(PROOFS[0], &signature)], &body))
        };
        let transaction = json!({ "event": "transaction.created", "payload": { "transaction": {} } });
        assert_eq!(read(transaction).map(|webhook| webhook.link), Ok(LinkReference::None));
        for unreadable in [
            json!({}),
            json!({ "event": "payout_link.issued", "payload": {} }),
            json!({ "event": "payout_link.issued", "payload": { "payout_link": { "entity": { "id": "" } } } }),
            json!({ "event": "payout.reversed", "payload": { "payout_link": { "entity": { "id": "a" } } } }),
        ] {
            let text = unreadable.to_string();
            assert_eq!(read(unreadable), Err(WebhookProblem::Unreadable), "{text}");
        }
    }
}
