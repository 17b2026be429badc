//! Holds the state that all handlers share: settings, ledger and fault injector.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use time::OffsetDateTime;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use super::ledger::{Idempotency, SandboxLedger, SandboxState};
use super::link::{Failure, NewLink};
use super::webhook;
use crate::announce::{Announce, Announced, Announcer, Log};
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
    announcer: Announcer,
    /// Signals that a link ends before all others that were known.
    earlier_end: Notify,
}

impl Shared {
    /// Creates the state. `log` points to the state itself.
    pub(super) fn new(
        injector: Arc<FaultInjector>,
        settings: super::Settings,
        url: &str,
        log: Weak<dyn Log>,
    ) -> Self {
        let public_url = settings.public_url.as_deref().unwrap_or(url).trim_end_matches('/').to_owned();
        let mut state = SandboxState::default();
        state.idempotency = settings.idempotency;
        state.pay_after = settings.pay_after;
        let announcer = Announcer::new(webhook::headers, injector.stop.clone(), log);
        announcer.set_target(settings.announce);
        Self {
            injector,
            token: settings.token,
            public_url,
            link_lifetime: settings.link_lifetime,
            state: Mutex::new(state),
            changed: watch::Sender::new(()),
            announcer,
            earlier_end: Notify::new(),
        }
    }

    pub(super) fn knows(&self, token: &str) -> bool {
        verify_slices_are_equal(self.token.as_bytes(), token.as_bytes()).is_ok()
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&SandboxState) -> T) -> T {
        read(&self.state())
    }

    /// Changes the state, announces the changes, and wakes tasks that wait for a change.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut SandboxState) -> T) -> T {
        let mut state = self.state();
        let next_end = state.next_end();
        let result = change(&mut state);
        let entered = std::mem::take(&mut state.entered);
        if !entered.is_empty() && self.announcer.is_on() {
            for entered in entered {
                let link = &state.ledger.links[entered.index];
                self.announcer.announce(webhook::announcement(link, entered.before, entered.change));
            }
        }
        if state.next_end().is_some_and(|end| next_end.is_none_or(|known| end < known)) {
            self.earlier_end.notify_one();
        }
        drop(state);
        self.changed.send_replace(());
        result
    }

    pub(super) fn set_target(&self, announce: Option<Announce>) {
        self.announcer.set_target(announce);
    }

    /// Lets links expire at their ends, as long as the sandbox runs.
    pub(super) async fn expire_links(&self) {
        loop {
            let now = OffsetDateTime::now_utc();
            match self.read(SandboxState::next_end) {
                Some(end) if end <= now => drop(self.change(|state| state.settle(now))),
                Some(end) => {
                    let time_left = Duration::try_from(end - now).unwrap_or_default();
                    // A moved end, or another link with an earlier end, interrupts the pause.
                    let _ = tokio::time::timeout(time_left, self.earlier_end.notified()).await;
                }
                None => self.earlier_end.notified().await,
            }
        }
    }

    pub(super) fn set_idempotency(&self, idempotency: Idempotency) {
        self.change(|state| state.idempotency = idempotency);
    }

    /// Returns the time from a claim on the page to the payout. With `None` a link waits for a change by hand.
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

    /// Changes a link, unless it has changed since this version.
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

    /// Waits until the ledger satisfies a condition, and returns it.
    pub(super) async fn until(&self, mut wanted: impl FnMut(&SandboxLedger) -> bool) -> SandboxLedger {
        // It subscribes before the first check, so no change falls between check and wait.
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(ledger) = self.read(|state| wanted(&state.ledger).then(|| state.ledger.clone())) {
                return ledger;
            }
            // This cannot fail, because the sender lives as long as this struct.
            let _ = changed.changed().await;
        }
    }

    /// Creates an identifier and a URL that cannot be guessed.
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

impl Log for Shared {
    fn announced(&self, announced: Announced) {
        self.change(|state| state.announced(announced));
    }
}
