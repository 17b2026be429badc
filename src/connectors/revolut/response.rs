//! The answers of Revolut, and what they mean.

use serde::Deserialize;
use serde_json::{Number, Value};

use super::{Revolut, status::status};
use crate::{
    connectors::{
        Call,
        exchange::{identifier, link_url, parse},
    },
    domain::{ConnectorError, CreatedLink, Finding},
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
}

#[derive(Deserialize)]
pub(super) struct Failure {
    pub(super) code: i64,
    pub(super) message: String,
}

impl Revolut {
    /// A link as Revolut has it; `None` where it is not this job's, or its URL cannot be passed on.
    pub(super) fn read(&self, link: Link, call: Call<'_>, answer: &Answer) -> Option<Finding> {
        let (status_code, amount) = (answer.status.as_u16(), call.job.amount);
        let is_ours = link.request_id == call.idempotency_key
            && link.currency == amount.currency.as_str()
            && amount.is_major_units(&link.amount.to_string());
        if !is_ours {
            return None;
        }
        let connector_payout_id = identifier(link.id)?;
        let (payout_status, unknown_status) = self.optional.status(&link.state, status(&link.state));
        if payout_status.has_no_link() {
            let message = format!("the link is {}", link.state);
            let reason = self.optional.text("cancellation_reason", &link.cancellation_reason);
            let error = ConnectorError::new(status_code, None, &message, reason);
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
}

/// An error in the provider's own words; `None` where the answer holds none.
pub(super) fn failure(answer: &Answer) -> Option<ConnectorError> {
    let Failure { code, message } = parse(answer)?;
    Some(ConnectorError::new(answer.status.as_u16(), Some(&code.to_string()), &message, None))
}
