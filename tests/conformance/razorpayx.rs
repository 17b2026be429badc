//! RazorpayX, as the suite sees it.

use payout_link_worker::{
    domain::PayoutStatus,
    stand_in::{Operation, Provider, RazorpayXSettings},
};
use serde_json::json;

use crate::description::{
    Became::{Ended, Link},
    Description, Repeat,
};

static RAZORPAYX: Description = Description {
    kind: "razorpayx",
    provider: || Provider::RazorpayX(RazorpayXSettings::new("rzp_live_1", "canary-secret")),
    settings: concat!(
        "key_id = \"rzp_live_1\"\nkey_secret = \"canary-secret\"\naccount_number = \"7878780080316316\"\n",
        "purpose = \"refund\"\ndescription = \"Your refund\"\nsettle_seconds = 4\n",
        "[connectors.tested.defaults]\nlifetime_seconds = 3600",
    ),
    wrong_settings: concat!(
        "key_id = \"rzp_live_1\"\nkey_secret = \"wrong-canary\"\naccount_number = \"7878780080316316\"\n",
        "purpose = \"refund\"\ndescription = \"Your refund\"\nsettle_seconds = 4",
    ),
    access_token: "rzp_live_1:canary-secret",
    job: || {
        json!({
            "address": {},
            "amount": { "minor_amount": 259_900, "currency": "INR" },
            "destination_currency": "INR",
            "customer": { "name": "Asha Example", "phone_number": "9000012345", "phone_country_code": "+91" },
        })
    },
    statuses: &[
        ("issued", Link(PayoutStatus::RequiresFulfillment)),
        ("pending", Link(PayoutStatus::RequiresConfirmation)),
        ("processing", Link(PayoutStatus::Pending)),
        ("queued", Link(PayoutStatus::Pending)),
        ("processed", Link(PayoutStatus::Success)),
        ("cancelled", Ended(PayoutStatus::Cancelled)),
        ("expired", Ended(PayoutStatus::Expired)),
        ("rejected", Ended(PayoutStatus::Failed)),
    ],
    repeat: Repeat::SecondLink,
    asks: Some(Operation::List),
    try_later: &[],
    lifetime_seconds: Some(3600),
    amount: |money| {
        let fits = money.currency.as_str() == "INR" && money.minor_units() >= 100;
        fits.then(|| money.minor_units().to_string())
    },
    required: &[("/customer/name", "customer.name"), ("/customer/phone_number", "customer.email")],
    refused: &[
        ("/connector_payout_id", "\"x\"", "UNSUPPORTED_BY_CONNECTOR", "connector_payout_id"),
        ("/amount/minor_amount", "99", "UNSUPPORTED_BY_CONNECTOR", "amount.minor_amount"),
        ("/amount/currency", "\"EUR\"", "UNSUPPORTED_BY_CONNECTOR", "amount.currency"),
        ("/customer/name", "\"Al\"", "INVALID_JOB", "customer.name"),
        ("/customer/connector_customer_id", "\"cus_1\"", "INVALID_JOB", "customer.connector_customer_id"),
        ("/access_token", "\"canary\"", "INVALID_JOB", "access_token"),
    ],
    feature_data: &[
        ("{}", None),
        (
            r#"{"purpose": "cashback", "contact_type": "customer", "account_number": "7878780080316316"}"#,
            None,
        ),
        (r#"{"send_sms": true, "send_email": false, "notes": {"team": "refunds"}}"#, None),
        (r#"{"lifetime_seconds": 960}"#, None),
        (r#"{"lifetime_seconds": 959}"#, Some("lifetime_seconds")),
        (r#"{"lifetime_seconds": "canary"}"#, Some("lifetime_seconds")),
        (r#"{"purpose": ""}"#, Some("purpose")),
        (r#"{"notes": {"merchant_payout_id": "canary"}}"#, Some("notes")),
        (r#"{"notes": ["canary"]}"#, Some("notes")),
    ],
};

conformance!(RAZORPAYX);
