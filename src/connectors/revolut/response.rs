//! The answers of Revolut, and what they mean.

use serde::Deserialize;
use serde_json::{Number, Value};

use super::{
    Revolut,
    status::{status, status_at_creation, status_of_transaction},
};
use crate::{
    connectors::{
        Call,
        exchange::{identifier, link_url, parse},
    },
    domain::{ConnectorError, CreatedLink, Finding, LinkReport},
    http_client::Answer,
};

#[derive(Deserialize)]
pub(super) struct Link {
    pub(super) id: String,
    pub(super) state: String,
    pub(super) request_id: String,
    pub(super) created_at: String,
    /// With its digits, as it came.
    pub(super) amount: Number,
    pub(super) currency: String,
    pub(super) url: Option<String>,
    #[serde(default)]
    pub(super) expiry_date: Value,
    #[serde(default)]
    pub(super) cancellation_reason: Value,
    #[serde(default)]
    pub(super) updated_at: Value,
    /// There once the link is claimed.
    #[serde(default)]
    pub(super) transaction_id: Value,
}

/// The transaction that came of a link.
#[derive(Deserialize)]
pub(super) struct Transaction {
    pub(super) id: String,
    pub(super) state: String,
    #[serde(default)]
    pub(super) updated_at: Value,
}

#[derive(Deserialize)]
pub(super) struct Failure {
    pub(super) code: i64,
    pub(super) message: String,
}

impl Revolut {
    /// Reads a link of Revolut. Returns `None` if it is not this job's, or if its URL cannot be passed on.
    pub(super) fn read(&self, link: Link, call: Call<'_>, answer: &Answer) -> Option<Finding> {
        let (status_code, amount) = (answer.status.as_u16(), call.job.amount);
        let is_ours = link.request_id == call.idempotency_key
            && link.currency == amount.currency.as_str()
            && amount.is_major_units(&link.amount.to_string());
        if !is_ours {
            return None;
        }
        let connector_payout_id = identifier(link.id.clone())?;
        let (payout_status, unknown_status) =
            self.optional.status(&link.state, status_at_creation(&link.state));
        if payout_status.has_no_link() {
            let error = self.reason(&link, answer);
            return Some(Finding::Ended { error, payout_status, connector_payout_id });
        }
        let Some(url) = link.url.filter(|_| link.state == "active" || unknown_status.is_some()) else {
            return Some(Finding::Underway { connector_payout_id, status_code });
        };
        Some(Finding::Found(CreatedLink {
            url: link_url(&url, false)?,
            connector_payout_id,
            payout_status,
            unknown_status,
            expires_at: self.optional.time("expiry_date", &link.expiry_date),
            status_code,
        }))
    }

    /// Reads the status of a link.
    pub(super) fn report(&self, link: &Link, answer: &Answer) -> LinkReport {
        let report = self.optional.report(&link.state, status(&link.state), answer);
        let transaction_id = self.optional.text("transaction_id", &link.transaction_id);
        LinkReport {
            occurred_at: self.optional.time("updated_at", &link.updated_at),
            expires_at: self.optional.time("expiry_date", &link.expiry_date),
            provider_payout_id: transaction_id.and_then(|id| identifier(id.to_owned())),
            error: report.payout_status.has_no_link().then(|| self.reason(link, answer)),
            ..report
        }
    }

    /// Reads the status of a processed link from its transaction.
    pub(super) fn report_of_transaction(&self, transaction: Transaction, answer: &Answer) -> LinkReport {
        let known = status_of_transaction(&transaction.state);
        let report = self.optional.report(&transaction.state, known, answer);
        LinkReport {
            occurred_at: self.optional.time("updated_at", &transaction.updated_at),
            provider_payout_id: Some(transaction.id),
            ..report
        }
    }

    /// Returns the reason why a link ended without a payment.
    fn reason(&self, link: &Link, answer: &Answer) -> ConnectorError {
        let reason = self.optional.text("cancellation_reason", &link.cancellation_reason);
        ConnectorError::new(answer.status.as_u16(), None, &format!("the link is {}", link.state), reason)
    }
}

/// Reads the provider's error. Returns `None` if the answer has none.
pub(super) fn failure(answer: &Answer) -> Option<ConnectorError> {
    let Failure { code, message } = parse(answer)?;
    Some(ConnectorError::new(answer.status.as_u16(), Some(&code.to_string()), &message, None))
}
