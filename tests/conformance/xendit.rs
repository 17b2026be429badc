//! Xendit, as the suite sees it.

use payout_link_worker::{
    domain::PayoutStatus,
    stand_in::{Provider, XenditSettings},
};
use serde_json::json;

use crate::description::{
    Became::{Ended, Link},
    Description, Repeat,
};

static XENDIT: Description = Description {
    kind: "xendit",
    provider: || Provider::Xendit(XenditSettings::new("xnd_canary")),
    settings: "api_key = \"xnd_canary\"",
    wrong_settings: "api_key = \"xnd_wrong_canary\"",
    access_token: "xnd_canary",
    job: || {
        json!({
            "address": {},
            "amount": { "minor_amount": 2_300_000, "currency": "IDR" },
            "destination_currency": "IDR",
            "customer": { "name": "Budi Contoh", "email": "budi@example.com" },
        })
    },
    statuses: &[
        ("PENDING", Link(PayoutStatus::RequiresFulfillment)),
        ("ISSUED", Link(PayoutStatus::RequiresFulfillment)),
        ("CLAIMED", Link(PayoutStatus::Pending)),
        ("DISBURSING", Link(PayoutStatus::Pending)),
        ("COMPLETED", Link(PayoutStatus::Success)),
        ("SUCCEEDED", Link(PayoutStatus::Success)),
        ("FAILED", Ended(PayoutStatus::Failed)),
        ("LOCKED", Ended(PayoutStatus::Failed)),
        ("VOIDED", Ended(PayoutStatus::Cancelled)),
    ],
    repeat: Repeat::Unknown,
    asks: None,
    try_later: &[],
    lifetime_seconds: Some(3 * 86_400),
    amount: |money| {
        let is_whole = money.currency.as_str() == "IDR" && money.minor_units() % 100 == 0;
        is_whole.then(|| (money.minor_units() / 100).to_string())
    },
    required: &[("/customer/email", "customer.email")],
    refused: &[
        ("/connector_payout_id", "\"x\"", "UNSUPPORTED_BY_CONNECTOR", "connector_payout_id"),
        ("/amount/minor_amount", "2300001", "UNSUPPORTED_BY_CONNECTOR", "amount.minor_amount"),
        ("/amount/currency", "\"EUR\"", "UNSUPPORTED_BY_CONNECTOR", "amount.currency"),
    ],
    feature_data: &[
        ("{}", None),
        (r#"{"for_user_id": "5f9a3fbd571a1c4068aa40ce"}"#, None),
        (r#"{"for_user_id": 1}"#, Some("for_user_id")),
        (r#"{"for_user_id": "can\nary"}"#, Some("for_user_id")),
    ],
};

conformance!(XENDIT);
