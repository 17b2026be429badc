//! Reads the database's part of a history.

use std::collections::HashSet;

use time::OffsetDateTime;
use uuid::Uuid;

use crate::postgres::{Audited, AuditedEvent, Store, StoreError};
use history_checker::{EarlierEvent, Event, LaterEvent, Leak, OperatorAction, Record, Secrets, key};

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

/// Reads the acts of operators that conclude records again, and the events of the conclusions before them. `since`: as
/// for [`read_records`].
///
/// # Errors
///
/// If the database does not answer.
pub async fn read_actions(
    store: &Store,
    since: Option<OffsetDateTime>,
) -> Result<(Vec<OperatorAction>, Vec<EarlierEvent>), StoreError> {
    let actions = store.audit_actions(since).await?.into_iter().map(|action| OperatorAction {
        key: key(&action.merchant_id, &action.merchant_payout_id),
        command: action.command,
    });
    let earlier = store.audit_earlier(since).await?.into_iter().map(|earlier| EarlierEvent {
        key: key(&earlier.merchant_id, &earlier.merchant_payout_id),
        event: event(earlier.event),
    });
    Ok((actions.collect(), earlier.collect()))
}

/// Reads the events after the conclusions, and finds secrets stored unencrypted with them. `since`: as for [`read_records`].
///
/// # Errors
///
/// If the database does not answer.
pub async fn read_later(
    store: &Store,
    since: Option<OffsetDateTime>,
    secrets: &Secrets,
) -> Result<(Vec<LaterEvent>, Vec<Leak>), StoreError> {
    let (mut later, mut leaks, mut after) = (Vec::new(), Vec::new(), Uuid::nil());
    loop {
        let page = store.audit_later(since, after, PAGE, !secrets.is_empty()).await?;
        let Some(last) = page.last() else { return Ok((later, leaks)) };
        after = last.event.id;
        for audited in page {
            let text = audited.text.as_deref().unwrap_or_default();
            leaks.extend(secrets.find(text, || format!("the database, event {}", audited.event.id)));
            let key = key(&audited.merchant_id, &audited.merchant_payout_id);
            later.push(LaterEvent { key, event: event(audited.event) });
        }
    }
}

/// Reads the keys of links that are still asked about. `since`: as for [`read_records`].
///
/// # Errors
///
/// If the database does not answer.
pub async fn read_followed(
    store: &Store,
    since: Option<OffsetDateTime>,
) -> Result<HashSet<String>, StoreError> {
    let followed = store.audit_followed(since).await?;
    Ok(followed
        .iter()
        .map(|(merchant_id, merchant_payout_id)| key(merchant_id, merchant_payout_id))
        .collect())
}

fn record(audited: Audited) -> Record {
    Record {
        key: key(&audited.merchant_id, &audited.merchant_payout_id),
        amount: format!("{} {}", audited.amount_minor, audited.currency),
        state: audited.state,
        link_id: audited.connector_payout_id,
        is_unknown: audited.is_unknown,
        leased: audited.leased,
        due: audited.due,
        calls: audited.calls,
        event: audited.event.map(event),
    }
}

fn event(audited: AuditedEvent) -> Event {
    Event {
        id: audited.id.to_string(),
        kind: audited.r#type,
        published: audited.published,
        due: audited.due,
        leased: audited.leased,
        webhook_state: audited.webhook_state,
        webhook_attempts: audited.webhook_attempts.unsigned_abs(),
    }
}
