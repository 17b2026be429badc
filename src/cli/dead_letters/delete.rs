//! `dead-letters delete`.

use super::{
    act::{self, Acting},
    plan::Plan,
    select::Selection,
};
use crate::{
    cli::{ExitStatus, output::Output},
    config::Config,
};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    acting: Acting,
}

pub(super) async fn run(
    config: &Config,
    output: Output,
    arguments: &Arguments,
) -> anyhow::Result<ExitStatus> {
    let what = (&arguments.selection, &arguments.acting, false);
    act::run(config, output, ("dead-letters delete", "deleted"), what, |_, _| Ok(Plan::Remove)).await
}
