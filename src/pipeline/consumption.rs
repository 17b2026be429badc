//! When jobs are consumed: not while the database is away, and not while an answer to a job cannot leave.

use std::time::Duration;

use tokio::{
    select,
    sync::watch,
    time::{sleep, timeout},
};

use super::Pipeline;

/// A pause that would be shorter than this is none: each one gives all deliveries back.
const PATIENCE: Duration = Duration::from_secs(1);

impl Pipeline {
    /// Returns whether jobs may be consumed, and every change of that.
    pub fn may_consume(&self) -> watch::Receiver<bool> {
        self.may_consume.subscribe()
    }

    /// Says when jobs may be consumed, for as long as it is polled.
    pub(super) async fn watch_consumption(&self) {
        let (mut database, mut replies_blocked) = (self.store.is_up(), self.replies_blocked.subscribe());
        let mut publishing = self.publisher.watch_up();
        // The senders live as long as this pipeline and its publisher: an error is the end of both.
        loop {
            let stopped = select! {
                away = async { database.wait_for(|up| !up).await.map(drop) } => away,
                blocked = async { replies_blocked.wait_for(|blocked| *blocked).await.map(drop) } => blocked,
            };
            if stopped.is_err() {
                return;
            }
            // A database that is back at once was not away.
            if !*replies_blocked.borrow() && timeout(PATIENCE, database.wait_for(|up| *up)).await.is_ok() {
                continue;
            }
            self.may_consume.send_replace(false);
            loop {
                let back = async {
                    database.wait_for(|up| *up).await.map(drop)?;
                    publishing.wait_for(|up| *up || !*replies_blocked.borrow()).await.map(drop)
                };
                if back.await.is_err() {
                    return;
                }
                if *database.borrow() {
                    break;
                }
            }
            if self.replies_blocked.send_replace(false) {
                // Time for what is published to be confirmed again.
                sleep(PATIENCE).await;
            }
            self.may_consume.send_replace(true);
        }
    }
}
