//! Results out, confirmed by the broker.
//!
//! One task owns the publishing channel: publishing on one confirm channel from several tasks mixes their confirms
//! up. Whatever waits is published at once, and its confirms are awaited in a sliding window. lapin hangs a
//! `basic.return` onto whichever confirm completes next, never onto one that completes later than its own, so returns
//! are matched by `message_id`.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, Event,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval, timeout_at},
};

use super::{
    BrokerError, BrokerSettings,
    connection::{KeepUp, channel, connect, within},
    topology,
};

/// A message to be published, mandatory and persistent.
#[derive(Clone)]
pub struct Message {
    /// `""`: the default exchange, whose routing keys are queues.
    pub exchange: Arc<str>,
    pub routing_key: String,
    /// With a `message_id` that no other message under way has together with this exchange.
    pub properties: BasicProperties,
    pub body: Bytes,
}

/// What a message says of itself. Its body is JSON; it is kept on disk.
pub struct Properties<'a> {
    pub message_id: String,
    /// `type`
    pub kind: &'a str,
    pub correlation_id: Option<&'a str>,
    /// Unix seconds.
    pub timestamp: i64,
    /// Those without a value are left out.
    pub headers: [(&'static str, Option<&'a str>); 5],
}

impl Properties<'_> {
    pub fn message(&self, exchange: &str, routing_key: &str, body: Bytes) -> Box<Message> {
        let mut headers = FieldTable::default();
        for (name, value) in self.headers {
            if let Some(value) = value {
                headers.insert(name.into(), AMQPValue::LongString(value.into()));
            }
        }
        let mut properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(PERSISTENT)
            .with_message_id(self.message_id.as_str().into())
            .with_type(self.kind.into())
            .with_timestamp(u64::try_from(self.timestamp).unwrap_or_default())
            .with_headers(headers);
        if let Some(correlation_id) = self.correlation_id {
            properties = properties.with_correlation_id(correlation_id.into());
        }
        Box::new(Message { exchange: exchange.into(), routing_key: routing_key.to_owned(), properties, body })
    }
}

pub(super) const PERSISTENT: u8 = 2;

/// What the broker did with a message that it confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    Queued,
    /// There is no queue for it.
    Returned,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum PublishError {
    /// Whether the broker has it is not known. To be published again, under the same id.
    #[error("not confirmed: {0}")]
    NotConfirmed(String),
}

pub struct Publisher {
    queue: mpsc::Sender<Publication>,
    up: watch::Receiver<bool>,
    declare: Arc<Notify>,
}

struct Publication {
    message: Box<Message>,
    answer: oneshot::Sender<Result<Route, PublishError>>,
}

impl Publisher {
    /// The publisher and the task that keeps it up; the task ends when the publisher is dropped, or with what
    /// does not pass by waiting.
    pub fn start(settings: BrokerSettings) -> (Self, tokio::task::JoinHandle<Result<(), BrokerError>>) {
        let (queue, mut waiting) = mpsc::channel(settings.publish_window);
        let (up_sender, up) = watch::channel(false);
        let declare = Arc::new(Notify::new());
        let asked = declare.clone();
        let task = tokio::spawn(async move {
            let mut keep_up = KeepUp::new("publish", up_sender);
            loop {
                let ended = session(&settings, &mut waiting, &asked, keep_up.up()).await;
                if let Some(end) = keep_up.after(ended).await {
                    return end;
                }
            }
        });
        (Self { queue, up, declare }, task)
    }

    pub fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Returns whether it is connected and not blocked, and every change of that.
    pub fn watch_up(&self) -> watch::Receiver<bool> {
        self.up.clone()
    }

    /// Declares the topology again, soon: a queue of the worker's own was found to be missing.
    pub fn declare_topology(&self) {
        self.declare.notify_one();
    }

