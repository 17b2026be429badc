//! How a hundred callers share one transaction, unseen by them.
//!
//! A batch is whatever is waiting when a connection is free: nobody waits for a timer, so a lone job pays nothing.
//! Batches are bounded in rows and bytes, the queue before them too; `depth` of one kind may be under way at once,
//! so that one slow statement does not hold up the next.

use std::sync::Arc;

use tokio::sync::{Mutex, mpsc, oneshot};

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

pub(super) struct Batcher<S: Statement> {
    queue: mpsc::Sender<Waiting<S>>,
}

struct Waiting<S: Statement> {
    item: S::Item,
    answer: oneshot::Sender<Result<S::Answer, StoreError>>,
}

impl<S: Statement> Batcher<S> {
    pub(super) fn start(statement: S, limits: BatchLimits) -> Self {
        let (queue, waiting) = mpsc::channel(limits.rows * limits.depth);
        let (statement, waiting) = (Arc::new(statement), Arc::new(Mutex::new(waiting)));
        for _ in 0..limits.depth {
            tokio::spawn(work(statement.clone(), waiting.clone(), limits));
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

async fn work<S: Statement>(
    statement: Arc<S>,
    waiting: Arc<Mutex<mpsc::Receiver<Waiting<S>>>>,
    limits: BatchLimits,
) {
    loop {
        let (items, answers) = {
            let mut waiting = waiting.lock().await;
            let Some(first) = waiting.recv().await else { return };
            let mut bytes = S::weight(&first.item);
            let (mut items, mut answers) = (vec![first.item], vec![first.answer]);
            while items.len() < limits.rows
                && bytes < limits.bytes
                && let Ok(next) = waiting.try_recv()
            {
                bytes += S::weight(&next.item);
                items.push(next.item);
                answers.push(next.answer);
            }
            (items, answers)
        };
        for (answer, sender) in run(&*statement, &items).await.into_iter().zip(answers) {
            // A caller that went away left its lease behind, and that mends it.
            let _ = sender.send(answer);
        }
    }
}

/// Runs the batch; where the database refuses it as a whole, row by row, so that one bad row fails alone.
async fn run<S: Statement>(statement: &S, items: &[S::Item]) -> Vec<Result<S::Answer, StoreError>> {
    match statement.run(items).await {
        Ok(answers) => answers,
        Err(error @ StoreError::Unavailable(_)) => items.iter().map(|_| Err(error.clone())).collect(),
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
