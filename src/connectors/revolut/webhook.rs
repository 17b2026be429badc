//! The webhooks of Revolut, version 2.
//!
//! Source: developer.revolut.com/docs/guides/manage-accounts/webhooks, and there "Verify the payload signature".

use aws_lc_rs::hmac::HMAC_SHA256;
use reqwest::header::HeaderMap;
use secrecy::SecretString;
use serde::Deserialize;
use time::OffsetDateTime;

use crate::connectors::{
    LinkReference, ProviderWebhook, WebhookProblem,
    proof::{body_digest, check_signature, check_time, header, read_body, read_identifier, v1_signatures},
};

#[derive(Deserialize)]
struct Event {
    event: String,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    id: Option<String>,
}

/// Authenticates a webhook and reads it. The signed time is that of the delivery, so that a repeat has another one.
pub(super) fn read(
    secrets: &[SecretString],
    headers: &HeaderMap,
    body: &[u8],
    now: OffsetDateTime,
) -> Result<ProviderWebhook, WebhookProblem> {
    let timestamp = header(headers, "revolut-request-timestamp")?;
    let signatures = v1_signatures(header(headers, "revolut-signature")?);
    check_signature(HMAC_SHA256, secrets, &[b"v1.", timestamp.as_bytes(), b".", body], &signatures)?;
    check_time(milliseconds(timestamp), now)?;
    let Event { event, data } = read_body(body)?;
    let id = || data.id.ok_or(WebhookProblem::Unreadable).and_then(read_identifier);
    let link = match event.as_str() {
        "PayoutLinkCreated" | "PayoutLinkStateChanged" => LinkReference::ConnectorPayoutId(id()?),
        // That a link's transaction is announced is not documented, and neither is that it is not.
        "TransactionCreated" | "TransactionStateChanged" => LinkReference::ProviderPayoutId(id()?),
        _ => LinkReference::None,
    };
    // A webhook has no id of its own. Its body has the time of the event, and is the same in each repeat.
    Ok(ProviderWebhook { dedupe_key: body_digest(body), event_type: read_identifier(event)?, link })
}

/// Reads Unix milliseconds.
fn milliseconds(text: &str) -> Option<OffsetDateTime> {
    let milliseconds: i64 = text.parse().ok()?;
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(milliseconds) * 1_000_000).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::connectors::proof::tests::{Deliveries, Delivery, Reader, signed};

    const PROOFS: &[&str] = &["revolut-request-timestamp", "revolut-signature"];

    /// Returns the example deliveries, and a reader at the time of one of them.
    fn at_the_time_of(number: usize) -> (Reader, Deliveries) {
        let deliveries = Deliveries::of(include_str!("../fixtures/revolut.json"));
        let now = signed_at(&deliveries.all[number].1);
        (Reader { now, ..deliveries.reader(read) }, deliveries)
    }

    fn signed_at(delivery: &Delivery) -> OffsetDateTime {
        milliseconds(delivery.headers[PROOFS[0]].to_str().unwrap()).unwrap()
    }

    #[test]
    fn every_documented_webhook_names_its_link() {
        let (mut reader, deliveries) = at_the_time_of(0);
        for (event, delivery) in &deliveries.all {
            reader.now = signed_at(delivery);
            let link = match event.as_str() {
                "TransactionStateChanged" => {
                    LinkReference::ProviderPayoutId("65bc7a6b-0000-4000-8000-0000000000aa".to_owned())
                }
                _ => LinkReference::ConnectorPayoutId("65bc7a6b-0000-4000-8000-000000000001".to_owned()),
            };
            let dedupe_key = body_digest(&delivery.body);
            let expected = ProviderWebhook { dedupe_key, event_type: event.clone(), link };
            assert_eq!(reader.read(delivery), Ok(expected));
        }
    }

    /// As Revolut's guide had it, with its own secret.
    #[test]
    fn the_official_example_is_authentic() {
        let body = concat!(
            r#"{"data":{"id":"645a7696-22f3-aa47-9c74-cbae0449cc46","new_state":"completed","old_state":"pending","#,
            r#""request_id":"app_charges-9f5d5eb3-1e06-46c5-b1c0-3914763e0bcb"},"event":"TransactionStateChanged","#,
            r#""timestamp":"2023-05-09T16:36:38.028960Z"}"#
        );
        let signature = "v1=bca326fb378d0da7f7c490ad584a8106bab9723d8d9cdd0d50b4c5b3be3837c0";
        let delivery = Delivery::new(&[(PROOFS[0], "1683650202360"), (PROOFS[1], signature)], body);
        let secret = "wsk_r59a4HfWVAKycbCaNO1RvgCJec02gRd8".to_owned();
        let reader = Reader { read, secret, now: signed_at(&delivery) };
        let link = LinkReference::ProviderPayoutId("645a7696-22f3-aa47-9c74-cbae0449cc46".to_owned());
        assert_eq!(reader.read(&delivery).map(|webhook| webhook.link), Ok(link));
    }

    #[test]
    fn every_other_webhook_is_refused() {
        let (mut reader, deliveries) = at_the_time_of(0);
        for (_, delivery) in &deliveries.all {
            reader.now = signed_at(delivery);
            reader.refuses_all_but(delivery, PROOFS);
        }
        let delivery = &deliveries.all[0].1;
        reader.now = signed_at(delivery);
        reader.refuses_other_bodies(delivery);
        for (seconds, accepted) in [(-301, false), (-300, true), (300, true), (301, false)] {
            reader.now = signed_at(delivery) + time::Duration::seconds(seconds);
            assert_eq!(reader.read(delivery).is_ok(), accepted, "{seconds}");
        }
    }

    /// After a rotation Revolut signs with each secret that is valid.
    #[test]
    fn one_of_several_signatures_is_enough() {
        let (reader, deliveries) = at_the_time_of(0);
        let mut delivery = deliveries.all[0].1.clone();
        let signature = delivery.headers[PROOFS[1]].to_str().unwrap();
        let both = format!("v1={},{signature}", "0".repeat(64));
        delivery.headers.insert(PROOFS[1], both.parse().unwrap());
        assert!(reader.read(&delivery).is_ok());
    }

    #[test]
    fn webhooks_about_something_else_name_no_link() {
        let (reader, deliveries) = at_the_time_of(0);
        let read = |body: serde_json::Value| {
            let (body, time) = (body.to_string(), deliveries.all[0].1.headers[PROOFS[0]].to_str().unwrap());
            let signature = signed(HMAC_SHA256, &reader.secret, format!("v1.{time}.{body}").as_bytes());
            let signature = format!("v1={signature}");
            reader.read(&Delivery::new(&[(PROOFS[0], time), (PROOFS[1], &signature)], &body))
        };
        let other = json!({ "event": "CardStateChanged", "data": { "id": "c" } });
        assert_eq!(read(other).map(|webhook| webhook.link), Ok(LinkReference::None));
        for unreadable in [
            json!({}),
            json!({ "event": "PayoutLinkStateChanged" }),
            json!({ "event": "PayoutLinkStateChanged", "data": {} }),
            json!({ "event": "TransactionStateChanged", "data": { "id": "\u{1b}" } }),
        ] {
            let text = unreadable.to_string();
            assert_eq!(read(unreadable), Err(WebhookProblem::Unreadable), "{text}");
        }
    }
}