    /// Waits until it is connected.
    pub async fn wait_until_up(&self) {
        // The sender lives as long as its task; where that has ended, nobody is told that it is up.
        if self.up.clone().wait_for(|up| *up).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Publishes, and waits for the broker's confirm, at most for `patience`.
    pub async fn publish(&self, message: Box<Message>, patience: Duration) -> Result<Route, PublishError> {
        let (answer, answered) = oneshot::channel();
        let lost = |reason: &str| PublishError::NotConfirmed(reason.into());
        let (deadline, late) = (Instant::now() + patience, |_| lost("no confirm in time"));
        let place = timeout_at(deadline, self.queue.reserve()).await.map_err(late)?;
        place.map_err(|_| lost("the publisher has stopped"))?.send(Publication { message, answer });
        let answer = timeout_at(deadline, answered).await.map_err(late)?;
        answer.map_err(|_| lost("the connection was lost"))?
    }
}

/// Exchange and `message_id`.
type Id = (Arc<str>, String);

/// How often each was returned, without its confirm having been looked at. More than once where a publication was given
/// up and made again under its id before the broker answered either.
type Returned = HashMap<Id, usize>;

/// A publication that the broker has answered, or cannot answer any more.
struct Confirmed {
    id: Id,
    /// `None`: nobody waits for it any more, and the broker has not confirmed it. A queue without a majority confirms nothing;
    /// its messages are not to take the places of others.
    confirmation: Option<lapin::Result<Confirmation>>,
    answer: oneshot::Sender<Result<Route, PublishError>>,
}

async fn session(
    settings: &BrokerSettings,
    waiting: &mut mpsc::Receiver<Publication>,
    declare: &Notify,
    up: &watch::Sender<bool>,
) -> Result<(), BrokerError> {
    let connection = connect(settings, "publish").await?;
    let mut events = Box::pin(connection.events_listener());
    let channel = channel(&connection).await?;
    within(channel.confirm_select(ConfirmSelectOptions::default())).await?;
    up.send_replace(true);
    tracing::info!(connection.purpose = "publish", "connected to RabbitMQ");

    let (mut publications, mut confirming, mut confirmed) = (Vec::new(), FuturesUnordered::new(), Vec::new());
    let mut returned = Returned::new();
    let mut unconfirmed = 0;
    let mut last_progress = Instant::now();
    let mut watchdog = interval(Duration::from_secs(5));
    watchdog.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // New ones are published by being polled, here: FuturesUnordered wakes whoever polls one that is not done.
        while let Some(Some(one)) = confirming.next().now_or_never() {
            confirmed.push(one);
        }
        if !confirmed.is_empty() {
            last_progress = Instant::now();
            unconfirmed += settle(confirmed.drain(..), &mut returned)?;
            if unconfirmed > MAX_UNCONFIRMED {
                return Err(BrokerError::Lost("too many messages are not confirmed".into()));
            }
        }
        let idle = confirming.is_empty();
        let blocked = connection.status().blocked();
        // While it is blocked they wait here, where those that nobody waits for any more are left out.
        let room = if blocked { 0 } else { settings.publish_window.saturating_sub(confirming.len()) };
        tokio::select! {
            event = events.next() => match event {
                Some(Event::ConnectionBlocked(reason)) => {
                    tracing::warn!(reason, "RabbitMQ blocks publishing; results wait");
                    up.send_replace(false);
                }
                Some(Event::ConnectionUnblocked) => {
                    tracing::info!("RabbitMQ takes results again");
                    last_progress = Instant::now();
                    up.send_replace(true);
                }
                Some(Event::Error(error)) => return Err(error.into()),
                Some(_) => {}
                None => return Err(BrokerError::Lost("the connection is gone".into())),
            },
            Some(one) = confirming.next() => confirmed.push(one),
            taken = waiting.recv_many(&mut publications, room), if room > 0 => {
                if taken == 0 {
                    return close(&connection).await;
                }
                if idle {
                    last_progress = Instant::now();
                }
                // Whoever asked may have stopped waiting: it will ask again under the same id.
                publications.retain(|publication: &Publication| !publication.answer.is_closed());
                confirming.extend(publications.drain(..).map(|publication| publish(&channel, publication)));
            }
            () = declare.notified() => {
                tracing::warn!("a queue is missing, declaring the topology again");
                topology::declare(&connection, settings).await?;
            }
            _ = watchdog.tick() => {
                if !idle && !blocked && last_progress.elapsed() > STALLED {
                    return Err(BrokerError::Lost("the broker confirms nothing".into()));
                }
            }
        }
    }
}

/// Publishes one message, and waits for its confirm.
///
/// All of them are polled by one task, and lapin counts a message and queues its frames in one poll: so each gets its
/// own confirm. Awaited one by one, each would wait until the one before it is written to the socket.
async fn publish(channel: &Channel, publication: Publication) -> Confirmed {
    let Publication { message, mut answer } = publication;
    let Message { exchange, routing_key, properties, body } = *message;
    let id = (exchange, properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default());
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let written =
        channel.basic_publish((&*id.0).into(), routing_key.into(), options, &body, properties).await;
    let confirmation = match written {
        Ok(mut confirm) => tokio::select! {
            biased;
            confirmation = &mut confirm => Some(confirmation),
            () = answer.closed() => None,
        },
        Err(error) => Some(Err(error)),
    };
    Confirmed { id, confirmation, answer }
}

