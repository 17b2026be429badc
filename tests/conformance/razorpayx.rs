//! Describes RazorpayX for the suite.

use payout_link_worker::domain::{LinkStatus, PayoutStatus};
use provider_simulators::providers::Operation;

use crate::{
    accounts,
    description::{
        Became::{Ended, Link},
        Description, Repeat,
    },
};

static RAZORPAYX: Description = Description {
    account: &accounts::RAZORPAYX,
    access_token: "rzp_live_1:canary-secret",
    statuses: &[
        ("issued", Link(PayoutStatus::RequiresFulfillment)),
        ("pending", Link(PayoutStatus::RequiresConfirmation)),
        ("processing", Link(PayoutStatus::Pending)),
        ("queued", Link(PayoutStatus::Pending)),
        ("processed", Link(PayoutStatus::Success)),
        ("cancelled", Ended(PayoutStatus::Cancelled)),
        ("expired", Ended(PayoutStatus::Expired)),
        ("rejected", Ended(PayoutStatus::Failed)),
        ("new_word", Link(PayoutStatus::RequiresFulfillment)),
    ],
    follow: &[
        ("pending", LinkStatus::Unclaimed, PayoutStatus::RequiresConfirmation),
        ("issued", LinkStatus::Unclaimed, PayoutStatus::RequiresFulfillment),
        ("processing", LinkStatus::Processing, PayoutStatus::Pending),
        ("queued", LinkStatus::Processing, PayoutStatus::Pending),
        ("processed", LinkStatus::Succeeded, PayoutStatus::Success),
        ("cancelled", LinkStatus::Cancelled, PayoutStatus::Cancelled),
        ("expired", LinkStatus::Expired, PayoutStatus::Expired),
        ("rejected", LinkStatus::PayoutFailed, PayoutStatus::Failed),
    ],
    repeat: Repeat::SecondLink,
    asks: Some(Operation::List),
    try_later: &[],
    lifetime_seconds: Some(3600),
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
