//! Puts dead letters, old and young, into their queue. One worker deletes those that are past their retention, and nobody
//! takes any before the end of the run. So a young letter, or that of a rejected job, must be there at the end.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use history_checker::{DeadLetter, LetterRetention, SeenLetter};
use time::OffsetDateTime;
use tokio::{sync::watch, time::sleep};

use crate::{random::Random, test_env::TestEnv};

/// The worker that deletes old letters. It reads them at each of its starts.
pub const WORKER: usize = 0;
/// Its retention.
pub const DAYS: u32 = 1;
const PAUSE: Duration = Duration::from_millis(500);
/// The random stream of this part.
const STREAM: u64 = 0x001E_77E2;

#[derive(Default)]
pub struct Letters {
    seen: Mutex<Vec<SeenLetter>>,
    stop: watch::Sender<bool>,
}

impl Letters {
    /// Puts letters into the queue until it is stopped. Most are old.
    pub async fn act(env: Arc<TestEnv>) {
        let (mut random, mut stop) = (Random::new(env.seed, STREAM), env.letters.stop.subscribe());
        for number in 0_u32.. {
            if *stop.borrow() {
                return;
            }
            let hours = if random.percent(70) { random.between(25, 1000) } else { random.between(0, 23) };
            let rejected_at = OffsetDateTime::now_utc() - Duration::from_hours(hours);
            let message_id = format!("letter-{number}");
            env.upstream.publish_letter(&message_id, rejected_at).await;
            let rejected_at = Some(rejected_at.unix_timestamp());
            env.letters.seen.lock().unwrap().push(SeenLetter { message_id, rejected_at });
            tokio::select! {
                () = sleep(PAUSE) => {}
                _ = stop.changed() => {}
            }
        }
    }

    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    pub fn seen(&self) -> Vec<SeenLetter> {
        self.seen.lock().unwrap().clone()
    }

    /// Returns the retention of a run that ends now.
    pub fn retention() -> LetterRetention {
        let length = Duration::from_hours(24) * DAYS;
        LetterRetention { length, ended_at: OffsetDateTime::now_utc().unix_timestamp() }
    }

    /// Counts the letters that were put into the queue, and those of them that are gone.
    pub fn counts(&self, dead: &[DeadLetter]) -> (u64, u64) {
        let left: HashSet<&str> = dead.iter().filter_map(|letter| letter.message_id.as_deref()).collect();
        let seen = self.seen.lock().unwrap();
        let gone = seen.iter().filter(|letter| !left.contains(letter.message_id.as_str()));
        (seen.len() as u64, gone.count() as u64)
    }
}