/// Tells whoever waits for these confirms: all that have completed. An error is the connection's.
///
/// What was returned is gathered first. A return hangs onto a confirm that completes no later than its own, but that
/// one may be looked at later.
/// Returns how many stay unconfirmed.
fn settle(
    all: impl ExactSizeIterator<Item = Confirmed>,
    returned: &mut Returned,
) -> Result<usize, BrokerError> {
    let mut answers = Vec::with_capacity(all.len());
    let mut unconfirmed = 0;
    for Confirmed { id, confirmation, answer } in all {
        let Some(confirmation) = confirmation else {
            unconfirmed += 1;
            continue;
        };
        let confirmation = confirmation.map_err(BrokerError::from)?;
        answers.push((id, confirmation.is_ack(), answer));
        if let Some(message) = confirmation.take_message() {
            let message_id = message.delivery.properties.message_id().as_ref().map(ToString::to_string);
            let id = (message.delivery.exchange.as_str().into(), message_id.unwrap_or_default());
            *returned.entry(id).or_default() += 1;
        }
    }
    for (id, acknowledged, answer) in answers {
        let routed = match returned.remove(&id) {
            None => Route::Queued,
            Some(times) => {
                if times > 1 {
                    returned.insert(id, times - 1);
                }
                Route::Returned
            }
        };
        let told = if acknowledged {
            Ok(routed)
        } else {
            Err(PublishError::NotConfirmed("the broker could not take it".into()))
        };
        // Whoever asked may have stopped waiting: it asks again.
        let _ = answer.send(told);
    }
    Ok(unconfirmed)
}

/// Every publication was confirmed before its publisher went away: there is nothing to wait for.
async fn close(connection: &Connection) -> Result<(), BrokerError> {
    within(connection.close(200, "done".into())).await
}

/// lapin keeps something of each message that stays unconfirmed; past this the connection is made anew.
const MAX_UNCONFIRMED: usize = 4096;

/// Without a confirm for so long the connection is given up, unless the broker said that it is blocked.
const STALLED: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use lapin::message::{BasicReturnMessage, Delivery};

    use super::*;

    /// A message that the broker took, and what its confirm brought along: a return of the message named.
    fn confirmed(
        message_id: &str,
        brings: Option<&str>,
    ) -> (Confirmed, oneshot::Receiver<Result<Route, PublishError>>) {
        let message = brings.map(|returned| {
            let mut delivery = Delivery::mock(0, "results".into(), "".into(), false, Vec::new());
            delivery.properties = BasicProperties::default().with_message_id(returned.into());
            BasicReturnMessage { delivery, reply_code: 312, reply_text: "NO_ROUTE".into() }
        });
        let (answer, answered) = oneshot::channel();
        let id = ("results".into(), message_id.to_owned());
        (Confirmed { id, confirmation: Some(Ok(Confirmation::Ack(message))), answer }, answered)
    }

    #[test]
    fn a_return_counts_also_where_its_own_confirm_is_looked_at_first() {
        // Given a return that came with the confirm of another message, looked at after the returned one's own,
        let (own, mut of_returned) = confirmed("returned", None);
        let (other, mut of_other) = confirmed("routed", Some("returned"));
        // when both are told,
        let mut returned = Returned::new();
        settle([own, other].into_iter(), &mut returned).unwrap();
        // then it is the one that was returned that is told so.
        assert_eq!(of_returned.try_recv().unwrap().unwrap(), Route::Returned);
        assert_eq!(of_other.try_recv().unwrap().unwrap(), Route::Queued);
        assert!(returned.is_empty());
    }

    #[test]
    fn what_was_published_twice_and_returned_twice_is_told_so_twice() {
        // Given a publication that was given up and made again, and both of them returned,
        let (first, mut of_first) = confirmed("again", Some("again"));
        let (second, mut of_second) = confirmed("again", Some("again"));
        // when both are told together,
        let mut returned = Returned::new();
        settle([first, second].into_iter(), &mut returned).unwrap();
        // then neither counts as routed: nobody waits for the first any more.
        assert_eq!(of_first.try_recv().unwrap().unwrap(), Route::Returned);
        assert_eq!(of_second.try_recv().unwrap().unwrap(), Route::Returned);
        assert!(returned.is_empty());
    }
}
