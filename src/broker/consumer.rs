//! Deliveries in, within the prefetch. Each is acknowledged by whoever took it, after its row is committed.

use std::sync::Arc;

use futures_util::{StreamExt, future::OptionFuture};
use lapin::{
    Event,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use tokio::{
    sync::{mpsc, watch},
    time::sleep_until,
};

use super::{
    BrokerError, BrokerSettings, Delivery,
    acks::Acks,
    connection::{KeepUp, channel, connect, within},
};

pub struct Consumer {
    deliveries: mpsc::Receiver<Box<Delivery>>,
    up: watch::Receiver<bool>,
    stop: Arc<watch::Sender<Stop>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Stop {
    No,
    /// Take nothing new; what was taken is still acknowledged.
    Cancel,
    /// Close: what is unacknowledged goes back to the queue.
    Close,
}

/// Stops a consumer from outside its loop.
#[derive(Clone)]
pub struct Stopper(Arc<watch::Sender<Stop>>);

impl Stopper {
    pub fn cancel(&self) {
        self.0.send_replace(Stop::Cancel);
    }

    pub fn close(&self) {
        self.0.send_replace(Stop::Close);
    }
}

impl Consumer {
    /// The consumer and the task that keeps it up; the task ends after [`Stopper::close`], or with what does not
    /// pass by waiting.
    pub fn start(settings: BrokerSettings) -> (Self, tokio::task::JoinHandle<Result<(), BrokerError>>) {
        let (sender, deliveries) = mpsc::channel(settings.prefetch.into());
        let (up_sender, up) = watch::channel(false);
        let (stop, stopped) = watch::channel(Stop::No);
        let task = tokio::spawn(async move {
            let mut keep_up = KeepUp::new("consume", up_sender);
            let mut caution = None;
            while *stopped.borrow() == Stop::No {
                let ended = session(&settings, caution, &sender, keep_up.up(), stopped.clone()).await;
                match ended {
                    Err(BrokerError::Unreadable(_)) => caution = Some(Caution(settings.prefetch)),
                    Ok(()) if *stopped.borrow() == Stop::No => {
                        caution = None;
                        continue;
                    }
                    // Only a session that got through ends the caution.
                    Ok(()) | Err(_) => {}
                }
                if let Some(end) = keep_up.after(ended).await {
                    return end;
                }
            }
            Ok(())
        });
        (Self { deliveries, up, stop: Arc::new(stop) }, task)
    }

    pub fn stopper(&self) -> Stopper {
        Stopper(self.stop.clone())
    }

    pub fn is_up(&self) -> watch::Receiver<bool> {
        self.up.clone()
    }

    /// The next delivery; `None` after it was stopped.
    pub async fn next(&mut self) -> Option<Box<Delivery>> {
        let mut stop = self.stop.subscribe();
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop > Stop::No) => None,
            delivery = self.deliveries.recv() => delivery,
        }
    }
}

/// After a message that cannot be taken apart broke a connection off: so many deliveries are taken one at a time.
///
/// Every unacknowledged delivery goes back with that message, and the broker counts that. With a whole prefetch at
/// every try innocent jobs would be taken for poison before it is; so it is delivered alone until the broker's own
/// limit makes a dead letter of it.
#[derive(Debug, Clone, Copy)]
struct Caution(u16);

async fn session(
    settings: &BrokerSettings,
    caution: Option<Caution>,
    deliveries: &mpsc::Sender<Box<Delivery>>,
    up: &watch::Sender<bool>,
    mut stop: watch::Receiver<Stop>,
) -> Result<(), BrokerError> {
    let connection = connect(settings, "consume").await?;
    let mut events = Box::pin(connection.events_listener());
    let channel = channel(&connection).await?;
    // Per consumer; without it an unread consumer would take the whole queue into memory.
    let prefetch = if caution.is_some() { 1 } else { settings.prefetch };
    within(channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
    let queue = settings.names.jobs_queue.as_str();
    let consuming =
        channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer = within(consuming).await?;
    up.send_replace(true);
    tracing::info!(connection.purpose = "consume", queue, "connected to RabbitMQ, consuming");

    let (settle, mut settled) = mpsc::unbounded_channel();
    let mut acks = Acks::new(channel.clone());
    let (mut tags, mut taking) = (Vec::new(), true);
    loop {
        tokio::select! {
            delivery = consumer.next(), if taking && deliveries.capacity() > 0 => match delivery {
                Some(Ok(delivery)) => {
                    let delivery = Box::new(Delivery {
                        body: delivery.data,
                        properties: delivery.properties,
                        tag: delivery.delivery_tag,
                        settle: settle.clone(),
                    });
                    // Full or closed: it stays unacknowledged and comes again.
                    let _ = deliveries.try_send(delivery);
                }
                Some(Err(error)) => return Err(error.into()),
                None => return Err(BrokerError::Lost("the broker cancelled the consumer".into())),
            },
            _ = settled.recv_many(&mut tags, usize::MAX) => {
                acks.settle(&mut tags).await?;
                if caution.is_some_and(|Caution(deliveries)| acks.upto >= deliveries.into()) {
                    acks.tell_all().await?;
                    within(channel.close(200, "done".into())).await?;
                    return within(connection.close(200, "done".into())).await;
                }
            }
            Some(()) = OptionFuture::from(acks.due().map(sleep_until)) => acks.tell_due().await?,
            Some(Event::Error(error)) = events.next() => return Err(error.into()),
            _ = stop.changed() => {
                let wanted = *stop.borrow_and_update();
                if wanted >= Stop::Cancel && taking {
                    taking = false;
                    within(channel.basic_cancel(consumer.tag(), BasicCancelOptions::default())).await?;
                }
                if wanted == Stop::Close {
                    while let Ok(tag) = settled.try_recv() {
                        tags.push(tag);
                    }
                    acks.settle(&mut tags).await?;
                    acks.tell_all().await?;
                    within(channel.close(200, "done".into())).await?;
                    return within(connection.close(200, "done".into())).await;
                }
            }
        }
    }
}
