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
    /// Permits are not given back where a record is postponed.
    PermitKept,
    /// New work that waits in line gets a permit before due work does.
    NewWorkFirst,
    /// A record gets its lease and its first attempt before the rate limit lets the call through.
    LeasedBeforeLetThrough,
    /// Every row that had a holder is put in doubt, also where that claim has begun no call.
    EveryClaimDoubts,
    /// A call that begins leaves its claim among those that have begun none.
    CallNotWrittenDown,
    /// A takeover clears the holder, and with it the doubt.
    TakenOverWithoutDoubt,
    /// After a takeover a look-up's "not there" is believed at once.
    TakenOverAsSettled,
    /// A takeover goes on under the claim of the worker that was cut off.
    TakenOverUnderTheSameClaim,
    /// Records that can neither be repeated nor be looked up are taken over as well.
    TakenOverWithoutReplay,
    /// A conclusion is given up at the end of the lease.
    ConclusionGivenUp,
    /// An acknowledgement of an ended session settles the delivery that has its tag now.
    StaleAcknowledgement,
    /// A session that ended while its deliveries waited leaves its successor unread.
    NothingWakesTheSession,
    /// A job is rejected, and nobody looks for its record.
    RejectedUnseen,
    /// A job is rejected after its record was looked for, and nothing keeps another worker from writing it down.
    RejectedBesideAWrite,
    /// A record that can neither be repeated nor be looked up counts its first call when it is accepted.
    AcceptedAsCalled,
    /// The first call of such a record begins without a write of its own.
    FirstCallNotWrittenDown,
    /// A record does not remember the account that was called.
    AccountForgotten,
}
