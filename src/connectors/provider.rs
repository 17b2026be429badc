//! The part of a connector that each provider writes itself. [`Connector`] is the same for all of them.

use std::time::Duration;

use futures_util::{FutureExt, future::BoxFuture};
use reqwest::header::HeaderMap;
use secrecy::SecretString;
use time::OffsetDateTime;

use super::{AskedLink, Call, Connector, ProviderWebhook, WebhookProblem, exchange::OptionalFields};
use crate::{
    domain::{ConnectorError, CreateLink, Finding, LinkAnswer, LinkStatus, Outcome, Rejection, ReplayRule},
    http_client::Client,
    limits::RateLimit,
};

/// One account of a provider.
pub(super) trait Provider: Send + Sync {
    /// Returns the replay rule. See [`Connector::replay_rule`].
    fn replay_rule(&self) -> ReplayRule;

    /// Checks that the provider can do what a job asks. See [`Connector::supports`].
    fn supports(&self, job: &CreateLink) -> Result<(), Rejection>;

    /// Creates a link. See [`Connector::create_link`].
    fn create(&self, call: Call<'_>) -> impl Future<Output = Outcome> + Send;

    /// Looks a link up. See [`Connector::find_link`].
    fn find(&self, call: Call<'_>) -> impl Future<Output = Finding> + Send;

    /// Cancels a link. One that is cancelled already may be refused.
    fn cancel(&self, id: &str) -> impl Future<Output = Result<(), ConnectorError>> + Send;

    /// Asks about one link.
    fn ask_one(&self, link: &AskedLink) -> impl Future<Output = LinkAnswer> + Send;

    /// Asks about created links. See [`Connector::ask_about`].
    fn ask(&self, links: &[AskedLink], _limit: &RateLimit) -> impl Future<Output = Vec<LinkAnswer>> + Send {
        async move {
            let mut answers = Vec::with_capacity(links.len());
            for link in links {
                answers.push(self.ask_one(link).await);
            }
            answers
        }
    }

    /// Reads a webhook of the provider. See [`Connector::read_webhook`].
    fn webhook(
        &self,
        secrets: &[SecretString],
        headers: &HeaderMap,
        body: &[u8],
        now: OffsetDateTime,
    ) -> Result<ProviderWebhook, WebhookProblem>;

    /// Tries the credential out. See [`Connector::check`].
    fn try_credential(&self) -> impl Future<Output = Result<(), String>> + Send;

    /// Returns the credentials. See [`Connector::credentials`].
    fn credentials(&self) -> Vec<SecretString>;

    /// Returns the client that calls the provider.
    fn http(&self) -> &Client;

    /// Returns the reader of optional fields, which counts the unreadable ones.
    fn optional(&self) -> &OptionalFields;
}

impl<P: Provider> Connector for P {
    fn replay_rule(&self) -> ReplayRule {
        Provider::replay_rule(self)
    }

    fn timeout(&self) -> Duration {
        self.http().timeout()
    }

    fn supports(&self, job: &CreateLink) -> Result<(), Rejection> {
        Provider::supports(self, job)
    }

    fn create_link<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Outcome> {
        self.create(call).boxed()
    }

    fn find_link<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Finding> {
        self.find(call).boxed()
    }

    fn cancel_link<'a>(&'a self, connector_payout_id: &'a str) -> BoxFuture<'a, Result<(), ConnectorError>> {
        cancel(self, connector_payout_id).boxed()
    }

    fn ask_about<'a>(
        &'a self,
        links: &'a [AskedLink],
        limit: &'a RateLimit,
    ) -> BoxFuture<'a, Vec<LinkAnswer>> {
        self.ask(links, limit).boxed()
    }

    fn read_webhook(
        &self,
        secrets: &[SecretString],
        headers: &HeaderMap,
        body: &[u8],
        now: OffsetDateTime,
    ) -> Result<ProviderWebhook, WebhookProblem> {
        self.webhook(secrets, headers, body, now)
    }

    fn credentials(&self) -> Vec<SecretString> {
        Provider::credentials(self)
    }

    fn unread_fields(&self) -> u64 {
        self.optional().unread()
    }

    fn unknown_statuses(&self) -> u64 {
        self.optional().unknown_statuses()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), String>> {
        self.try_credential().boxed()
    }
}

/// Cancels a link, or finds that it is cancelled: the answer to an earlier call may be lost.
async fn cancel(provider: &impl Provider, id: &str) -> Result<(), ConnectorError> {
    let Err(refusal) = provider.cancel(id).await else { return Ok(()) };
    // Nobody documents how the cancellation of a link that is over is refused.
    if !matches!(refusal.status_code, 400 | 403..=428 | 430..=499) {
        return Err(refusal);
    }
    let asked = AskedLink {
        connector_payout_id: id.to_owned(),
        provider_payout_id: None,
        status: LinkStatus::Unclaimed,
        expires_at: None,
        is_cancelled: false,
    };
    match provider.ask_one(&asked).await {
        LinkAnswer::Reported(report) if report.status == Some(LinkStatus::Cancelled) => Ok(()),
        _ => Err(refusal),
    }
}
