//! Runs the services of the pipeline. A service that changes data is a struct with its own settings, a loop, and a `run_once`
//! that does the work and returns counts. A watcher reads the database or a clock in a fixed interval.

use std::sync::Arc;

use futures_util::{FutureExt, future::BoxFuture};
use tokio::task::JoinHandle;

use super::{
    Pipeline, breakers::BreakerWatch, clocks::ClockWatch, consumption::Consumption, follow::Follower,
    letter_retention::LetterRetention, link_requests::LinkRequests, pauses::PauseWatch,
    placement::PlacementWatch, retention::Retention, seals::SealCounter, sweeper::Sweeper,
};
use crate::tasks;

impl Pipeline {
    /// Starts the services: the sweeper, a follower for each account, the answers to link requests, retention of rows and of
    /// dead letters, and the watchers of the database, the clocks, the breakers and consumption. Their handles complete once the pipeline is stopped.
    pub fn start_services(self: &Arc<Self>) -> Vec<JoinHandle<()>> {
        let accounts = self.connectors.iter().filter(|account| account.follow.enabled);
        let followers = accounts.map(|account| {
            let (pipeline, name) = (self.clone(), account.name.clone());
            tasks::supervise("follower", move || Follower::new(pipeline.clone(), name.clone()).run().boxed())
        });
        let services = [
            self.start("sweeper", |pipeline| Sweeper::new(pipeline).run().boxed()),
            self.start("link_requests", |pipeline| LinkRequests::new(pipeline).run().boxed()),
            self.start("retention", |pipeline| Retention::new(pipeline).run().boxed()),
            self.start("seals", |pipeline| SealCounter::new(pipeline).run().boxed()),
            self.start_until_stopped("presence", |pipeline| {
                async move { pipeline.store.be_present().await }.boxed()
            }),
            self.start_until_stopped("host_pauses", |pipeline| pipeline.watch_paused_hosts().boxed()),
            self.start_until_stopped("availability", |pipeline| {
                async move { pipeline.store.watch_availability().await }.boxed()
            }),
            self.start_until_stopped("clocks", |pipeline| ClockWatch::new(pipeline).run().boxed()),
            self.start_until_stopped("pauses", |pipeline| PauseWatch::new(pipeline).run().boxed()),
            self.start_until_stopped("breakers", |pipeline| BreakerWatch::new(pipeline).run().boxed()),
            self.start_until_stopped("placement", |pipeline| PlacementWatch::new(pipeline).run().boxed()),
            self.start_until_stopped("consumption", |pipeline| Consumption::new(pipeline).run().boxed()),
        ];
        let letter_retention = self.settings.letter_retention.as_ref().map(|settings| {
            let (pipeline, settings) = (self.clone(), settings.clone());
            tasks::supervise("letter_retention", move || {
                LetterRetention::new(pipeline.clone(), settings.clone()).run().boxed()
            })
        });
        services.into_iter().chain(followers).chain(letter_retention).collect()
    }

    /// Starts a service that ends by itself once the pipeline is stopped. It is restarted after a panic.
    fn start(
        self: &Arc<Self>,
        name: &'static str,
        service: fn(Arc<Self>) -> BoxFuture<'static, ()>,
    ) -> JoinHandle<()> {
        let pipeline = self.clone();
        tasks::supervise(name, move || service(pipeline.clone()))
    }

    /// Does the same with a service that waits for other events than a stop: a stop interrupts it.
    fn start_until_stopped(
        self: &Arc<Self>,
        name: &'static str,
        service: fn(Arc<Self>) -> BoxFuture<'static, ()>,
    ) -> JoinHandle<()> {
        let pipeline = self.clone();
        tasks::supervise(name, move || {
            let pipeline = pipeline.clone();
            async move {
                pipeline.unless_stopped(service(pipeline.clone())).await;
            }
        })
    }
}
