//! Protocols with one guard taken out: the model has to see each of them fail.

/// A guard that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FollowFlaw {
    /// An answer is stored without a look at the holder.
    NoFencing,
    /// Every answer is announced, also one that repeats the status.
    StatusNotCompared,
    /// A final status changes to whatever the provider says.
    FinalChanges,
    /// A webhook does not wait for the one of the previous event.
    PreviousNotFirst,
    /// The next webhook is not woken by the worker that finishes the previous one.
    NextNotWoken,
    /// The previous event's row does not name the next event.
    NextNotNamed,
    /// An abandoned webhook lets no other go.
    AbandonedBlocks,
    /// A webhook is posted without another look at its lease.
    LeaseNotLookedAt,
    /// The event is another write than the status.
    EventApart,
    /// A provider's webhook that comes during a question leads to no other question.
    WebhookDuringAQuestionForgotten,
    /// A cancel of a record that is not created yet is rejected.
    CancelDoesNotWait,
    /// A cancel of a record whose first call is under way ends it.
    CancelDuringTheCall,
    /// The provider's answer to a cancel counts, and nobody asks whether it had an effect.
    CancelBelieved,
    /// A cancel that had no effect is remembered.
    CancelWithoutEffectRemembered,
    /// A request is answered as soon as its link is to be cancelled.
    AnsweredEarly,
    /// A request is deleted before it is answered.
    DeletedBeforeItsAnswer,
    /// A link whose time is over counts as expired by the worker's clock.
    OwnClock,
}
