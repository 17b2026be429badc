//! Describes Hyperswitch for the suite.

use payout_link_worker::domain::{LinkStatus, PayoutStatus};
use provider_simulators::providers::Operation;

use crate::{
    accounts,
    description::{
        Became::{Ended, Link},
        Description, Repeat,
    },
};

pub static HYPERSWITCH: Description = Description {
    account: &accounts::HYPERSWITCH,
    access_token: "snd_canary",
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
        ("not_permitted", Ended(PayoutStatus::NotPermitted)),
        ("new_word", Link(PayoutStatus::RequiresFulfillment)),
    ],
    follow: &[
        ("requires_payout_method_data", LinkStatus::Unclaimed, PayoutStatus::RequiresPayoutMethodData),
        ("requires_creation", LinkStatus::Claimed, PayoutStatus::RequiresCreation),
        ("requires_confirmation", LinkStatus::Claimed, PayoutStatus::RequiresConfirmation),
        ("requires_fulfillment", LinkStatus::Claimed, PayoutStatus::RequiresFulfillment),
        (
            "requires_vendor_account_creation",
            LinkStatus::Claimed,
            PayoutStatus::RequiresVendorAccountCreation,
        ),
        ("initiated", LinkStatus::Processing, PayoutStatus::Initiated),
        ("pending", LinkStatus::Processing, PayoutStatus::Pending),
        ("success", LinkStatus::Succeeded, PayoutStatus::Success),
        ("failed", LinkStatus::PayoutFailed, PayoutStatus::Failed),
        ("ineligible", LinkStatus::PayoutFailed, PayoutStatus::Ineligible),
        ("not_permitted", LinkStatus::PayoutFailed, PayoutStatus::NotPermitted),
        ("cancelled", LinkStatus::Cancelled, PayoutStatus::Cancelled),
        ("expired", LinkStatus::Expired, PayoutStatus::Expired),
        ("reversed", LinkStatus::Reversed, PayoutStatus::Reversed),
    ],
    repeat: Repeat::AskedFor,
    asks: Some(Operation::Get),
    try_later: &[],
    lifetime_seconds: Some(3600),
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

#[tokio::test(flavor = "multi_thread")]
async fn a_link_past_its_end_is_cancelled_and_confirmed() {
    crate::worker::a_link_past_its_end_is_cancelled_and_confirmed().await;
}
