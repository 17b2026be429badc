//! Supervises long-lived tasks: restarts each one after a panic, and counts the panics.

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{task::JoinHandle, time::sleep};

use crate::lock::lock;

/// Panics by task, since the process started.
static FAILURES: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());
/// Number of tasks that panicked and are not running again yet.
static DOWN: AtomicUsize = AtomicUsize::new(0);

const PAUSE: Duration = Duration::from_secs(1);

/// Runs a task until it ends by itself. Restarts it after a panic.
pub fn supervise<F>(name: &'static str, mut start: impl FnMut() -> F + Send + 'static) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    failures().entry(name).or_default();
    tokio::spawn(async move {
        loop {
            match tokio::spawn(start()).await {
                Err(error) if error.is_panic() => {}
                // Ended by itself, or the runtime is shutting down.
                Ok(()) | Err(_) => return,
            }
            *failures().entry(name).or_default() += 1;
            tracing::error!(task = name, "task panicked, will restart");
            DOWN.fetch_add(1, Ordering::Relaxed);
            sleep(PAUSE).await;
            DOWN.fetch_sub(1, Ordering::Relaxed);
        }
    })
}

/// Returns work that calls `on_panic` if it panics.
///
/// Not an `async fn`, because its future would store the work twice.
pub fn watched(
    work: impl Future<Output = ()> + Send,
    on_panic: impl FnOnce() + Send,
) -> impl Future<Output = ()> + Send {
    AssertUnwindSafe(work).catch_unwind().map(move |ended| {
        if ended.is_err() {
            on_panic();
        }
    })
}

/// Returns the number of panics of each task.
pub fn panics() -> Vec<(&'static str, u64)> {
    failures().iter().map(|(name, count)| (*name, *count)).collect()
}

/// Returns whether every task is running.
pub fn all_run() -> bool {
    DOWN.load(Ordering::Relaxed) == 0
}

fn failures() -> MutexGuard<'static, BTreeMap<&'static str, u64>> {
    lock(&FAILURES)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_is_counted_and_started_again() {
        let started = Arc::new(AtomicUsize::new(0));
        let starts = started.clone();
        let task = supervise("fragile", move || {
            let number = starts.fetch_add(1, Ordering::Relaxed);
            async move { assert!(number > 0, "the first start fails") }
        });
        // Until it runs again, readiness knows of it.
        until(|| !all_run()).await;
        task.await.unwrap();
        assert_eq!(started.load(Ordering::Relaxed), 2);
        assert!(panics().contains(&("fragile", 1)));
        until(all_run).await;
    }

    async fn until(is_so: impl Fn() -> bool) {
        let waiting = async {
            while !is_so() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_of_watched_work_is_reported_once() {
        let panics = AtomicUsize::new(0);
        let count = || {
            panics.fetch_add(1, Ordering::Relaxed);
        };
        watched(async {}, count).await;
        assert_eq!(panics.load(Ordering::Relaxed), 0);
        watched(async { panic!("of the test") }, count).await;
        assert_eq!(panics.load(Ordering::Relaxed), 1);
    }
}
