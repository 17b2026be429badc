//! Decodes and checks the form of the claim page.

use serde::Deserialize;

use super::bank::{self, Problem};
use super::link::Link;

/// The fields that the recipient fills in. A missing field counts as empty.
#[derive(Default, Deserialize)]
pub(super) struct ClaimForm {
    #[serde(default)]
    pub(super) account_holder: String,
    #[serde(default)]
    pub(super) account_number: String,
}

impl ClaimForm {
    /// Returns the form as it is first shown, with the recipient's name.
    pub(super) fn prefilled(link: &Link) -> Self {
        let recipient = link.request.recipient.as_ref();
        let account_holder = recipient.and_then(|recipient| recipient.name.clone()).unwrap_or_default();
        Self { account_holder, account_number: String::new() }
    }

    /// Returns the problems of the fields.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let checks = [bank::check_holder(&self.account_holder), bank::check_account(&self.account_number)];
        checks.into_iter().filter_map(Result::err).collect()
    }
}
