//! Names the changes of a link after its creation, the same for all simulators.
//!
//! Each simulator maps a change to its provider's own status, and rejects a change that the provider cannot make.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A change of a link. In JSON it is its name in lower case: `"claim"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkChange {
    /// The recipient submits their details.
    Claim,
    /// The payout goes to the bank.
    Process,
    /// The money arrives.
    Pay,
    /// The payout fails, and the link stays closed.
    Fail,
    /// The payout fails, and the link can be claimed again.
    Reopen,
    /// Nobody claimed the link in time.
    Expire,
    /// The client cancels the link at the provider.
    Cancel,
    /// The money comes back after it was paid.
    Reverse,
}

impl LinkChange {
    /// Returns the change's name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Process => "process",
            Self::Pay => "pay",
            Self::Fail => "fail",
            Self::Reopen => "reopen",
            Self::Expire => "expire",
            Self::Cancel => "cancel",
            Self::Reverse => "reverse",
        }
    }
}

impl fmt::Display for LinkChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
