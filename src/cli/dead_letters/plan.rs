//! Names what is done with a letter.

/// The action that is taken on one letter.
pub(super) enum Plan {
    /// It is published again, then removed. `body`: the corrected one. `payout`: the identifier of a job, and whether the
    /// correction has changed it.
    Publish { exchange: String, routing_key: String, body: Option<Vec<u8>>, payout: Option<(String, bool)> },
    /// It is removed.
    Remove,
}
