//! Simulates real providers for tests of the connectors and for demos. Each simulator is as strict as its provider's
//! documentation.
//!
//! Each answers its provider's own paths: the file of its name lists them, and names the source of its rules. All of
//! them have these paths, which need no credential:
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /ledger` | every call and every link, without URLs and personal data |
//! | `POST` · `GET` · `DELETE /control/faults` | adds · lists · deletes fault rules |
//! | `PUT /control/stages` | `["created", "active"]`: statuses that a link goes through from now on, one for each look-up |
//! | `PUT` · `DELETE /control/announce` | announces changes from now on ([`Announce`]), as the provider does · stops it |
//! | `DELETE /control/tokens` | invalidates all access tokens |
//! | `PUT /control/links/{id}` | `{"status": "cancelled"}`: sets the status of a link, from any other |
//! | `POST /control/links/{id}/change` | `{"to": "pay"}`: changes a link ([`LinkChange`]); 409 if the provider cannot |
//! | `POST /control/links/{id}/late-submit` | submits a form late that was opened in time (Hyperswitch) |
//!
//! If the documentation is silent, a simulator is strict: it rejects a field that is not documented, and a repeated
//! reference is an error and not a replay.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Weak};

mod api;
mod state;
mod control;
mod handler;
mod fields;
mod hyperswitch;
mod link;
mod pace;
mod razorpayx;
mod revolut;
mod webhooks;
mod xendit;

pub use self::hyperswitch::HyperswitchSettings;
pub use self::link::{Change, Link, Payout};
pub use self::razorpayx::RazorpayXSettings;
pub use self::revolut::{ACCESS_TOKEN_LIFETIME, ACCOUNTS, Duplicates, RevolutClient, RevolutSettings};
pub use self::state::{Call, ProviderLedger, UnknownLink};
pub use self::xendit::XenditSettings;
pub use crate::fault_server::{Fault, FaultRule, Garbage, HeldCall, Operation, When};
pub use crate::link_change::LinkChange;
pub use crate::{Announce, Announced, Behaviour, Fate};

use self::api::Api;
use self::handler::CallHandler;
use self::hyperswitch::Hyperswitch;
use self::razorpayx::RazorpayX;
use self::revolut::Revolut;
use self::xendit::Xendit;
use crate::fault_server::{Bound, FaultInjector, Server, Stopper, complete, faults};

/// The simulated provider, with its credentials.
#[derive(Clone)]
pub enum Provider {
    /// Hyperswitch's payout links.
    Hyperswitch(HyperswitchSettings),
    /// Xendit's payout links.
    Xendit(XenditSettings),
    /// Revolut Business's payout links.
    Revolut(RevolutSettings),
    /// RazorpayX's payout links.
    RazorpayX(RazorpayXSettings),
}

/// The settings of a simulator.
#[derive(Clone)]
pub struct Settings {
    /// The address to listen on. Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The provider that is simulated.
    pub provider: Provider,
    /// The prefix of the links' URLs. Nothing answers there.
    pub links_url: String,
    /// The calls that are answered within a minute. Further calls get the provider's own "too many". `None` is no
    /// limit.
    pub calls_per_minute: Option<u32>,
    /// The target of announcements; `None` announces nothing.
    pub announce: Option<Announce>,
}

impl Settings {
    /// Creates settings with any free port of the loopback interface, links under `https://links.example`, and no
    /// limit of calls.
    pub fn new(provider: Provider) -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            provider,
            links_url: "https://links.example".into(),
            calls_per_minute: None,
            announce: None,
        }
    }
}

/// A running simulator. Dropping it stops it.
pub struct ProviderSimulator {
    url: String,
    handler: Arc<CallHandler>,
    server: Server,
}

