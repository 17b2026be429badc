//! The offset of peers' clocks, measured by the `Date` of their answers.

use std::{collections::HashMap, sync::Mutex, time::Instant};

use reqwest::header::{AGE, HeaderMap};
use time::{Duration, OffsetDateTime};

use super::answer::date;

use crate::lock::lock;

/// The maximum number of hosts that are remembered. A further one replaces another.
const MAX_HOSTS: usize = 64;

/// A clock is not read again for this time: `Date` has whole seconds, and a busy host answers thousands of times in one.
const READ_AGAIN_AFTER: std::time::Duration = std::time::Duration::from_millis(500);

/// The clocks of all hosts that one client calls. A host's last reading counts.
#[derive(Debug, Default)]
pub struct PeerClock(Mutex<HashMap<u64, Reading>>);

#[derive(Debug)]
struct Reading {
    offset: Duration,
    at: Instant,
}

impl PeerClock {
    pub(super) fn observe(&self, host: u64, headers: &HeaderMap) {
        let at = Instant::now();
        let is_recent = |reading: &Reading| at.saturating_duration_since(reading.at) < READ_AGAIN_AFTER;
        if lock(&self.0).get(&host).is_some_and(is_recent) {
            return;
        }
        self.read(host, headers, OffsetDateTime::now_utc(), at);
    }

    fn read(&self, host: u64, headers: &HeaderMap, now: OffsetDateTime, at: Instant) {
        // A cache's answer has the time at which it was stored.
        let Some(date) = date(headers).filter(|_| !headers.contains_key(AGE)) else { return };
        let mut offsets = lock(&self.0);
        if offsets.len() >= MAX_HOSTS
            && !offsets.contains_key(&host)
            && let Some(any) = offsets.keys().next().copied()
        {
            offsets.remove(&any);
        }
        // `Date` has truncated seconds: add half a second.
        offsets.insert(host, Reading { offset: date + Duration::milliseconds(500) - now, at });
    }

    /// Returns the median offset of the hosts ahead of this worker's clock, so that one wrong host does not count.
    ///
    /// Returns `None` before the first answer with a `Date`.
    pub fn offset(&self) -> Option<Duration> {
        let mut offsets: Vec<Duration> = lock(&self.0).values().map(|reading| reading.offset).collect();
        offsets.sort();
        offsets.get(offsets.len().checked_sub(1)? / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::DATE;

    use super::*;

    #[test]
    fn a_clock_is_not_read_again_at_once() {
        let clock = PeerClock::default();
        for date in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sat, 06 Nov 2094 08:49:37 GMT"] {
            clock.observe(1, &HeaderMap::from_iter([(DATE, date.parse().unwrap())]));
        }
        assert!(clock.offset().is_some_and(Duration::is_negative));
    }

    #[test]
    fn the_host_in_the_middle_counts() {
        let (clock, now) = (PeerClock::default(), OffsetDateTime::from_unix_timestamp(784_111_777).unwrap());
        let seen = |host, date: &str, age: Option<&str>| {
            let mut headers = HeaderMap::from_iter([(DATE, date.parse().unwrap())]);
            age.map(|age| headers.insert(AGE, age.parse().unwrap()));
            clock.read(host, &headers, now, Instant::now());
            clock.offset().map(Duration::whole_seconds)
        };
        assert_eq!(seen(1, "yesterday", None), None);
        assert_eq!(seen(1, "Sun, 06 Nov 1994 07:49:37 GMT", Some("3600")), None);
        assert_eq!(seen(1, "Sun, 06 Nov 1994 08:59:37 GMT", None), Some(600));
        assert_eq!(seen(2, "Sun, 06 Nov 1994 08:49:37 GMT", None), Some(0));
        assert_eq!(seen(3, "Sun, 06 Nov 1994 08:49:36 GMT", None), Some(0));
        for host in 4..1000 {
            seen(host, "Sun, 06 Nov 1994 08:49:37 GMT", None);
        }
        assert_eq!(clock.0.lock().unwrap().len(), MAX_HOSTS);
    }
}
