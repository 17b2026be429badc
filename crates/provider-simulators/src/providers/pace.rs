//! Limits the calls a minute, in a window that begins with its first call, as providers describe theirs.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_mins(1);

pub(super) struct Pace {
    limit: Option<u32>,
    window: Mutex<Option<(Instant, u32)>>,
}

/// The use of a window after a call.
pub(super) struct WindowUse {
    pub(super) limit: u32,
    pub(super) left: u32,
    /// The seconds until the limit is whole again.
    pub(super) reset: u64,
    pub(super) too_many: bool,
}

impl Pace {
    pub(super) fn new(limit: Option<u32>) -> Self {
        Self { limit, window: Mutex::default() }
    }

    /// Counts a call. Returns `None` without a limit.
    pub(super) fn count(&self) -> Option<WindowUse> {
        let limit = self.limit?;
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let (began, calls) = window.filter(|(began, _)| now < *began + WINDOW).unwrap_or((now, 0));
        *window = Some((began, calls.saturating_add(1)));
        Some(WindowUse {
            limit,
            left: limit.saturating_sub(calls.saturating_add(1)),
            // The time is rounded up, so a client that waits so long is not early.
            reset: (began + WINDOW - now).as_secs() + 1,
            too_many: calls >= limit,
        })
    }
}
