//! Names the guards that a test removes from the protocol. The model has to find a violation for each.

/// A guard that is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FollowFlaw {
    /// An answer is stored without a check of the holder.
    NoFencing,
    /// Every answer is announced, even one that repeats the status.
    StatusNotCompared,
    /// A final status changes to any status that the provider reports.
    FinalChanges,
    /// A webhook does not wait for the webhook of the previous event.
    PreviousNotFirst,
    /// A result does not wait for the result of the previous event.
    PreviousResultNotFirst,
    /// A result counts as published before RabbitMQ confirms it.
    ResultNotConfirmed,
    /// The worker that finishes the previous webhook does not wake the next one.
    NextNotWoken,
    /// The next webhook is woken after the previous one is finished, by a write of its own.
    NextWokenApart,
    /// The previous event's row does not name the next event.
    NextNotNamed,
    /// An abandoned webhook does not wake the next one.
    AbandonedBlocks,
    /// A webhook is sent without a check of its lease.
    LeaseNotChecked,
    /// The event and the status are two writes.
    EventApart,
    /// A provider's webhook that arrives during a question causes no further question.
    WebhookDuringAQuestionIgnored,
    /// A cancel of a record that is not created yet is rejected.
    CancelDoesNotWait,
    /// A cancel ends a record whose first call is under way.
    CancelDuringTheCall,
    /// The provider's answer to a cancel counts without a check of its effect.
    CancelNotVerified,
    /// A cancel that had no effect stays stored.
    CancelWithoutEffectStored,
    /// A cancel request is answered before the link is cancelled.
    AnsweredEarly,
    /// A request is deleted before it is answered.
    DeletedBeforeItsAnswer,
    /// A link expires by the worker's clock.
    OwnClock,
}
