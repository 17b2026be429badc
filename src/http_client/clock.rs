//! The offset of peers' clocks, measured by the `Date` of their answers.

use std::{collections::HashMap, sync::Mutex};

use reqwest::header::{AGE, HeaderMap};
use time::{Duration, OffsetDateTime};

use super::answer::date;

use crate::lock::lock;

/// The maximum number of hosts that are remembered. A further one replaces another.
const MAX_HOSTS: usize = 64;

/// The clocks of all hosts that one client calls. A host's last answer counts.
#[derive(Debug, Default)]
pub struct PeerClock(Mutex<HashMap<u64, Duration>>);

impl PeerClock {
    pub(super) fn observe(&self, host: u64, headers: &HeaderMap, now: OffsetDateTime) {
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
        offsets.insert(host, date + Duration::milliseconds(500) - now);
    }

    /// Returns the median offset of the hosts ahead of this worker's clock, so that one wrong host does not count.
    ///
    /// Returns `None` before the first answer with a `Date`.
    pub fn offset(&self) -> Option<Duration> {
        let mut offsets: Vec<Duration> = lock(&self.0).values().copied().collect();
        offsets.sort();
        offsets.get(offsets.len().checked_sub(1)? / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::DATE;

    use super::*;

    #[test]
    fn the_host_in_the_middle_counts() {
        let (clock, now) = (PeerClock::default(), OffsetDateTime::from_unix_timestamp(784_111_777).unwrap());
        let seen = |host, date: &str, age: Option<&str>| {
            let mut headers = HeaderMap::from_iter([(DATE, date.parse().unwrap())]);
            age.map(|age| headers.insert(AGE, age.parse().unwrap()));
            clock.observe(host, &headers, now);
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
