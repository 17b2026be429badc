//! `connectors`: the kinds there are, with what they need and support, and the accounts that are configured.

use super::output::say;
use crate::{
    config::Config,
    connectors::{KINDS, Kind},
};

/// `config`: `None` where there is none that can be used.
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
    line("needs settings", kind.needs)?;
    line("needs of a job", supports.job_fields)?;
    match supports.currencies {
        Some(currencies) => line("currencies", currencies)?,
        None => line("currencies", &["all that the account has"])?,
    }
    for (currency, least, most) in supports.amounts {
        match *most {
            i64::MAX => say(format_args!("  {:<23} {currency} from {least} minor units", "amounts"))?,
            most => say(format_args!("  {:<23} {currency} {least} to {most} minor units", "amounts"))?,
        }
    }
    line("destination currency", &[if supports.converts { "any" } else { "the amount's" }])?;
    line("connector_feature_data", supports.feature_data)?;
    line("links end", &[supports.expiry])?;
    line("links can be taken back", &[if supports.cancels { "yes" } else { "no" }])
}

fn line(name: &str, values: &[&str]) -> anyhow::Result<()> {
    if values.is_empty() {
        return Ok(());
    }
    say(format_args!("  {name:<23} {}", values.join(", ")))
}
