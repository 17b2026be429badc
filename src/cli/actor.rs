//! `--actor`, `--reason`: who acts, and why. Both are stored with the act.

use crate::{domain::is_control, postgres::Operator};

/// The options of every command that changes something.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Act {
    /// Why; stored with the act and shown in the record's timeline
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: String,
    /// Who acts; without the option, the login name
    #[arg(long, value_name = "NAME", value_parser = actor)]
    actor: Option<String>,
}

impl Act {
    /// Returns who acts, and why.
    pub(super) fn operator(&self) -> Operator {
        Operator { actor: self.actor.clone().unwrap_or_else(login_name), reason: self.reason.clone() }
    }
}

/// Limits in characters. Both texts are printed in timelines.
const MAX_ACTOR: usize = 128;
const MAX_REASON: usize = 1000;

fn actor(text: &str) -> Result<String, String> {
    line(text, MAX_ACTOR)
}

fn reason(text: &str) -> Result<String, String> {
    line(text, MAX_REASON)
}

fn line(text: &str, max: usize) -> Result<String, String> {
    let text = text.trim();
    match text.chars().count() {
        0 => Err("it is empty".into()),
        length if length > max => Err(format!("it has {length} characters; {max} is the limit")),
        _ if text.chars().any(is_control) => Err("it has a control character".into()),
        _ => Ok(text.to_owned()),
    }
}

/// Returns the login name, or the user's number where there is no name, as in a container.
fn login_name() -> String {
    let mut named = ["USER", "LOGNAME"].iter().filter_map(|name| std::env::var(name).ok());
    let name = named.find_map(|name| actor(&name).ok());
    name.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_with_words_in_it() {
        assert_eq!(reason(" seen at the provider "), Ok("seen at the provider".to_owned()));
        for bad in ["", "  ", "a\nb", "a\u{1b}[2J", &"x".repeat(MAX_REASON + 1)] {
            assert!(reason(bad).is_err(), "{bad:?}");
        }
        assert!(actor(&"x".repeat(MAX_ACTOR + 1)).is_err());
    }
}
