//! The claim order: which due record of a connector is claimed first.
//!
//! The rank names the class and the priority. It is a column of the row, so that each rank is one range of an index. Which
//! ranks are claimed first, and from which merchant, is decided in `turns`: unknown outcomes, then by priority, with the
//! retries of a merchant before its parked jobs.

use super::PayoutPriority;

/// The class of a due record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceClass {
    /// A call may have been carried out.
    Unknown,
    /// Nothing was created so far; the call will be retried.
    Retry,
    /// It was never called.
    New,
}

/// Every rank, in the order of class and priority.
pub const SERVICE_RANKS: [i16; 9] = [0, 1, 2, 3, 4, 5, 6, 7, 8];

/// The number of priority groups: instant, fast and all others.
pub const PRIORITIES: i16 = 3;

/// Ranks below this one are those of unknown outcomes, and of every record with a lease.
pub const UNKNOWN_RANKS: i16 = PRIORITIES;

/// Returns the rank of a record.
pub fn service_rank(class: ServiceClass, priority: Option<PayoutPriority>) -> i16 {
    let class = match class {
        ServiceClass::Unknown => 0,
        ServiceClass::Retry => 1,
        ServiceClass::New => 2,
    };
    let priority = match priority {
        Some(PayoutPriority::Instant) => 0,
        Some(PayoutPriority::Fast) => 1,
        Some(
            PayoutPriority::Regular
            | PayoutPriority::Wire
            | PayoutPriority::CrossBorder
            | PayoutPriority::Internal,
        )
        | None => 2,
    };
    class * PRIORITIES + priority
}

/// Returns the rank under which waiting events of a priority take turns: that of retries.
pub fn event_rank(priority: i16) -> i16 {
    PRIORITIES + priority
}

/// Returns the priority of a rank: 0 for instant payouts, 1 for fast ones, 2 for all others.
pub fn event_priority(rank: i16) -> i16 {
    rank % PRIORITIES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_before_retry_before_new_and_instant_before_fast() {
        let ranks = [
            (ServiceClass::Unknown, Some(PayoutPriority::Instant)),
            (ServiceClass::Unknown, Some(PayoutPriority::Fast)),
            (ServiceClass::Unknown, Some(PayoutPriority::Wire)),
            (ServiceClass::Retry, Some(PayoutPriority::Instant)),
            (ServiceClass::Retry, Some(PayoutPriority::Fast)),
            (ServiceClass::Retry, None),
            (ServiceClass::New, Some(PayoutPriority::Instant)),
            (ServiceClass::New, Some(PayoutPriority::Fast)),
            (ServiceClass::New, Some(PayoutPriority::Regular)),
        ]
        .map(|(class, priority)| service_rank(class, priority));
        assert_eq!(ranks, SERVICE_RANKS);
    }

    #[test]
    fn rows_of_earlier_versions_are_served_as_retries() {
        // The default of the column: migrations/0005.
        assert_eq!(service_rank(ServiceClass::Retry, None), 5);
    }
}
