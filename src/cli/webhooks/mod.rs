//! `webhooks`: shows what waits for merchants' hosts, pauses hosts, and delivers webhooks again.

mod hosts;
mod pause;
mod redeliver;
mod show;

use super::{ExitStatus, output::Output};
use crate::config::Config;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Action {
    /// List merchants' hosts: webhooks that wait, successes, the last error
    List(hosts::Arguments),
    /// Show a host and its webhooks that are not delivered, or the webhooks of a payout or an event
    Show(show::Arguments),
    /// Deliver webhooks again under the same webhook-id
    Redeliver(redeliver::Arguments),
    /// Send no webhook to a host; all workers know it within seconds
    PauseHost(pause::Arguments),
    /// End the pause of a host, and deliver what waits
    ResumeHost(pause::Arguments),
}

impl Action {
    /// Returns whether it only reads the database.
    pub(super) fn only_reads(&self) -> bool {
        match self {
            Self::List(_) | Self::Show(_) => true,
            Self::Redeliver(_) | Self::PauseHost(_) | Self::ResumeHost(_) => false,
        }
    }
}

pub(super) async fn run(config: &Config, output: Output, action: &Action) -> anyhow::Result<ExitStatus> {
    match action {
        Action::List(arguments) => hosts::run(config, output, arguments).await,
        Action::Show(arguments) => show::run(config, output, arguments).await,
        Action::Redeliver(arguments) => redeliver::run(config, output, arguments).await,
        Action::PauseHost(arguments) => pause::pause(config, output, arguments).await,
        Action::ResumeHost(arguments) => pause::resume(config, output, arguments).await,
    }
}
