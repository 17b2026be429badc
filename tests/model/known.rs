//! Mirrors what a worker knows of a record's calls.

use payout_link_worker::domain::{
    AccountId, ConnectorError, CreatedLink, PayoutStatus, Progress, retry::Last,
};

use crate::state::{Account, NOW, Tick, at};

/// Mirrors the part of `domain::Progress` that the model needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Known {
    pub attempts: u8,
    pub first_called_at: Option<Tick>,
    pub last_called_at: Option<Tick>,
    pub is_in_doubt: bool,
    pub account: Option<Account>,
    pub look_ups: u8,
    pub last_outcome: LastOutcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LastOutcome {
    NothingYet,
    Link(u8),
    Declined,
    NoLink,
    NotFound,
}

impl Known {
    pub fn progress(&self) -> Progress {
        let error = || ConnectorError::unanswered("");
        Progress {
            attempts: self.attempts.into(),
            first_called_at: self.first_called_at.map(at),
            last_called_at: self.last_called_at.map(at),
            in_doubt_since: self.is_in_doubt.then(|| at(0)),
            account: self.account.map(account_id),
            look_ups: self.look_ups.into(),
            last: match self.last_outcome {
                LastOutcome::NothingYet => None,
                LastOutcome::Link(number) => Some(Last::Link(link(number))),
                LastOutcome::Declined => Some(Last::Declined(error())),
                LastOutcome::NoLink => Some(Last::NoLink { error: error(), retry_after: None }),
                LastOutcome::NotFound => Some(Last::NotFound),
            },
            ..Progress::new(at(NOW))
        }
    }

    /// Copies the changes that an answer made in the real `Progress`.
    pub fn copy_changes(&mut self, progress: &Progress) {
        self.is_in_doubt = progress.in_doubt_since.is_some();
        self.first_called_at = progress.first_called_at.and(self.first_called_at);
        self.look_ups = u8::try_from(progress.look_ups).unwrap();
        self.last_outcome = match &progress.last {
            None => LastOutcome::NothingYet,
            Some(Last::Link(link)) => LastOutcome::Link(number(link)),
            Some(Last::Declined(_) | Last::AlreadyExists(_) | Last::Ended { .. }) => LastOutcome::Declined,
            Some(Last::NoLink { .. }) => LastOutcome::NoLink,
            Some(Last::NotFound) => LastOutcome::NotFound,
        };
    }
}

pub fn account_id(account: Account) -> AccountId {
    AccountId::of("sandbox", "https://pay.example", &account.to_string())
}

/// Builds the connector's `number`-th link.
pub fn link(number: u8) -> CreatedLink {
    CreatedLink {
        connector_payout_id: number.to_string(),
        payout_status: PayoutStatus::RequiresFulfillment,
        unknown_status: None,
        url: String::new().into(),
        expires_at: None,
        status_code: 201,
    }
}

pub fn number(link: &CreatedLink) -> u8 {
    link.connector_payout_id.parse().unwrap()
}
