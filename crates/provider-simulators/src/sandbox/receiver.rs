//! Provides a merchant's webhook receiver: stores webhooks, verifies signatures, and fails on request.
//!
//! `POST /webhooks`, or any path below it, receives a webhook and answers 204, or 401 if there are secrets and none
//! of them signed it. `GET /webhooks` lists all, `GET /webhooks?reference=po_1001` those about one payout.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::watch;

use super::api_error::ApiError;
use super::signature::{BadSecret, Verifier};
use crate::fault_server::{
    Answer, Bound, Connection, FaultInjector, FaultRule, HeldCall, Operation, PLAIN, Reply, Server, Stopper,
    When, complete,
};

/// The maximum number of stored webhooks. The oldest are dropped first.
const MAX_WEBHOOKS: usize = 10_000;
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// A webhook, recorded when it arrives.
#[derive(Clone, Debug, Serialize)]
pub struct Received {
    /// The number, counted from 1.
    pub number: u64,
    /// The time when it arrived.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The path to which it was sent.
    pub path: String,
    /// The `webhook-id`.
    pub id: Option<String>,
    /// The `webhook-timestamp`, as it was sent.
    pub timestamp: Option<String>,
    /// The `type` that the body names.
    pub event_type: Option<String>,
    /// The `data.merchant_payout_id` that the body names.
    pub reference: Option<String>,
    /// Whether its signature is valid.
    pub verified: bool,
    /// The reason why it is not verified.
    pub problem: Option<&'static str>,
    /// The headers, by their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body, byte for byte if it is UTF-8.
    pub body: String,
    /// The status of the answer; `None` before the answer, and for a webhook without one.
    pub status: Option<u16>,
    /// The name of the injected fault.
    pub fault: Option<&'static str>,
}

impl Received {
    /// Returns the body as JSON, or null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// A receiver for tests. The sandbox has one too, if it is given secrets.
pub struct Receiver {
    url: String,
    inbox: Arc<Inbox>,
    server: Server,
}

impl Receiver {
    /// Starts on any free port of the loopback interface. Without secrets it verifies nothing and accepts everything.
    ///
    /// # Errors
    ///
    /// Returns an error if no port is free or a secret cannot be decoded.
    pub async fn start(secrets: &[String]) -> io::Result<Self> {
        Self::listen((Ipv4Addr::LOCALHOST, 0).into(), secrets).await
    }

    /// Starts at an address.
    ///
    /// # Errors
    ///
    /// Returns an error if the address is in use or a secret cannot be decoded.
    pub async fn listen(address: SocketAddr, secrets: &[String]) -> io::Result<Self> {
        let bound = Bound::to(address).await?;
        let stopper = Stopper::new();
        let inbox = Inbox::new(Arc::new(FaultInjector::new(&PLAIN, stopper.stop())), secrets)?;
        let url = format!("{}/webhooks", bound.url());
        let routes = complete(router(inbox.clone()).fallback(async || ApiError::NO_SUCH_PAGE));
        Ok(Self { url, inbox, server: bound.serve(routes, stopper) })
    }

    /// Returns the URL for webhooks. Any path below it receives them as well.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Ends waiting calls, lets the others finish, and returns when all have ended.
    pub async fn stop(self) {
        self.server.stop().await;
    }

    /// Returns every webhook up to now, oldest first.
    pub fn received(&self) -> Vec<Received> {
        self.inbox.webhooks().iter().cloned().collect()
    }

    /// Waits until the received webhooks satisfy a condition. The caller has to set a deadline.
    pub async fn until(&self, wanted: impl FnMut(&[Received]) -> bool) -> Vec<Received> {
        self.inbox.until(wanted).await
    }

    /// Adds a fault rule for the next webhooks.
    ///
    /// # Panics
    ///
    /// If a thousand fault rules are pending.
    pub fn inject_fault(&self, rule: impl Into<FaultRule>) {
        let rule = rule.into().on(Operation::Webhook);
        self.inbox.injector.add(rule).expect("fewer than a thousand fault rules");
    }

    /// Deletes all pending fault rules.
    pub fn clear_faults(&self) {
        self.inbox.injector.clear();
    }

    /// Holds the answer to the next webhook.
    pub fn hold_next_answer(&self) -> HeldCall {
        self.inbox.injector.hold_next(Operation::Webhook, When::After)
    }
}

/// The stored webhooks.
pub(super) struct Inbox {
    injector: Arc<FaultInjector>,
    verifier: Verifier,
    webhooks: Mutex<VecDeque<Received>>,
    changed: watch::Sender<u64>,
}

impl Inbox {
    pub(super) fn new(injector: Arc<FaultInjector>, secrets: &[String]) -> io::Result<Arc<Self>> {
        let verifier = Verifier::new(secrets)
            .map_err(|bad @ BadSecret| io::Error::new(io::ErrorKind::InvalidInput, bad))?;
        Ok(Arc::new(Self { injector, verifier, webhooks: Mutex::default(), changed: watch::Sender::new(0) }))
    }

