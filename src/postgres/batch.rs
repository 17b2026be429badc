//! How a hundred callers share one transaction, unseen by them.
//!
//! A batch is whatever is waiting when the one before it is done: nobody waits for a timer, so a lone job pays
//! nothing. Batches of all kinds go one after another: two at once would only make them smaller (measured: half the
//! rows in each, and half as much again of Postgres's CPU a job). Small ones do not: where there is little to do, what
//! one kind waits for another is all that a lone job would notice. A statement that is slow does not hold up the next:
//! after a moment the next batch goes beside it, up to `depth` of one kind. Batches are bounded in rows and bytes, and
//! so is the queue before them.

use std::{sync::Arc, time::Duration};

use sqlx::PgConnection;
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::timeout,
};

use super::{
    StoreError,
    connect::answered,
    connection_cache::{CachedConnection, ConnectionCache, IDLE},
};

/// One statement for many rows.
pub(super) trait Statement: Send + Sync + 'static {
    type Item: Send + Sync + 'static;
    type Answer: Send + 'static;

    /// Size of an item's variable part in bytes.
    fn weight(item: &Self::Item) -> usize;

    /// One answer an item, in the items' order. Safe to repeat: an error may come after the commit.
    fn run(
        &self,
        connection: &mut PgConnection,
        items: &[Self::Item],
    ) -> impl Future<Output = Result<Vec<Result<Self::Answer, StoreError>>, StoreError>> + Send;
}

#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    pub rows: usize,
    pub bytes: usize,
    pub depth: usize,
}

/// Each kind may have one; what is slow, and looking for what is due, needs others.
pub const MIN_CONNECTIONS: u32 = 6;

/// What the batches of every kind share: they go one after another, over the same connections.
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
        // Whoever holds it forms the next batch of its kind.
        let waiting = Arc::new(Mutex::new(waiting));
        let statement = Arc::new(statement);
        for _ in 0..limits.depth {
            tokio::spawn(work(statement.clone(), waiting.clone(), limits, lane.clone()));
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

/// A batch of fewer rows has those of other kinds beside it.
const SMALL: usize = 8;

/// A statement that takes longer has the next batch beside it.
const SLOW: Duration = Duration::from_millis(10);

async fn work<S: Statement>(
    statement: Arc<S>,
    waiting: Arc<Mutex<mpsc::Receiver<Waiting<S>>>>,
    limits: BatchLimits,
    lane: Arc<Lane>,
) {
    loop {
        // Held from one batch to the next: handed on after each, it would wake another task every time.
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
                    // Its connection is not kept: nobody may be left to look whether it is needed.
                    send_answers(running.await.0, senders);
                    break;
                }
            }
        }
    }
}

fn send_answers<T>(answers: Vec<T>, senders: Vec<oneshot::Sender<T>>) {
    for (answer, sender) in answers.into_iter().zip(senders) {
        // A caller that went away left its lease behind, and that mends it.
        let _ = sender.send(answer);
    }
}

/// The first to wait. Where nobody does for a while, what is not used is given back: whoever keeps a connection comes
/// by here afterwards.
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

/// Runs the batch; where the database refuses it as a whole, row by row, so that one bad row fails alone. The
/// connection comes back where all went well.
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

/// One column of a batch, as `unnest` takes it. In a list of what is selected these go side by side; as `FROM UNNEST` each would be
/// put by in a store of its own first, at three times the cost.
pub(super) fn column<'a, R: 'a + Copy, T>(rows: &[R], of: impl Fn(R) -> T) -> Vec<T> {
    rows.iter().map(|row| of(*row)).collect()
}
