//! Pays a link that was claimed on its page after a moment, unless its amount or its account number has another
//! course.
//!
//! | minor amount | account number | after the claim |
//! | --- | --- | --- |
//! | 70100 | 99990001 | the payout fails: `account_closed` |
//! | 70200 | 99990002 | the link stays claimed |
//! | 70300 | 99990003 | the payout is paid, and comes back as long after |
//!
//! The account number counts before the amount. After a change by hand the link does not change automatically any
//! more.

use std::sync::Arc;
use std::time::Duration;

use super::link::Failure;
use super::shared::Shared;
use crate::link_change::LinkChange;

/// The course of a claimed link that nobody changes by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    Pays,
    Fails,
    Stays,
    ComesBack,
}

impl Course {
    pub(super) fn of(minor_amount: i64, account_number: &str) -> Self {
        let account: String = account_number.chars().filter(char::is_ascii_digit).collect();
        match (account.as_str(), minor_amount) {
            ("99990001", _) => Self::Fails,
            ("99990002", _) => Self::Stays,
            ("99990003", _) => Self::ComesBack,
            (_, 70_100) => Self::Fails,
            (_, 70_200) => Self::Stays,
            (_, 70_300) => Self::ComesBack,
            _ => Self::Pays,
        }
    }

    fn changes(self) -> &'static [LinkChange] {
        match self {
            Self::Pays => &[LinkChange::Pay],
            Self::Fails => &[LinkChange::Fail],
            Self::Stays => &[],
            Self::ComesBack => &[LinkChange::Pay, LinkChange::Reverse],
        }
    }
}

/// Carries out the course in the background. `version` is the link's version after its claim.
pub(super) fn begin(shared: Arc<Shared>, id: String, version: usize, course: Course) {
    let Some(pay_after) = shared.pay_after() else { return };
    tokio::spawn(async move {
        let stop = shared.injector.stop.clone();
        stop.or(carry_on(&shared, &id, version, course.changes(), pay_after)).await;
    });
}

async fn carry_on(shared: &Shared, id: &str, version: usize, changes: &[LinkChange], pause: Duration) {
    for (step, &change) in changes.iter().enumerate() {
        tokio::time::sleep(pause).await;
        if shared.change_link_at(id, version + step, change, Failure::ACCOUNT_CLOSED).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_amount_or_the_account_decides() {
        for (minor_amount, account, course) in [
            (1_250, "DE89 3704 0044 0532 0130 00", Course::Pays),
            (1_250, "9999 0001", Course::Fails),
            (1_250, "99990002", Course::Stays),
            (1_250, "99990003", Course::ComesBack),
            (70_100, "0532013000", Course::Fails),
            (70_200, "0532013000", Course::Stays),
            (70_300, "0532013000", Course::ComesBack),
            (70_100, "99990002", Course::Stays),
            (70_101, "99990004", Course::Pays),
        ] {
            assert_eq!(Course::of(minor_amount, account), course, "{minor_amount} {account}");
        }
    }
}
