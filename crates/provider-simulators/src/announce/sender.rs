//! Sends announcements: in order for each link, concurrently for different links, with retries.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use reqwest::redirect;
use time::OffsetDateTime;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::proof::{Headers, Signable};
use super::{Announce, Announced, Behaviour, Fate};
use crate::fault_server::Stop;

/// Maximum number of webhooks under way.
const MAX_SENDING: usize = 32;
/// The timeout of a webhook, which is RazorpayX's.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Above this number, links whose webhooks are all sent are removed from the map.
const MAX_TAILS: usize = 1_024;
const OLD: time::Duration = time::Duration::hours(1);

/// A change of a link as its provider announces it.
#[derive(Clone)]
pub(crate) struct Announcement {
    pub(crate) event: String,
    pub(crate) event_id: String,
    pub(crate) link_id: String,
    pub(crate) reference: String,
    pub(crate) link_status: String,
    pub(crate) body: String,
    /// The same body with the status from before the change.
    pub(crate) stale_body: String,
}

/// The place where the announcer records the webhooks that it sent.
pub(crate) trait Log: Send + Sync {
    fn announced(&self, announced: Announced);
}

pub(crate) struct Announcer {
    runtime: Handle,
    client: reqwest::Client,
    sending: Arc<Semaphore>,
    headers: fn(&Signable<'_>) -> Headers,
    stop: Stop,
    log: Weak<dyn Log>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    target: Option<Arc<Announce>>,
    /// The delayed webhook of each link, which waits for the next one.
    held: HashMap<String, Announcement>,
    /// The task of the last webhook of each link. The next one is sent after it.
    tails: HashMap<String, JoinHandle<()>>,
}

impl Announcer {
    /// Creates an announcer without a target, which sends nothing. It uses the caller's runtime.
    pub(crate) fn new(headers: fn(&Signable<'_>) -> Headers, stop: Stop, log: Weak<dyn Log>) -> Self {
        let client = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .timeout(TIMEOUT)
            .build()
            .expect("a client of HTTP alone can be built");
        Self {
            runtime: Handle::current(),
            client,
            sending: Arc::new(Semaphore::new(MAX_SENDING)),
            headers,
            stop,
            log,
            state: Mutex::default(),
        }
    }

    /// Sets the target of announcements from now on. Delayed webhooks are sent to it first.
    pub(crate) fn set_target(&self, target: Option<Announce>) {
        let mut state = self.state();
        state.target = target.map(Arc::new);
        let held = std::mem::take(&mut state.held);
        if let Some(target) = state.target.clone() {
            for (_, announcement) in held {
                self.send(&mut state, &target, announcement);
            }
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.state().target.is_some()
    }

    /// Announces a change. The caller holds the lock under which the change was made, so announcements have the order
    /// of changes.
    pub(crate) fn announce(&self, announcement: Announcement) {
        let mut state = self.state();
        let Some(target) = state.target.clone() else { return };
        let Behaviour { lose, reorder, .. } = target.behaviour;
        if lose {
            self.note(announcement, Fate::Lost);
        } else if reorder {
            match state.held.remove(&announcement.link_id) {
                Some(held) => {
                    self.send(&mut state, &target, announcement);
                    self.send(&mut state, &target, held);
                }
                None => {
                    state.held.insert(announcement.link_id.clone(), announcement.clone());
                    self.note(announcement, Fate::HeldBack);
                }
            }
        } else {
            self.send(&mut state, &target, announcement);
        }
    }

    /// Writes into the log from a task, because the caller may hold the log's lock.
    fn note(&self, announcement: Announcement, fate: Fate) {
        let log = self.log.clone();
        self.runtime.spawn(async move { write(&log, &announcement, fate, None) });
    }

    fn send(&self, state: &mut State, target: &Arc<Announce>, announcement: Announcement) {
        if state.tails.len() >= MAX_TAILS {
            state.tails.retain(|_, tail| !tail.is_finished());
        }
        let link_id = announcement.link_id.clone();
        let previous = state.tails.remove(&link_id);
        let delivery = Delivery {
            client: self.client.clone(),
            headers: self.headers,
            log: self.log.clone(),
            target: target.clone(),
            announcement,
        };
        let (stop, sending) = (self.stop.clone(), self.sending.clone());
        let work = async move {
            if let Some(previous) = previous {
                // The next webhook is sent even if the previous one failed.
                let _ = previous.await;
            }
            let _permit = sending.acquire().await;
            delivery.run().await;
        };
        let tail = self.runtime.spawn(async move {
            stop.or(work).await;
        });
        state.tails.insert(link_id, tail);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(log: &Weak<dyn Log>, announcement: &Announcement, fate: Fate, status: Option<u16>) {
    let Some(log) = log.upgrade() else { return };
    log.announced(Announced {
        at: OffsetDateTime::now_utc(),
        event: announcement.event.clone(),
        event_id: announcement.event_id.clone(),
        link_id: announcement.link_id.clone(),
        reference: announcement.reference.clone(),
        link_status: announcement.link_status.clone(),
        fate,
        status,
    });
}

/// A webhook that is being sent.
struct Delivery {
    client: reqwest::Client,
    headers: fn(&Signable<'_>) -> Headers,
    log: Weak<dyn Log>,
    target: Arc<Announce>,
    announcement: Announcement,
}

impl Delivery {
    async fn run(&self) {
        let Behaviour { repeat, retries, retry_pause, .. } = self.target.behaviour;
        for _ in 0..=repeat {
            for retry in 0..=retries {
                if retry > 0 {
                    tokio::time::sleep(retry_pause).await;
                }
                if self.post().await {
                    break;
                }
            }
        }
    }

    /// Sends the webhook once. Returns whether the answer was 2xx.
    async fn post(&self) -> bool {
        let behaviour = self.target.behaviour;
        let body = if behaviour.old_status { &self.announcement.stale_body } else { &self.announcement.body };
        let now = OffsetDateTime::now_utc();
        let unknown = [Uuid::new_v4().to_string()];
        let Headers { plain, proof } = (self.headers)(&Signable {
            secrets: if behaviour.wrong_secret { &unknown } else { &self.target.secrets },
            event_id: &self.announcement.event_id,
            at: if behaviour.old_timestamp { now - OLD } else { now },
            body: body.as_bytes(),
        });
        let mut call = self.client.post(&self.target.url).header("content-type", "application/json");
        for (name, value) in plain {
            call = call.header(name, value);
        }
        for (name, value) in proof.into_iter().filter(|_| !behaviour.unsigned) {
            call = call.header(name, value);
        }
        let status = match call.body(body.clone()).send().await {
            Ok(response) => Some(response.status()),
            Err(error) => {
                tracing::info!(%error, event.id = self.announcement.event_id, "announcement not answered");
                None
            }
        };
        write(&self.log, &self.announcement, Fate::Sent, status.map(|status| status.as_u16()));
        status.is_some_and(|status| status.is_success())
    }
}
