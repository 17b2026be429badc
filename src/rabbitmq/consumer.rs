//! Consumes jobs within the prefetch, and a few cancel and status messages beside them. The task that takes a delivery
//! settles it, after its job is accounted for.
//!
//! The session always reads its consumer and its channel. Deliveries that are not taken yet wait in [`Unread`], and
//! are dropped with their session. Nothing here blocks on a full queue.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use aws_lc_rs::digest;
use futures_util::{FutureExt, StreamExt, future::OptionFuture};
use lapin::{
    BasicProperties, Channel, Event,
    message::Delivery as Message,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use tokio::{
    sync::{mpsc, watch},
    time::sleep_until,
};
use uuid::Uuid;

use super::{
    BrokerError, BrokerSettings, Delivery, Source,
    acks::{Acks, Settle},
    connection::{KeepUp, connect},
    deadline::{channel, within},
    delivery::{HeldBytes, Withheld},
    screen,
    unread::Unread,
};

/// A consumer of the queues of jobs, cancel messages and status messages that reconnects.
pub struct Consumer {
    unread: Arc<Unread>,
    up: watch::Receiver<bool>,
    stop: Arc<watch::Sender<Stop>>,
    stopped: watch::Receiver<Stop>,
}

/// A view of the deliveries that are not taken yet.
#[derive(Clone)]
pub struct Unsettled(Arc<Unread>);

impl Unsettled {
    /// Returns how many deliveries wait to be taken, and how long the first has waited.
    pub fn waiting(&self) -> (usize, Duration) {
        self.0.waiting()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Stop {
    No,
    /// Consume nothing new; deliveries that were taken are still acknowledged.
    Cancel,
    /// Close the channel: unacknowledged deliveries return to the queue.
    Close,
}

/// Stops a consumer from outside its loop.
#[derive(Clone)]
pub struct Stopper(Arc<watch::Sender<Stop>>);

impl Stopper {
    /// Stops consuming; deliveries that were taken can still be settled.
    pub fn cancel(&self) {
        self.0.send_replace(Stop::Cancel);
    }

    /// Closes the session; unacknowledged deliveries return to the queue.
    pub fn close(&self) {
        self.0.send_replace(Stop::Close);
    }
}

impl Consumer {
    /// Starts the consumer and the task that reconnects it. The task ends after [`Stopper::close`], or with an error
    /// that waiting does not resolve.
    ///
    /// While `may_consume` is false nothing is consumed, and unsettled deliveries return to the queue once, with
    /// their session.
    pub fn start(
        settings: BrokerSettings,
        mut may_consume: watch::Receiver<bool>,
    ) -> (Self, tokio::task::JoinHandle<Result<(), BrokerError>>) {
        let unread = Arc::new(Unread::default());
        let (up_sender, up) = watch::channel(false);
        let (stop, stopped) = watch::channel(Stop::No);
        let consumer = Self { unread: unread.clone(), up, stop: Arc::new(stop), stopped: stopped.clone() };
        let task = tokio::spawn(async move {
            let mut keep_up = KeepUp::new("consume", up_sender);
            let held = Arc::new(AtomicUsize::new(0));
            while *stopped.borrow() == Stop::No {
                let mut stop = stopped.clone();
                tokio::select! {
                    _ = may_consume.wait_for(|may| *may) => {}
                    _ = stop.wait_for(|stop| *stop > Stop::No) => break,
                }
                let session = Session { settings: &settings, unread: &unread, held: &held, up: keep_up.up() };
                let ended = session.run(may_consume.clone(), stopped.clone()).await;
                // The broker delivers them again; settling them here has no effect.
                unread.clear();
                if ended.is_ok() && *stopped.borrow() == Stop::No {
                    keep_up.up().send_replace(false);
                    continue;
                }
                if let Some(end) = keep_up.after(ended).await {
                    return end;
                }
            }
            Ok(())
        });
        (consumer, task)
    }

    /// Returns a handle that stops the consumer.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.stop.clone())
    }

    /// Returns whether the consumer is connected, and every change of that.
    pub fn is_up(&self) -> watch::Receiver<bool> {
        self.up.clone()
    }

    /// Returns a view of the deliveries that are not taken yet.
    pub fn unsettled(&self) -> Unsettled {
        Unsettled(self.unread.clone())
    }

    /// Waits for the next delivery; `None` after the consumer was stopped.
    pub async fn next(&mut self) -> Option<Box<Delivery>> {
        tokio::select! {
            biased;
            _ = self.stopped.wait_for(|stop| *stop > Stop::No) => None,
            delivery = self.unread.next() => Some(delivery),
        }
    }
}

struct Session<'a> {
    settings: &'a BrokerSettings,
    unread: &'a Unread,
    /// Bytes of oversized bodies in memory.
    held: &'a Arc<AtomicUsize>,
    up: &'a watch::Sender<bool>,
}

impl Session<'_> {
    async fn run(
        &self,
        mut may_consume: watch::Receiver<bool>,
        mut stop: watch::Receiver<Stop>,
    ) -> Result<(), BrokerError> {
        let connection = connect(self.settings, "consume").await?;
        let mut events = Box::pin(connection.events_listener());
        let channel = channel(&connection).await?;
        let names = &self.settings.names;
        let queue = names.jobs_queue.as_str();
        // One channel for all: one connection, and one order of acknowledgements.
        let consumers = [
            consume(&channel, queue, self.settings.prefetch).await?,
            consume(&channel, &names.cancel_queue(), MAX_REQUESTS).await?,
            consume(&channel, &names.status_queue(), MAX_REQUESTS).await?,
        ];
        let consumer_tags = consumers.each_ref().map(lapin::Consumer::tag);
        let [mut jobs, mut cancels, mut status_queries] = consumers;
        self.up.send_replace(true);
        tracing::info!(connection.purpose = "consume", queue, "connected to RabbitMQ, consuming");

        #[expect(
            clippy::disallowed_methods,
            reason = "a delivery is settled once, and the prefetch bounds deliveries"
        )]
        let (settle, mut settled) = mpsc::unbounded_channel();
        let mut acks = Acks::new(channel.clone());
        // The end of one consumer ends the session: the others would go on without it.
        let take = |source, message: Option<lapin::Result<Message>>| {
            let cancelled = || BrokerError::Lost("the broker cancelled the consumer".into());
            let message = message.ok_or_else(cancelled)??;
            self.unread.push(self.delivery(source, message, connection.mark, &settle));
            Ok::<(), BrokerError>(())
        };
        let (mut tags, mut taking) = (Vec::new(), true);
        loop {
            tokio::select! {
                message = jobs.next(), if taking => {
                    let mut arrived = Some(message);
                    // Everything that has arrived at once: a turn of this loop costs more than a message. The prefetch
                    // bounds it.
                    while let Some(message) = arrived {
                        take(Source::Jobs, message)?;
                        arrived = jobs.next().now_or_never();
                    }
                },
                message = cancels.next(), if taking => take(Source::Cancel, message)?,
                message = status_queries.next(), if taking => take(Source::Status, message)?,
                _ = settled.recv_many(&mut tags, usize::MAX) => acks.settle(&mut tags).await?,
                Some(()) = OptionFuture::from(acks.due().map(sleep_until)) => acks.send_due().await?,
                event = events.next() => match event {
                    Some(Event::Error(error)) => return Err(error.into()),
                    Some(_) => {}
                    None => return Err(BrokerError::Lost("the connection is gone".into())),
                },
                () = async { drop(may_consume.wait_for(|may| !may).await) }, if taking => {
                    tracing::info!("consumption paused, deliveries requeued");
                    break;
                }
                _ = stop.changed() => {
                    let wanted = *stop.borrow_and_update();
                    if wanted >= Stop::Cancel && taking {
                        taking = false;
                        for tag in &consumer_tags {
                            within(channel.basic_cancel(tag.clone(), BasicCancelOptions::default())).await?;
                        }
                    }
                    if wanted == Stop::Close {
                        break;
                    }
                }
            }
        }
        while let Ok(tag) = settled.try_recv() {
            tags.push(tag);
        }
        acks.settle(&mut tags).await?;
        acks.send_all().await?;
        within(channel.close(200, "done".into())).await?;
        within(connection.close(200, "done".into())).await
    }

    fn delivery(
        &self,
        source: Source,
        message: Message,
        mark: Uuid,
        settle: &mpsc::UnboundedSender<(u64, Settle)>,
    ) -> Box<Delivery> {
        let is_unreadable = screen::is_marked(&message.properties, mark);
        let properties = if is_unreadable { BasicProperties::default() } else { message.properties };
        let (body, withheld, held_bytes) = self.bounded(message.data);
        Box::new(Delivery {
            source,
            body: body.into(),
            withheld,
            properties,
            is_unreadable,
            is_redelivered: message.redelivered,
            received_at: Instant::now(),
            is_settled: false.into(),
            _held_bytes: held_bytes,
            tag: message.delivery_tag,
            settle: settle.clone(),
        })
    }

    /// Holds an oversized body in memory, if the total of such bodies is below a limit.
    fn bounded(&self, body: Vec<u8>) -> (Vec<u8>, Option<Withheld>, Option<HeldBytes>) {
        if body.len() <= MAX_JOB {
            return (body, None, None);
        }
        let held = self.held.fetch_add(body.len(), Ordering::Relaxed) + body.len();
        let held_bytes = HeldBytes { of: self.held.clone(), bytes: body.len() };
        if held <= MAX_OVERSIZED {
            return (body, None, Some(held_bytes));
        }
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest::digest(&digest::SHA256, &body).as_ref());
        (Vec::new(), Some(Withheld { bytes: body.len(), sha256 }), None)
    }
}

/// Begins to consume a queue. The prefetch is the consumer's own: without it the whole queue could be delivered into
/// memory.
async fn consume(channel: &Channel, queue: &str, prefetch: u16) -> Result<lapin::Consumer, BrokerError> {
    within(channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
    let consuming =
        channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default());
    within(consuming).await
}

/// Maximum number of unacknowledged deliveries of cancel messages, and of status messages: few, so that they delay no
/// jobs.
const MAX_REQUESTS: u16 = 16;
/// Maximum size of a job in bytes (contract, section 2).
const MAX_JOB: usize = 256 * 1024;
/// Maximum total of larger bodies in memory, in bytes. Beyond it the broker dead-letters the message itself.
const MAX_OVERSIZED: usize = 32 << 20;
