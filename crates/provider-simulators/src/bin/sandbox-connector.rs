//! Runs the sandbox, or a simulator of a real provider, as a server of its own.

#![expect(clippy::doc_markdown, reason = "a doc comment of an argument is its help text, without marks")]

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use provider_simulators::Announce;
use provider_simulators::providers::{
    self, ACCESS_TOKEN_LIFETIME, HyperswitchSettings, Provider, ProviderSimulator, RazorpayXSettings,
    RevolutClient, RevolutSettings, XenditSettings,
};
use provider_simulators::sandbox::{Idempotency, Sandbox, Settings};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Runs an in-memory provider of payout links for demonstrations and tests: the sandbox, or a simulator of a real
/// provider.
///
/// Prints its address on standard output once it listens; logs go to standard error (RUST_LOG sets the level). Only
/// the API asks for a token: do not expose it to the open network.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The address to listen on; port 0 lets the system choose
    #[arg(long, default_value = "127.0.0.1:8085")]
    listen: SocketAddr,

    /// The provider to simulate: the sandbox, or a real provider, as strict as its documentation
    #[arg(long, value_enum, default_value = "sandbox")]
    provider: ProviderName,

    /// The credential that the API asks for: the sandbox's bearer token, Hyperswitch's api-key, Xendit's secret key,
    /// RazorpayX's KEY_ID:KEY_SECRET, Revolut's refresh token
    #[arg(long, required_unless_present = "token_file", conflicts_with = "token_file")]
    token: Option<String>,

    /// A file that holds the token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Prefix of the links' URLs; by default the sandbox's own address, or `https://links.example`, where nothing
    /// answers
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,

    /// Simulators: calls answered within a minute; further calls get the provider's "too many"; by default no limit
    #[arg(long, value_name = "NUMBER")]
    calls_per_minute: Option<u32>,

    /// Revolut: the public key of the client's certificate, PEM
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,

    /// Revolut: the client's id
    #[arg(long, default_value = "simulator-client")]
    client_id: String,

    /// Revolut: the domain of the client's redirect URI
    #[arg(long, default_value = "localhost")]
    issuer: String,

    /// Sandbox: how long a link may be claimed
    #[arg(long, value_name = "SECONDS", default_value_t = 604_800)]
    link_lifetime_seconds: u64,

    /// Sandbox: the time from a claim on the page to the payout
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 1_000)]
    pay_after_ms: u64,

    /// Sandbox: claimed links wait for a request to /control/links/ID/change
    #[arg(long, conflicts_with = "pay_after_ms")]
    hold_payouts: bool,

    /// Sandbox: whether idempotency keys count; if not, each create makes another link
    #[arg(long, value_enum, default_value = "on")]
    idempotency: Switch,

    /// A secret (whsec_…) of the webhook receiver at /webhooks, which exists only with secrets; repeatable
    #[arg(long, value_name = "SECRET")]
    webhook_secret: Vec<String>,

    /// A file of such secrets, one a line; repeatable
    #[arg(long, value_name = "FILE")]
    webhook_secret_file: Vec<PathBuf>,

    /// The URL to which changes of links are announced, as the provider's own webhooks
    #[arg(long, value_name = "URL")]
    announce_url: Option<String>,

    /// A secret of these webhooks; the first one signs, Revolut signs with each; repeatable
    #[arg(long, value_name = "SECRET", requires = "announce_url")]
    announce_secret: Vec<String>,

    /// A file of such secrets, one a line; repeatable
    #[arg(long, value_name = "FILE", requires = "announce_url")]
    announce_secret_file: Vec<PathBuf>,

    /// Differences from correct webhooks, as JSON: {"repeat": 1, "reorder": true}
    #[arg(long, value_name = "JSON", requires = "announce_url")]
    announce_behaviour: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum ProviderName {
    Sandbox,
    Hyperswitch,
    Xendit,
    Revolut,
    Razorpayx,
}

#[derive(Clone, Copy, ValueEnum)]
enum Switch {
    On,
    Off,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .log_internal_errors(false)
        .init();

    let arguments = Arguments::parse();
    let listen = arguments.listen;
    let mut terminate = signal(SignalKind::terminate())?;
    let running = start(arguments).await.with_context(|| format!("cannot start on {listen}"))?;
    if !listen.ip().is_loopback() {
        tracing::warn!(
            "listening on {listen}: anybody who reaches this address can read the ledger and inject faults"
        );
    }
    // An error is ignored, because nobody has to read the address.
    let _ = writeln!(std::io::stdout(), "{}", running.url());

    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
    }
    match running {
        Running::Sandbox(sandbox) => sandbox.stop().await,
        Running::ProviderSimulator(simulator) => simulator.stop().await,
    }
    Ok(())
}

