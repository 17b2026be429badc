//! Messages that cancel a link or ask for its status (contract, section 8), by the rules of a job.

use std::rc::Rc;

use super::{
    DecodePolicy, UnknownFields, capital,
    fields::{Fields, Read, Unknown},
    json, message,
};
use crate::domain::{LinkRequest, LinkRequestKind, MerchantPayoutId, Rejection};

/// Maximum length of a reason in bytes.
const MAX_REASON: usize = 255;

/// Decodes a message about a link.
///
/// # Errors
///
/// If the message is to be rejected.
pub fn link_request(
    body: &[u8],
    kind: LinkRequestKind,
    policy: &DecodePolicy,
) -> Result<LinkRequest, Rejection> {
    if body.len() > json::MAX_BYTES {
        return Err(Rejection::invalid("", message::too_large(body.len())));
    }
    let text =
        std::str::from_utf8(body).map_err(|error| Rejection::invalid("", message::no_text(body, &error)))?;
    let json = json::parse(text).map_err(|error| Rejection::invalid("", message::no_json(text, &error)))?;
    let unknown = match policy.unknown_fields {
        UnknownFields::Reject => Unknown::Rejected,
        UnknownFields::Ignore => Unknown::Ignored(Rc::default()),
    };
    let mut fields = Fields::new(String::new(), json, unknown)
        .map_err(|_| Rejection::invalid("", "The message is not a JSON object."))?;
    let merchant_payout_id = merchant_payout_id(&mut fields)?;
    let (reason, refresh) = match kind {
        LinkRequestKind::Cancel => (reason(&mut fields)?, false),
        LinkRequestKind::Status => (None, fields.boolean("refresh")?.unwrap_or_default()),
    };
    fields.end()?;
    Ok(LinkRequest { merchant_payout_id, kind, reason, refresh })
}

fn merchant_payout_id(fields: &mut Fields<'_>) -> Read<MerchantPayoutId> {
    let id = fields.text("merchant_payout_id")?;
    let id = fields.required("merchant_payout_id", id, "It names the payout of the link.")?;
    MerchantPayoutId::new(id)
        .map_err(|error| Rejection::invalid("merchant_payout_id", format!("{}.", capital(&error))))
}

fn reason(fields: &mut Fields<'_>) -> Read<Option<String>> {
    let reason = fields.identifier("reason")?;
    if reason.as_ref().is_some_and(|reason| reason.len() > MAX_REASON) {
        return Err(Rejection::invalid("reason", "The reason is longer than 255 bytes: shorten it."));
    }
    Ok(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str, kind: LinkRequestKind) -> Result<LinkRequest, Option<String>> {
        link_request(body.as_bytes(), kind, &DecodePolicy::default()).map_err(|rejection| rejection.field)
    }

    #[test]
    fn both_kinds_are_read_in_both_spellings() {
        let cancel =
            read(r#"{"merchantPayoutId": "po_1", "reason": "wrong amount"}"#, LinkRequestKind::Cancel);
        let cancel = cancel.unwrap();
        assert_eq!(cancel.merchant_payout_id.as_str(), "po_1");
        assert_eq!((cancel.reason.as_deref(), cancel.refresh), (Some("wrong amount"), false));
        let status = read(r#"{"merchant_payout_id": "po_1", "refresh": true}"#, LinkRequestKind::Status);
        assert!(status.unwrap().refresh);
        let status = read(r#"{"merchant_payout_id": "po_1", "refresh": null}"#, LinkRequestKind::Status);
        assert!(!status.unwrap().refresh);
    }

    #[test]
    fn a_mistake_is_rejected_with_its_field() {
        let long = format!(r#"{{"merchant_payout_id": "po_1", "reason": "{}"}}"#, "a".repeat(256));
        for (body, kind, field) in [
            ("{}", LinkRequestKind::Cancel, Some("merchant_payout_id")),
            (r#"{"merchant_payout_id": 1}"#, LinkRequestKind::Status, Some("merchant_payout_id")),
            (r#"{"merchant_payout_id": "po_1", "refresh": "yes"}"#, LinkRequestKind::Status, Some("refresh")),
            (r#"{"merchant_payout_id": "po_1", "refresh": true}"#, LinkRequestKind::Cancel, Some("refresh")),
            (r#"{"merchant_payout_id": "po_1", "reason": "a"}"#, LinkRequestKind::Status, Some("reason")),
            (r#"{"merchant_payout_id": "po_1", "reason": "a\nb"}"#, LinkRequestKind::Cancel, Some("reason")),
            (long.as_str(), LinkRequestKind::Cancel, Some("reason")),
            ("[]", LinkRequestKind::Cancel, None),
            ("", LinkRequestKind::Status, None),
        ] {
            assert_eq!(read(body, kind).unwrap_err().as_deref(), field, "{body}");
        }
    }
}