    async fn until(&self, mut wanted: impl FnMut(&[Received]) -> bool) -> Vec<Received> {
        // It subscribes before the first check, so no change falls between check and wait.
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(received) = self.look(&mut wanted) {
                return received;
            }
            // This cannot fail, because the sender lives as long as the inbox.
            let _ = changed.changed().await;
        }
    }

    fn look(&self, wanted: &mut impl FnMut(&[Received]) -> bool) -> Option<Vec<Received>> {
        let mut webhooks = self.webhooks();
        let webhooks = webhooks.make_contiguous();
        wanted(webhooks).then(|| webhooks.to_vec())
    }

    /// Stores the webhook, and returns its number.
    fn keep(&self, webhook: Received) -> u64 {
        let mut webhooks = self.webhooks();
        let number = webhooks.back().map_or(1, |last| last.number + 1);
        if webhooks.len() == MAX_WEBHOOKS {
            webhooks.pop_front();
        }
        webhooks.push_back(Received { number, ..webhook });
        drop(webhooks);
        self.changed.send_modify(|changes| *changes += 1);
        number
    }

    fn note(&self, number: u64, write: impl FnOnce(&mut Received)) {
        // The search begins at the end, where webhooks without an answer are.
        let mut webhooks = self.webhooks();
        webhooks.iter_mut().rev().find(|webhook| webhook.number == number).map(write);
        drop(webhooks);
        self.changed.send_modify(|changes| *changes += 1);
    }

    fn verdict(&self, verified: bool) -> Answer {
        if self.verifier.has_secrets() && !verified {
            return Reply::error(StatusCode::UNAUTHORIZED, "not_verified", "the signature does not verify")
                .into();
        }
        Reply::new(StatusCode::NO_CONTENT, "text/plain", Bytes::new()).into()
    }

    fn webhooks(&self) -> MutexGuard<'_, VecDeque<Received>> {
        self.webhooks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn router(inbox: Arc<Inbox>) -> Router {
    Router::new()
        .route("/webhooks", post(receive).get(list))
        .route("/webhooks/{*path}", post(receive))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(inbox)
}

async fn receive(
    State(inbox): State<Arc<Inbox>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let webhook = inbox.read(&uri, &headers, &body);
    let (verified, reference) = (webhook.verified, webhook.reference.clone());
    let number = inbox.keep(webhook);

    let active_fault = inbox.injector.take_fault(Operation::Webhook, reference.as_deref());
    inbox.note(number, |webhook| {
        webhook.fault = active_fault.as_ref().map(|active_fault| active_fault.fault.name());
    });
    let answer = inbox.injector.around(active_fault, || inbox.verdict(verified)).await;
    inbox.note(number, |webhook| {
        webhook.status = answer.status().map(|status| status.as_u16());
        tracing::info!(
            webhook.id,
            webhook.event_type,
            webhook.verified,
            webhook.status,
            webhook.fault,
            "webhook answered"
        );
    });
    answer.into_response(&connection, &inbox.injector.stop)
}

impl Inbox {
    fn read(&self, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Received {
        let at = OffsetDateTime::now_utc();
        let verified = self.verifier.verify(headers, body, at);
        let json: Value = serde_json::from_slice(body).unwrap_or_default();
        let headers = readable(headers);
        Received {
            number: 0,
            at,
            path: uri.path().to_owned(),
            id: headers.get("webhook-id").cloned(),
            timestamp: headers.get("webhook-timestamp").cloned(),
            event_type: json["type"].as_str().map(str::to_owned),
            reference: json["data"]["merchant_payout_id"].as_str().map(str::to_owned),
            verified: verified.is_ok(),
            problem: verified.err(),
            headers,
            body: String::from_utf8_lossy(body).into_owned(),
            status: None,
            fault: None,
        }
    }
}

fn readable(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut readable: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        readable
            .entry(name.as_str().to_owned())
            .and_modify(|values| *values = format!("{values}, {value}"))
            .or_insert_with(|| value.into_owned());
    }
    readable
}

#[derive(Deserialize)]
struct ListQuery {
    reference: Option<String>,
}

async fn list(State(inbox): State<Arc<Inbox>>, Query(query): Query<ListQuery>) -> Response {
    let webhooks = inbox.webhooks();
    let wanted = |webhook: &&Received| query.reference.is_none() || webhook.reference == query.reference;
    let listed: Vec<&Received> = webhooks.iter().filter(wanted).collect();
    Reply::json(StatusCode::OK, &json!({ "data": listed })).into_response()
}
