//! Merchants' hosts: the concurrency limit of each, and a pause for a host that does not answer.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::behind::Behind;
use crate::{
    domain::retry::jittered,
    limits::{Lane, LanePermit, LanePool, PermitPool, PooledPermit},
    lock::lock,
};

/// The number of consecutive attempts without any answer that pauses a host.
const FAILURES: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const MAX_PAUSE: Duration = Duration::from_mins(2);
/// The time without an answer after which a host with no free permit counts as hanging.
const HANGS: Duration = Duration::from_secs(2);
/// The delay of webhooks to a hanging host: about the timeout of an attempt, after which the host is paused.
const UNTIL_IT_TIMES_OUT: Duration = Duration::from_secs(15);
/// The delay of a webhook whose host has no free permit.
const BUSY: Duration = Duration::from_secs(2);
/// The delay of a webhook whose host an operator paused. Resuming it makes its webhooks due.
const PAUSED_BY_OPERATOR: Duration = Duration::from_mins(1);
/// The number of webhooks that may wait for a permit of a host, for each permit.
const WAITS: usize = 32;
/// A quick host is behind once so many new webhooks wait for each of its permits, and until no more than the second number do.
const BEHIND: usize = 2;
const NOT_BEHIND: usize = 1;
/// A host is quick if an answer takes less than this, and the last one is no older.
const QUICK: Duration = Duration::from_millis(100);
/// The number of hosts above which idle hosts without failures are forgotten.
const KNOWN_HOSTS: usize = 4096;

/// Every host that webhooks go to.
#[derive(Debug)]
pub(super) struct Hosts {
    each: usize,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
    /// Those that operators paused.
    paused: Mutex<HashSet<String>>,
    behind: Arc<Behind>,
}

/// One host. The pause applies to the host, because a pause of each webhook would cost a write.
#[derive(Debug)]
pub(super) struct Host {
    permits: LanePool,
    /// Those that may wait for a permit. More of them would use up the places of webhooks to other hosts.
    waits: PermitPool,
    each: usize,
    /// Those of them that are new. What was stored before waits however slowly jobs are taken.
    new_waits: AtomicUsize,
    is_behind: AtomicBool,
    behind: Arc<Behind>,
    state: Mutex<State>,
}

/// A place among the webhooks that wait for a permit of a host.
pub(super) struct Waiting<'a> {
    host: &'a Host,
    lane: Lane,
    _permit: PooledPermit,
}

#[derive(Debug)]
struct State {
    /// Consecutive attempts without an answer.
    failures: u32,
    paused_until: Option<Instant>,
    /// `true` while one webhook tries the host after its pause.
    is_tried: bool,
    pause: Duration,
    last_answer: Instant,
    /// Moving average of the time that an answer takes; `None` before the first one.
    answer_time: Option<Duration>,
}

impl Hosts {
    pub(super) fn new(each: usize) -> Self {
        Self { each, hosts: Mutex::default(), paused: Mutex::default(), behind: Arc::default() }
    }

    /// Returns the hosts that answer and whose webhooks fall behind.
    pub(super) fn behind(&self) -> &Behind {
        &self.behind
    }

    pub(super) fn set_paused(&self, hosts: Vec<String>) {
        *lock(&self.paused) = hosts.into_iter().collect();
    }

    /// Returns the delay of a webhook if an operator paused the host.
    pub(super) fn is_open(&self, host: &str) -> Result<(), Duration> {
        if lock(&self.paused).contains(host) { Err(later(PAUSED_BY_OPERATOR)) } else { Ok(()) }
    }

    pub(super) fn of(&self, host: &str) -> Arc<Host> {
        let mut hosts = lock(&self.hosts);
        if let Some(host) = hosts.get(host) {
            return host.clone();
        }
        if hosts.len() >= KNOWN_HOSTS {
            hosts.retain(|_, host| host.permits.taken() > 0 || host.state().failures > 0);
        }
        let made = Arc::new(Host {
            permits: LanePool::new(self.each),
            waits: PermitPool::new(self.each.saturating_mul(WAITS)),
            each: self.each,
            new_waits: AtomicUsize::new(0),
            is_behind: AtomicBool::new(false),
            behind: self.behind.clone(),
            state: Mutex::new(State {
                failures: 0,
                paused_until: None,
                is_tried: false,
                pause: FIRST_PAUSE,
                last_answer: Instant::now(),
                answer_time: None,
            }),
        });
        hosts.entry(host.to_owned()).or_insert(made).clone()
    }
}

