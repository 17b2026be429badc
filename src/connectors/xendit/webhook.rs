//! The webhooks of Xendit, in the forms that its pages and receivers of others have.
//!
//! Sources: docs.xendit.co/apidocs/payout-webhook-notification, docs.xendit.co (webhook behaviour).

use reqwest::header::HeaderMap;
use secrecy::SecretString;
use serde::Deserialize;

use crate::connectors::{
    LinkReference, ProviderWebhook, WebhookProblem,
    proof::{body_digest, check_token, header, read_body, read_identifier},
};

/// The id and the status stand in `data`, or beside no event's name.
#[derive(Deserialize)]
struct Event {
    event: Option<String>,
    data: Option<Payout>,
    #[serde(flatten)]
    payout: Payout,
}

#[derive(Deserialize)]
struct Payout {
    id: Option<String>,
    status: Option<String>,
}

/// Authenticates a webhook and reads it. It has a token and no signature: neither its body nor its time is proved.
pub(super) fn read(
    secrets: &[SecretString],
    headers: &HeaderMap,
    body: &[u8],
) -> Result<ProviderWebhook, WebhookProblem> {
    check_token(secrets, header(headers, "x-callback-token")?)?;
    let Event { event, data, payout } = read_body(body)?;
    let payout = data.unwrap_or(payout);
    let link = match payout.id {
        Some(id) => LinkReference::ConnectorPayoutId(read_identifier(id)?),
        None => LinkReference::None,
    };
    let webhook_id = header(headers, "webhook-id").ok().map(str::to_owned);
    let dedupe_key = webhook_id.and_then(|id| read_identifier(id).ok()).unwrap_or_else(|| body_digest(body));
    // A flat body does not name its event.
    let event_type = event.or(payout.status).ok_or(WebhookProblem::Unreadable)?;
    Ok(ProviderWebhook { dedupe_key, event_type: read_identifier(event_type)?, link })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::connectors::proof::tests::{Deliveries, Delivery, Reader};

    const TOKEN: &str = "x-callback-token";

    fn deliveries() -> (Reader, Deliveries) {
        let deliveries = Deliveries::of(include_str!("../fixtures/xendit.json"));
        let read =
            |secrets: &[SecretString], headers: &HeaderMap, body: &[u8], _| read(secrets, headers, body);
        (deliveries.reader(read), deliveries)
    }

    #[test]
    fn every_documented_webhook_names_its_link() {
        let (reader, deliveries) = deliveries();
        for (event, delivery) in &deliveries.all {
            let (event_type, id) = match event.as_str() {
                "disbursement.completed" => ("COMPLETED", "57f1ce05bb1a631a65eee001"),
                "disbursement.failed" => ("FAILED", "57f1ce05bb1a631a65eee001"),
                "payout_link.expired" => (event.as_str(), "67f1b30c-0000-4000-8000-000000000001"),
                // A payout's own id, which is no link's.
                _ => (event.as_str(), "disb-571f3644d2b4edf0745e0001"),
            };
            let expected = ProviderWebhook {
                dedupe_key: delivery.headers["webhook-id"].to_str().unwrap().to_owned(),
                event_type: event_type.to_owned(),
                link: LinkReference::ConnectorPayoutId(id.to_owned()),
            };
            assert_eq!(reader.read(delivery), Ok(expected));
        }
    }

    #[test]
    fn every_other_webhook_is_refused() {
        let (reader, deliveries) = deliveries();
        for (_, delivery) in &deliveries.all {
            reader.refuses_all_but(delivery, &[TOKEN]);
        }
    }

    #[test]
    fn a_webhook_of_another_form_is_unreadable_or_names_no_link() {
        let (reader, _) = deliveries();
        let read =
            |body: &Value| reader.read(&Delivery::new(&[(TOKEN, reader.secret.as_str())], &body.to_string()));
        let other = read(&json!({ "event": "invoice.paid", "data": {} })).unwrap();
        assert_eq!(other.link, LinkReference::None);
        assert!(other.dedupe_key.starts_with("sha256:"), "{other:?}");
        for unreadable in [
            json!([]),
            json!({}),
            json!({ "event": "e", "data": { "id": "" } }),
            json!({ "event": "e", "data": { "id": 7 } }),
            json!({ "event": "\n", "data": {} }),
        ] {
            assert_eq!(read(&unreadable), Err(WebhookProblem::Unreadable), "{unreadable}");
        }
        let garbage =
            Delivery { body: vec![b'x'; 256 * 1024], ..Delivery::new(&[(TOKEN, &reader.secret)], "") };
        assert_eq!(reader.read(&garbage), Err(WebhookProblem::Unreadable));
    }
}
