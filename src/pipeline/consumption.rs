//! Pauses consumption while the database is away, while a reply to a job cannot be published, or while an operator wants
//! it.

use std::{sync::Arc, time::Duration};

use tokio::{
    select,
    sync::watch::{self, error::RecvError},
    time::{sleep, timeout},
};

use super::Pipeline;
use crate::postgres::{PauseKind, Pauses};

/// Shorter outages cause no pause, because each pause requeues all deliveries.
const PATIENCE: Duration = Duration::from_secs(1);

/// The service that decides when jobs may be consumed.
pub(super) struct Consumption {
    database: watch::Receiver<bool>,
    publishing: watch::Receiver<bool>,
    replies_blocked: watch::Receiver<bool>,
    pauses: watch::Receiver<Pauses>,
    pipeline: Arc<Pipeline>,
}

impl Pipeline {
    /// Returns whether jobs may be consumed, and every change of that.
    pub fn may_consume(&self) -> watch::Receiver<bool> {
        self.may_consume.subscribe()
    }
}

impl Consumption {
    pub(super) fn new(pipeline: Arc<Pipeline>) -> Self {
        Self {
            database: pipeline.store.is_up(),
            publishing: pipeline.publisher.watch_up(),
            replies_blocked: pipeline.replies_blocked.subscribe(),
            pauses: pipeline.watch_pauses(),
            pipeline,
        }
    }

    /// Pauses and resumes consumption. The senders live as long as the pipeline and its publisher; an error means that
    /// both have ended.
    pub(super) async fn run(mut self) {
        while self.run_once().await.is_ok() {}
    }

    /// Waits for a cause to pause, and pauses until it is over. Returns whether consumption was paused: a short outage
    /// of the database is no cause.
    async fn run_once(&mut self) -> Result<bool, RecvError> {
        self.wait_for_a_cause().await?;
        if !*self.replies_blocked.borrow()
            && !is_paused(&self.pauses.borrow())
            && timeout(PATIENCE, self.database.wait_for(|up| *up)).await.is_ok()
        {
            return Ok(false);
        }
        self.pipeline.may_consume.send_replace(false);
        self.wait_until_it_is_over().await?;
        if self.pipeline.replies_blocked.send_replace(false) {
            // Gives publications time to be confirmed.
            sleep(PATIENCE).await;
        }
        self.pipeline.may_consume.send_replace(true);
        Ok(true)
    }

    async fn wait_for_a_cause(&mut self) -> Result<(), RecvError> {
        select! {
            away = self.database.wait_for(|up| !up) => away.map(drop),
            blocked = self.replies_blocked.wait_for(|blocked| *blocked) => blocked.map(drop),
            paused = self.pauses.wait_for(is_paused) => paused.map(drop),
        }
    }

    async fn wait_until_it_is_over(&mut self) -> Result<(), RecvError> {
        loop {
            self.database.wait_for(|up| *up).await?;
            let blocked = &self.replies_blocked;
            self.publishing.wait_for(|up| *up || !*blocked.borrow()).await?;
            self.pauses.wait_for(|pauses| !is_paused(pauses)).await?;
            if *self.database.borrow() {
                return Ok(());
            }
        }
    }
}

fn is_paused(pauses: &Pauses) -> bool {
    pauses.has(PauseKind::Consumption, "")
}
