//! A letter as a row: everything that is no secret.

use clap::ValueEnum;
use serde::Serialize;
use time::OffsetDateTime;

use crate::{
    contract::outline,
    rabbitmq::{Letter, Names, Source},
};

/// A queue of the worker that an operator looks after.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Queue {
    /// Rejected messages: jobs, and messages about links
    #[default]
    Jobs,
    /// Results for which no queue was bound
    Results,
}

/// A letter without its content.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    /// Made of the content, so it is the same at every look.
    pub(super) id: String,
    /// When it was rejected; for a result, when it was published.
    #[serde(with = "time::serde::rfc3339::option")]
    pub(super) at: Option<OffsetDateTime>,
    /// `create`, `cancel` or `status`; for a result, its type. Empty if it cannot be known.
    pub(super) kind: String,
    /// The error code, or the broker's own reason.
    pub(super) code: String,
    pub(super) reason: String,
    pub(super) merchant_id: String,
    pub(super) merchant_payout_id: String,
    pub(super) minor_amount: String,
    pub(super) currency: String,
    pub(super) connector: String,
    pub(super) message_id: String,
    pub(super) bytes: usize,
    pub(super) requeued_count: u32,
    #[serde(skip)]
    pub(super) source: Option<Source>,
}

impl Row {
    pub(super) fn of(letter: &Letter, queue: Queue, names: &Names) -> Self {
        let outline = outline(&letter.body);
        let source = letter.source(names).or(match (outline.is_job, outline.is_cancel, outline.is_status) {
            (true, ..) => Some(Source::Jobs),
            (_, true, false) => Some(Source::Cancel),
            (_, false, true) => Some(Source::Status),
            _ => None,
        });
        let header = |name| letter.header(name).unwrap_or_default().to_owned();
        let (kind, code) = match queue {
            Queue::Jobs => (
                source.map(Source::as_str).unwrap_or_default().to_owned(),
                letter.header("x-rejected-code").map_or_else(|| header("x-first-death-reason"), Into::into),
            ),
            Queue::Results => {
                (letter.kind().unwrap_or_default().to_owned(), outline.error_code.unwrap_or_default())
            }
        };
        Self {
            id: letter.id(),
            at: letter.at(),
            kind,
            code,
            reason: header("x-rejected-reason"),
            merchant_id: header("x-merchant-id"),
            merchant_payout_id: outline.merchant_payout_id.unwrap_or_default(),
            minor_amount: outline.minor_amount.unwrap_or_default(),
            currency: outline.currency.unwrap_or_default(),
            connector: header("x-connector"),
            message_id: letter.message_id().unwrap_or_default().to_owned(),
            bytes: letter.body.len(),
            requeued_count: letter.requeued_count(),
            source,
        }
    }
}
