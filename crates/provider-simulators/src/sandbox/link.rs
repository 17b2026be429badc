//! Models a payout link of the sandbox: its statuses and their changes.

use serde::{Serialize, Serializer};
use time::OffsetDateTime;

use super::request::{Amount, CreateRequest};
use crate::link_change::LinkChange;

/// A payout link.
#[derive(Clone, Debug)]
pub struct Link {
    /// The id of the link.
    pub id: String,
    /// The URL, a secret: it is neither logged nor in the ledger's JSON.
    pub url: String,
    /// The key with which a repeated call returns this link.
    pub idempotency_key: String,
    /// The request.
    pub request: CreateRequest,
    /// The time of its creation.
    pub created_at: OffsetDateTime,
    /// The end of the time in which it can be claimed.
    pub expires_at: OffsetDateTime,
    failure: Option<Failure>,
    /// The history, oldest first. It begins with the creation.
    history: Vec<Change>,
}

/// An entry of a link's history: a status and the time when the link entered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The status that it entered.
    pub status: LinkStatus,
    /// The time when the link entered it.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

/// The reason why a payout failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The code, one of a fixed list.
    pub code: &'static str,
    /// A sentence for people.
    pub message: &'static str,
}

impl Failure {
    pub(super) const ORDERED: Self =
        Self { code: "payout_failed", message: "the payout failed because it was ordered to" };
    pub(super) const ACCOUNT_CLOSED: Self =
        Self { code: "account_closed", message: "the recipient's account is closed" };
}

/// The status of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkStatus {
    /// Nobody has claimed it.
    Issued,
    /// The recipient gave an account.
    Claimed,
    /// The bank works on the payout.
    Processing,
    /// The money has arrived.
    Paid,
    /// The payout failed; the link may be claimed again or not.
    Failed,
    /// The client cancelled it.
    Cancelled,
    /// Its time ended without a claim.
    Expired,
    /// The money came back after it had arrived.
    Reversed,
}

impl LinkStatus {
    /// Returns the status in the payout vocabulary of the worker's results.
    pub fn payout_status(self) -> &'static str {
        match self {
            Self::Issued => "REQUIRES_FULFILLMENT",
            Self::Claimed | Self::Processing => "PENDING",
            Self::Paid => "SUCCESS",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
            Self::Expired => "EXPIRED",
            Self::Reversed => "REVERSED",
        }
    }

    /// Returns the status's name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Claimed => "claimed",
            Self::Processing => "processing",
            Self::Paid => "paid",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Reversed => "reversed",
        }
    }

    /// Returns the status after a change, or `None` if the change is not possible.
    fn after(self, change: LinkChange) -> Option<Self> {
        let next = match (self, change) {
            (Self::Issued, LinkChange::Claim) => Self::Claimed,
            (Self::Issued, LinkChange::Expire) => Self::Expired,
            (Self::Issued, LinkChange::Cancel) => Self::Cancelled,
            (Self::Claimed, LinkChange::Process) => Self::Processing,
            (Self::Claimed | Self::Processing, LinkChange::Pay) => Self::Paid,
            (Self::Claimed | Self::Processing, LinkChange::Fail) => Self::Failed,
            (Self::Claimed | Self::Processing, LinkChange::Reopen) => Self::Issued,
            (Self::Paid, LinkChange::Reverse) => Self::Reversed,
            (
                Self::Issued
                | Self::Claimed
                | Self::Processing
                | Self::Paid
                | Self::Failed
                | Self::Cancelled
                | Self::Expired
                | Self::Reversed,
                _,
            ) => return None,
        };
        Some(next)
    }
}

impl Link {
    pub(super) fn new(new: NewLink, idempotency_key: &str, request: CreateRequest) -> Self {
        Self {
            id: new.id,
            url: new.url,
            idempotency_key: idempotency_key.to_owned(),
            request,
            created_at: new.created_at,
            expires_at: new.expires_at,
            failure: None,
            history: vec![Change { status: LinkStatus::Issued, at: new.created_at }],
        }
    }

