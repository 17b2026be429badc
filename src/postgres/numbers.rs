//! Converts numbers to the types of the database's columns. A number that is too large becomes the largest one.

use std::time::Duration;

/// Converts a count to PostgreSQL's signed 32 bits.
pub(super) fn count(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Converts a duration to whole milliseconds in PostgreSQL's signed 32 bits.
pub(super) fn whole_millis(took: Duration) -> i32 {
    i32::try_from(took.as_millis()).unwrap_or(i32::MAX)
}

/// Converts a duration to milliseconds for the database's interval arithmetic.
pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
