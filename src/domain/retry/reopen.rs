//! Decides whether a failed record may be tried again, and whether its provider is looked up first.

use std::time::Duration;

use time::OffsetDateTime;

use super::RetryPolicy;
use crate::domain::{AccountId, MAX_STEP, PayoutLinkState, ReplayRule};

/// A concluded record, as far as it decides about another attempt.
#[derive(Debug, Clone)]
pub struct Concluded {
    /// How the record was concluded.
    pub state: PayoutLinkState,
    /// `create` attempts begun.
    pub attempts: u32,
    /// When the first `create` call began.
    pub first_called_at: Option<OffsetDateTime>,
    /// Since when the outcome of a `create` call is unknown; it stays set if it never was resolved.
    pub in_doubt_since: Option<OffsetDateTime>,
    /// The account that was called last.
    pub account: Option<AccountId>,
    /// The provider's id of the payout, if it is known.
    pub connector_payout_id: Option<String>,
    /// It was cancelled before the provider was called.
    pub is_cancelled: bool,
    /// Whether the request is stored; retention deletes it.
    pub has_request: bool,
}

/// How a record is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reopening {
    /// The next step is a call under the same key.
    Call,
    /// The next step is a look-up, as for an unknown outcome.
    LookUp,
}

/// Why a record is not tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum NotReopened {
    #[error("the record is {0}: only a failed record is tried again")]
    State(PayoutLinkState),
    #[error("it was cancelled before it was called: send the payout again under a new merchant_payout_id")]
    Cancelled,
    #[error("the provider has a payout for this record: another attempt could pay twice")]
    Payout,
    #[error("the outcome of a call is unknown: resolve the record first")]
    Unknown,
    #[error("the request is deleted by retention: it cannot be sent again")]
    NoRequest,
    #[error("it was called in another account than the connector is configured with now")]
    OtherAccount,
    #[error(
        "the provider may have forgotten the idempotency key and cannot be looked up: another attempt could pay twice"
    )]
    KeyIsOver,
}

/// Decides whether a record may be tried again. A failed record has no link, and nothing of it is unknown.
///
/// The next attempt uses the key that earlier ones have used. Where the provider may have forgotten it, or never keeps
/// keys, and can be asked, it is asked first: the record may be older than what the database knows of it.
///
/// # Errors
///
/// Returns the reason if another attempt could pay twice or cannot be made.
pub fn reopen(
    record: &Concluded,
    rule: ReplayRule,
    policy: &RetryPolicy,
    account: &AccountId,
    now: OffsetDateTime,
) -> Result<Reopening, NotReopened> {
    if record.state != PayoutLinkState::Failed {
        return Err(NotReopened::State(record.state));
    }
    if record.is_cancelled {
        return Err(NotReopened::Cancelled);
    }
    if record.connector_payout_id.is_some() {
        return Err(NotReopened::Payout);
    }
    if record.in_doubt_since.is_some() {
        return Err(NotReopened::Unknown);
    }
    if !record.has_request {
        return Err(NotReopened::NoRequest);
    }
    if record.account.as_ref().is_some_and(|called| called != account) {
        return Err(NotReopened::OtherAccount);
    }
    if record.attempts == 0 {
        return Ok(Reopening::Call);
    }
    match rule {
        ReplayRule::SameKey { window, look_up } => match (is_within(record, window, policy, now), look_up) {
            (true, _) => Ok(Reopening::Call),
            (false, Some(_)) => Ok(Reopening::LookUp),
            (false, None) => Err(NotReopened::KeyIsOver),
        },
        ReplayRule::LookUp(_) => Ok(Reopening::LookUp),
        // Nothing is unknown of it: the provider declined, or was never reached, or an operator found nothing there.
        ReplayRule::Never => Ok(Reopening::Call),
    }
}

