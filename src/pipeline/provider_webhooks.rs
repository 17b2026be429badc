//! Takes the webhooks of providers: authenticates them, stores each once, and wakes the follower of the account.
//!
//! A webhook is a trigger: the provider is asked about the link, and its answer counts. Nothing is lost with a webhook
//! that is not taken, because links are asked about anyway.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use reqwest::header::HeaderMap;
use time::OffsetDateTime;

use super::Pipeline;
use crate::{
    connectors::{Account, LinkReference, ProviderWebhook, WebhookProblem},
    postgres::{ProviderWebhooks, StoreError, WebhookLink, WebhookRecord, WebhookStored},
};

/// Takes the webhooks of providers.
pub struct WebhookIntake {
    pipeline: Arc<Pipeline>,
    store: ProviderWebhooks,
    is_failure_logged: AtomicBool,
}

/// The outcome of a webhook of a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookOutcome {
    /// It is stored, and the provider is asked about the link.
    Accepted,
    /// It was stored before.
    Duplicate,
    /// It is about no link of ours.
    UnknownLink,
    /// It is authentic, and not what the provider documents.
    Unreadable,
    /// Nothing is stored.
    NotAuthentic,
    /// Nothing is stored, or the answer of the database was lost. The provider sends it again.
    Unavailable,
}

impl WebhookOutcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::UnknownLink => "unknown_link",
            Self::Unreadable => "unreadable",
            Self::NotAuthentic => "not_authentic",
            Self::Unavailable => "unavailable",
        }
    }
}

impl WebhookIntake {
    /// Creates the intake over connections of its own, so that webhooks never wait for jobs.
    pub fn new(pipeline: Arc<Pipeline>, store: ProviderWebhooks) -> Self {
        Self { pipeline, store, is_failure_logged: AtomicBool::new(false) }
    }

    /// Returns whether there is such an account.
    pub fn has_account(&self, name: &str) -> bool {
        self.pipeline.connectors.choose(Some(name)).is_some()
    }

    /// Takes a webhook, within a second. Returns `None` if there is no such account.
    pub async fn take(&self, account: &str, headers: &HeaderMap, body: &[u8]) -> Option<WebhookOutcome> {
        let account = self.pipeline.connectors.choose(Some(account))?;
        let now = OffsetDateTime::now_utc();
        let read = account.connector.read_webhook(&account.follow.webhook_secrets, headers, body, now);
        let outcome = match read {
            Ok(webhook) => self.store(account, webhook).await,
            Err(WebhookProblem::NotAuthentic) => WebhookOutcome::NotAuthentic,
            Err(WebhookProblem::Unreadable) => WebhookOutcome::Unreadable,
        };
        self.pipeline.metrics.provider_webhook(account, outcome.as_str());
        tracing::debug!(
            connector.name = %account.name,
            outcome = outcome.as_str(),
            "webhook of a provider received"
        );
        Some(outcome)
    }

    /// Stores an authentic webhook, and wakes the follower.
    async fn store(&self, account: &Account, webhook: ProviderWebhook) -> WebhookOutcome {
        let link = match webhook.link {
            LinkReference::ConnectorPayoutId(id) => WebhookLink::ConnectorPayoutId(id),
            LinkReference::ProviderPayoutId(id) => WebhookLink::ProviderPayoutId(id),
            LinkReference::None => return WebhookOutcome::UnknownLink,
        };
        let stored = self.store.record_webhook(WebhookRecord {
            connector: account.name.clone(),
            dedupe_key: webhook.dedupe_key,
            event_type: webhook.event_type,
            link,
        });
        let stored = match stored.await {
            Ok(stored) => stored,
            Err(error) => {
                self.report(&error);
                return WebhookOutcome::Unavailable;
            }
        };
        self.is_failure_logged.store(false, Relaxed);
        match stored {
            WebhookStored::Accepted => {
                self.pipeline.follow_soon.wake(&account.name);
                WebhookOutcome::Accepted
            }
            WebhookStored::Duplicate => WebhookOutcome::Duplicate,
            WebhookStored::UnknownLink => WebhookOutcome::UnknownLink,
        }
    }

    /// Logs the first of several failures in a row: providers repeat their webhooks.
    fn report(&self, error: &StoreError) {
        if self.is_failure_logged.swap(true, Relaxed) {
            tracing::debug!(%error, "webhook of a provider not stored");
        } else {
            tracing::warn!(%error, "webhook of a provider not stored, the provider sends it again");
        }
    }
}
