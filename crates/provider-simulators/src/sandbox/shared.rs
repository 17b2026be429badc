//! The state that all handlers share: settings, ledger and fault injector.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use time::OffsetDateTime;
use tokio::sync::watch;
use uuid::Uuid;

use super::ledger::{Idempotency, Ledger, SandboxState};
use super::link::{Failure, NewLink};
use crate::fault_server::FaultInjector;
use crate::link_change::LinkChange;

const TOKEN_BYTES: usize = 24;

pub(super) struct Shared {
    pub(super) injector: Arc<FaultInjector>,
    token: String,
    public_url: String,
    link_lifetime: Duration,
    state: Mutex<SandboxState>,
    changed: watch::Sender<()>,
}

impl Shared {
    pub(super) fn new(injector: Arc<FaultInjector>, settings: super::Settings, url: &str) -> Self {
        let public_url = settings.public_url.as_deref().unwrap_or(url).trim_end_matches('/').to_owned();
        let mut state = SandboxState::default();
        state.idempotency = settings.idempotency;
        state.pay_after = settings.pay_after;
        Self {
            injector,
            token: settings.token,
            public_url,
            link_lifetime: settings.link_lifetime,
            state: Mutex::new(state),
            changed: watch::Sender::new(()),
        }
    }

    pub(super) fn knows(&self, token: &str) -> bool {
        verify_slices_are_equal(self.token.as_bytes(), token.as_bytes()).is_ok()
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&SandboxState) -> T) -> T {
        read(&self.state())
    }

    /// Changes the state and wakes those that wait for a change.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut SandboxState) -> T) -> T {
        let result = change(&mut self.state());
        self.changed.send_replace(());
        result
    }

    pub(super) fn set_idempotency(&self, idempotency: Idempotency) {
        self.change(|state| state.idempotency = idempotency);
    }

    /// How long after its claim on the page a payout is paid; `None`: it waits for an order.
    pub(super) fn pay_after(&self) -> Option<Duration> {
        self.read(|state| state.pay_after)
    }

    pub(super) fn set_pay_after(&self, pay_after: Option<Duration>) {
        self.change(|state| state.pay_after = pay_after);
    }

    /// Changes a link, found by its id or its reference.
    pub(super) fn change_link(&self, link: &str, change: LinkChange) -> Result<(), String> {
        self.change(|state| state.change_link(link, change, Failure::ORDERED).map(|_| ()))
    }

    /// Changes a link unless something else changed it after it had this version.
    pub(super) fn change_link_at(
        &self,
        id: &str,
        version: usize,
        change: LinkChange,
        failure: Failure,
    ) -> Result<(), String> {
        self.change(|state| match state.link(id) {
            Some(link) if link.version() == version => state.change_link(id, change, failure).map(|_| ()),
            Some(_) | None => Err(format!("payout link {id} was changed meanwhile")),
        })
    }

    /// Moves the end of an unclaimed link.
    pub(super) fn expire_after(&self, link: &str, time_left: Duration) -> Result<(), String> {
        self.change(|state| state.set_end(link, OffsetDateTime::now_utc() + time_left))
    }

    /// The ledger, as soon as it is as wanted.
    pub(super) async fn until(&self, mut wanted: impl FnMut(&Ledger) -> bool) -> Ledger {
        // Subscribed before the first look, so that no change falls between look and wait.
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(ledger) = self.read(|state| wanted(&state.ledger).then(|| state.ledger.clone())) {
                return ledger;
            }
            // Cannot fail: the sender lives as long as this struct.
            let _ = changed.changed().await;
        }
    }

    /// Creates an identifier, and a URL that cannot be guessed.
    pub(super) fn new_link(&self) -> NewLink {
        let mut random = [0; TOKEN_BYTES];
        aws_lc_rs::rand::fill(&mut random).expect("the operating system has random numbers");
        let token = BASE64_URL_SAFE_NO_PAD.encode(random);
        let now = OffsetDateTime::now_utc();
        let created_at = now.replace_nanosecond(0).unwrap_or(now);
        NewLink {
            id: format!("plink_{}", Uuid::new_v4().simple()),
            url: format!("{}/l/{token}", self.public_url),
            token,
            created_at,
            expires_at: created_at + self.link_lifetime,
        }
    }

    fn state(&self) -> MutexGuard<'_, SandboxState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
