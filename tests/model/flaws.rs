//! Protocols with one guard taken out: the model has to see each of them fail.

/// What is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    AcknowledgedBeforeCommit,
    /// Writes do not look at the holder.
    NoFencing,
    /// Another idempotency key for every attempt.
    NewKeyPerAttempt,
    /// A repeat without a look-up, where keys mean nothing.
    RepeatsUnasked,
    /// "Not there" is believed at once.
    NoSettleTime,
    /// The settle time is longer than a call, but not than a lease.
    SettledWithinTheLease,
    /// A lease that ran out leaves no doubt behind.
    DoubtForgotten,
    /// A call is sent without another look at its lease.
    LeaseNotLookedAt,
    /// A call is written down by a decision of any age.
    StaleDecision,
    /// The event is another write than the conclusion.
    EventApart,
    /// An event counts as published before the broker has confirmed it.
    PublishedUnconfirmed,
    /// Every telling has an id of its own.
    NewEventId,
}
