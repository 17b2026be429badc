//! Lets many callers share one transaction.
//!
//! A batch is everything that waits when the previous batch is done. No caller waits for a timer, so a single job has
//! no extra delay. Batches of all kinds run one after another: two at once would only be smaller (measured: half the
//! rows each, and half as much again of PostgreSQL's CPU time a job). Small batches run concurrently, because then
//! waiting for another kind would be the main delay of a single job. A slow statement does not block the next: after
//! [`SLOW`] the next batch runs beside it, up to `depth` of one kind. Batches and the queue before them are bounded
//! in rows and bytes.

use std::{sync::Arc, time::Duration};

use sqlx::PgConnection;
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::timeout,
};

use super::{
    connect::answered,
    connection_cache::{CachedConnection, ConnectionCache, IDLE},
    error::StoreError,
};
use crate::tasks;

/// One statement for many rows.
pub(super) trait Statement: Send + Sync + 'static {
    type Item: Send + Sync + 'static;
    type Answer: Send + 'static;

    /// Returns the size of an item's variable part in bytes.
    fn weight(item: &Self::Item) -> usize;

    /// Runs the statement and returns one answer for each item, in order. It must be safe to repeat, because an error may come after the commit.
    fn run(
        &self,
        connection: &mut PgConnection,
        items: &[Self::Item],
    ) -> impl Future<Output = Result<Vec<Result<Self::Answer, StoreError>>, StoreError>> + Send;
}

/// Limits of a batch.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// Maximum number of rows.
    pub rows: usize,
    /// Maximum size of the variable parts, in bytes.
    pub bytes: usize,
    /// Maximum number of concurrent batches of one kind.
    pub depth: usize,
}

/// Minimum size of the pool: each kind of batch may use one connection; slow batches and the sweeper need others.
pub const MIN_CONNECTIONS: u32 = 6;

/// The order and the connections that the batches of all kinds share.
pub(super) struct Lane {
    order: Mutex<()>,
    connections: ConnectionCache,
}

impl Lane {
    pub(super) fn new(connections: ConnectionCache) -> Arc<Self> {
        Arc::new(Self { order: Mutex::default(), connections })
    }
}

pub(super) struct Batcher<S: Statement> {
    queue: mpsc::Sender<Waiting<S>>,
}

struct Waiting<S: Statement> {
    item: S::Item,
    answer: oneshot::Sender<Result<S::Answer, StoreError>>,
}

impl<S: Statement> Batcher<S> {
    pub(super) fn start(statement: S, limits: BatchLimits, lane: &Arc<Lane>) -> Self {
        let (queue, waiting) = mpsc::channel(limits.rows * limits.depth);
        // The task that holds the lock forms the next batch of its kind.
        let waiting = Arc::new(Mutex::new(waiting));
        let statement = Arc::new(statement);
        for _ in 0..limits.depth {
            let (statement, waiting, lane) = (statement.clone(), waiting.clone(), lane.clone());
            // The callers of a batch that panics get an error. The next batch needs its task again.
            tasks::supervise("batches", move || {
                work(statement.clone(), waiting.clone(), limits, lane.clone())
            });
        }
        Self { queue }
    }

