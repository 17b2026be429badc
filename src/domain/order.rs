//! The order of service: which due record of a connector is claimed first.
//!
//! Unknown outcomes come before retries, retries before new work; within each, instant payouts come before fast ones
//! and these before all others. The rank is a column of the row, so that each group is one range of an index.

use super::PayoutPriority;

/// What a due record waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceClass {
    /// A call may have been carried out.
    Unknown,
    /// Nothing happened so far, and it is tried again.
    Retry,
    /// It was never called.
    New,
}

/// Every rank, the one that is served first in front.
pub const SERVICE_RANKS: [i16; 9] = [0, 1, 2, 3, 4, 5, 6, 7, 8];

/// Priorities that are told apart: instant, fast, and the rest.
const PRIORITIES: i16 = 3;

/// Returns the rank of a record; the lowest is served first.
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