impl Host {
    pub(super) async fn take(&self, lane: Lane) -> LanePermit {
        self.permits.take(lane).await
    }

    /// Takes a permit if one is free.
    pub(super) fn try_take(&self, lane: Lane) -> Option<LanePermit> {
        self.permits.try_take(lane)
    }

    /// Takes a place among the webhooks that wait for a permit, if one is free.
    pub(super) fn try_wait(&self, lane: Lane, now: Instant) -> Option<Waiting<'_>> {
        let permit = self.waits.try_take()?;
        if lane == Lane::New {
            self.new_waits.fetch_add(1, Ordering::Relaxed);
            self.note_behind(now);
        }
        Some(Waiting { host: self, lane, _permit: permit })
    }

    /// Notes whether the host is behind. A host that stops answering is no longer.
    fn note_behind(&self, now: Instant) {
        let new_waits = self.new_waits.load(Ordering::Relaxed);
        let was_behind = self.is_behind.load(Ordering::Relaxed);
        let has_many =
            if was_behind { new_waits > self.each * NOT_BEHIND } else { new_waits >= self.each * BEHIND };
        let is_behind = has_many && self.is_quick(now);
        // Of several threads that see the change, one counts it.
        if is_behind != was_behind && self.is_behind.swap(is_behind, Ordering::Relaxed) != is_behind {
            if is_behind { self.behind.add() } else { self.behind.remove() }
        }
    }

    fn is_quick(&self, now: Instant) -> bool {
        let state = self.state();
        let is_recent = now.saturating_duration_since(state.last_answer) < QUICK;
        is_recent && state.answer_time.is_some_and(|answer_time| answer_time < QUICK)
    }

    /// Returns whether the host has answered no attempt lately, with whatever status.
    pub(super) fn hangs(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.state().last_answer) > HANGS
    }

    /// Allows an attempt, or returns the delay if the host is paused. After the pause one webhook tries the host.
    pub(super) fn pass(&self, now: Instant) -> Result<(), Duration> {
        let mut state = self.state();
        match state.paused_until {
            None => Ok(()),
            Some(until) if now < until => Err(later(until - now)),
            Some(_) => {
                // Until the answer, or until no answer can be expected any more.
                state.paused_until = Some(now + UNTIL_IT_TIMES_OUT + FIRST_PAUSE);
                state.is_tried = true;
                Ok(())
            }
        }
    }

    /// Returns the delay of a webhook that found no permit.
    pub(super) fn put_off(&self, now: Instant) -> Duration {
        later(if self.hangs(now) { UNTIL_IT_TIMES_OUT } else { BUSY })
    }

    /// Records whether an attempt was answered, with any status, and how long that took.
    pub(super) fn record(&self, answered: bool, took: Duration, now: Instant) {
        let mut state = self.state();
        if answered {
            *state = State {
                failures: 0,
                paused_until: None,
                is_tried: false,
                pause: FIRST_PAUSE,
                last_answer: now,
                answer_time: Some(state.answer_time.map_or(took, |average| (average * 7 + took) / 8)),
            };
            return;
        }
        state.failures = state.failures.saturating_add(1);
        // Attempts from before the pause add no information.
        let is_paused = state.paused_until.is_some_and(|until| now < until) && !state.is_tried;
        if state.failures >= FAILURES && !is_paused {
            state.is_tried = false;
            state.paused_until = Some(now + state.pause);
            state.pause = (state.pause * 2).min(MAX_PAUSE);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.lane == Lane::New {
            self.host.new_waits.fetch_sub(1, Ordering::Relaxed);
            self.host.note_behind(Instant::now());
        }
    }
}