/// Returns whether the provider still knows the key of the earlier attempts. A reliable "not found" forgets them.
fn is_within(record: &Concluded, window: Duration, policy: &RetryPolicy, now: OffsetDateTime) -> bool {
    let Some(first) = record.first_called_at else { return true };
    let passed = now - first;
    passed > -MAX_STEP && passed + policy.window_margin < window
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::domain::LookUp;

    const HOUR: Duration = Duration::from_hours(1);
    const SETTLE: LookUp = LookUp { settle: Duration::from_secs(90) };
    const SAME_KEY: ReplayRule = ReplayRule::SameKey { window: Duration::from_hours(24), look_up: None };
    const SAME_KEY_OR_ASK: ReplayRule =
        ReplayRule::SameKey { window: Duration::from_hours(24), look_up: Some(SETTLE) };
    const ASK: ReplayRule = ReplayRule::LookUp(SETTLE);

    fn now() -> OffsetDateTime {
        datetime!(2026-12-01 12:00 UTC)
    }

    fn account() -> AccountId {
        AccountId::of("sandbox", "https://pay.example", "acme")
    }

    fn failed() -> Concluded {
        Concluded {
            state: PayoutLinkState::Failed,
            attempts: 1,
            first_called_at: Some(now() - HOUR),
            in_doubt_since: None,
            account: Some(account()),
            connector_payout_id: None,
            is_cancelled: false,
            has_request: true,
        }
    }

    fn decide(record: &Concluded, rule: ReplayRule) -> Result<Reopening, NotReopened> {
        let policy = RetryPolicy {
            initial: HOUR,
            max_interval: HOUR,
            max_age: HOUR,
            max_attempts: 1,
            window_margin: Duration::from_mins(10),
            ask_before_calling_since: None,
        };
        reopen(record, rule, &policy, &account(), now())
    }

    #[test]
    fn a_key_that_the_provider_may_have_forgotten_is_not_used_blindly() {
        let over = || Concluded { first_called_at: Some(now() - 24 * HOUR), ..failed() };
        let nearly = || Concluded { first_called_at: Some(now() - 24 * HOUR + HOUR / 6), ..failed() };
        let stepped = || Concluded { first_called_at: Some(now() + HOUR), ..failed() };
        let forgotten = || Concluded { first_called_at: None, ..failed() };
        for (record, same_key, same_key_or_ask) in [
            (failed(), Ok(Reopening::Call), Ok(Reopening::Call)),
            (over(), Err(NotReopened::KeyIsOver), Ok(Reopening::LookUp)),
            (nearly(), Err(NotReopened::KeyIsOver), Ok(Reopening::LookUp)),
            // The clock was set back by an unknown time.
            (stepped(), Err(NotReopened::KeyIsOver), Ok(Reopening::LookUp)),
            (forgotten(), Ok(Reopening::Call), Ok(Reopening::Call)),
        ] {
            assert_eq!(decide(&record, SAME_KEY), same_key, "{record:?}");
            assert_eq!(decide(&record, SAME_KEY_OR_ASK), same_key_or_ask, "{record:?}");
            // No key protects these: what was called is looked up where that is possible.
            assert_eq!(decide(&record, ASK), Ok(Reopening::LookUp), "{record:?}");
            assert_eq!(decide(&record, ReplayRule::Never), Ok(Reopening::Call), "{record:?}");
        }
        assert_eq!(decide(&Concluded { attempts: 0, ..failed() }, ASK), Ok(Reopening::Call));
    }

    #[test]
    fn what_could_pay_twice_or_cannot_be_sent_is_refused() {
        let of_state = |state| Concluded { state, ..failed() };
        for (record, reason) in [
            (of_state(PayoutLinkState::Open), NotReopened::State(PayoutLinkState::Open)),
            (of_state(PayoutLinkState::Created), NotReopened::State(PayoutLinkState::Created)),
            (of_state(PayoutLinkState::Unknown), NotReopened::State(PayoutLinkState::Unknown)),
            (Concluded { connector_payout_id: Some("plink_1".into()), ..failed() }, NotReopened::Payout),
            (Concluded { in_doubt_since: Some(now()), ..failed() }, NotReopened::Unknown),
            (Concluded { has_request: false, ..failed() }, NotReopened::NoRequest),
            (
                Concluded {
                    account: Some(AccountId::of("sandbox", "https://pay.example", "another")),
                    ..failed()
                },
                NotReopened::OtherAccount,
            ),
        ] {
            for rule in [SAME_KEY, SAME_KEY_OR_ASK, ASK, ReplayRule::Never] {
                assert_eq!(decide(&record, rule), Err(reason), "{record:?}");
            }
        }
    }
}
