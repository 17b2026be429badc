//! Handles calls: records each in the ledger, decodes it, carries it out with its injected fault, and answers.
//!
//! A call that arrived is carried out even if the client disconnects, as at a real provider.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use tokio::sync::watch;

use super::api::{Api, Job, Request, Task};
use super::pace::{Pace, WindowUse};
use super::state::{Call, ProviderLedger, ProviderState, UnknownLink};
use crate::announce::{Announce, Announced, Announcer, Log};
use crate::fault_server::{Answer, Connection, FaultInjector, Reply};
use crate::link_change::LinkChange;

const MAX_BODY_BYTES: usize = 256 * 1024;

pub(super) struct CallHandler {
    pub(super) injector: Arc<FaultInjector>,
    api: Box<dyn Api>,
    pace: Pace,
    state: Mutex<ProviderState>,
    changed: watch::Sender<()>,
    announcer: Announcer,
}

/// Answers every path without an endpoint of its own.
pub(super) fn service(handler: Arc<CallHandler>) -> Router {
    Router::new().fallback(receive).layer(DefaultBodyLimit::max(MAX_BODY_BYTES)).with_state(handler)
}

async fn receive(
    State(handler): State<Arc<CallHandler>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path: Vec<&str> = uri.path().trim_start_matches('/').split('/').collect();
    let Some(task) = handler.api.task(&method, &path) else {
        return handler.api.form().error(StatusCode::NOT_FOUND).into_response();
    };
    let request = Request { query: uri.query().unwrap_or_default().to_owned(), headers, body };
    let number = handler.change(|state| state.arrive(task.operation(), request.body.clone()));
    let answered = tokio::spawn(async move {
        let answer = handler.answer(number, task, &request).await;
        handler.conclude(number, &answer);
        answer.into_response(&connection, &handler.injector.stop)
    });
    answered.await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

impl CallHandler {
    /// Creates a handler. `log` points to the handler itself.
    pub(super) fn new(
        api: Box<dyn Api>,
        injector: Arc<FaultInjector>,
        calls_per_minute: Option<u32>,
        log: Weak<dyn Log>,
    ) -> Self {
        let state = Mutex::new(ProviderState::new(api.words()));
        let announcer = Announcer::new(api.webhooks().headers, injector.stop.clone(), log);
        let pace = Pace::new(calls_per_minute);
        Self { injector, api, pace, state, changed: watch::Sender::new(()), announcer }
    }

    async fn answer(&self, number: u64, task: Task, request: &Request) -> Answer {
        let window_use = self.pace.count();
        if let Some(WindowUse { too_many: true, reset, .. }) = window_use {
            let form = self.api.form();
            let reply = form.wait(form.error(StatusCode::TOO_MANY_REQUESTS), HeaderValue::from(reset));
            return self.paced(reply, window_use.as_ref()).into();
        }
        let operation = task.operation();
        let known = match &task {
            Task::Get(id) | Task::Cancel(id) => self.read(|state| state.reference_of(id)),
            Task::Payout(id) => self.read(|state| Some(state.payout(id)?.0.reference.clone())),
            Task::Create | Task::List | Task::Token => None,
        };
        let Job { reference, work } = match self.api.job(task, request) {
            Ok(job) => job,
            Err(error) => return self.paced(error.into(), window_use.as_ref()).into(),
        };
        let reference = reference.or(known);
        self.note(number, |call| call.reference.clone_from(&reference));
        let active_fault = self.injector.take_fault(operation, reference.as_deref());
        self.note(number, |call| {
            call.fault = active_fault.as_ref().map(|active_fault| active_fault.fault.name());
        });
        let work = || self.paced(self.change(work), window_use.as_ref()).into();
        self.injector.around(active_fault, work).await
    }

    /// Adds the provider's rate limit headers to a reply.
    fn paced(&self, reply: Reply, window_use: Option<&WindowUse>) -> Reply {
        let (Some([limit, left, reset]), Some(window_use)) = (self.api.pace_headers(), window_use) else {
            return reply;
        };
        reply
            .with(limit.clone(), HeaderValue::from(window_use.limit))
            .with(left.clone(), HeaderValue::from(window_use.left))
            .with(reset.clone(), HeaderValue::from(window_use.reset))
    }

    fn conclude(&self, number: u64, answer: &Answer) {
        self.note(number, |call| {
            call.status = answer.status().map(|status| status.as_u16());
            tracing::info!(
                call.operation = ?call.operation,
                call.status,
                call.fault,
                payout_link.reference = call.reference,
                "call answered"
            );
        });
    }

    fn note(&self, number: u64, write: impl FnOnce(&mut Call)) {
        self.change(|state| state.call(number).map(write));
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&ProviderState) -> T) -> T {
        read(&self.state())
    }

    /// Changes the state, announces the changes, and wakes tasks that wait for a change.
    fn change<T>(&self, change: impl FnOnce(&mut ProviderState) -> T) -> T {
        let mut state = self.state();
        let result = change(&mut state);
        let entered = std::mem::take(&mut state.entered);
        if !entered.is_empty() && self.announcer.is_on() {
            let webhooks = self.api.webhooks();
            for (link, entry) in entered {
                let announcements = webhooks.announcements(&state.ledger.links[link], entry);
                for announcement in announcements {
                    self.announcer.announce(announcement);
                }
            }
        }
        drop(state);
        self.changed.send_replace(());
        result
    }

    pub(super) fn set_target(&self, announce: Option<Announce>) {
        self.announcer.set_target(announce);
    }

    pub(super) fn set_stages(&self, stages: Vec<String>) -> Result<(), UnknownLink> {
        self.change(|state| state.set_stages(stages))
    }

    pub(super) fn forget_tokens(&self) {
        self.api.forget_tokens();
    }

    pub(super) fn set_status(&self, link: &str, status: &str) -> Result<(), UnknownLink> {
        self.change(|state| state.set_status(link, status))
    }

    pub(super) fn change_link(&self, link: &str, change: LinkChange) -> Result<(), String> {
        self.change(|state| state.change_link(link, change))
    }

    pub(super) fn late_submit(&self, link: &str) -> Result<(), String> {
        self.change(|state| state.late_submit(link))
    }

    /// Waits until the ledger satisfies a condition, and returns it.
    pub(super) async fn until(&self, mut wanted: impl FnMut(&ProviderLedger) -> bool) -> ProviderLedger {
        // It subscribes before the first check, so no change falls between check and wait.
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(ledger) = self.read(|state| wanted(&state.ledger).then(|| state.ledger.clone())) {
                return ledger;
            }
            // This cannot fail, because the sender lives as long as the handler.
            let _ = changed.changed().await;
        }
    }

    fn state(&self) -> MutexGuard<'_, ProviderState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for CallHandler {
    fn announced(&self, announced: Announced) {
        self.change(|state| state.announced(announced));
    }
}
