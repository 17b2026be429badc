//! The command line: one file for each command.

#![expect(clippy::doc_markdown, reason = "a doc comment of an argument is its help text, without marks")]

mod verify_history;
mod acting;
mod actor;
mod bulk;
mod cancel;
mod check;
mod confirm;
mod connectors;
mod context;
mod dead_letters;
mod erase;
mod exit;
mod filter;
mod findings;
mod interrupts;
mod keys;
mod list;
mod local_webhooks;
mod manual;
mod pause;
mod reconcile;
mod records;
mod look_up;
mod results;
mod output;
mod resolve;
mod retry;
mod schema;
mod show;
mod status;
mod submit;
mod table;
mod targets;
mod waits;
mod webhooks;

pub use self::{
    exit::{Ended, ExitStatus, status_of},
    output::{Format, note},
    records::{read_actions, read_records},
};

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use secrecy::ExposeSecret;

use self::{
    context::Context,
    output::{Output, say},
    targets::Targets,
};
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

Exit status: 0 done; 1 failed, with the reason on stderr; 2 the command line or the configuration is wrong;
3 done in part, or differences found; 4 nothing found; 5 refused by a rule, nothing was changed.
If a reader such as head closes standard output, the status does not change. If standard output cannot be written, it is 1.
Ctrl-C shuts `run` down with status 0. Commands that act on many records finish the act under way and end with status 3.
It ends every other command at once, by SIGINT (130 in a shell)."
)]
#[expect(missing_docs, reason = "a doc comment here would be its help text")]
pub struct Arguments {
    /// The configuration file; without it all settings come from the environment
    #[arg(long, short, global = true, env = "PAYOUT_LINK_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The deployment: a context of the file of contexts, in place of --config
    #[arg(long, global = true, env = "PAYOUT_LINK_CONTEXT", value_name = "NAME", conflicts_with = "config")]
    context: Option<String>,
    /// The file of contexts; without it payout-link-worker/contexts.toml in $XDG_CONFIG_HOME or ~/.config
    #[arg(long, global = true, env = "PAYOUT_LINK_CONTEXTS", value_name = "FILE")]
    contexts: Option<PathBuf>,
    /// The form of what is printed; commands without a table or an object print text in any case
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORM")]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Process jobs until SIGTERM or SIGINT (a second signal stops at once)
    Run,
    /// Migrate the database's schema; safe while workers run
    Migrate,
    /// Test configuration, broker, database and connectors, one line each; a provider is asked a question, and nothing is created
    Check,
    /// List the kinds of connector, their requirements and features, and the configured accounts
    Connectors,
    /// Cancel unclaimed links at their provider
    Cancel(cancel::Arguments),
    /// List the settings that are given, and where; never their values
    Config,
    /// Publish jobs: one JSON object, or JSON Lines
    Submit(submit::Arguments),
    /// Count the values of each sealing key, or encrypt all of them with the first key
    #[command(subcommand)]
    Keys(keys::Action),
    /// List the records that match conditions, or count them
    List(list::Arguments),
    /// Ask the provider about a payout now; the record changes as the rules say
    LookUp(look_up::Arguments),
    /// Erase a person's data from concluded records; ids, amounts and states stay
    Erase(erase::Arguments),
    /// Pause consumption, the calls of one account, or the creations of one merchant, in all workers
    #[command(subcommand)]
    Pause(pause::Target),
    /// End a pause
    #[command(subcommand)]
    Resume(pause::Target),
    /// End an unknown record as created or as not created; the provider is asked first, where it can be asked
    Resolve(resolve::Arguments),
    /// Have failed records tried again under the same idempotency key
    Retry(retry::Arguments),
    /// Show a record, its event and its timeline, without secrets
    Show(show::Arguments),
    /// Show what is wrong now, the worst first; exit status 1 if something needs a person
    Status(status::Arguments),
    /// Print the webhook secrets of a merchant, derived from webhooks.master_secrets
    WebhookSecret {
        /// The merchant's x-merchant-id
        merchant_id: String,
    },
    /// Print the completion script of a shell
    Completions(manual::Completions),
    /// Print the man page, or write a page for each command
    Man(manual::Man),
    /// Look after merchants' webhooks: list hosts, deliver again, pause and resume a host
    #[command(subcommand)]
    Webhooks(webhooks::Action),
    /// Publish results again, for a consumer that lost its queue
    #[command(subcommand)]
    Results(results::Action),
    /// Look after rejected messages and unrouted results, without losing one
    #[command(subcommand)]
    DeadLetters(dead_letters::Action),
    /// Send a signed webhook of an event to a URL, or print it; without a database and a broker
    Trigger(local_webhooks::TriggerArguments),
    /// Receive webhooks on this machine: verify, print and forward them
    Listen(local_webhooks::ListenArguments),
    /// Print the contract as JSON Schema 2020-12 or AsyncAPI 3.0
    Schema(schema::Arguments),
    /// Compare a provider's statement with the records of an account; exit status 3 if they differ
    Reconcile(reconcile::Arguments),
    /// Check a deployment's history against the invariants, and print each violation
    VerifyHistory(verify_history::Arguments),
}

