//! Long-lived tasks: each is watched, started again after a panic, and counted.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{task::JoinHandle, time::sleep};

/// Panics by task, since the process began.
static FAILURES: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());
/// Tasks that have ended by a panic and are not running again yet.
static DOWN: AtomicUsize = AtomicUsize::new(0);

const PAUSE: Duration = Duration::from_secs(1);

/// Runs a task until it ends by itself. After a panic it is started again.
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
            tracing::error!(task = name, "task panicked, starting it again");
            DOWN.fetch_add(1, Ordering::Relaxed);
            sleep(PAUSE).await;
            DOWN.fetch_sub(1, Ordering::Relaxed);
        }
    })
}

/// Returns the panics of each task so far.
pub fn panics() -> Vec<(&'static str, u64)> {
    failures().iter().map(|(name, count)| (*name, *count)).collect()
}

/// Says whether every task is running.
pub fn all_run() -> bool {
    DOWN.load(Ordering::Relaxed) == 0
}

fn failures() -> MutexGuard<'static, BTreeMap<&'static str, u64>> {
    FAILURES.lock().unwrap_or_else(PoisonError::into_inner)
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
        task.await.unwrap();
        assert_eq!(started.load(Ordering::Relaxed), 2);
        assert!(panics().contains(&("fragile", 1)) && all_run());
    }
}
