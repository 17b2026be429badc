//! `dead-letters`: shows rejected messages and unrouted results, and publishes them again, without losing one.

mod act;
mod delete;
mod export;
mod list;
mod look;
mod payouts;
mod plan;
mod requeue;
mod row;
mod select;
mod show;

pub(super) use self::payouts::delete_letters_of;
use super::{ExitStatus, output::Output};
use crate::config::Config;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Action {
    /// List letters without their content; all stay in their queue
    List(list::Arguments),
    /// Show letters with their secrets masked; all stay in their queue
    Show(show::Arguments),
    /// Publish letters again to the queue that they came from, then remove them
    Requeue(requeue::Arguments),
    /// Write letters with their secrets to a new file; all stay in their queue
    Export(export::Arguments),
    /// Remove letters for good
    Delete(delete::Arguments),
}

impl Action {
    /// Returns whether it changes a queue, or reveals secrets.
    pub(super) fn acts(&self) -> bool {
        match self {
            Self::List(_) | Self::Show(_) => false,
            Self::Requeue(_) | Self::Export(_) | Self::Delete(_) => true,
        }
    }
}

pub(super) async fn run(config: &Config, output: Output, action: &Action) -> anyhow::Result<ExitStatus> {
    match action {
        Action::List(arguments) => list::run(config, output, arguments).await,
        Action::Show(arguments) => show::run(config, output, arguments).await,
        Action::Requeue(arguments) => requeue::run(config, output, arguments).await,
        Action::Export(arguments) => export::run(config, output, arguments).await,
        Action::Delete(arguments) => delete::run(config, output, arguments).await,
    }
}