impl Arguments {
    /// Reads the context that is asked for.
    fn context(&self) -> Result<Option<Context>, Ended> {
        let Some(name) = &self.context else { return Ok(None) };
        let Some(file) = self.contexts.clone().or_else(Context::default_file) else {
            return Err(ExitStatus::WrongUse.because("there is no file of contexts: name it with --contexts"));
        };
        let context = Context::read(&file, name)?;
        context.refuses_overrides(environment())?;
        Ok(Some(context))
    }
}

impl Command {
    /// Returns whether the command only reads the database, and needs no keys and no connectors.
    fn only_reads(&self) -> bool {
        match self {
            Self::Webhooks(action) => action.only_reads(),
            _ => matches!(self, Self::List(_) | Self::Reconcile(_) | Self::Show(_) | Self::Status(_)),
        }
    }

    /// Returns whether an operator changes something with it. A production context asks for its name first.
    fn acts(&self) -> bool {
        match self {
            Self::DeadLetters(action) => action.acts(),
            Self::Results(_) => true,
            Self::Webhooks(action) => !action.only_reads(),
            _ => matches!(
                self,
                Self::Migrate
                    | Self::Cancel(_)
                    | Self::Submit(_)
                    | Self::LookUp(_)
                    | Self::Erase(_)
                    | Self::Pause(_)
                    | Self::Resume(_)
                    | Self::Resolve(_)
                    | Self::Retry(_)
                    | Self::Keys(keys::Action::Rotate)
            ),
        }
    }
}

