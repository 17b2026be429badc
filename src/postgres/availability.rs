//! Tracks whether the database can be used, for metrics and for the consumer, which pauses while it cannot. Readiness
//! uses a connection of its own (`probe`).

use std::{
    sync::{
        Arc, Mutex,
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

use super::{Store, error::StoreError};
use crate::lock::lock;

/// A job that is not stored within this time waits for the database.
const PATIENCE: Duration = Duration::from_secs(3);
/// Interval between two tests of a database that is away.
const LOOK: Duration = Duration::from_millis(500);
const PING: Duration = Duration::from_secs(2);
/// Longer than the longest pause between two tries of a write, plus one try.
pub(super) const CONCLUSIONS_FIRST: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub(super) struct Availability {
    up: Arc<watch::Sender<bool>>,
    /// When the database came back, if it was away.
    back_at: Arc<Mutex<Option<Instant>>>,
    /// Jobs that have waited longer than [`PATIENCE`] to be stored.
    overdue: Arc<AtomicUsize>,
    /// Writes of attempts and conclusions that have lasted longer than [`PATIENCE`].
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

    /// Records a failure that means that the database is away.
    pub(super) fn failed(&self) {
        self.up.send_replace(false);
    }

    /// Returns whether conclusions may still be waiting to be written: this worker's own wait for the database, or
    /// the database came back a short time ago.
    pub(super) fn has_conclusions_on_their_way(&self) -> bool {
        let back_at = *lock(&self.back_at);
        !*self.up.borrow()
            || self.in_hand.load(Ordering::Relaxed) > 0
            || back_at.is_some_and(|at| at.elapsed() < CONCLUSIONS_FIRST)
    }

    /// Awaits the write of an attempt or a conclusion. While it waits for the database, expired leases are left
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

    /// Awaits the write of a job. If it takes longer than [`PATIENCE`], the database counts as away.
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

/// Counts one until it is dropped.
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

    /// Records a failure outside the store's own retries that means that the database is away.
    pub fn note_failure(&self) {
        self.availability.failed();
    }

    /// Finds out why a new connection fails. The pool reports only a timeout.
    async fn cause(&self) -> String {
        let options = self.pool.connect_options();
        let address = format!("{}:{}", options.get_host(), options.get_port());
        match timeout(PING, PgConnection::connect_with(&options)).await {
            Ok(Ok(_)) => format!("{address} accepts connections but does not answer statements"),
            Ok(Err(sqlx::Error::Io(error))) => format!("{address}: {error}"),
            Ok(Err(error)) => format!("{address}: {}", StoreError::from(error)),
            Err(_) => format!("{address}: no answer within {} s", PING.as_secs()),
        }
    }

    /// Tests a database that is away until it is back, for as long as it is polled. Logs each change.
    pub async fn watch_availability(&self) {
        let mut up = self.is_up();
        let mut logged_at: Option<Instant> = None;
        loop {
            if up.wait_for(|up| !up).await.is_err() {
                return;
            }
            let answers = timeout(PING, self.ping()).await;
            if matches!(answers, Ok(Ok(()))) && self.availability.overdue.load(Ordering::Relaxed) == 0 {
                let back_at = Some(Instant::now());
                *lock(&self.availability.back_at) = back_at;
                self.availability.up.send_replace(true);
                if let Some(since) = logged_at.take() {
                    tracing::info!(outage_seconds = since.elapsed().as_secs(), "database available again");
                }
                continue;
            }
            if logged_at.is_none() {
                let reason = match answers {
                    Ok(Ok(())) => "writes take too long".to_owned(),
                    Ok(Err(_)) | Err(_) => self.cause().await,
                };
                tracing::warn!(reason, "database unavailable, consumption paused");
                logged_at = Some(Instant::now());
            }
            sleep(LOOK).await;
        }
    }
}