impl ProviderSimulator {
    /// Starts a simulator.
    ///
    /// # Errors
    ///
    /// Returns an error if the address cannot be bound.
    pub async fn start(settings: Settings) -> io::Result<Self> {
        let bound = Bound::to(settings.listen).await?;
        let links_url = settings.links_url.trim_end_matches('/').to_owned();
        let api: Box<dyn Api> = match settings.provider {
            Provider::Hyperswitch(settings) => Box::new(Hyperswitch::new(settings, links_url)),
            Provider::Xendit(settings) => Box::new(Xendit::new(settings, links_url)),
            Provider::Revolut(settings) => Box::new(Revolut::new(settings, links_url)),
            Provider::RazorpayX(settings) => Box::new(RazorpayX::new(settings, links_url)),
        };
        let stopper = Stopper::new();
        let injector = Arc::new(FaultInjector::new(api.form(), stopper.stop()));
        let handler = Arc::new_cyclic(|handler: &Weak<CallHandler>| {
            CallHandler::new(api, injector.clone(), settings.calls_per_minute, handler.clone())
        });
        handler.set_target(settings.announce);
        let routes = control::router(handler.clone()).merge(faults(injector));
        let router = complete(routes.fallback_service(handler::service(handler.clone())));
        Ok(Self { url: bound.url(), handler, server: bound.serve(router, stopper) })
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
    pub fn ledger(&self) -> ProviderLedger {
        self.handler.read(|state| state.ledger.clone())
    }

    /// Waits until the ledger satisfies a condition. The caller has to set a deadline.
    pub async fn until(&self, wanted: impl FnMut(&ProviderLedger) -> bool) -> ProviderLedger {
        self.handler.until(wanted).await
    }

    /// Adds a fault rule: `simulator.inject_fault(FaultRule::new(Fault::Reset).times(2).after_the_work())`, or
    /// `simulator.inject_fault(Fault::status(503))` for the next create alone.
    ///
    /// # Panics
    ///
    /// If a thousand fault rules are pending.
    pub fn inject_fault(&self, rule: impl Into<FaultRule>) {
        self.handler.injector.add(rule.into()).expect("fewer than a thousand fault rules");
    }

    /// Deletes all fault rules.
    pub fn clear_faults(&self) {
        self.handler.injector.clear();
    }

    /// Holds the next create before its work: no link is created until the test releases it.
    pub fn hold_next_call(&self) -> HeldCall {
        self.hold_next(Operation::Create, When::Before)
    }

    /// Holds the answer to the next create: the link is created, but the client has no answer.
    pub fn hold_next_answer(&self) -> HeldCall {
        self.hold_next(Operation::Create, When::After)
    }

    /// Holds the next call of an operation, before or after its work, until the test releases it.
    pub fn hold_next(&self, operation: Operation, when: When) -> HeldCall {
        self.handler.injector.hold_next(operation, when)
    }

    /// Sets the statuses of each link that is created from now on: it begins with the first, and every look-up moves
    /// it to the next.
    ///
    /// # Panics
    ///
    /// If there is none, or one that the provider does not have.
    pub fn set_stages(&self, stages: &[&str]) {
        self.handler
            .set_stages(stages.iter().map(ToString::to_string).collect())
            .expect("the provider's words");
    }

    /// Invalidates all access tokens, so the client has to request another one.
    pub fn forget_tokens(&self) {
        self.handler.forget_tokens();
    }

    /// Sets the status of a link, found by its id or its reference.
    ///
    /// # Panics
    ///
    /// If there is no such link, or the provider has no such status.
    pub fn set_status(&self, link: &str, status: &str) {
        self.handler.set_status(link, status).expect("a link, and one of the provider's words");
    }

    /// Changes a link, found by its id or its reference (of several links, the newest), as its provider can.
    ///
    /// # Errors
    ///
    /// Returns why the change is not possible. Nothing is changed then.
    pub fn change(&self, link: &str, change: LinkChange) -> Result<(), String> {
        self.handler.change_link(link, change)
    }

    /// Submits the form of a link that was opened in time and comes too late. Hyperswitch accepts it even if the
    /// payout was cancelled meanwhile.
    ///
    /// # Errors
    ///
    /// Returns why the provider does not accept it. Nothing is changed then.
    pub fn late_submit(&self, link: &str) -> Result<(), String> {
        self.handler.late_submit(link)
    }

    /// Announces changes of links to this target from now on, as the provider does, or to none. Delayed webhooks are
    /// sent first.
    pub fn announce(&self, announce: Option<Announce>) {
        self.handler.set_target(announce);
    }

    /// Returns every status that a link entered, oldest first. It is empty if there is no such link.
    pub fn history(&self, link: &str) -> Vec<Change> {
        self.handler
            .read(|state| {
                let place = state.place(link)?;
                Some(state.ledger.links[place].history.clone())
            })
            .unwrap_or_default()
    }
}
