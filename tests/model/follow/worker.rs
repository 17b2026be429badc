//! The steps of a worker of the model, and its claims.

use super::state::{Answer, ClaimId, Seen, Status};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Worker {
    Idle,
    /// Has claimed a link to ask the provider about, and may have lost it since. `cancels` counts the cancels of this claim.
    Asking {
        claim: ClaimId,
        seen: Seen,
        cancels: u8,
    },
    /// Has the provider's answer, or `None` if there was none.
    Answered {
        claim: ClaimId,
        seen: Seen,
        cancels: u8,
        status: Option<Status>,
    },
    /// Has recorded the cancel and is about to call the provider.
    Cancelling {
        claim: ClaimId,
        seen: Seen,
        cancels: u8,
    },
    /// Possible only if the status and its event are two writes.
    RecordingEvent {
        claim: ClaimId,
        status: Status,
    },
    /// Has claimed an event to deliver, and may have lost it since. `posts` (its webhook is pending) and `waits` are the
    /// values that the claim read.
    Posting {
        event: u8,
        claim: ClaimId,
        result: Publication,
        posts: bool,
        waits: bool,
        is_lease_over: bool,
    },
    Posted {
        event: u8,
        claim: ClaimId,
        result: Publication,
        waits: bool,
        last_outcome: Posted,
    },
    /// Possible only if the next webhook is woken by a write of its own.
    Waking {
        next: u8,
    },
    /// Is about to answer a request, or to delete it after the answer.
    Answering {
        request: u8,
        claim: ClaimId,
        answer: Answer,
    },
    Finishing {
        request: u8,
        claim: ClaimId,
        is_given_up: bool,
    },
    /// Possible only if a request is deleted before it is answered.
    AnsweringLate {
        request: u8,
        claim: ClaimId,
        answer: Answer,
    },
}

/// How far the publication of a claimed event's result has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Publication {
    /// It was published before the claim.
    Before,
    /// It waits for the result of the previous event.
    Waits,
    Due,
    /// RabbitMQ confirmed it.
    Confirmed,
    NotConfirmed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Posted {
    Nothing,
    Delivered,
    Failed,
    Abandoned,
}

impl Worker {
    pub fn claim(mut self) -> Option<ClaimId> {
        self.claim_mut().copied()
    }

    pub fn claim_mut(&mut self) -> Option<&mut ClaimId> {
        match self {
            Self::Idle | Self::Waking { .. } => None,
            Self::Asking { claim, .. }
            | Self::Answered { claim, .. }
            | Self::Cancelling { claim, .. }
            | Self::RecordingEvent { claim, .. }
            | Self::Posting { claim, .. }
            | Self::Posted { claim, .. }
            | Self::Answering { claim, .. }
            | Self::Finishing { claim, .. }
            | Self::AnsweringLate { claim, .. } => Some(claim),
        }
    }
}
