//! Describes Xendit for the suite.

use payout_link_worker::domain::{LinkStatus, PayoutStatus};

use crate::{
    accounts,
    description::{
        Became::{Ended, Link},
        Description, Repeat,
    },
};

static XENDIT: Description = Description {
    account: &accounts::XENDIT,
    access_token: "xnd_canary",
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
        ("ACTIVE", Link(PayoutStatus::RequiresFulfillment)),
        ("CANCELED", Ended(PayoutStatus::Cancelled)),
        ("EXPIRED", Ended(PayoutStatus::Expired)),
        ("REVERSED", Ended(PayoutStatus::Reversed)),
        ("NEW_WORD", Link(PayoutStatus::RequiresFulfillment)),
    ],
    follow: &[
        ("PENDING", LinkStatus::Unclaimed, PayoutStatus::RequiresFulfillment),
        ("ISSUED", LinkStatus::Unclaimed, PayoutStatus::RequiresFulfillment),
        ("ACTIVE", LinkStatus::Unclaimed, PayoutStatus::RequiresFulfillment),
        ("CLAIMED", LinkStatus::Processing, PayoutStatus::Pending),
        ("DISBURSING", LinkStatus::Processing, PayoutStatus::Pending),
        ("COMPLETED", LinkStatus::Succeeded, PayoutStatus::Success),
        ("SUCCEEDED", LinkStatus::Succeeded, PayoutStatus::Success),
        ("FAILED", LinkStatus::PayoutFailed, PayoutStatus::Failed),
        ("LOCKED", LinkStatus::PayoutFailed, PayoutStatus::Failed),
        ("VOIDED", LinkStatus::Cancelled, PayoutStatus::Cancelled),
        ("CANCELED", LinkStatus::Cancelled, PayoutStatus::Cancelled),
        ("EXPIRED", LinkStatus::Expired, PayoutStatus::Expired),
        ("REVERSED", LinkStatus::Reversed, PayoutStatus::Reversed),
    ],
    repeat: Repeat::Unknown,
    asks: None,
    try_later: &[],
    lifetime_seconds: Some(3 * 86_400),
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
