//! Hyperswitch, as the suite sees it.

use payout_link_worker::{
    domain::PayoutStatus,
    stand_in::{HyperswitchSettings, Operation, Provider},
};
use serde_json::json;

use crate::description::{
    Became::{Ended, Link},
    Description, Repeat,
};

static HYPERSWITCH: Description = Description {
    kind: "hyperswitch",
    provider: || Provider::Hyperswitch(HyperswitchSettings::new("snd_canary")),
    settings: "api_key = \"snd_canary\"\nsettle_seconds = 4\n[connectors.tested.defaults]\nsession_expiry = 3600",
    wrong_settings: "api_key = \"snd_wrong_canary\"\n[connectors.tested.defaults]\nsession_expiry = 3600",
    access_token: "snd_canary",
    job: || {
        json!({
            "address": { "billing_address": { "first_name": "Ada", "last_name": "Example", "line1": "1 Main Street",
                "zip_code": "10115", "city": "Berlin", "country_alpha2_code": "DE", "phone_number": "30123456" } },
            "amount": { "minor_amount": 1250, "currency": "EUR" },
            "destination_currency": "EUR",
            "customer": { "id": "cus_1", "name": "Ada Example", "email": "ada@example.com",
                "phone_number": "30123456", "phone_country_code": "+49" },
            "priority": "CROSS_BORDER",
            "description": "Your refund",
            "browser_info": { "color_depth": 24, "ip_address": "192.0.2.1", "language": "de" },
        })
    },
    statuses: &[
        ("requires_payout_method_data", Link(PayoutStatus::RequiresPayoutMethodData)),
        ("requires_creation", Link(PayoutStatus::RequiresCreation)),
        ("requires_confirmation", Link(PayoutStatus::RequiresConfirmation)),
        ("requires_fulfillment", Link(PayoutStatus::RequiresFulfillment)),
        ("requires_vendor_account_creation", Link(PayoutStatus::RequiresVendorAccountCreation)),
        ("initiated", Link(PayoutStatus::Initiated)),
        ("pending", Link(PayoutStatus::Pending)),
        ("success", Link(PayoutStatus::Success)),
        ("failed", Ended(PayoutStatus::Failed)),
        ("cancelled", Ended(PayoutStatus::Cancelled)),
        ("expired", Ended(PayoutStatus::Expired)),
        ("reversed", Ended(PayoutStatus::Reversed)),
        ("ineligible", Ended(PayoutStatus::Ineligible)),
    ],
    repeat: Repeat::AskedFor,
    asks: Some(Operation::Get),
    try_later: &[],
    lifetime_seconds: Some(3600),
    amount: |money| Some(money.minor_units().to_string()),
    required: &[("/customer/id", "customer.id")],
    refused: &[("/connector_payout_id", "\"x\"", "UNSUPPORTED_BY_CONNECTOR", "connector_payout_id")],
    feature_data: &[
        ("{}", None),
        (r##"{"payout_link_config": {"theme": "#0A84FF", "form_layout": "tabs", "test_mode": true}}"##, None),
        (r#"{"connector": ["adyen"], "entity_type": "Individual", "metadata": {"team": "refunds"}}"#, None),
        (r#"{"profile_id": "pro_1", "return_url": "https://a.example/", "auto_fulfill": false}"#, None),
        (r#"{"session_expiry": 7890000}"#, None),
        (r#"{"session_expiry": 7890001}"#, Some("session_expiry")),
        (r#"{"session_expiry": 0}"#, Some("session_expiry")),
        (r#"{"session_expiry": "canary"}"#, Some("session_expiry")),
        (r#"{"entity_type": "canary"}"#, Some("entity_type")),
        (r#"{"auto_fulfill": true, "metadata": {"a": ["canary"]}}"#, Some("metadata")),
        (r#"{"payout_link_config": {"canary": 1}}"#, Some("payout_link_config")),
    ],
};

conformance!(HYPERSWITCH);
