//! The answers of Hyperswitch, and what they mean.

use serde::Deserialize;
use serde_json::Value;

use super::{Hyperswitch, request::payout_id, status::status};
use crate::{
    connectors::{
        Call,
        exchange::{link_url, parse},
        supports::feature_data,
    },
    domain::{ConnectorError, CreatedLink, Finding, LinkReport},
    http_client::Answer,
};

/// The fields of a payout that are read. `client_secret` is not among them.
#[derive(Deserialize)]
pub(super) struct Payout {
    pub(super) payout_id: String,
    pub(super) merchant_order_reference_id: Option<String>,
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) status: String,
    #[serde(default)]
    pub(super) created: Value,
    pub(super) payout_link: Option<PayoutLink>,
    #[serde(default)]
    pub(super) error_code: Value,
    #[serde(default)]
    pub(super) error_message: Value,
}

#[derive(Deserialize)]
pub(super) struct PayoutLink {
    pub(super) link: String,
}

#[derive(Deserialize)]
pub(super) struct Failure {
    pub(super) error: FailureDetails,
}

#[derive(Deserialize)]
pub(super) struct FailureDetails {
    pub(super) code: String,
    pub(super) message: String,
    pub(super) reason: Option<String>,
}

impl Hyperswitch {
    /// Reads a payout of Hyperswitch. Returns `None` if it is not this job's, or if its link cannot be passed on.
    pub(super) fn read(&self, payout: Payout, call: Call<'_>, answer: &Answer) -> Option<Finding> {
        let status_code = answer.status.as_u16();
        let (job, id) = (call.job, payout_id(call.idempotency_key));
        let is_ours = payout.payout_id == id
            && payout.amount == job.amount.minor_units()
            && payout.currency == job.amount.currency.as_str()
            && payout
                .merchant_order_reference_id
                .as_deref()
                .is_none_or(|own| own == job.merchant_payout_id.as_str());
        if !is_ours {
            return None;
        }
        let known = status(&payout.status).map(|(_, payout_status)| payout_status);
        let (payout_status, unknown_status) = self.optional.status(&payout.status, known);
        if payout_status.has_no_link() {
            let error = self.reason(&payout, answer);
            return Some(Finding::Ended { error, payout_status, connector_payout_id: id });
        }
        let Some(link) = payout.payout_link else {
            return Some(Finding::Underway { connector_payout_id: id, status_code });
        };
        let created = self.optional.time("created", &payout.created);
        let lives = self.session_expiry(&feature_data(job).ok()?).ok()?;
        Some(Finding::Found(CreatedLink {
            url: link_url(&link.link, false)?,
            connector_payout_id: id,
            payout_status,
            unknown_status,
            expires_at: created
                .and_then(|created| created.checked_add(time::Duration::seconds(lives.into()))),
            status_code,
        }))
    }

    /// Reads the status of a payout. Hyperswitch dates only the creation, and does not say when the link ends.
    pub(super) fn report(&self, payout: &Payout, answer: &Answer) -> LinkReport {
        let report = self.optional.report(&payout.status, status(&payout.status), answer);
        let error = report.payout_status.has_no_link().then(|| self.reason(payout, answer));
        LinkReport { error, ..report }
    }

    /// Returns the reason why a payout ended without a payment.
    fn reason(&self, payout: &Payout, answer: &Answer) -> ConnectorError {
        let message = self.optional.text("error_message", &payout.error_message);
        let message = message.map_or_else(|| format!("the payout is {}", payout.status), str::to_owned);
        let code = self.optional.text("error_code", &payout.error_code);
        ConnectorError::new(answer.status.as_u16(), code, &message, None)
    }
}

/// Reads the provider's error. Returns `None` if the answer has none.
pub(super) fn failure(answer: &Answer) -> Option<ConnectorError> {
    let Failure { error } = parse(answer)?;
    let status_code = answer.status.as_u16();
    Some(ConnectorError::new(status_code, Some(&error.code), &error.message, error.reason.as_deref()))
}
