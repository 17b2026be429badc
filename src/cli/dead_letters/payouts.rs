//! Removes every letter of some payouts, from both queues: for `erase`.

use std::collections::HashSet;

use anyhow::Context;

use super::{act::record, plan::Plan, row::Queue, select::Selection};
use crate::{
    cli::{
        ExitStatus,
        interrupts::Interrupts,
        output::{progress, progress_ends},
    },
    config::Config,
    postgres::{Operator, Store},
};

/// A payout: `x-merchant-id` and `merchant_payout_id`.
pub(in crate::cli) type Payout = (String, String);

/// Removes the dead letters and the unrouted results of these payouts, and returns how many. Each one is recorded before it
/// is removed.
///
/// # Errors
///
/// [`ExitStatus::Refused`] if another operator acts on letters now, or if reading could delete letters. Any other error is
/// the broker's, the database's or an interrupt: some letters may be left.
pub(in crate::cli) async fn delete_letters_of(
    config: &Config,
    store: &Store,
    (command, operator): (&str, &Operator),
    payouts: &HashSet<Payout>,
) -> anyhow::Result<usize> {
    let Some(lock) = store.lock_acts("letters").await.context("database")? else {
        return Err(ExitStatus::Refused
            .because("another operator, or a worker's retention, is acting on letters now")
            .into());
    };
    let (mut read, mut deleted, mut interrupts) = (0, 0, Interrupts::listen()?);
    for queue in [Queue::Jobs, Queue::Results] {
        let selection = Selection::every(queue);
        let mut reading = selection.open(config).await?;
        while let Some((letter, row)) = reading.next().await? {
            if interrupts.is_seen().await {
                anyhow::bail!("interrupted: {deleted} letters were deleted");
            }
            if payouts.contains(&(row.merchant_id.clone(), row.merchant_payout_id.clone())) {
                record(store, operator, command, queue, &row, &Plan::Remove).await?;
                reading.letters.remove(&letter).await.context("broker")?;
                deleted += 1;
            }
            read += 1;
            progress(format_args!("{read} letters read, {deleted} deleted"));
        }
        reading.give_back().await?;
    }
    progress_ends();
    // The session ends with the program in any case.
    let _ = lock.end().await;
    Ok(deleted)
}