    /// Returns the status that it entered last.
    pub fn status(&self) -> LinkStatus {
        self.latest().status
    }

    /// Returns the time when the link entered its status.
    pub fn updated_at(&self) -> OffsetDateTime {
        self.latest().at
    }

    /// Returns every status that the link entered, oldest first.
    pub fn history(&self) -> Vec<Change> {
        let mut history = self.history.clone();
        history.extend(self.expiry(OffsetDateTime::now_utc()));
        history
    }

    /// Returns why the payout failed, while the status is `failed`.
    pub fn failure(&self) -> Option<Failure> {
        self.failure
    }

    /// Returns the stored history. An expiry that is due may be missing.
    pub(super) fn entries(&self) -> &[Change] {
        &self.history
    }

    /// Says whether the link can still be claimed, by its last entry.
    pub(super) fn is_open(&self) -> bool {
        self.history.last().is_some_and(|entered| entered.status == LinkStatus::Issued)
    }

    /// Returns the number of statuses that it entered.
    pub(super) fn version(&self) -> usize {
        self.history.len()
    }

    /// Writes an expiry into the history, if the link's time is over without a claim.
    pub(super) fn settle(&mut self, now: OffsetDateTime) {
        self.history.extend(self.expiry(now));
    }

    /// Makes a change, or returns why it is not possible. `failure` is the reason of a failed payout.
    pub(super) fn change(
        &mut self,
        change: LinkChange,
        failure: Failure,
        now: OffsetDateTime,
    ) -> Result<(), String> {
        self.settle(now);
        let status = self.status();
        let next = status.after(change).ok_or_else(|| {
            format!("{change} is not possible: payout link {} is {}", self.id, status.name())
        })?;
        self.failure = (next == LinkStatus::Failed).then_some(failure);
        self.history.push(Change { status: next, at: now });
        Ok(())
    }

    fn latest(&self) -> Change {
        let now = OffsetDateTime::now_utc();
        let entered = self.history.last().copied();
        // The history begins with the creation, so it is never empty.
        let entered = entered.unwrap_or(Change { status: LinkStatus::Issued, at: self.created_at });
        self.expiry(now).unwrap_or(entered)
    }

    /// Returns the expiry that is due but not in the history yet.
    fn expiry(&self, now: OffsetDateTime) -> Option<Change> {
        let entered = self.history.last()?;
        let is_over = entered.status == LinkStatus::Issued && self.expires_at <= now;
        // A link that reopens after its end expires at that moment, not before it.
        is_over.then(|| Change { status: LinkStatus::Expired, at: self.expires_at.max(entered.at) })
    }
}

impl Serialize for Link {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Entry<'a> {
            id: &'a str,
            reference: &'a str,
            idempotency_key: &'a str,
            amount: &'a Amount,
            status: LinkStatus,
            payout_status: &'static str,
            #[serde(with = "time::serde::rfc3339")]
            created_at: OffsetDateTime,
            #[serde(with = "time::serde::rfc3339")]
            updated_at: OffsetDateTime,
            #[serde(with = "time::serde::rfc3339")]
            expires_at: OffsetDateTime,
            failure: Option<Failure>,
            history: Vec<Change>,
        }
        let entry = Entry {
            id: &self.id,
            reference: &self.request.reference,
            idempotency_key: &self.idempotency_key,
            amount: &self.request.amount,
            status: self.status(),
            payout_status: self.status().payout_status(),
            created_at: self.created_at,
            updated_at: self.updated_at(),
            expires_at: self.expires_at,
            failure: self.failure(),
            history: self.history(),
        };
        entry.serialize(serializer)
    }
}

/// The data of a new link besides its request.
pub(super) struct NewLink {
    pub(super) id: String,
    pub(super) token: String,
    pub(super) url: String,
    pub(super) created_at: OffsetDateTime,
    pub(super) expires_at: OffsetDateTime,
}
