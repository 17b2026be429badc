//! Acts as recipients and providers: some links of the sandboxes are claimed, others expire or are cancelled.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use payout_link_worker::domain::idempotency_key;
use provider_simulators::sandbox::{LinkChange, LinkStatus, Sandbox};
use tokio::{sync::watch, task::JoinSet, time::sleep};

use crate::{connectors::Provider, random::Random, test_env::TestEnv};

/// Of a hundred links, this many are claimed.
const CLAIMED: u64 = 20;
/// Of the claimed ones, this many are paid and then reversed.
const REVERSED: u64 = 4;
const EXPIRED: u64 = 5;
const CANCELLED: u64 = 3;
/// The random stream of this part.
const STREAM: u64 = 0x00C1_A1ED;

#[derive(Default)]
pub struct Recipients {
    /// Changed links: the position of the sandbox, by the key of the record.
    changed: Mutex<HashMap<String, usize>>,
    stop: watch::Sender<bool>,
}

/// The changes of a link, each with the delay after the one before. `None` is an expiry.
type Course = Vec<(Duration, Option<LinkChange>)>;

impl Recipients {
    /// Changes links of concluded records until it is stopped, and returns when all changes are done.
    ///
    /// A record must be concluded: a look-up for an open one may still need its link, and would no longer accept a
    /// claimed link.
    ///
    /// With `reverses`, some payouts are reversed: without announcements, the worker asks about paid links hours later.
    pub async fn act(env: Arc<TestEnv>, reverses: bool) {
        let (mut seen, mut acting, mut stop) =
            (HashSet::new(), JoinSet::new(), env.recipients.stop.subscribe());
        let mut random = Random::new(env.seed, STREAM);
        while !*stop.borrow() {
            let new: Vec<String> = {
                let inbox = env.upstream.inbox.lock().unwrap();
                inbox.concluded.keys().filter(|key| !seen.contains(*key)).cloned().collect()
            };
            for key in new {
                if let Some(course) = course(&mut random, reverses) {
                    acting.spawn(follow_course(env.clone(), key.clone(), course));
                }
                seen.insert(key);
            }
            while acting.try_join_next().is_some() {}
            tokio::select! {
                () = sleep(Duration::from_millis(500)) => {}
                _ = stop.changed() => {}
            }
        }
        while let Some(acted) = acting.join_next().await {
            acted.unwrap();
        }
    }

    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    pub fn count(&self) -> usize {
        self.changed.lock().unwrap().len()
    }

    /// Lists changed links of created records whose last status is not published yet.
    pub fn unannounced(env: &TestEnv) -> Vec<String> {
        let changed = env.recipients.changed.lock().unwrap().clone();
        let inbox = env.upstream.inbox.lock().unwrap();
        let missing = changed.into_iter().filter_map(|(key, place)| {
            let sandbox = sandbox(env, place)?;
            let entered = sandbox.history(&reference(&key)).last()?.status;
            let newest = inbox.newest.get(&key)?;
            let is_followed = !matches!(newest.1.as_str(), "payout_link.failed" | "payout_link.pending");
            (is_followed && newest.1 != announced_as(entered)).then_some(key)
        });
        missing.collect()
    }
}

fn course(random: &mut Random, reverses: bool) -> Option<Course> {
    use LinkChange::{Cancel, Claim, Fail, Pay, Process, Reopen, Reverse};
    let chance = random.between(0, 100);
    let mut soon = || Duration::from_millis(random.between(0, 4000));
    let changes: &[Option<LinkChange>] = match chance {
        // Most links are paid. A few fail, become claimable again, or change between two questions.
        0..REVERSED if reverses => &[Some(Claim), Some(Pay), Some(Reverse)],
        0..12 => &[Some(Claim), Some(Pay)],
        12..16 => &[Some(Claim), Some(Process), Some(Pay)],
        16..18 => &[Some(Claim), Some(Fail)],
        18..CLAIMED => &[Some(Claim), Some(Reopen), Some(Claim), Some(Pay)],
        _ if chance < CLAIMED + EXPIRED => &[None],
        _ if chance < CLAIMED + EXPIRED + CANCELLED => &[Some(Cancel)],
        _ => return None,
    };
    Some(changes.iter().map(|change| (soon(), *change)).collect())
}

/// Carries out the changes of one link.
async fn follow_course(env: Arc<TestEnv>, key: String, course: Course) {
    let reference = reference(&key);
    let place = (0..env.providers.len())
        .find(|&place| sandbox(&env, place).is_some_and(|sandbox| !sandbox.history(&reference).is_empty()));
    // Skips records of other providers and records without a link.
    let Some((place, sandbox)) = place.and_then(|place| Some((place, sandbox(&env, place)?))) else { return };
    env.recipients.changed.lock().unwrap().insert(key, place);
    for (after, change) in course {
        sleep(after).await;
        match change {
            // An operator may have cancelled the link already.
            Some(change) => {
                if sandbox.change(&reference, change).is_err() {
                    return;
                }
            }
            None => {
                if sandbox.expire_after(&reference, Duration::from_secs(1)).is_err() {
                    return;
                }
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

fn sandbox(env: &TestEnv, place: usize) -> Option<&Sandbox> {
    match env.providers.get(place)? {
        Provider::Sandbox(sandbox) => Some(sandbox),
        Provider::ProviderSimulator(..) => None,
    }
}

fn reference(key: &str) -> String {
    let (merchant_id, id) = key.rsplit_once('/').unwrap_or(("", key));
    idempotency_key(merchant_id, id)
}

/// Returns the type of the newest event after the status is announced. No course ends with a claimable link.
fn announced_as(status: LinkStatus) -> &'static str {
    match status {
        LinkStatus::Issued => "payout_link.created",
        LinkStatus::Claimed => "payout_link.claimed",
        LinkStatus::Processing => "payout_link.processing",
        LinkStatus::Paid => "payout_link.succeeded",
        LinkStatus::Failed => "payout_link.payout_failed",
        LinkStatus::Cancelled => "payout_link.cancelled",
        LinkStatus::Expired => "payout_link.expired",
        LinkStatus::Reversed => "payout_link.reversed",
    }
}
