//! The answers of RazorpayX, and what they mean.

use serde::Deserialize;
use serde_json::Value;

use super::{
    RazorpayX,
    status::{status, status_of_payout},
};
use crate::{
    connectors::{
        Call,
        exchange::{identifier, link_url, parse},
    },
    domain::{ConnectorError, CreatedLink, Finding, LinkReport, LinkStatus},
    http_client::Answer,
};

#[derive(Deserialize)]
pub(super) struct Link {
    pub(super) id: String,
    pub(super) status: String,
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) receipt: Option<String>,
    pub(super) short_url: Option<String>,
    pub(super) created_at: i64,
    #[serde(default)]
    pub(super) expire_by: Value,
    #[serde(default)]
    pub(super) expired_at: Value,
    #[serde(default)]
    pub(super) cancelled_at: Value,
    /// Documented from `processed` on.
    #[serde(default)]
    pub(super) payout_id: Value,
}

/// The payout that came of a link.
#[derive(Deserialize)]
pub(super) struct Payout {
    pub(super) id: String,
    pub(super) status: String,
}

#[derive(Deserialize)]
pub(super) struct Links {
    pub(super) items: Vec<Link>,
}

#[derive(Deserialize)]
pub(super) struct Failure {
    pub(super) error: FailureDetails,
}

#[derive(Deserialize)]
pub(super) struct FailureDetails {
    pub(super) code: String,
    pub(super) description: String,
    pub(super) reason: Option<String>,
}

impl RazorpayX {
    /// Reads a link of RazorpayX. Returns `None` if it is not this job's, or if its URL cannot be passed on.
    pub(super) fn read(&self, link: Link, call: Call<'_>, answer: &Answer) -> Option<Finding> {
        let (status_code, amount) = (answer.status.as_u16(), call.job.amount);
        let is_ours = link.receipt.as_deref() == Some(call.idempotency_key)
            && link.amount == amount.minor_units()
            && link.currency == amount.currency.as_str();
        if !is_ours {
            return None;
        }
        let connector_payout_id = identifier(link.id)?;
        let known = status(&link.status, !link.expired_at.is_null()).map(|(_, payout_status)| payout_status);
        let (payout_status, unknown_status) = self.optional.status(&link.status, known);
        if payout_status.has_no_link() {
            let error = ConnectorError::new(status_code, None, &format!("the link is {}", link.status), None);
            return Some(Finding::Ended { error, payout_status, connector_payout_id });
        }
        let Some(url) = link.short_url else {
            return Some(Finding::Underway { connector_payout_id, status_code });
        };
        Some(Finding::Found(CreatedLink {
            url: link_url(&url, false)?,
            connector_payout_id,
            payout_status,
            unknown_status,
            expires_at: self.optional.unix_time("expire_by", &link.expire_by),
            status_code,
        }))
    }

    /// Reads the status of a link. RazorpayX dates an end, and neither a claim nor a payment.
    pub(super) fn report(&self, link: &Link, answer: &Answer) -> LinkReport {
        let known = status(&link.status, !link.expired_at.is_null());
        let report = self.optional.report(&link.status, known, answer);
        let occurred_at = match report.status {
            Some(LinkStatus::Expired) => self.optional.unix_time("expired_at", &link.expired_at),
            Some(LinkStatus::Cancelled) => self.optional.unix_time("cancelled_at", &link.cancelled_at),
            _ => None,
        };
        let payout_id = self.optional.text("payout_id", &link.payout_id);
        LinkReport {
            occurred_at,
            // It may be moved in the dashboard.
            expires_at: self.optional.unix_time("expire_by", &link.expire_by),
            provider_payout_id: payout_id.and_then(|id| identifier(id.to_owned())),
            error: failed(&report, &link.status),
            ..report
        }
    }

    /// Reads the status of a processed link from its payout.
    pub(super) fn report_of_payout(&self, payout: Payout, answer: &Answer) -> LinkReport {
        let report = self.optional.report(&payout.status, status_of_payout(&payout.status), answer);
        LinkReport { error: failed(&report, &payout.status), provider_payout_id: Some(payout.id), ..report }
    }
}

/// Returns the reason why a payout failed: RazorpayX gives only one word.
fn failed(report: &LinkReport, word: &str) -> Option<ConnectorError> {
    let reason = || ConnectorError::new(report.status_code, None, &format!("the payout is {word}"), None);
    (report.status == Some(LinkStatus::PayoutFailed)).then(reason)
}

/// Returns the oldest of several links. The others were created without a look-up.
pub(super) fn oldest(links: Vec<Link>, receipt: &str) -> Option<Link> {
    let ours: Vec<Link> = links.into_iter().filter(|link| link.receipt.as_deref() == Some(receipt)).collect();
    if ours.len() > 1 {
        tracing::error!(
            links = ours.len(),
            connector.reference = receipt,
            "RazorpayX has several links with one receipt: cancel all but the oldest"
        );
    }
    ours.into_iter().min_by_key(|link| link.created_at)
}

/// Reads the provider's error. Returns `None` if the answer has none.
pub(super) fn failure(answer: &Answer) -> Option<ConnectorError> {
    let Failure { error } = parse(answer)?;
    let status_code = answer.status.as_u16();
    Some(ConnectorError::new(status_code, Some(&error.code), &error.description, error.reason.as_deref()))
}
