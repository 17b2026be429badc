//! The answers of the sandbox, and what they mean.

use serde::Deserialize;
use serde_json::Value;

use super::{Sandbox, status::status};
use crate::{
    connectors::exchange::{identifier, link_url, parse, unreadable},
    domain::{ConnectorError, CreatedLink, Finding, LinkReport},
    http_client::Answer,
};

#[derive(Deserialize)]
pub(super) struct Link {
    pub(super) id: String,
    pub(super) status: String,
    pub(super) url: String,
    #[serde(default)]
    pub(super) expires_at: Value,
    #[serde(default)]
    pub(super) updated_at: Value,
    /// Why the payout failed: a code and a message.
    #[serde(default)]
    pub(super) failure: Value,
}

#[derive(Deserialize)]
pub(super) struct Links {
    pub(super) data: Vec<Link>,
}

#[derive(Deserialize)]
pub(super) struct Failure {
    pub(super) error: FailureDetails,
}

#[derive(Deserialize)]
pub(super) struct FailureDetails {
    pub(super) code: String,
    pub(super) message: String,
}

impl Sandbox {
    /// Builds the error for a success whose link cannot be used. It says so if only the settings forbid the link.
    pub(super) fn unusable(&self, answer: &Answer) -> ConnectorError {
        let url = parse::<Link>(answer).map(|link| link.url);
        let is_withheld =
            url.is_some_and(|url| link_url(&url, false).is_none() && link_url(&url, true).is_some());
        if is_withheld && !self.settings.allows_http_links() {
            let reason = "the link is http, and allow_http_links is false in this connector's section";
            return ConnectorError::new(answer.status.as_u16(), None, reason, None);
        }
        unreadable(answer)
    }

    /// Reads a link of the sandbox. Returns `None` if it cannot be passed on.
    pub(super) fn read(&self, link: Link, answer: &Answer) -> Option<Finding> {
        let status_code = answer.status.as_u16();
        let connector_payout_id = identifier(link.id)?;
        let known = status(&link.status).map(|(_, payout_status)| payout_status);
        let (payout_status, unknown_status) = self.optional.status(&link.status, known);
        if payout_status.has_no_link() {
            let error = ConnectorError::new(status_code, None, &format!("the link is {}", link.status), None);
            return Some(Finding::Ended { error, payout_status, connector_payout_id });
        }
        Some(Finding::Found(CreatedLink {
            url: link_url(&link.url, self.settings.allows_http_links())?,
            connector_payout_id,
            payout_status,
            unknown_status,
            expires_at: self.optional.time("expires_at", &link.expires_at),
            status_code,
        }))
    }

    /// Reads the status of a link.
    pub(super) fn report(&self, link: &Link, answer: &Answer) -> LinkReport {
        let report = self.optional.report(&link.status, status(&link.status), answer);
        let details =
            self.optional.read("failure", &link.failure, |value| FailureDetails::deserialize(value).ok());
        LinkReport {
            occurred_at: self.optional.time("updated_at", &link.updated_at),
            expires_at: self.optional.time("expires_at", &link.expires_at),
            error: details.map(|FailureDetails { code, message }| {
                ConnectorError::new(report.status_code, Some(&code), &message, None)
            }),
            ..report
        }
    }
}

pub(super) fn failure(answer: &Answer) -> ConnectorError {
    let status_code = answer.status.as_u16();
    match parse(answer) {
        Some(Failure { error }) => ConnectorError::new(status_code, Some(&error.code), &error.message, None),
        None => ConnectorError::new(status_code, None, &format!("answered {status_code}"), None),
    }
}
