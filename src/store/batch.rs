//! How a hundred callers share one transaction, unseen by them.
//!
//! A batch is whatever is waiting when the one before it is done: nobody waits for a timer, so a lone job pays
//! nothing. Batches of all kinds go one after another: two at once would only make them smaller (measured: half the
//! rows in each, and half as much again of Postgres's CPU a job). Small ones do not: where there is little to do, what
//! one kind waits for another is all that a lone job would notice. A statement that is slow does not hold up the next:
//! after a moment the next batch goes beside it, up to `depth` of one kind. Batches are bounded in rows and bytes, and
//! so is the queue before them.
//!
//! A kind keeps its connection from one batch to the next: the pool asks each connection that it gets back whether it
//! is there still, twice, which is more than a lone job's statement costs.

use std::{sync::Arc, time::Duration};

use sqlx::{PgConnection, PgPool, Postgres, pool::PoolConnection};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::{Instant, timeout},
};

use super::{StoreError, connect::answered};

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

/// Each kind may keep one; what is slow, and looking for what is due, needs others.
pub const LEAST_CONNECTIONS: u32 = 6;

/// What the batches of every kind share: they go one after another.
pub(super) type Lane = Arc<Mutex<()>>;

pub(super) struct Batcher<S: Statement> {
    queue: mpsc::Sender<Waiting<S>>,
}

/// Who forms the next batch of its kind.
struct Turn<S: Statement> {
    queue: mpsc::Receiver<Waiting<S>>,
    kept: Option<Kept>,
}

/// The connection of the batch before, on which all went well.
struct Kept {
    connection: PoolConnection<Postgres>,
    since: Instant,
}

struct Waiting<S: Statement> {
    item: S::Item,
    answer: oneshot::Sender<Result<S::Answer, StoreError>>,
}

impl<S: Statement> Batcher<S> {
    pub(super) fn start(statement: S, pool: &PgPool, limits: BatchLimits, lane: &Lane) -> Self {
        let (queue, waiting) = mpsc::channel(limits.rows * limits.depth);
        let turn = Arc::new(Mutex::new(Turn { queue: waiting, kept: None }));
        let statement = Arc::new(statement);
        for _ in 0..limits.depth {
            tokio::spawn(work(statement.clone(), pool.clone(), turn.clone(), limits, lane.clone()));
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

/// A connection that nothing is done on for so long is given back: others may need it.
const IDLE: Duration = Duration::from_millis(100);
/// After so long it goes back in any case: the pool replaces those that are old.
const KEPT: Duration = Duration::from_secs(60);

/// A batch of fewer rows has those of other kinds beside it.
const SMALL: usize = 8;

/// A statement that takes longer has the next batch beside it.
const SLOW: Duration = Duration::from_millis(10);

async fn work<S: Statement>(
    statement: Arc<S>,
    pool: PgPool,
    turn: Arc<Mutex<Turn<S>>>,
    limits: BatchLimits,
    lane: Lane,
) {
    loop {
        let mut turn = turn.lock().await;
        let Some(first) = next(&mut turn).await else { return };
        let ahead = lane.lock().await;
        let mut bytes = S::weight(&first.item);
        let (mut items, mut senders) = (vec![first.item], vec![first.answer]);
        while items.len() < limits.rows
            && bytes < limits.bytes
            && let Ok(next) = turn.queue.try_recv()
        {
            bytes += S::weight(&next.item);
            items.push(next.item);
            senders.push(next.answer);
        }
        let ahead = (items.len() >= SMALL).then_some(ahead);
        let mut running = std::pin::pin!(run(&*statement, &pool, turn.kept.take(), &items));
        let answers = match timeout(SLOW, &mut running).await {
            Ok((answers, kept)) => {
                turn.kept = kept;
                answers
            }
            Err(_) => {
                drop((ahead, turn));
                running.await.0
            }
        };
        for (answer, sender) in answers.into_iter().zip(senders) {
            // A caller that went away left its lease behind, and that mends it.
            let _ = sender.send(answer);
        }
    }
}

/// The first to wait.
async fn next<S: Statement>(turn: &mut Turn<S>) -> Option<Waiting<S>> {
    if turn.kept.is_some() {
        match timeout(IDLE, turn.queue.recv()).await {
            Ok(first) => return first,
            Err(_) => turn.kept = None,
        }
    }
    turn.queue.recv().await
}

type Answers<S> = Vec<Result<<S as Statement>::Answer, StoreError>>;

/// Runs the batch; where the database refuses it as a whole, row by row, so that one bad row fails alone. A
/// connection on which anything went wrong goes back to the pool, which looks at it.
async fn run<S: Statement>(
    statement: &S,
    pool: &PgPool,
    kept: Option<Kept>,
    items: &[S::Item],
) -> (Answers<S>, Option<Kept>) {
    let for_all = |error: StoreError| items.iter().map(|_| Err(error.clone())).collect();
    let mut kept = match kept.filter(|kept| kept.since.elapsed() < KEPT) {
        Some(kept) => kept,
        None => match answered(pool, pool.acquire()).await {
            Ok(connection) => Kept { connection, since: Instant::now() },
            Err(error) => return (for_all(error), None),
        },
    };
    match answered(pool, statement.run(&mut kept.connection, items)).await {
        Ok(answers) => (answers, Some(kept)),
        Err(error @ (StoreError::Unavailable(_) | StoreError::Unusable(_))) => (for_all(error), None),
        Err(error) if items.len() == 1 => (vec![Err(error)], None),
        Err(_) => {
            drop(kept);
            let mut answers = Vec::with_capacity(items.len());
            for item in items {
                answers.push(alone(statement, pool, item).await);
            }
            (answers, None)
        }
    }
}

async fn alone<S: Statement>(statement: &S, pool: &PgPool, item: &S::Item) -> Result<S::Answer, StoreError> {
    let mut connection = answered(pool, pool.acquire()).await?;
    let mut one = answered(pool, statement.run(&mut connection, std::slice::from_ref(item))).await?;
    one.pop().unwrap_or_else(|| Err(StoreError::Refused("no answer".into())))
}

/// One column of a batch, as UNNEST takes it.
pub(super) fn column<'a, R: 'a + Copy, T>(rows: &[R], of: impl Fn(R) -> T) -> Vec<T> {
    rows.iter().map(|row| of(*row)).collect()
}
