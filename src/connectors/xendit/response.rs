//! The answers of Xendit, and what they mean.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;

use super::{
    Xendit,
    status::{Circumstances, status},
};
use crate::{
    connectors::{
        AskedLink, Call,
        exchange::{identifier, link_url, parse},
    },
    domain::{ConnectorError, CreatedLink, Finding, LinkReport, LinkStatus},
    http_client::{Answer, decimal_seconds},
};

#[derive(Deserialize)]
pub(super) struct Payout {
    pub(super) id: String,
    pub(super) external_id: Option<String>,
    pub(super) amount: i64,
    pub(super) status: String,
    #[serde(default)]
    pub(super) expiration_timestamp: Value,
    pub(super) payout_url: Option<String>,
    /// As the same are called in the newer of Xendit's dialects.
    pub(super) reference_id: Option<String>,
    #[serde(default)]
    pub(super) expires_at: Value,
    pub(super) payout_link_url: Option<String>,
    #[serde(default)]
    pub(super) updated: Value,
    /// Of a payout that failed, as the sibling product has it.
    #[serde(default)]
    pub(super) failure_code: Value,
}

#[derive(Deserialize)]
pub(super) struct Failure {
    pub(super) error_code: String,
    pub(super) message: String,
}

impl Xendit {
    /// Reads a payout of Xendit. Returns `None` if it is not this job's, or if its link cannot be passed on.
    pub(super) fn read(&self, payout: Payout, call: Call<'_>, answer: &Answer) -> Option<Finding> {
        let status_code = answer.status.as_u16();
        let reference = payout.external_id.as_deref().or(payout.reference_id.as_deref());
        let is_ours = reference == Some(call.idempotency_key)
            && call.job.amount.whole_major_units() == Some(payout.amount);
        if !is_ours {
            return None;
        }
        let expires_at = self.end(&payout);
        let connector_payout_id = identifier(payout.id)?;
        let is_over = expires_at.is_some_and(|end| end <= OffsetDateTime::now_utc());
        let circumstances = Circumstances { is_over, ..Circumstances::default() };
        let known = status(&payout.status, circumstances).map(|(_, payout_status)| payout_status);
        let (payout_status, unknown_status) = self.optional.status(&payout.status, known);
        if payout_status.has_no_link() {
            let message = format!("the payout is {}", payout.status);
            let error = ConnectorError::new(status_code, None, &message, None);
            return Some(Finding::Ended { error, payout_status, connector_payout_id });
        }
        let Some(url) = payout.payout_url.or(payout.payout_link_url) else {
            return Some(Finding::Underway { connector_payout_id, status_code });
        };
        Some(Finding::Found(CreatedLink {
            url: link_url(&url, false)?,
            connector_payout_id,
            payout_status,
            unknown_status,
            expires_at,
            status_code,
        }))
    }

    /// Reads the status of a payout.
    pub(super) fn report(&self, payout: &Payout, asked: &AskedLink, answer: &Answer) -> LinkReport {
        let expires_at = self.end(payout);
        let occurred_at = self.optional.time("updated", &payout.updated);
        // By Xendit's clock, which says no fractions of a second.
        let date = answer.date().and_then(|date| date.checked_add(time::Duration::SECOND));
        let now = date.unwrap_or_else(OffsetDateTime::now_utc);
        let circumstances = Circumstances {
            // By when it changed, where Xendit says so: a link that was voided in time is not over.
            is_over: expires_at.or(asked.expires_at).is_some_and(|end| end <= occurred_at.unwrap_or(now)),
            is_voided: asked.is_cancelled,
            is_claimed: asked.status.is_under_way(),
        };
        let known = status(&payout.status, circumstances);
        let report = self.optional.report(&payout.status, known, answer);
        let failed = || {
            let code = self.optional.text("failure_code", &payout.failure_code);
            ConnectorError::new(report.status_code, code, &format!("the payout is {}", payout.status), None)
        };
        let error = (report.status == Some(LinkStatus::PayoutFailed)).then(failed);
        LinkReport { occurred_at, expires_at, error, ..report }
    }

    fn end(&self, payout: &Payout) -> Option<OffsetDateTime> {
        let end = self.optional.time("expiration_timestamp", &payout.expiration_timestamp);
        end.or_else(|| self.optional.time("expires_at", &payout.expires_at))
    }
}

/// Seconds until the limit of calls is whole again.
pub(super) fn reset(answer: &Answer) -> Option<Duration> {
    // Documented with decimals: `Rate-Limit-Reset: 58.37`.
    decimal_seconds(answer.headers.get("rate-limit-reset")?.to_str().ok()?)
}

/// Reads the provider's error. Returns `None` if the answer has none.
pub(super) fn failure(answer: &Answer) -> Option<ConnectorError> {
    let Failure { error_code, message } = parse(answer)?;
    Some(ConnectorError::new(answer.status.as_u16(), Some(&error_code), &message, None))
}
