//! Whether the database can be used: asked by the metrics, and by the consumer, which takes no jobs while it cannot.
//! Readiness asks over a connection of its own (`probe`).

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{Connection, postgres::PgConnection};
use tokio::{
    pin, select,
    sync::watch,
    time::{sleep, timeout},
};

use super::{Store, StoreError};

/// A job that is not written down within this waits for the database.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two looks at a database that is away.
const LOOK: Duration = Duration::from_millis(500);
const PING: Duration = Duration::from_secs(2);
/// Longer than the longest pause between two tries of a write, and a try.
pub(super) const CONCLUSIONS_FIRST: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub(super) struct Availability {
    up: Arc<watch::Sender<bool>>,
    /// When the database came back, if it was away.
    back_at: Arc<Mutex<Option<Instant>>>,
    /// Jobs that have waited longer than [`PATIENCE`] to be written down.
    overdue: Arc<AtomicUsize>,
    /// Writes of what is known of a call that have lasted longer than [`PATIENCE`].
    in_hand: Arc<AtomicUsize>,
}

impl Availability {
    pub(super) fn new() -> Self {
        Self {
            up: Arc::new(watch::Sender::new(true)),
            back_at: Arc::default(),
            overdue: Arc::default(),
            in_hand: Arc::default(),
        }
    }

    /// A statement failed as it does when the database is away.
    pub(super) fn failed(&self) {
        self.up.send_replace(false);
    }

    /// Says whether conclusions may still be on their way: this worker's own wait for the database, or it is back for a
    /// short time only.
    pub(super) fn has_conclusions_on_their_way(&self) -> bool {
        let back_at = *self.back_at.lock().unwrap_or_else(PoisonError::into_inner);
        !*self.up.borrow()
            || self.in_hand.load(Ordering::Relaxed) > 0
            || back_at.is_some_and(|at| at.elapsed() < CONCLUSIONS_FIRST)
    }

    /// Awaits the write of what is known of a call. While it waits for the database, leases that have expired are left
    /// alone.
    pub(super) async fn watch_in_hand<T>(&self, writing: impl Future<Output = T>) -> T {
        pin!(writing);
        select! {
            biased;
            written = &mut writing => return written,
            () = sleep(PATIENCE) => {}
        }
        let _in_hand = Counted::new(&self.in_hand);
        writing.await
    }

    /// Awaits the write of a job, and takes the database for away once that lasts too long.
    pub(super) async fn watch<T>(&self, writing: impl Future<Output = T>) -> T {
        pin!(writing);
        select! {
            biased;
            written = &mut writing => return written,
            () = sleep(PATIENCE) => {}
        }
        let _overdue = Counted::new(&self.overdue);
        self.failed();
        writing.await
    }
}

/// Counted for as long as it lives.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Store {
    /// Returns whether the database can be used, and every change of that.
    pub fn is_up(&self) -> watch::Receiver<bool> {
        self.availability.up.subscribe()
    }

    /// Notes that a statement outside the store's own retries failed as it does when the database is away.
    pub fn note_failure(&self) {
        self.availability.failed();
    }

    /// Why a new connection cannot be made. The pool only says that none came in time.
    async fn cause(&self) -> String {
        let options = self.pool.connect_options();
        let place = format!("{}:{}", options.get_host(), options.get_port());
        match timeout(PING, PgConnection::connect_with(&options)).await {
            Ok(Ok(_)) => format!("{place} takes connections, and statements are not answered"),
            Ok(Err(sqlx::Error::Io(error))) => format!("{place}: {error}"),
            Ok(Err(error)) => format!("{place}: {}", StoreError::from(error)),
            Err(_) => format!("{place}: no answer within {} s", PING.as_secs()),
        }
    }

    /// Finds out when a database that was away is back, for as long as it is polled. Says each change in the log.
    pub async fn watch_availability(&self) {
        let mut up = self.is_up();
        let mut said_at: Option<Instant> = None;
        loop {
            if up.wait_for(|up| !up).await.is_err() {
                return;
            }
            let answers = timeout(PING, self.ping()).await;
            if matches!(answers, Ok(Ok(()))) && self.availability.overdue.load(Ordering::Relaxed) == 0 {
                let back_at = Some(Instant::now());
                *self.availability.back_at.lock().unwrap_or_else(PoisonError::into_inner) = back_at;
                self.availability.up.send_replace(true);
                if let Some(since) = said_at.take() {
                    tracing::info!(outage_seconds = since.elapsed().as_secs(), "database available again");
                }
                continue;
            }
            if said_at.is_none() {
                let reason = match answers {
                    Ok(Ok(())) => "writes take too long".to_owned(),
                    Ok(Err(_)) | Err(_) => self.cause().await,
                };
                tracing::warn!(reason, "database unavailable, no jobs are consumed until it is back");
                said_at = Some(Instant::now());
            }
            sleep(LOOK).await;
        }
    }
}
