//! `listen`: receives webhooks on this machine, verifies and prints them, and forwards them.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode},
};
use serde::Serialize;
use serde_json::Value;
use url::Url;

use super::{
    super::{exit::ExitStatus, output::Output},
    Secret, client, runtime, say_secret,
};
use crate::{
    http_client::{CallError, Client},
    webhooks::{SigningKey, signature},
};

#[derive(Debug, clap::Args)]
pub(in super::super) struct Arguments {
    /// Where webhooks are forwarded, and whose answer is passed on; without it, each is answered 204
    #[arg(long, value_name = "URL")]
    forward_to: Option<Url>,
    /// The port on 127.0.0.1; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 8090)]
    port: u16,
    #[command(flatten)]
    secret: Secret,
}

#[derive(Clone)]
struct Listener {
    output: Output,
    key: SigningKey,
    client: Client,
    forward_to: Option<Url>,
}

/// A webhook that came, for `--output json`.
#[derive(Debug, Serialize)]
struct Received {
    id: Option<String>,
    r#type: Option<String>,
    merchant_payout_id: Option<String>,
    /// Whether the signature is that of the secret.
    verified: bool,
    /// The answer to it.
    status_code: u16,
    /// Why it was not forwarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    body: Value,
}

/// Headers that are forwarded.
const FORWARDED: [&str; 6] =
    ["content-type", "webhook-id", "webhook-timestamp", "webhook-signature", "traceparent", "tracestate"];
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Listens until the process is ended.
pub(in super::super) fn listen(output: Output, arguments: &Arguments) -> anyhow::Result<ExitStatus> {
    let listener = Listener {
        output,
        key: arguments.secret.key()?,
        client: client()?,
        forward_to: arguments.forward_to.clone(),
    };
    runtime()?.block_on(async {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, arguments.port));
        let socket = tokio::net::TcpListener::bind(address).await.with_context(|| address.to_string())?;
        output.text(format_args!("webhooks are received at http://{}/", socket.local_addr()?))?;
        say_secret(&arguments.secret)?;
        let routes =
            Router::new().fallback(receive).layer(DefaultBodyLimit::max(MAX_BODY_BYTES)).with_state(listener);
        axum::serve(socket, routes).await.context("the listener")
    })?;
    Ok(ExitStatus::Done)
}

async fn receive(State(listener): State<Listener>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (answer, error) = listener.forward(&headers, &body).await;
    let parsed: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let received = Received {
        id: header("webhook-id"),
        r#type: text(&parsed["type"]),
        merchant_payout_id: text(&parsed["data"]["merchant_payout_id"]),
        verified: listener.is_signed(&headers, &body),
        status_code: answer.as_u16(),
        error,
        body: parsed,
    };
    // If nobody reads what is printed, webhooks are forwarded all the same.
    let _ = listener.output.object(&received, line);
    answer
}

impl Listener {
    async fn forward(&self, headers: &HeaderMap, body: &Bytes) -> (StatusCode, Option<String>) {
        let Some(url) = &self.forward_to else { return (StatusCode::NO_CONTENT, None) };
        let mut request = self.client.post(url.clone()).body(body.clone());
        for name in FORWARDED {
            if let Some(value) = headers.get(name) {
                request = request.header(name, value);
            }
        }
        match self.client.call_for_status(request).await {
            Ok(answer) => (answer.status, None),
            Err(CallError::NotSent(error) | CallError::Unknown(error)) => {
                (StatusCode::BAD_GATEWAY, Some(error.clone()))
            }
        }
    }

    /// Returns whether a signature of the webhook is the one of the secret. It is a development tool: the time of the
    /// comparison tells an attacker nothing that the secret's owner does not know.
    fn is_signed(&self, headers: &HeaderMap, body: &[u8]) -> bool {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let (Some(id), Some(timestamp), Some(given)) =
            (header("webhook-id"), header("webhook-timestamp"), header("webhook-signature"))
        else {
            return false;
        };
        let Ok(timestamp) = timestamp.parse() else { return false };
        let expected = signature(std::slice::from_ref(&self.key), id, timestamp, body);
        given.split(' ').any(|one| one == expected)
    }
}

fn line(received: &Received) -> String {
    let text = |value: &Option<String>| value.as_deref().unwrap_or("-").escape_debug().to_string();
    let verified = if received.verified { "signature verified" } else { "WRONG SIGNATURE" };
    let error =
        received.error.as_deref().map(|error| format!("  {}", error.escape_debug())).unwrap_or_default();
    format!(
        "{}  {}  {}  {verified}  answered {}{error}",
        text(&received.r#type),
        text(&received.merchant_payout_id),
        text(&received.id),
        received.status_code
    )
}