/// Runs a command, and returns its exit code.
///
/// # Errors
///
/// If the command fails for another reason than a wrong command line or configuration. [`status_of`] tells its exit
/// status.
pub fn execute(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.command {
        Command::Completions(arguments) => return manual::completions(arguments).map(ExitCode::from),
        Command::Man(arguments) => return manual::man(arguments).map(ExitCode::from),
        Command::Schema(arguments) => return schema::run(arguments).map(ExitCode::from),
        Command::Trigger(webhook) => {
            return local_webhooks::trigger(Output::new(arguments.output), webhook).map(ExitCode::from);
        }
        Command::Listen(listener) => {
            return local_webhooks::listen(Output::new(arguments.output), listener).map(ExitCode::from);
        }
        _ => {}
    }
    let context = arguments.context()?;
    let file = context.as_ref().map(|context| context.config.as_path()).or(arguments.config.as_deref());
    if matches!(arguments.command, Command::Config) {
        print_given(file)?;
    }
    let loaded = match arguments.command.only_reads() {
        true => config::load_for_reading(file, environment()),
        false => config::load(file, environment()),
    };
    let config = match loaded {
        Ok(config) => config,
        Err(_) if matches!(arguments.command, Command::Connectors) => {
            connectors::run(None)?;
            return Ok(ExitCode::SUCCESS);
        }
        Err(error) => {
            note(error);
            return Ok(ExitStatus::WrongUse.into());
        }
    };
    if let Err(problem) = telemetry::start(&config.log) {
        note(problem);
        return Ok(ExitStatus::WrongUse.into());
    }
    if let Some(context) = context.as_ref().filter(|_| arguments.command.acts()) {
        context.confirm()?;
    }
    let output = Output::new(arguments.output);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let done = runtime.block_on(async {
        match arguments.command {
            Command::Run => {
                for file in config::open_secrets(file, environment()) {
                    tracing::warn!(file, "file with secrets is readable by every user");
                }
                run::run(&config, Signals::new()?).await.map(|()| ExitCode::SUCCESS)
            }
            Command::Migrate => migrate(&config).await,
            Command::Check => {
                let targets = Targets::of(&config, file, environment());
                check::run(&config, output, &config::open_secrets(file, environment()), targets).await
            }
            Command::Connectors => {
                connectors::run(Some(&config))?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Config
            | Command::Completions(_)
            | Command::Man(_)
            | Command::Schema(_)
            | Command::Trigger(_)
            | Command::Listen(_) => Ok(ExitCode::SUCCESS),
            Command::Cancel(arguments) => cancel::run(&config, output, &arguments).await.map(ExitCode::from),
            Command::Submit(arguments) => submit::run(&config, &arguments).await,
            Command::Webhooks(action) => webhooks::run(&config, output, &action).await.map(ExitCode::from),
            Command::Results(action) => results::run(&config, output, &action).await.map(ExitCode::from),
            Command::DeadLetters(action) => {
                dead_letters::run(&config, output, &action).await.map(ExitCode::from)
            }
            Command::Keys(action) => keys::run(&config, &action).await,
            Command::List(arguments) => list::run(&config, output, &arguments).await.map(ExitCode::from),
            Command::LookUp(arguments) => look_up::run(&config, output, &arguments).await.map(ExitCode::from),
            Command::Erase(arguments) => erase::run(&config, output, &arguments).await.map(ExitCode::from),
            Command::Pause(target) => pause::pause(&config, output, &target).await.map(ExitCode::from),
            Command::Resume(target) => pause::resume(&config, output, &target).await.map(ExitCode::from),
            Command::Resolve(arguments) => {
                resolve::run(&config, output, &arguments).await.map(ExitCode::from)
            }
            Command::Retry(arguments) => retry::run(&config, output, &arguments).await.map(ExitCode::from),
            Command::Show(arguments) => show::run(&config, output, &arguments).await.map(ExitCode::from),
            Command::Status(arguments) => {
                let targets = Targets::of(&config, file, environment());
                status::run(&config, output, &arguments, targets).await.map(ExitCode::from)
            }
            Command::WebhookSecret { merchant_id } => webhook_secret(&config, &merchant_id),
            Command::Reconcile(arguments) => {
                reconcile::run(&config, output, &arguments).await.map(ExitCode::from)
            }
            Command::VerifyHistory(arguments) => verify_history::run(&config, &arguments).await,
        }
    });
    // Tasks that still wait for the network are not awaited: their leases expire. The process ends here with all of
    // its tasks. Cancelling them first would make lapin's own thread panic.
    #[expect(clippy::disallowed_methods, reason = "the process ends here")]
    std::mem::forget(runtime);
    done
}

/// Returns the environment. A value that is not UTF-8 belongs to another program, or is reported as a bad value.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
}

/// Lists the given settings before they are validated, because one may be given in two places.
fn print_given(file: Option<&Path>) -> anyhow::Result<()> {
    for (setting, source) in config::given(file, environment()).into_iter().flatten() {
        say(format_args!("{:<48} {source}", setting.escape_debug().to_string()))?;
    }
    Ok(())
}

/// Prints the secrets of one merchant. They must be given to that merchant only.
fn webhook_secret(config: &Config, merchant_id: &str) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(!config.webhooks.master_secrets.is_empty(), "webhooks.master_secrets is not set");
    anyhow::ensure!(
        !config.webhooks.merchant_secrets.contains_key(merchant_id),
        "this merchant has its own secrets in webhooks.merchant_secrets"
    );
    for master in &config.webhooks.master_secrets {
        say(SigningKey::derive(master, merchant_id)?.expose_secret())?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn migrate(config: &Config) -> anyhow::Result<ExitCode> {
    let pool = postgres::connect(&config.database()).await.context("database")?;
    postgres::migrate(&pool).await.context("database")?;
    say("the schema is up to date")?;
    Ok(ExitCode::SUCCESS)
}
