//! Pauses consumption while the database is away, or while a reply to a job cannot be published.

use std::time::Duration;

use tokio::{
    select,
    sync::watch,
    time::{sleep, timeout},
};

use super::Pipeline;

/// Shorter outages cause no pause, because each pause requeues all deliveries.
const PATIENCE: Duration = Duration::from_secs(1);

impl Pipeline {
    /// Returns whether jobs may be consumed, and every change of that.
    pub fn may_consume(&self) -> watch::Receiver<bool> {
        self.may_consume.subscribe()
    }

    /// Decides when jobs may be consumed, for as long as it is polled.
    pub(super) async fn watch_consumption(&self) {
        let (mut database, mut replies_blocked) = (self.store.is_up(), self.replies_blocked.subscribe());
        let mut publishing = self.publisher.watch_up();
        // The senders live as long as this pipeline and its publisher; an error means that both have ended.
        loop {
            let stopped = select! {
                away = async { database.wait_for(|up| !up).await.map(drop) } => away,
                blocked = async { replies_blocked.wait_for(|blocked| *blocked).await.map(drop) } => blocked,
            };
            if stopped.is_err() {
                return;
            }
            // A short outage does not count.
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
                // Gives publications time to be confirmed.
                sleep(PATIENCE).await;
            }
            self.may_consume.send_replace(true);
        }
    }
}
