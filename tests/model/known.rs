//! A worker's knowledge of a record's calls: `domain::Progress`, as far as it matters here.

use payout_link_worker::domain::{
    AccountId, ConnectorError, CreatedLink, PayoutStatus, Progress, retry::Last,
};

use crate::state::{Account, NOW, Tick, at};

/// `domain::Progress`, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Known {
    pub attempts: u8,
    pub first_called_at: Option<Tick>,
    pub last_called_at: Option<Tick>,
    pub is_in_doubt: bool,
    pub account: Option<Account>,
    pub look_ups: u8,
    pub came_to: CameTo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CameTo {
    NothingYet,
    Link(u8),
    Refused,
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
            last: match self.came_to {
                CameTo::NothingYet => None,
                CameTo::Link(number) => Some(Last::Link(link(number))),
                CameTo::Refused => Some(Last::Declined(error())),
                CameTo::NoLink => Some(Last::NoLink { error: error(), retry_after: None }),
                CameTo::NotFound => Some(Last::NotFound),
            },
            ..Progress::new(at(NOW))
        }
    }

    /// Takes over what the real `Progress` made of an answer.
    pub fn learn(&mut self, progress: &Progress) {
        self.is_in_doubt = progress.in_doubt_since.is_some();
        self.first_called_at = progress.first_called_at.and(self.first_called_at);
        self.look_ups = u8::try_from(progress.look_ups).unwrap();
        self.came_to = match &progress.last {
            None => CameTo::NothingYet,
            Some(Last::Link(link)) => CameTo::Link(number(link)),
            Some(Last::Declined(_) | Last::AlreadyExists(_) | Last::Ended { .. }) => CameTo::Refused,
            Some(Last::NoLink { .. }) => CameTo::NoLink,
            Some(Last::NotFound) => CameTo::NotFound,
        };
    }
}

pub fn account_id(account: Account) -> AccountId {
    AccountId::of("sandbox", "https://pay.example", &account.to_string())
}

/// The connector's `number`-th link.
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