    pub(super) async fn submit(&self, item: S::Item) -> Result<S::Answer, StoreError> {
        let (answer, answered) = oneshot::channel();
        let stopped = || StoreError::Unavailable("the store has stopped".into());
        self.queue.send(Waiting { item, answer }).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

/// A batch with fewer rows runs beside those of other kinds.
const SMALL: usize = 8;

/// The next batch runs beside a statement that takes longer.
const SLOW: Duration = Duration::from_millis(50);

async fn work<S: Statement>(
    statement: Arc<S>,
    waiting: Arc<Mutex<mpsc::Receiver<Waiting<S>>>>,
    limits: BatchLimits,
    lane: Arc<Lane>,
) {
    loop {
        // Held from one batch to the next: passing it on would wake another task every time.
        let mut waiting = waiting.lock().await;
        loop {
            let Some(first) = next(&mut waiting, &lane.connections).await else { return };
            let ahead = lane.order.lock().await;
            let mut bytes = S::weight(&first.item);
            let (mut items, mut senders) = (vec![first.item], vec![first.answer]);
            while items.len() < limits.rows
                && bytes < limits.bytes
                && let Ok(next) = waiting.try_recv()
            {
                bytes += S::weight(&next.item);
                items.push(next.item);
                senders.push(next.answer);
            }
            let ahead = (items.len() >= SMALL).then_some(ahead);
            let mut running = std::pin::pin!(run(&*statement, &lane.connections, &items));
            match timeout(SLOW, &mut running).await {
                Ok((answers, cached)) => {
                    if let Some(cached) = cached {
                        lane.connections.put_back(cached);
                    }
                    send_answers(answers, senders);
                }
                Err(_) => {
                    drop((ahead, waiting));
                    // Its connection is not cached: no task may be left to return it when it is idle.
                    send_answers(running.await.0, senders);
                    break;
                }
            }
        }
    }
}

fn send_answers<T>(answers: Vec<T>, senders: Vec<oneshot::Sender<T>>) {
    for (answer, sender) in answers.into_iter().zip(senders) {
        // If the caller is gone, its lease expires and another worker claims the row.
        let _ = sender.send(answer);
    }
}

/// Returns the first waiting item. If none comes for [`IDLE`], returns idle connections to the pool first.
async fn next<S: Statement>(
    waiting: &mut mpsc::Receiver<Waiting<S>>,
    connections: &ConnectionCache,
) -> Option<Waiting<S>> {
    match timeout(IDLE, waiting.recv()).await {
        Ok(first) => first,
        Err(_) => {
            connections.give_back_idle();
            waiting.recv().await
        }
    }
}

type Answers<S> = Vec<Result<<S as Statement>::Answer, StoreError>>;

/// Runs the batch. If the database rejects it as a whole, runs it row by row, so that only the bad row fails. Returns
/// the connection if no statement failed.
async fn run<S: Statement>(
    statement: &S,
    connections: &ConnectionCache,
    items: &[S::Item],
) -> (Answers<S>, Option<CachedConnection>) {
    match together(statement, connections, items).await {
        Ok((answers, cached)) => (answers, Some(cached)),
        Err(error @ (StoreError::Unavailable(_) | StoreError::Unusable(_))) => {
            (items.iter().map(|_| Err(error.clone())).collect(), None)
        }
        Err(error) if items.len() == 1 => (vec![Err(error)], None),
        Err(_) => {
            let mut answers = Vec::with_capacity(items.len());
            for item in items {
                let alone = together(statement, connections, std::slice::from_ref(item)).await;
                let no_answer = || Err(StoreError::Rejected("no answer".into()));
                answers.push(alone.and_then(|(mut one, _)| one.pop().unwrap_or_else(no_answer)));
            }
            (answers, None)
        }
    }
}

async fn together<S: Statement>(
    statement: &S,
    connections: &ConnectionCache,
    items: &[S::Item],
) -> Result<(Answers<S>, CachedConnection), StoreError> {
    let mut cached = connections.take().await?;
    let answers = answered(connections.pool(), statement.run(cached.connection(), items)).await?;
    Ok((answers, cached))
}

/// Returns one column of a batch for `unnest`. In a SELECT list these cost a third of `FROM UNNEST`, which
/// materializes each array first.
pub(super) fn column<'a, R: 'a + Copy, T>(rows: &[R], of: impl Fn(R) -> T) -> Vec<T> {
    rows.iter().map(|row| of(*row)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use sqlx::postgres::PgPoolOptions;

    use super::*;

    /// Panics at its first item.
    struct Fragile;

    static HAS_PANICKED: AtomicBool = AtomicBool::new(false);

    impl Statement for Fragile {
        type Item = ();
        type Answer = ();

        fn weight((): &()) -> usize {
            assert!(HAS_PANICKED.swap(true, Ordering::Relaxed), "of the test");
            0
        }

        async fn run(
            &self,
            _: &mut PgConnection,
            _: &[()],
        ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
            Ok(vec![Ok(())])
        }
    }

    #[tokio::test]
    async fn a_batch_that_panics_fails_its_callers_and_no_later_ones() {
        // Nothing listens there.
        let nowhere = PgPoolOptions::new()
            .acquire_timeout(Duration::from_millis(50))
            .connect_lazy("postgres://127.0.0.1:1/none")
            .unwrap();
        let limits = BatchLimits { rows: 8, bytes: 8, depth: 1 };
        let batcher = Batcher::start(Fragile, limits, &Lane::new(ConnectionCache::new(nowhere)));
        let stopped = |answer: Result<(), StoreError>| {
            answer.unwrap_err().to_string().contains("the store has stopped")
        };
        assert!(stopped(batcher.submit(()).await));
        // The next one reaches the database, and that one is away.
        assert!(!stopped(batcher.submit(()).await));
    }
}
