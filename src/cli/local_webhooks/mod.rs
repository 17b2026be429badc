//! `trigger`, `listen`: webhooks for merchants' developers, without a database, a broker and a provider.
//!
//! `trigger` sends the webhook of an event, signed as a worker signs it. `listen` receives webhooks, verifies and prints them,
//! and forwards them.

mod listen;
mod sample;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use time::OffsetDateTime;
use url::Url;
use uuid::Uuid;

pub(super) use self::listen::{Arguments as ListenArguments, listen};
use self::sample::Override;
use super::{
    exit::{Ended, ExitStatus},
    output::{Output, say},
};
use crate::{
    domain::{EventType, escape_control},
    http_client::{CallError, Client, HttpSettings},
    webhooks::{SigningKey, signature},
};

/// The secret without `--secret`. It is published: no deployment may use it.
const DEVELOPMENT_SECRET: &str = "whsec_ZGV2ZWxvcG1lbnQgc2VjcmV0IGZvciB0ZXN0cyBvbmx5";

#[derive(Debug, clap::Args)]
pub(super) struct TriggerArguments {
    /// The event: created, failed, pending, claimed, processing, succeeded, payout_failed, reopened, expiring, expired, cancelled,
    /// reversed
    #[arg(value_name = "EVENT", value_parser = sample::event)]
    event: EventType,
    /// A value of `data`, such as `payout_link.url=https://pay.example/1`; `null` removes the field
    #[arg(long = "override", value_name = "FIELD=VALUE", value_parser = sample::parse)]
    overrides: Vec<Override>,
    /// Where the webhook is sent; without it, it is only printed
    #[arg(long, value_name = "URL")]
    forward_to: Option<Url>,
    /// The id of the webhook: the same id again is a repeat. A new one without it
    #[arg(long, value_name = "UUID")]
    id: Option<Uuid>,
    #[command(flatten)]
    secret: Secret,
}

/// How webhooks are signed.
#[derive(Debug, clap::Args)]
struct Secret {
    /// The merchant's secret, whsec_… or whsk_…; without it, a published secret for tests
    #[arg(long = "secret", env = "PAYOUT_LINK_WEBHOOK_SECRET", hide_env_values = true, value_name = "SECRET", default_value = DEVELOPMENT_SECRET, hide_default_value = true)]
    secret: SecretString,
}

/// A webhook and its answer, for `--output json`.
#[derive(Debug, Serialize)]
struct Sent {
    headers: [(&'static str, String); 4],
    body: serde_json::Value,
    /// `None`: it was only printed.
    status_code: Option<u16>,
}

impl Secret {
    fn key(&self) -> Result<SigningKey, Ended> {
        SigningKey::new(&self.secret).map_err(|error| ExitStatus::WrongUse.because(error))
    }
}

/// Sends the webhook of an event.
pub(super) fn trigger(output: Output, arguments: &TriggerArguments) -> anyhow::Result<ExitStatus> {
    let key = arguments.secret.key()?;
    let id = arguments.id.unwrap_or_else(Uuid::now_v7);
    let body = sample::body(id, arguments.event, &arguments.overrides)
        .map_err(|problem| ExitStatus::WrongUse.because(problem))?;
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let headers = [
        ("content-type", "application/json".to_owned()),
        ("webhook-id", id.to_string()),
        ("webhook-timestamp", now.to_string()),
        ("webhook-signature", signature(&[key], &id.to_string(), now, &body)),
    ];
    let mut sent = Sent {
        headers,
        body: serde_json::from_slice(&body).context("the body is no JSON")?,
        status_code: None,
    };
    let mut failure = None;
    if let Some(url) = &arguments.forward_to {
        let sending = async {
            let client = client()?;
            let mut request = client.post(url.clone()).body(Bytes::from(body));
            for (name, value) in &sent.headers {
                request = request.header(*name, value);
            }
            anyhow::Ok(client.call_for_status(request).await)
        };
        match runtime()?.block_on(sending)? {
            Ok(answer) => sent.status_code = Some(answer.status.as_u16()),
            Err(CallError::NotSent(error) | CallError::Unknown(error)) => failure = Some(error),
        }
    }
    output.object(&sent, text)?;
    if let Some(failure) = failure {
        anyhow::bail!("the webhook was not answered: {failure}");
    }
    Ok(match sent.status_code {
        None | Some(200..=299) => ExitStatus::Done,
        Some(_) => ExitStatus::Failed,
    })
}

fn text(sent: &Sent) -> String {
    let headers: String = sent.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    let answer = sent.status_code.map(|status| format!("\nanswered {status}")).unwrap_or_default();
    let body = serde_json::to_string_pretty(&sent.body).unwrap_or_default();
    let body: Vec<String> = body.lines().map(|line| escape_control(line).to_string()).collect();
    format!("{headers}\n{}{answer}", body.join("\n"))
}

fn client() -> anyhow::Result<Client> {
    let settings = HttpSettings {
        connect_timeout: Duration::from_secs(5),
        timeout: Duration::from_secs(15),
        max_response_bytes: 65_536,
        max_idle: 4,
        clock: Arc::default(),
        roots: None,
    };
    Client::new(settings).context("the HTTP client")
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")
}

/// Says which secret webhooks are signed with, if it is the published one.
fn say_secret(secret: &Secret) -> anyhow::Result<()> {
    if secret.secret.expose_secret() == DEVELOPMENT_SECRET {
        say(format_args!("the secret of webhooks is {DEVELOPMENT_SECRET}, for tests only"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_secret_has_the_form_of_a_secret() {
        assert!(SigningKey::new(&DEVELOPMENT_SECRET.into()).is_ok());
    }
}
