//! Injects a fault by the amount of a create: `SSSNN` minor units, where `SSS` is the fault and `NN` the number of
//! times.
//!
//! The first `NN` creates for a reference fail with it, and the next one succeeds: 50302 is 503 twice. `NN` = 00
//! means every time. The round amounts 40000 and 50000 inject nothing, because people type them.
//!
//! | `SSS` | the create is answered |
//! | --- | --- |
//! | 400 401 403 404 408 409 410 422 500 502 503 504 | with that status; the work is not done |
//! | 429 | with 429 and `Retry-After: 1`; the work is not done |
//! | 601 · 602 | a minute late, the work done at its end · at its beginning |
//! | 611 · 612 | by a TCP reset, the work not done · done |
//! | 621 · 622 | by the connection's end, the work not done · done |
//! | 631 · 632 | never, the work not done · done |
//! | 641 · 642 | with half a body, then the connection's end, the work not done · done |
//! | 651 · 652 | with half a body, then silence, the work not done · done |
//! | 661 to 666 | with garbage, the work done: html, not JSON, empty, no URL, an insecure URL, 32 MiB |

use crate::fault_server::{ActiveFault, Fault, Garbage, When};

const STATUSES: [u16; 13] = [400, 401, 403, 404, 408, 409, 410, 422, 429, 500, 502, 503, 504];
const ORDINARY: [i64; 2] = [40_000, 50_000];
const BEYOND_ANY_TIMEOUT_MS: u64 = 60_000;

/// Returns the fault of an amount, and its number of creates per reference.
pub(super) fn fault_of(minor_amount: i64) -> Option<(ActiveFault, u32)> {
    if ORDINARY.contains(&minor_amount) {
        return None;
    }
    let what = u16::try_from(minor_amount / 100).ok()?;
    let times = match u32::try_from(minor_amount % 100).ok()? {
        0 => u32::MAX,
        times => times,
    };
    let fault = fault(what)?;
    let when = match what {
        602 | 612 | 622 | 632 | 642 | 652 | 661..=666 => When::After,
        _ => When::Before,
    };
    Some((ActiveFault { fault, when }, times))
}

fn fault(what: u16) -> Option<Fault> {
    let fault = match what {
        429 => Fault::status_with_retry_after(429, "1"),
        status if STATUSES.contains(&status) => Fault::status(status),
        601 | 602 => Fault::Slow { milliseconds: BEYOND_ANY_TIMEOUT_MS },
        611 | 612 => Fault::Reset,
        621 | 622 => Fault::Close,
        631 | 632 => Fault::Silence,
        641 | 642 => Fault::Truncated,
        651 | 652 => Fault::Stalled,
        661 => Fault::Garbage(Garbage::Html),
        662 => Fault::Garbage(Garbage::NotJson),
        663 => Fault::Garbage(Garbage::Empty),
        664 => Fault::Garbage(Garbage::MissingFields),
        665 => Fault::Garbage(Garbage::InsecureUrl),
        666 => Fault::Garbage(Garbage::Huge),
        _ => return None,
    };
    Some(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(minor_amount: i64) -> Option<(&'static str, When, u32)> {
        fault_of(minor_amount)
            .map(|(active_fault, times)| (active_fault.fault.name(), active_fault.when, times))
    }

    #[test]
    fn an_amount_says_what_when_and_how_often() {
        assert_eq!(read(50_302), Some(("status", When::Before, 2)));
        assert_eq!(read(42_200), Some(("status", When::Before, u32::MAX)));
        assert_eq!(read(61_101), Some(("reset", When::Before, 1)));
        assert_eq!(read(61_203), Some(("reset", When::After, 3)));
        assert_eq!(read(66_601), Some(("garbage", When::After, 1)));
        assert!(STATUSES.iter().all(|&status| read(i64::from(status) * 100 + 1).is_some()));
    }

    #[test]
    fn other_amounts_inject_nothing() {
        for amount in
            [1, 99, 2_500, 40_000, 41_100, 45_000, 50_000, 60_000, 66_700, 99_999, 5_030_200, i64::MAX]
        {
            assert_eq!(read(amount), None, "{amount}");
        }
    }
}
