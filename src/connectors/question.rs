//! The parts of a question about a link that all connectors share.

use time::OffsetDateTime;

use super::{
    AskedLink,
    exchange::{OptionalFields, unreadable},
};
use crate::{
    domain::{ConnectorError, LinkAnswer, LinkReport, LinkStatus, PayoutStatus},
    http_client::{Answer, CallError},
};

/// The meaning of a provider's word for a status.
pub(super) type Meaning = (LinkStatus, PayoutStatus);

/// Classifies a question that was not answered.
pub(super) fn unheard(error: &CallError) -> LinkAnswer {
    LinkAnswer::Unanswered { error: ConnectorError::unanswered(&error.to_string()), retry_after: None }
}

/// Classifies an answer that says nothing about the link. `error`: the provider's own, if it can be read.
///
/// A credential that the provider does not take is such an answer: nothing happened to the link.
pub(super) fn inconclusive(answer: &Answer, error: Option<ConnectorError>) -> LinkAnswer {
    LinkAnswer::Unanswered {
        error: error.unwrap_or_else(|| unreadable(answer)),
        retry_after: answer.retry_after(OffsetDateTime::now_utc()),
    }
}

/// Returns whether an answer names the link that was asked about.
pub(super) fn is_about(asked: &AskedLink, id: &str) -> bool {
    asked.connector_payout_id == id
}

/// Classifies an answer about another link than the one that was asked about.
pub(super) fn about_another(answer: &Answer) -> LinkAnswer {
    let reason = "the answer is about another payout link";
    inconclusive(answer, Some(ConnectorError::new(answer.status.as_u16(), None, reason, None)))
}

impl OptionalFields {
    /// Returns a report of a link's status, without the fields that not every provider has. A word that this version
    /// does not know is counted: the link stays as it is.
    pub(super) fn report(&self, word: &str, meaning: Option<Meaning>, answer: &Answer) -> LinkReport {
        let (status, payout_status) = match meaning {
            Some((status, payout_status)) => (Some(status), payout_status),
            None => (None, PayoutStatus::RequiresFulfillment),
        };
        let provider_status = match status {
            Some(_) => Self::shown(word),
            None => self.unknown_status(word),
        };
        LinkReport {
            status,
            provider_status,
            payout_status,
            occurred_at: None,
            expires_at: None,
            provider_payout_id: None,
            error: None,
            status_code: answer.status.as_u16(),
        }
    }
}
