//! Where calls come in: each is entered, read, carried out between the faults ordered for it, and answered.
//!
//! A call that arrived is carried out to its end even if the client goes away meanwhile, as at a real provider.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use tokio::sync::watch;

use super::api::{Api, Job, Request, Task};
use super::books::{Books, Call, Ledger, UnknownLink};
use super::pace::{Pace, Place};
use crate::fault_server::{Answer, Connection, Desk, Reply};

const LARGEST_BODY_BYTES: usize = 256 * 1024;

pub(super) struct Counter {
    pub(super) desk: Arc<Desk>,
    api: Box<dyn Api>,
    pace: Pace,
    books: Mutex<Books>,
    changed: watch::Sender<()>,
}

/// Answers every path that nobody else does.
pub(super) fn service(counter: Arc<Counter>) -> Router {
    Router::new().fallback(receive).layer(DefaultBodyLimit::max(LARGEST_BODY_BYTES)).with_state(counter)
}

async fn receive(
    State(counter): State<Arc<Counter>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path: Vec<&str> = uri.path().trim_start_matches('/').split('/').collect();
    let Some(task) = counter.api.task(&method, &path) else {
        return counter.api.form().error(StatusCode::NOT_FOUND).into_response();
    };
    let request = Request { query: uri.query().unwrap_or_default().to_owned(), headers, body };
    let number = counter.change(|books| books.arrive(task.operation(), request.body.clone()));
    let answered = tokio::spawn(async move {
        let answer = counter.answer(number, task, &request).await;
        counter.conclude(number, &answer);
        answer.into_response(&connection, &counter.desk.stop)
    });
    answered.await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

impl Counter {
    pub(super) fn new(api: Box<dyn Api>, desk: Arc<Desk>, calls_per_minute: Option<u32>) -> Self {
        let books = Mutex::new(Books::new(api.words()));
        Self { desk, api, pace: Pace::new(calls_per_minute), books, changed: watch::Sender::new(()) }
    }

    async fn answer(&self, number: u64, task: Task, request: &Request) -> Answer {
        let place = self.pace.count();
        if let Some(Place { too_many: true, reset, .. }) = place {
            let form = self.api.form();
            let reply = form.wait(form.error(StatusCode::TOO_MANY_REQUESTS), HeaderValue::from(reset));
            return self.paced(reply, place.as_ref()).into();
        }
        let operation = task.operation();
        let known = match &task {
            Task::Get(id) | Task::Cancel(id) => self.read(|books| books.reference_of(id)),
            Task::Create | Task::List | Task::Token => None,
        };
        let Job { reference, work } = match self.api.job(task, request) {
            Ok(job) => job,
            Err(refused) => return self.paced(refused.into(), place.as_ref()).into(),
        };
        let reference = reference.or(known);
        self.note(number, |call| call.reference.clone_from(&reference));
        let trouble = self.desk.trouble(operation, reference.as_deref());
        self.note(number, |call| call.fault = trouble.as_ref().map(|trouble| trouble.fault.name()));
        let work = || self.paced(self.change(work), place.as_ref()).into();
        self.desk.around(trouble, work).await
    }

    /// The reply, with what its provider tells of its limit.
    fn paced(&self, reply: Reply, place: Option<&Place>) -> Reply {
        let (Some([limit, left, reset]), Some(place)) = (self.api.pace_headers(), place) else {
            return reply;
        };
        reply
            .with(limit.clone(), HeaderValue::from(place.limit))
            .with(left.clone(), HeaderValue::from(place.left))
            .with(reset.clone(), HeaderValue::from(place.reset))
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
        self.change(|books| books.call(number).map(write));
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&Books) -> T) -> T {
        read(&self.books())
    }

    /// Changes the books and wakes who waits for a change.
    fn change<T>(&self, change: impl FnOnce(&mut Books) -> T) -> T {
        let result = change(&mut self.books());
        self.changed.send_replace(());
        result
    }

    pub(super) fn set_stages(&self, stages: Vec<String>) -> Result<(), UnknownLink> {
        self.change(|books| books.set_stages(stages))
    }

    pub(super) fn forget_tokens(&self) {
        self.api.forget_tokens();
    }

    pub(super) fn set_status(&self, link: &str, status: &str) -> Result<(), UnknownLink> {
        self.change(|books| books.set_status(link, status))
    }

    /// The ledger, as soon as it is as wanted.
    pub(super) async fn until(&self, mut wanted: impl FnMut(&Ledger) -> bool) -> Ledger {
        // Subscribed before the first look, so that no change falls between look and wait.
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(ledger) = self.read(|books| wanted(&books.ledger).then(|| books.ledger.clone())) {
                return ledger;
            }
            // Cannot fail: the sender lives as long as the counter.
            let _ = changed.changed().await;
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
