//! Names the guards that a test removes from the protocol. The model has to find a violation for each.

/// A guard that is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    AcknowledgedBeforeCommit,
    /// Writes do not check the holder.
    NoFencing,
    /// Every attempt has another idempotency key.
    NewKeyPerAttempt,
    /// A call is repeated without a look-up at a connector that ignores keys.
    RepeatsWithoutLookUp,
    /// A look-up's "not found" counts at once.
    NoSettleTime,
    /// The settle time is longer than a call but shorter than a lease.
    SettledWithinTheLease,
    /// An expired lease does not make the outcome unknown.
    ExpiredLeaseIgnored,
    /// A call is sent without a check of its lease.
    LeaseNotChecked,
    /// A call is recorded although the decision to make it may be old.
    StaleDecision,
    /// The event and the conclusion are two writes.
    EventApart,
    /// An event counts as published before the broker has confirmed it.
    PublishedUnconfirmed,
    /// Every publish uses a new event id.
    NewEventId,
    /// A permit is not returned if its record is postponed.
    PermitNotReturned,
    /// New work gets a permit before due work does.
    NewWorkFirst,
    /// A record gets its lease and its first attempt before the rate limit lets the call through.
    LeasedBeforeLetThrough,
    /// Every claim of a row with a holder makes the outcome unknown, also if the holder began no call.
    EveryClaimMakesUnknown,
    /// A call that begins does not clear `uncalled_holder`.
    CallNotRecorded,
    /// A takeover clears the holder, so the outcome does not become unknown.
    TakeoverClearsHolder,
    /// After a takeover a look-up's "not found" counts at once.
    TakenOverAsSettled,
    /// A takeover goes on under the claim of the worker that was cut off.
    TakenOverUnderTheSameClaim,
    /// Records that can neither be repeated nor looked up are taken over as well.
    TakenOverWithoutReplay,
    /// A conclusion is abandoned at the end of the lease.
    ConclusionGivenUp,
    /// An acknowledgement of an ended session settles the delivery that now has its tag.
    StaleAcknowledgement,
    /// The session after one that ended with waiting deliveries is never read.
    SessionNotWoken,
    /// A job is rejected without a search for its record.
    RejectedWithoutSearch,
    /// A job is rejected after a search for its record, while another worker may still write that record.
    RejectedBesideAWrite,
    /// A record that can neither be repeated nor looked up counts its first call at acceptance.
    AcceptedAsCalled,
    /// The first call of such a record begins without a write of its own.
    FirstCallNotRecorded,
    /// A record does not store the account that was called.
    AccountNotStored,
}