/// Adds jitter, so that not all webhooks come at once.
fn later(wait: Duration) -> Duration {
    wait + jittered(Duration::from_secs(1) + wait / 8, Duration::from_secs(30))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_host_that_does_not_answer_is_paused_and_tried_with_one_webhook() {
        let (hosts, start) = (Hosts::new(64), Instant::now());
        let host = hosts.of("hangs.example");
        (1..FAILURES).for_each(|_| host.record(false, Duration::ZERO, start));
        assert_eq!(host.pass(start), Ok(()));
        host.record(false, Duration::ZERO, start);
        assert!(host.pass(start).is_err_and(|wait| wait > FIRST_PAUSE));
        // Those that were under way change nothing.
        (0..50).for_each(|_| host.record(false, Duration::ZERO, start));
        let now = start + FIRST_PAUSE + SECOND;
        assert_eq!(host.pass(now), Ok(()));
        assert!(host.pass(now).is_err());
        // It hangs still: the pause is longer now.
        let now = now + UNTIL_IT_TIMES_OUT;
        host.record(false, Duration::ZERO, now);
        assert!(host.pass(now + FIRST_PAUSE + SECOND).is_err());
        assert_eq!(host.pass(now + 2 * FIRST_PAUSE + SECOND), Ok(()));
        host.record(true, Duration::ZERO, now + 2 * FIRST_PAUSE + SECOND);
        assert_eq!(host.pass(now + 2 * FIRST_PAUSE + SECOND), Ok(()));
    }

    #[test]
    fn a_bounded_number_of_webhooks_waits_for_a_host() {
        let hosts = Hosts::new(2);
        let (slow, other) = (hosts.of("slow.example"), hosts.of("other.example"));
        let now = Instant::now();
        let wait = |host: &Host| try_wait_at(host, now).map(drop);
        let waiting: Vec<_> = (0..2 * WAITS).filter_map(|_| try_wait_at(&slow, now)).collect();
        assert_eq!(waiting.len(), 2 * WAITS);
        assert!(wait(&slow).is_none() && wait(&other).is_some());
        drop(waiting);
        assert!(wait(&slow).is_some());
    }

    #[test]
    fn a_quick_host_is_behind_while_many_new_webhooks_wait() {
        let (hosts, now) = (Hosts::new(2), Instant::now());
        let host = hosts.of("quick.example");
        host.record(true, QUICK / 2, now);
        let mut waiting: Vec<_> = (0..2 * BEHIND - 1).filter_map(|_| try_wait_at(&host, now)).collect();
        // Webhooks from the database change nothing.
        let due: Vec<_> = (0..2 * BEHIND).filter_map(|_| host.try_wait(Lane::Due, now)).collect();
        assert!(!hosts.behind().is_any());
        waiting.extend(try_wait_at(&host, now));
        assert!(hosts.behind().is_any());
        waiting.truncate(2 * NOT_BEHIND + 1);
        assert!(hosts.behind().is_any());
        waiting.truncate(2 * NOT_BEHIND);
        assert!(!hosts.behind().is_any());
        drop(due);
    }

    #[test]
    fn a_host_that_is_slow_or_hangs_is_not_behind() {
        let (hosts, now) = (Hosts::new(2), Instant::now());
        let (slow, unanswered, hangs) =
            (hosts.of("slow.example"), hosts.of("new.example"), hosts.of("hangs.example"));
        slow.record(true, QUICK, now);
        // Failures are no answers, however quick they are.
        unanswered.record(false, Duration::ZERO, now);
        hangs.record(true, QUICK / 2, now);
        fn many(host: &Host, now: Instant) -> Vec<Waiting<'_>> {
            (0..2 * BEHIND).filter_map(|_| try_wait_at(host, now)).collect()
        }
        let _waiting = (many(&slow, now), many(&unanswered, now));
        assert!(!hosts.behind().is_any());
        let _waiting = many(&hangs, now);
        assert!(hosts.behind().is_any());
        // Its answers end: the next webhook that waits finds out.
        let _waiting_too = try_wait_at(&hangs, now + QUICK);
        assert!(!hosts.behind().is_any());
    }

    fn try_wait_at(host: &Host, now: Instant) -> Option<Waiting<'_>> {
        host.try_wait(Lane::New, now)
    }

    #[test]
    fn an_answer_of_any_status_ends_the_count() {
        let (hosts, now) = (Hosts::new(64), Instant::now());
        let host = hosts.of("works.example");
        for _ in 0..10 {
            (1..FAILURES).for_each(|_| host.record(false, Duration::ZERO, now));
            host.record(true, Duration::ZERO, now);
        }
        assert_eq!(host.pass(now), Ok(()));
    }
}
