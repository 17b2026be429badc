//! Reads the database's part of a history.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::postgres::{Audited, Store, StoreError};
use history_checker::{Event, Leak, Record, Secrets, key};

/// Size of a page. Its rows are in memory twice.
const PAGE: i64 = 1000;

/// Reads the records created at `since` or later, and finds secrets stored unencrypted with them.
///
/// # Errors
///
/// If the database does not answer.
pub async fn read_records(
    store: &Store,
    since: Option<OffsetDateTime>,
    secrets: &Secrets,
) -> Result<(Vec<Record>, Vec<Leak>), StoreError> {
    let (mut records, mut leaks, mut after) = (Vec::new(), Vec::new(), Uuid::nil());
    loop {
        let page = store.audit_page(after, PAGE, !secrets.is_empty()).await?;
        let Some(last) = page.last() else { return Ok((records, leaks)) };
        after = last.id;
        for audited in page {
            if since.is_some_and(|since| audited.created_at < since) {
                continue;
            }
            let text = audited.text.as_deref().unwrap_or_default();
            leaks.extend(secrets.find(text, || format!("the database, record {}", audited.id)));
            records.push(record(audited));
        }
    }
}

fn record(audited: Audited) -> Record {
    Record {
        key: key(&audited.merchant_id, &audited.merchant_payout_id),
        amount: format!("{} {}", audited.amount_minor, audited.currency),
        state: audited.state,
        link_id: audited.connector_payout_id,
        is_unknown: audited.in_doubt,
        leased: audited.leased,
        due: audited.due,
        calls: audited.calls,
        event: audited.event.map(|event| Event {
            id: event.id.to_string(),
            kind: event.r#type,
            published: event.published,
            due: event.due,
            leased: event.leased,
            webhook_state: event.webhook_state,
            webhook_attempts: event.webhook_attempts.unsigned_abs(),
        }),
    }
}