enum Running {
    Sandbox(Sandbox),
    ProviderSimulator(ProviderSimulator),
}

impl Running {
    fn url(&self) -> &str {
        match self {
            Self::Sandbox(sandbox) => sandbox.url(),
            Self::ProviderSimulator(simulator) => simulator.url(),
        }
    }
}

async fn start(arguments: Arguments) -> anyhow::Result<Running> {
    let announce = announce(&arguments)?;
    let token = match (&arguments.token, &arguments.token_file) {
        (Some(token), _) => token.clone(),
        (None, Some(file)) => read(file)?,
        (None, None) => anyhow::bail!("give --token or --token-file"),
    };
    anyhow::ensure!(!token.is_empty(), "the token is empty");
    let provider = match arguments.provider {
        ProviderName::Sandbox => {
            return Ok(Running::Sandbox(Sandbox::start(sandbox(arguments, token, announce)?).await?));
        }
        ProviderName::Hyperswitch => Provider::Hyperswitch(HyperswitchSettings::new(token)),
        ProviderName::Xendit => Provider::Xendit(XenditSettings::new(token)),
        ProviderName::Revolut => Provider::Revolut(RevolutSettings::new(revolut_client(&arguments, token)?)),
        ProviderName::Razorpayx => {
            let (id, secret) =
                token.split_once(':').context("the token of RazorpayX is KEY_ID:KEY_SECRET")?;
            Provider::RazorpayX(RazorpayXSettings::new(id, secret))
        }
    };
    let mut settings = providers::Settings::new(provider);
    settings.listen = arguments.listen;
    settings.calls_per_minute = arguments.calls_per_minute;
    settings.announce = announce;
    if let Some(links_url) = arguments.public_url {
        settings.links_url = links_url;
    }
    Ok(Running::ProviderSimulator(ProviderSimulator::start(settings).await?))
}

fn revolut_client(arguments: &Arguments, refresh_token: String) -> anyhow::Result<RevolutClient> {
    let file = arguments.public_key.as_ref().context("give --public-key")?;
    let public_key = RevolutClient::public_key_from_pem(&read(file)?)
        .with_context(|| format!("{} is no PUBLIC KEY in PEM", file.display()))?;
    Ok(RevolutClient {
        client_id: arguments.client_id.clone(),
        issuer: arguments.issuer.clone(),
        refresh_token,
        public_key,
        access_token_lifetime: ACCESS_TOKEN_LIFETIME,
        access_token: None,
    })
}

fn announce(arguments: &Arguments) -> anyhow::Result<Option<Announce>> {
    let Some(url) = arguments.announce_url.clone() else { return Ok(None) };
    let mut secrets = arguments.announce_secret.clone();
    for file in &arguments.announce_secret_file {
        secrets.extend(read(file)?.lines().map(str::to_owned));
    }
    anyhow::ensure!(!secrets.is_empty(), "give --announce-secret or --announce-secret-file");
    let behaviour = arguments.announce_behaviour.as_deref().map(serde_json::from_str).transpose();
    let behaviour = behaviour.context("--announce-behaviour is not valid")?.unwrap_or_default();
    Ok(Some(Announce { url, secrets, behaviour }))
}

fn sandbox(arguments: Arguments, token: String, announce: Option<Announce>) -> anyhow::Result<Settings> {
    let mut webhook_secrets = arguments.webhook_secret;
    for file in &arguments.webhook_secret_file {
        webhook_secrets.extend(read(file)?.split_whitespace().map(str::to_owned));
    }
    Ok(Settings {
        listen: arguments.listen,
        public_url: arguments.public_url,
        link_lifetime: Duration::from_secs(arguments.link_lifetime_seconds),
        idempotency: match arguments.idempotency {
            Switch::On => Idempotency::On,
            Switch::Off => Idempotency::Off,
        },
        pay_after: (!arguments.hold_payouts).then(|| Duration::from_millis(arguments.pay_after_ms)),
        announce,
        webhook_secrets,
        ..Settings::new(token)
    })
}

fn read(file: &PathBuf) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(text.trim().to_owned())
}
