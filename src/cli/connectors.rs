//! `connectors`: lists the kinds of connector with their requirements and features, and the configured accounts.

use super::output::say;
use crate::{
    config::Config,
    connectors::{KINDS, Kind},
};

/// Prints the list. `config`: `None` if the configuration cannot be used.
pub(super) fn run(config: Option<&Config>) -> anyhow::Result<()> {
    for kind in KINDS {
        let accounts = config.into_iter().flat_map(|config| &config.connectors);
        let accounts: Vec<&str> = accounts
            .filter(|(_, section)| section.kind.name == kind.name)
            .map(|(name, _)| name.as_str())
            .collect();
        print(kind, &accounts)?;
    }
    Ok(())
}

fn print(kind: &Kind, accounts: &[&str]) -> anyhow::Result<()> {
    let supports = &kind.supports;
    say(format_args!("{}: {}", kind.name, kind.title))?;
    line("configured as", accounts)?;
    line("required settings", kind.needs)?;
    line("required in a job", supports.job_fields)?;
    match supports.currencies {
        Some(currencies) => line("currencies", currencies)?,
        None => line("currencies", &["all of the account"])?,
    }
    for (currency, min, max) in supports.amounts {
        match *max {
            i64::MAX => say(format_args!("  {:<23} {currency} from {min} minor units", "amounts"))?,
            max => say(format_args!("  {:<23} {currency} {min} to {max} minor units", "amounts"))?,
        }
    }
    line("destination currency", &[if supports.converts { "any" } else { "the amount's" }])?;
    line("connector_feature_data", supports.feature_data)?;
    line("links expire", &[supports.expiry])?;
    line("links can be cancelled", &[if supports.cancels { "yes" } else { "no" }])
}

fn line(name: &str, values: &[&str]) -> anyhow::Result<()> {
    if values.is_empty() {
        return Ok(());
    }
    say(format_args!("  {name:<23} {}", values.join(", ")))
}
