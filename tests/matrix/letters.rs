//! The kind in which the worker deletes dead letters that are past their retention.

use std::time::Duration;

use payout_link_worker::postgres::ActLock;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    evidence::Run,
    history::{LetterRetention, SeenLetter, Violation},
    kinds::Kind,
    point::Place,
    support::{self, job},
};

const DAYS: i64 = 30;
/// The worker's setting.
pub const SETTING: (&str, &str) = ("PAYOUT_LINK__RETENTION__DEAD_LETTERS_DAYS", "30");

/// The letters beside that of the job that the worker rejects, each with its age in days. `None`: a letter without a time
/// is never deleted.
const LETTERS: [(&str, Option<i64>); 5] =
    [("old-1", Some(31)), ("young", Some(29)), ("old-2", Some(400)), ("no-time", None), ("old-3", Some(31))];

/// Returns the retention of a kind.
pub fn retention(kind: Kind) -> Option<LetterRetention> {
    (kind == Kind::OldLetters).then(|| LetterRetention {
        length: Duration::from_hours(24) * DAYS.try_into().unwrap(),
        ended_at: OffsetDateTime::now_utc().unix_timestamp(),
    })
}

/// Takes the operators' lock, so that no worker reads dead letters before chunks are counted.
pub async fn lock(place: &Place, kind: Kind) -> Option<ActLock> {
    if kind != Kind::OldLetters {
        return None;
    }
    let store = support::store(place.env.pool.clone());
    // The session of a worker that has just ended may still have it.
    Some(support::eventually("the lock", async || store.lock_acts("letters").await.unwrap()).await)
}

impl Run<'_> {
    /// Puts old and young letters into the queue, behind that of the rejected job.
    pub async fn put_letters(&mut self, id: &str) {
        for (name, days) in LETTERS {
            let message_id = format!("{id}-{name}");
            let rejected_at = days.map(|days| OffsetDateTime::now_utc() - time::Duration::days(days));
            let mut letter = job(id).message_id(&message_id);
            if let Some(rejected_at) = rejected_at {
                letter = letter.header("x-rejected-at", &rejected_at.format(&Rfc3339).unwrap());
            }
            self.env.publish_dead_letter(letter).await;
            let rejected_at = rejected_at.map(OffsetDateTime::unix_timestamp);
            self.letters.push(SeenLetter { message_id, rejected_at });
        }
    }

    pub async fn unlock_letters(&mut self) {
        self.letters_lock.take().unwrap().end().await.unwrap();
    }

    /// Returns whether the letters past their retention are gone, the others are back in their queue, and no worker reads
    /// them.
    pub async fn are_letters_deleted(&self) -> bool {
        if self.letters.is_empty() || self.letters_lock.is_some() {
            return true;
        }
        let young = self.letters.len() - self.past_retention().count();
        let is_deleted = async || {
            let is_read = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                AND (classid::bigint << 32) | objid::bigint = hashtextextended('operator acts: letters', 0))";
            let is_read: bool = sqlx::query_scalar(is_read).fetch_one(&self.env.pool).await.unwrap();
            !is_read && self.env.ready(&self.env.names.dead_queue).await as usize == young + 1
        };
        // RabbitMQ returns the letters of a worker that died a moment after the database ends its lock.
        is_deleted().await && {
            tokio::time::sleep(Duration::from_millis(100)).await;
            is_deleted().await
        }
    }

    /// Returns a violation if letters past their retention are left at the end. The checker reports those that are missing.
    pub async fn letters_left(&self) -> Vec<Violation> {
        if self.letters.is_empty() {
            return Vec::new();
        }
        let left = self.env.ready(&self.env.names.dead_queue).await as usize;
        let expected = self.letters.len() + 1 - self.past_retention().count();
        let evidence = format!("{left} dead letters are left, and {expected} are within their retention");
        let violation = Violation { rule: "R26b", evidence };
        (left > expected).then_some(violation).into_iter().collect()
    }

    fn past_retention(&self) -> impl Iterator<Item = &SeenLetter> {
        let end = (OffsetDateTime::now_utc() - time::Duration::days(DAYS)).unix_timestamp();
        self.letters.iter().filter(move |letter| letter.rejected_at.is_some_and(|at| at < end))
    }
}
