//! Simulates a provider of payout links in memory, for demonstrations and tests.
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /v1/payout-links` | 201, the link; 201 flagged `replayed`; 409 key in use; 422 key of another request |
//! | `GET /v1/payout-links/{id}` · `?reference=` | the link as it is now · `{"data": […]}` |
//! | `POST /v1/payout-links/{id}/cancel` | the link, cancelled; 409 once it is claimed |
//! | `GET` · `POST /l/{token}` | the page behind the link's URL · claims the payout |
//! | `GET /ledger` | every call and every link |
//! | `POST` · `GET` · `DELETE /control/faults` | adds · lists · deletes fault rules |
//! | `GET` · `PUT /control/mode` | `{"idempotency": "on"}`, or `"off"`: keys are ignored |
//! | `GET` · `PUT /control/payouts` | `{"pay_after_ms": 1000}`, or `null`: a claimed link waits for a change by hand |
//! | `POST /control/links/{id}/change` | `{"to": "pay"}` changes the link ([`LinkChange`]); 409 if it cannot |
//! | `PUT` · `DELETE /control/announce` | announces changes from now on ([`Announce`]) · stops it |
//! | `POST` · `GET /webhooks` | the webhook receiver, if it is given secrets |
//!
//! The API under `/v1` asks for the bearer token. The rest does not, so do not expose this server to the open
//! network. Faults are injected by rule ([`FaultRule`]) or by amount ([`amounts`]); rules come first. A payout that
//! was claimed on its page is paid automatically ([`payouts`]). The sandbox writes nothing to disk, and no token,
//! link URL or bank detail to the log.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::Router;

pub mod amounts;
mod api;
mod bank;
mod claim;
mod claim_form;
mod claim_page;
mod control;
mod ledger;
mod link;
pub mod payouts;
mod shared;
mod receiver;
mod api_error;
mod request;
mod signature;
mod webhook;

pub use ledger::{Call, Idempotency, SandboxLedger};
pub use link::{Change, Failure, Link, LinkStatus};
pub use receiver::{Received, Receiver};
pub use request::{Amount, CreateRequest, Recipient};

use api_error::ApiError;
use receiver::Inbox;
use shared::Shared;

use crate::fault_server::{Bound, FaultInjector, PLAIN, Server, Stopper, complete, faults};
pub use crate::fault_server::{Fault, FaultRule, Garbage, HeldCall, Operation, When};
pub use crate::link_change::LinkChange;
pub use crate::{Announce, Announced, Behaviour, Fate};

/// The settings of a sandbox.
#[derive(Clone)]
pub struct Settings {
    /// The address to listen on. Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The bearer token that the API asks for.
    pub token: String,
    /// The prefix of the links' URLs; by default the sandbox's own address.
    pub public_url: Option<String>,
    /// The lifetime of a link. With zero, links are expired as soon as they are issued.
    pub link_lifetime: Duration,
    /// The answer to a repeated key.
    pub idempotency: Idempotency,
    /// The time from a claim on the page to the payout. With `None` a link waits for a change by hand.
    pub pay_after: Option<Duration>,
    /// The target of announcements; `None` announces nothing.
    pub announce: Option<Announce>,
    /// The secrets (`whsec_…`) of a webhook receiver at `/webhooks`. Without secrets there is no receiver.
    pub webhook_secrets: Vec<String>,
}

impl Settings {
    /// Creates settings with any free port of the loopback interface, links of a week, idempotency keys, and payouts
    /// after a second.
    pub fn new(token: impl Into<String>) -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            token: token.into(),
            public_url: None,
            link_lifetime: Duration::from_hours(7 * 24),
            idempotency: Idempotency::On,
            pay_after: Some(Duration::from_secs(1)),
            announce: None,
            webhook_secrets: Vec::new(),
        }
    }
}

/// A running sandbox. Dropping it stops it.
pub struct Sandbox {
    url: String,
    shared: Arc<Shared>,
    server: Server,
}

impl Sandbox {
    /// Starts a sandbox.
    ///
    /// # Errors
    ///
    /// Returns an error if the address cannot be bound, or a webhook secret is invalid.
    pub async fn start(settings: Settings) -> io::Result<Self> {
        let bound = Bound::to(settings.listen).await?;
        let url = bound.url();
        let stopper = Stopper::new();
        let injector = Arc::new(FaultInjector::new(&PLAIN, stopper.stop()));
        let inbox = match settings.webhook_secrets.as_slice() {
            [] => None,
            secrets => Some(Inbox::new(injector.clone(), secrets)?),
        };
        let shared = Arc::new_cyclic(|shared: &Weak<Shared>| {
            Shared::new(injector.clone(), settings, &url, shared.clone())
        });
        tokio::spawn({
            let (shared, stop) = (shared.clone(), injector.stop.clone());
            async move { stop.or(shared.expire_links()).await }
        });
        let router = complete(routes(&shared, inbox).fallback(async || ApiError::NO_SUCH_PAGE));
        Ok(Self { url, shared, server: bound.serve(router, stopper) })
    }

    /// Returns its URL, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Ends waiting calls, lets the others finish, and returns when all have ended.
    pub async fn stop(self) {
        self.server.stop().await;
    }

    /// Returns every call and every link up to now.
    pub fn ledger(&self) -> SandboxLedger {
        self.shared.read(|state| state.ledger.clone())
    }

    /// Waits until the ledger satisfies a condition. The caller has to set a deadline.
    pub async fn until(&self, wanted: impl FnMut(&SandboxLedger) -> bool) -> SandboxLedger {
        self.shared.until(wanted).await
    }

    /// Adds a fault rule: `sandbox.inject_fault(FaultRule::new(Fault::Reset).times(2).after_the_work())`, or
    /// `sandbox.inject_fault(Fault::status(503))` for the next create alone.
    ///
    /// # Panics
    ///
    /// If a thousand fault rules are pending.
    pub fn inject_fault(&self, rule: impl Into<FaultRule>) {
        self.shared.injector.add(rule.into()).expect("fewer than a thousand fault rules");
    }

    /// Deletes all fault rules.
    pub fn clear_faults(&self) {
        self.shared.injector.clear();
    }

    /// Holds the next create before its work: until the test releases it, no link is created and its key is in use.
    pub fn hold_next_call(&self) -> HeldCall {
        self.hold_next(Operation::Create, When::Before)
    }

    /// Holds the answer to the next create: the link is created, but the client has no answer.
    pub fn hold_next_answer(&self) -> HeldCall {
        self.hold_next(Operation::Create, When::After)
    }

    /// Holds the next call of an operation, before or after its work, until the test releases it.
    pub fn hold_next(&self, operation: Operation, when: When) -> HeldCall {
        self.shared.injector.hold_next(operation, when)
    }

    /// Turns idempotency keys on or off.
    pub fn set_idempotency(&self, idempotency: Idempotency) {
        self.shared.set_idempotency(idempotency);
    }

    /// Changes a link, found by its id or its reference (of several links, the newest). From then on it does not
    /// change by itself.
    ///
    /// # Errors
    ///
    /// Returns why the change is not possible. Nothing is changed then.
    pub fn change(&self, link: &str, change: LinkChange) -> Result<(), String> {
        self.shared.change_link(link, change)
    }

    /// Lets an unclaimed link expire after this time. Its `expires_at` changes too.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no such link, or it is not open.
    pub fn expire_after(&self, link: &str, time_left: Duration) -> Result<(), String> {
        self.shared.expire_after(link, time_left)
    }

    /// Returns every status that a link entered, oldest first. It is empty if there is no such link.
    pub fn history(&self, link: &str) -> Vec<Change> {
        self.shared.read(|state| state.find_link(link).map(Link::history)).unwrap_or_default()
    }

    /// Announces changes of links to this target from now on, or to none. Delayed webhooks are sent first.
    pub fn announce(&self, announce: Option<Announce>) {
        self.shared.set_target(announce);
    }

    /// Sets the time from a claim on the page to the payout. With `None` a link waits for a change by hand.
    pub fn set_pay_after(&self, pay_after: Option<Duration>) {
        self.shared.set_pay_after(pay_after);
    }
}

fn routes(shared: &Arc<Shared>, inbox: Option<Arc<Inbox>>) -> Router {
    let routes = api::router(shared.clone())
        .merge(claim::router(shared.clone()))
        .merge(control::provider(shared.clone()))
        .merge(faults(shared.injector.clone()));
    match inbox {
        Some(inbox) => routes.merge(receiver::router(inbox)),
        None => routes,
    }
}
