//! How a hundred callers share one transaction, unseen by them.
//!
//! A batch is whatever is waiting when the one before it is done: nobody waits for a timer, so a lone job pays
//! nothing. Batches of all kinds go one after another: two at once would only make them smaller (measured: half the
//! rows in each, and half as much again of Postgres's CPU a job). A statement that is slow does not hold up the next:
//! after a moment the next batch goes beside it, up to `depth` of one kind. Batches are bounded in rows and bytes, and
//! so is the queue before them.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::timeout,
};

use super::StoreError;

/// One statement for many rows.
pub(super) trait Statement: Send + Sync + 'static {
    type Item: Send + Sync + 'static;
    type Answer: Send + 'static;

    /// Size of an item's variable part in bytes.
    fn weight(item: &Self::Item) -> usize;

    /// One answer an item, in the items' order. Safe to repeat: an error may come after the commit.
    fn run(
        &self,
        items: &[Self::Item],
    ) -> impl Future<Output = Result<Vec<Result<Self::Answer, StoreError>>, StoreError>> + Send;
}

#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    pub rows: usize,
    pub bytes: usize,
    pub depth: usize,
}

/// What the batches of every kind share: they go one after another.
pub(super) type Lane = Arc<Mutex<()>>;

pub(super) struct Batcher<S: Statement> {
    queue: mpsc::Sender<Waiting<S>>,
}

struct Waiting<S: Statement> {
    item: S::Item,
    answer: oneshot::Sender<Result<S::Answer, StoreError>>,
}

impl<S: Statement> Batcher<S> {
    pub(super) fn start(statement: S, limits: BatchLimits, lane: &Lane) -> Self {
        let (queue, waiting) = mpsc::channel(limits.rows * limits.depth);
        let (statement, waiting) = (Arc::new(statement), Arc::new(Mutex::new(waiting)));
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

/// A statement that takes longer has the next batch beside it.
const SLOW: Duration = Duration::from_millis(10);

async fn work<S: Statement>(
    statement: Arc<S>,
    waiting: Arc<Mutex<mpsc::Receiver<Waiting<S>>>>,
    limits: BatchLimits,
    lane: Lane,
) {
    loop {
        let mut turn = waiting.lock().await;
        let Some(first) = turn.recv().await else { return };
        let ahead = lane.lock().await;
        let mut bytes = S::weight(&first.item);
        let (mut items, mut senders) = (vec![first.item], vec![first.answer]);
        while items.len() < limits.rows
            && bytes < limits.bytes
            && let Ok(next) = turn.try_recv()
        {
            bytes += S::weight(&next.item);
            items.push(next.item);
            senders.push(next.answer);
        }
        let mut running = std::pin::pin!(run(&*statement, &items));
        let answers = match timeout(SLOW, &mut running).await {
            Ok(answers) => answers,
            Err(_) => {
                drop((ahead, turn));
                running.await
            }
        };
        for (answer, sender) in answers.into_iter().zip(senders) {
            // A caller that went away left its lease behind, and that mends it.
            let _ = sender.send(answer);
        }
    }
}

/// Runs the batch; where the database refuses it as a whole, row by row, so that one bad row fails alone.
async fn run<S: Statement>(statement: &S, items: &[S::Item]) -> Vec<Result<S::Answer, StoreError>> {
    match statement.run(items).await {
        Ok(answers) => answers,
        Err(error @ (StoreError::Unavailable(_) | StoreError::Unusable(_))) => {
            items.iter().map(|_| Err(error.clone())).collect()
        }
        Err(error) if items.len() == 1 => vec![Err(error)],
        Err(_) => {
            let mut answers = Vec::with_capacity(items.len());
            for item in items {
                answers.push(match statement.run(std::slice::from_ref(item)).await {
                    Ok(mut one) => one.pop().unwrap_or_else(|| Err(StoreError::Refused("no answer".into()))),
                    Err(error) => Err(error),
                });
            }
            answers
        }
    }
}

/// One column of a batch, as UNNEST takes it.
pub(super) fn column<'a, R: 'a + Copy, T>(rows: &[R], of: impl Fn(R) -> T) -> Vec<T> {
    rows.iter().map(|row| of(*row)).collect()
}
