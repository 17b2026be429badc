//! The command line: one file a command.

mod verify_history;
mod cancel;
mod check;
mod connectors;
mod keys;
mod records;
mod output;
mod show;
mod submit;

pub use self::records::read_records;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::{Parser, Subcommand};
use secrecy::ExposeSecret;

pub use self::output::note;
use self::output::say;
use crate::{
    config::{self, Config},
    postgres,
    runtime::run,
    runtime::shutdown::Signals,
    runtime::telemetry,
    webhooks::SigningKey,
};

#[derive(Debug, Parser)]
#[command(
    version,
    about = "Turns CreateLink jobs from RabbitMQ into payout links",
    after_help = "\
Examples:
  payout-link-worker check --config worker.toml
  payout-link-worker run --config worker.toml
  echo '{\"merchant_payout_id\":\"po_1\",\"address\":{},\"amount\":{\"minor_amount\":1250,\"currency\":\"EUR\"},\"destination_currency\":\"EUR\"}' \\
    | payout-link-worker submit --config worker.toml --wait -
  payout-link-worker show --config worker.toml po_1

Configuration: a TOML file (config.example.toml has every setting), environment variables over it
(PAYOUT_LINK__SECTION__KEY, and DATABASE_URL, AMQP_URL).

Exit status: 0 done; 1 it could not be done, and stderr says why; 2 the command line or the configuration is wrong.
A reader that closes standard output, such as head, changes nothing; standard output that cannot be written is 1.
Ctrl-C ends `run` in order, with 0, and every other command at once, by SIGINT (130 in a shell)."
)]
pub struct Arguments {
    /// The configuration file; without it the environment has to say everything
    #[arg(long, short, global = true, env = "PAYOUT_LINK_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Consume jobs until SIGTERM or SIGINT (a second signal leaves at once)
    Run,
    /// Bring the database's schema up to date; safe beside running workers
    Migrate,
    /// Try configuration, broker, database and connectors: one line each
    Check,
    /// List the kinds of connector, what they need and support, and which accounts are configured
    Connectors,
    /// Take an unclaimed link back at its connector
    Cancel(cancel::Arguments),
    /// Say which settings are given, and where; not what they are
    Config,
    /// Publish jobs: one JSON object, or JSON Lines
    Submit(submit::Arguments),
    /// Count what each sealing key has sealed, or seal it all with the first
    #[command(subcommand)]
    Keys(keys::Action),
    /// Show a record, its event and its timeline, without secrets
    Show(show::Arguments),
    /// Print the webhook secrets that a merchant gets from webhooks.master_secrets
    WebhookSecret {
        /// The merchant, as in x-merchant-id
        merchant_id: String,
    },
    /// Compare a deployment's history with the rules that it is to keep, and print each that it breaks
    VerifyHistory(verify_history::Arguments),
}

/// The configuration or the command line is wrong.
const MISUSE: u8 = 2;

pub fn execute(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let file = arguments.config.as_deref();
    if matches!(arguments.command, Command::Config) {
        print_overrides(file)?;
    }
    let config = match config::load(file, environment()) {
        Ok(config) => config,
        Err(_) if matches!(arguments.command, Command::Connectors) => {
            connectors::run(None)?;
            return Ok(ExitCode::SUCCESS);
        }
        Err(error) => {
            note(error);
            return Ok(ExitCode::from(MISUSE));
        }
    };
    if let Err(problem) = telemetry::start(&config.log) {
        note(problem);
        return Ok(ExitCode::from(MISUSE));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    let done = runtime.block_on(async {
        match arguments.command {
            Command::Run => {
                for file in config::open_secrets(file, environment()) {
                    tracing::warn!(file, "file with secrets is readable by every user");
                }
                run::run(&config, Signals::new()?).await.map(|()| ExitCode::SUCCESS)
            }
            Command::Migrate => migrate(&config).await,
            Command::Check => check::run(&config, &config::open_secrets(file, environment())).await,
            Command::Connectors => {
                connectors::run(Some(&config))?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Cancel(arguments) => cancel::run(&config, &arguments).await,
            Command::Config => Ok(ExitCode::SUCCESS),
            Command::Submit(arguments) => submit::run(&config, &arguments).await,
            Command::Keys(action) => keys::run(&config, &action).await,
            Command::Show(arguments) => show::run(&config, &arguments).await,
            Command::WebhookSecret { merchant_id } => webhook_secret(&config, &merchant_id),
            Command::VerifyHistory(arguments) => verify_history::run(&config, &arguments).await,
        }
    });
    // What is left to tasks that wait for the network is not waited for: leases mend it. The process ends here, with all of its
    // tasks; cancelling them before would make lapin's own thread panic.
    std::mem::forget(runtime);
    done
}

/// What is not UTF-8 is somebody else's, or shows as a bad value.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
}

/// Before anything is made of it: what is wrong may be that it is given in two places.
fn print_overrides(file: Option<&Path>) -> anyhow::Result<()> {
    for (setting, place) in config::given(file, environment()).into_iter().flatten() {
        say(format_args!("{:<48} {place}", setting.escape_debug().to_string()))?;
    }
    Ok(())
}

/// To be handed to the merchant, and to nobody else.
fn webhook_secret(config: &Config, merchant_id: &str) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(!config.webhooks.master_secrets.is_empty(), "webhooks.master_secrets is not set");
    anyhow::ensure!(
        !config.webhooks.merchant_secrets.contains_key(merchant_id),
        "this merchant has secrets of its own in webhooks.merchant_secrets"
    );
    for master in &config.webhooks.master_secrets {
        println!("{}", SigningKey::derive(master, merchant_id)?.expose_secret());
    }
    Ok(ExitCode::SUCCESS)
}

async fn migrate(config: &Config) -> anyhow::Result<ExitCode> {
    let pool = postgres::connect(&config.database()).await.context("database")?;
    postgres::migrate(&pool).await.context("database")?;
    say("the schema is up to date")?;
    Ok(ExitCode::SUCCESS)
}
