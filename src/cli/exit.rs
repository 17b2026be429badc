//! The exit statuses of all commands.

use std::{fmt::Display, process::ExitCode};

/// How a command ended. Scripts depend on the numbers: they do not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// Everything was done, or everything is well.
    Done = 0,
    /// It could not be done, or something needs a person. Standard error or the output says why.
    Failed = 1,
    /// The command line or the configuration is wrong. clap uses the same number.
    WrongUse = 2,
    /// A part was done, or differences were found. Each record is reported.
    InPart = 3,
    /// Nothing has this id or matches this filter. Nothing was changed.
    NothingFound = 4,
    /// A rule refuses it: another command, another state of the record, or a confirmation is needed. Nothing was
    /// changed.
    Refused = 5,
}

impl ExitStatus {
    /// Makes the error that ends a command with this status.
    pub fn because(self, reason: impl Display) -> Ended {
        Ended { status: self, reason: reason.to_string() }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        // The discriminants are the numbers.
        Self::from(status as u8)
    }
}

/// The reason why a command ended before its end, and its exit status.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Ended {
    /// The status that the program exits with.
    pub status: ExitStatus,
    /// The line for the operator on standard error.
    pub reason: String,
}

/// Returns the exit status of a failed command: the one of its [`Ended`], otherwise [`ExitStatus::Failed`].
pub fn status_of(error: &anyhow::Error) -> ExitStatus {
    error.downcast_ref::<Ended>().map_or(ExitStatus::Failed, |ended| ended.status)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn an_error_keeps_its_status_below_its_context() {
        let refused: anyhow::Result<()> = Err(ExitStatus::Refused.because("a link exists").into());
        assert_eq!(status_of(&refused.context("po_1").unwrap_err()), ExitStatus::Refused);
        assert_eq!(status_of(&anyhow::anyhow!("the disk is full")), ExitStatus::Failed);
    }

    #[test]
    fn the_numbers_are_those_of_the_documentation() {
        let all = [
            ExitStatus::Done,
            ExitStatus::Failed,
            ExitStatus::WrongUse,
            ExitStatus::InPart,
            ExitStatus::NothingFound,
            ExitStatus::Refused,
        ];
        assert_eq!(all.map(|status| status as u8), [0, 1, 2, 3, 4, 5]);
    }
}
