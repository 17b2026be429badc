//! Publishes messages and awaits the broker's confirms.
//!
//! One task owns the publishing channel, because publishing on one confirm channel from several tasks mixes up their
//! confirms. It publishes all waiting messages at once, and awaits their confirms in a sliding window. lapin attaches
//! a `basic.return` to the confirm that completes next, never to one that completes later than its own, so returns
//! are matched by `message_id`.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use lapin::{
    Channel, Confirmation, Connection, Event,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval, timeout_at},
};

use super::{
    BrokerError, BrokerSettings, Message,
    connection::{KeepUp, connect},
    deadline::{channel, within},
    topology,
};

/// The route of a confirmed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// At least one queue has it.
    Queued,
    /// No queue is bound for it.
    Returned,
}

/// The outcome of a publication that was not confirmed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PublishError {
    /// The broker may or may not have it. Publish it again under the same id.
    #[error("not confirmed: {0}")]
    NotConfirmed(String),
    /// The same, and the broker said nothing at all: it is blocked, or its connection is silent.
    #[error("not confirmed: no answer in time")]
    Unanswered,
}

/// A publisher that reconnects.
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
    /// Starts the publisher and the task that reconnects it. The task ends when the publisher is dropped, or with an
    /// error that waiting does not resolve.
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

    /// Returns whether it is connected and not blocked.
    pub fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Returns whether it is connected and not blocked, and every change of that.
    pub fn watch_up(&self) -> watch::Receiver<bool> {
        self.up.clone()
    }

    /// Declares the topology again soon, because one of the worker's own queues is missing.
    pub fn declare_topology(&self) {
        self.declare.notify_one();
    }

    /// Waits until it is connected.
    pub async fn wait_until_up(&self) {
        // The sender lives as long as its task. If that has ended, this waits without end.
        if self.up.clone().wait_for(|up| *up).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Publishes a message and waits for the broker's confirm, at most for `patience`.
    ///
    /// # Errors
    ///
    /// [`PublishError::Unanswered`] if no answer came in time, else [`PublishError::NotConfirmed`].
    pub async fn publish(&self, message: Box<Message>, patience: Duration) -> Result<Route, PublishError> {
        let (answer, answered) = oneshot::channel();
        let lost = |reason: &str| PublishError::NotConfirmed(reason.into());
        let (deadline, late) = (Instant::now() + patience, |_| PublishError::Unanswered);
        let permit = timeout_at(deadline, self.queue.reserve()).await.map_err(late)?;
        permit.map_err(|_| lost("the publisher has stopped"))?.send(Publication { message, answer });
        let answer = timeout_at(deadline, answered).await.map_err(late)?;
        answer.map_err(|_| lost("the connection was lost"))?
    }
}

/// Exchange and `message_id`.
type Id = (Arc<str>, String);

/// Number of returns of each message whose confirm was not processed yet. More than one if a publication was
/// abandoned and repeated under its id before the broker answered.
type Returned = HashMap<Id, usize>;

/// A publication that the broker has confirmed, or cannot confirm any more.
struct Confirmed {
    id: Id,
    /// `None`: the caller stopped waiting, and the broker has not confirmed it. A queue without a majority confirms
    /// nothing; its messages must not use up the window.
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
        // Polling publishes new ones: FuturesUnordered polls each future at once.
        while let Some(Some(one)) = confirming.next().now_or_never() {
            confirmed.push(one);
        }
        if !confirmed.is_empty() {
            last_progress = Instant::now();
            unconfirmed += settle(confirmed.drain(..), &mut returned)?;
            if unconfirmed > MAX_UNCONFIRMED {
                return Err(BrokerError::Lost("too many messages are unconfirmed".into()));
            }
        }
        let idle = confirming.is_empty();
        let blocked = connection.status().blocked();
        // While the connection is blocked messages wait here, and those without a caller are dropped.
        let free = if blocked { 0 } else { settings.publish_window.saturating_sub(confirming.len()) };
        tokio::select! {
            event = events.next() => match event {
                Some(Event::ConnectionBlocked(reason)) => {
                    tracing::warn!(reason, "publishing blocked by RabbitMQ, results wait");
                    up.send_replace(false);
                }
                Some(Event::ConnectionUnblocked) => {
                    tracing::info!("publishing no longer blocked by RabbitMQ");
                    last_progress = Instant::now();
                    up.send_replace(true);
                }
                Some(Event::Error(error)) => return Err(error.into()),
                Some(_) => {}
                None => return Err(BrokerError::Lost("the connection is gone".into())),
            },
            Some(one) = confirming.next() => confirmed.push(one),
            taken = waiting.recv_many(&mut publications, free), if free > 0 => {
                if taken == 0 {
                    return close(&connection).await;
                }
                if idle {
                    last_progress = Instant::now();
                }
                // The caller may have stopped waiting: it publishes again under the same id.
                publications.retain(|publication: &Publication| !publication.answer.is_closed());
                confirming.extend(publications.drain(..).map(|publication| publish(&channel, publication)));
            }
            () = declare.notified() => {
                tracing::warn!("queue missing, topology will be declared again");
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

/// Publishes one message and waits for its confirm.
///
/// One task polls all of them, and lapin numbers a message and queues its frames in one poll, so each gets its own
/// confirm. If each were awaited before the next, each would wait until the previous one is written to the socket.
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

/// Sends every completed confirm to its caller, and returns how many publications stay unconfirmed.
///
/// Returns are collected first. lapin attaches a return to a confirm that completes no later than its own, but that
/// one may be processed later.
///
/// # Errors
///
/// Any error of the connection.
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
        let outcome = if acknowledged {
            Ok(routed)
        } else {
            Err(PublishError::NotConfirmed("the broker rejected it (nack)".into()))
        };
        // The caller may have stopped waiting: it publishes again.
        let _ = answer.send(outcome);
    }
    Ok(unconfirmed)
}

/// Ends the session. Every publication was confirmed before the publisher was dropped, so there is nothing to wait
/// for.
async fn close(connection: &Connection) -> Result<(), BrokerError> {
    within(connection.close(200, "done".into())).await
}

/// lapin stores something for each unconfirmed message; beyond this number the worker reconnects.
const MAX_UNCONFIRMED: usize = 4096;

/// If no confirm comes for this time, the worker reconnects, unless the broker blocks the connection.
const STALLED: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use lapin::{
        BasicProperties,
        message::{BasicReturnMessage, Delivery},
    };

    use super::*;

    /// Makes a confirmed publication whose confirm carries the return of the named message.
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
        // when both confirms are sent to their callers,
        let mut returned = Returned::new();
        settle([own, other].into_iter(), &mut returned).unwrap();
        // then the returned message is reported as returned.
        assert_eq!(of_returned.try_recv().unwrap().unwrap(), Route::Returned);
        assert_eq!(of_other.try_recv().unwrap().unwrap(), Route::Queued);
        assert!(returned.is_empty());
    }

    #[test]
    fn two_publications_with_two_returns_are_both_returned() {
        // Given a publication that was abandoned and repeated, and both of them returned,
        let (first, mut of_first) = confirmed("again", Some("again"));
        let (second, mut of_second) = confirmed("again", Some("again"));
        // when both confirms are sent together,
        let mut returned = Returned::new();
        settle([first, second].into_iter(), &mut returned).unwrap();
        // then neither counts as routed; the first one has no caller any more.
        assert_eq!(of_first.try_recv().unwrap().unwrap(), Route::Returned);
        assert_eq!(of_second.try_recv().unwrap().unwrap(), Route::Returned);
        assert!(returned.is_empty());
    }
}
