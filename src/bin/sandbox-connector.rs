//! The sandbox as a server of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use payout_link_worker::sandbox::{Idempotency, Sandbox, Settings};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// A stand-in for a provider of payout links: in memory, for demonstrations and tests.
///
/// Prints its address on standard output once it listens; logs go to standard error (RUST_LOG sets how much).
/// All but the API asks for no token: keep it off the open network.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Where to listen; port 0 lets the system choose
    #[arg(long, default_value = "127.0.0.1:8085")]
    listen: SocketAddr,

    /// The bearer token that the API asks for
    #[arg(long, required_unless_present = "token_file", conflicts_with = "token_file")]
    token: Option<String>,

    /// A file that holds the token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// What the links' URLs begin with, if not this server's own address
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,

    /// How long a link may be claimed
    #[arg(long, value_name = "SECONDS", default_value_t = 604_800)]
    link_lifetime_seconds: u64,

    /// Whether idempotency keys count; where they do not, each create makes another link
    #[arg(long, value_enum, default_value = "on")]
    idempotency: Switch,

    /// A secret (whsec_…) of the webhook receiver at /webhooks, which is there if secrets are; repeatable
    #[arg(long, value_name = "SECRET")]
    webhook_secret: Vec<String>,

    /// A file of such secrets, one a line; repeatable
    #[arg(long, value_name = "FILE")]
    webhook_secret_file: Vec<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Switch {
    On,
    Off,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();

    let arguments = Arguments::parse();
    let listen = arguments.listen;
    let mut terminate = signal(SignalKind::terminate())?;
    let sandbox =
        Sandbox::start(settings(arguments)?).await.with_context(|| format!("cannot start on {listen}"))?;
    if !listen.ip().is_loopback() {
        tracing::warn!(
            "listening on {listen}: whoever reaches this address can read the ledger and order faults"
        );
    }
    println!("{}", sandbox.url());

    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
    }
    sandbox.stop().await;
    Ok(())
}

fn settings(arguments: Arguments) -> anyhow::Result<Settings> {
    let token = match (arguments.token, arguments.token_file) {
        (Some(token), _) => token,
        (None, Some(file)) => read(&file)?,
        (None, None) => anyhow::bail!("give --token or --token-file"),
    };
    anyhow::ensure!(!token.is_empty(), "the token is empty");
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
        webhook_secrets,
        ..Settings::new(token)
    })
}

fn read(file: &PathBuf) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(text.trim().to_owned())
}
