//! Makes the webhook of an event, with the values of a sample record or the caller's own.

use serde_json::{Map, Value};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::{
    contract::{self, StatusUpdate},
    domain::{Conclusion, ConnectorError, CreatedLink, EventType, PayoutStatus, event_time},
};

/// A value of the body's `data` that replaces the sample's.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Override {
    /// Names of objects, and the name of the field last.
    path: Vec<String>,
    /// `Null` removes the field.
    value: Value,
}

/// Parses `amount.currency=EUR`. A value that is JSON is that JSON, and any other is text.
pub(super) fn parse(text: &str) -> Result<Override, String> {
    let (path, value) =
        text.split_once('=').ok_or("expected FIELD=VALUE, such as payout_link.url=https://pay.example/1")?;
    let path: Vec<String> = path.split('.').map(str::to_owned).collect();
    if path.iter().any(String::is_empty) {
        return Err("the name of a field is empty".into());
    }
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    Ok(Override { path, value })
}

/// Parses the name of an event: `created` or `payout_link.created`.
pub(super) fn event(name: &str) -> Result<EventType, String> {
    let names = || {
        let known = EventType::ALL.into_iter().filter(|known| *known != EventType::Rejected);
        known.map(|known| known.as_str().trim_start_matches(PREFIX)).collect::<Vec<_>>().join(", ")
    };
    let event = EventType::parse(name).or_else(|| EventType::parse(&format!("{PREFIX}{name}")));
    match event {
        Some(EventType::Rejected) => {
            Err("no webhook is sent for a rejected job: its webhook_url was not read".into())
        }
        Some(event) => Ok(event),
        None => Err(format!("unknown event, expected one of {}", names())),
    }
}

const PREFIX: &str = "payout_link.";

/// Returns the body of the webhook of an event, as a worker sends it.
pub(super) fn body(id: Uuid, event: EventType, overrides: &[Override]) -> Result<Vec<u8>, String> {
    let at = event_time(id);
    let sample = sample(event, at).ok_or("the sample cannot be encoded")?;
    let mut data: Map<String, Value> =
        serde_json::from_slice(&sample).map_err(|error| format!("the sample cannot be read: {error}"))?;
    overrides.iter().try_for_each(|change| apply(&mut data, &change.path, &change.value))?;
    // Untouched, it is the sample to the letter.
    let data = match overrides {
        [] => sample,
        [..] => serde_json::to_vec(&data).map_err(|error| error.to_string())?,
    };
    Ok(contract::webhook(event, at, &data).to_vec())
}

fn apply(object: &mut Map<String, Value>, path: &[String], value: &Value) -> Result<(), String> {
    match path {
        [] => Ok(()),
        [field] => {
            match value {
                Value::Null => drop(object.remove(field)),
                value => drop(object.insert(field.clone(), value.clone())),
            }
            Ok(())
        }
        [field, rest @ ..] => {
            let inner = object.entry(field.clone()).or_insert(Value::Null);
            if inner.is_null() {
                *inner = Value::Object(Map::new());
            }
            let inner = inner.as_object_mut().ok_or_else(|| format!("{field} is no object"))?;
            apply(inner, rest, value)
        }
    }
}

fn sample(event: EventType, at: OffsetDateTime) -> Option<Vec<u8>> {
    let error = || ConnectorError::new(422, Some("account_closed"), "The account is closed", None);
    let status = |event| match event {
        EventType::Claimed | EventType::Processing => Some("PENDING"),
        EventType::Succeeded => Some("SUCCESS"),
        EventType::PayoutFailed => Some("FAILED"),
        EventType::Reopened | EventType::Expiring => Some("REQUIRES_FULFILLMENT"),
        EventType::Expired => Some("EXPIRED"),
        EventType::Cancelled => Some("CANCELLED"),
        EventType::Reversed => Some("REVERSED"),
        EventType::Created | EventType::Failed | EventType::Pending | EventType::Rejected => None,
    };
    let conclusion = match event {
        EventType::Failed => Conclusion::Declined { error: error(), payout_status: PayoutStatus::Failed },
        EventType::Pending => Conclusion::Unknown(ConnectorError::unanswered("timed out")),
        _ => Conclusion::Created(CreatedLink {
            connector_payout_id: LINK.into(),
            payout_status: PayoutStatus::RequiresFulfillment,
            unknown_status: None,
            url: "https://links.example/claim/sample".into(),
            expires_at: Some(at.replace_nanosecond(0).ok()? + Duration::days(7)),
            status_code: 201,
        }),
    };
    let status_code = match &conclusion {
        Conclusion::Created(_) => 201,
        Conclusion::Declined { .. } => 422,
        Conclusion::Unavailable(_)
        | Conclusion::Unknown(_)
        | Conclusion::NotCreated
        | Conclusion::Cancelled => 0,
    };
    let known = matches!(conclusion, Conclusion::Declined { .. }).then_some(LINK);
    let concluded = contract::conclusion("po_sample", &conclusion, known, status_code, 1, at);
    let Some(payout_status) = status(event) else { return Some(concluded.result.to_vec()) };
    let update = StatusUpdate {
        sequence: 2,
        payout_status: payout_status.into(),
        occurred_at: at,
        error: (event == EventType::PayoutFailed).then(|| contract::status_error(&error())),
    };
    Some(contract::status_update(&concluded.result, &update)?.to_vec())
}

const LINK: &str = "plink_sample";

#[cfg(test)]
mod tests {
    use super::*;

    fn data(event: EventType, overrides: &[&str]) -> Value {
        let overrides: Vec<Override> = overrides.iter().map(|text| parse(text).unwrap()).collect();
        let body = body(Uuid::now_v7(), event, &overrides).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["type"], event.as_str());
        body["data"].clone()
    }

    #[test]
    fn every_event_has_a_webhook_but_the_rejection() {
        for known in EventType::ALL {
            let named = event(known.as_str().trim_start_matches(PREFIX));
            assert_eq!(named.is_ok(), known != EventType::Rejected, "{known:?}");
            if named.is_ok() {
                let data = data(known, &[]);
                assert_eq!(data["merchant_payout_id"], "po_sample");
                let fails = [EventType::Failed, EventType::Pending, EventType::PayoutFailed].contains(&known);
                assert_eq!(data["error"].is_null(), !fails, "{data}");
            }
        }
        assert!(event("paid").unwrap_err().contains("expected one of created, failed"));
    }

    #[test]
    fn overrides_replace_add_and_remove() {
        let overrides = [
            "merchant_payout_id=po_7",
            "payout_link.url=https://pay.example/1",
            "sequence=4",
            "error.unified_details.code=X",
            "occurred_at=null",
        ];
        let data = data(EventType::Succeeded, &overrides);
        assert_eq!(data["merchant_payout_id"], "po_7");
        assert_eq!(data["payout_link"]["url"], "https://pay.example/1");
        assert_eq!((&data["sequence"], data.get("occurred_at")), (&4.into(), None));
        assert_eq!(data["error"]["unified_details"]["code"], "X");
        assert!(parse("a..b=1").is_err() && parse("a").is_err());
        let deep = [parse("sequence.x=1").unwrap()];
        assert_eq!(body(Uuid::now_v7(), EventType::Created, &deep).unwrap_err(), "sequence is no object");
    }
}
