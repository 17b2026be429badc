//! Claims the due records of one account: within its permits and limits, in turns of the merchants (`domain::turns`).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Pipeline,
    work::{CallPermit, Work},
};
use crate::{
    connectors::Account,
    domain::{DueMerchants, OpenLink, Share, Turn, Turns},
    limits::{MerchantPermit, Permit},
    postgres::{DueRecords, StoreError},
};

/// The due records of one account, as one sweep found them.
#[derive(Debug, Default)]
pub(super) struct Due {
    pub(super) has_expired_leases: bool,
    pub(super) merchants: DueMerchants,
}

/// The permits of a claim that are not used yet.
struct Free {
    permits: Vec<Permit>,
    /// Of each merchant, those that the turn gave it.
    merchants: HashMap<String, Vec<MerchantPermit>>,
}

impl Due {
    pub(super) fn is_empty(&self) -> bool {
        !self.has_expired_leases && self.merchants.is_empty()
    }

    /// Sorts due records by account.
    pub(super) fn by_account(due: &[DueRecords]) -> HashMap<String, Self> {
        let mut accounts: HashMap<String, Self> = HashMap::new();
        for records in due {
            let account = accounts.entry(records.connector.clone()).or_default();
            match &records.merchant_id {
                Some(merchant_id) => account.merchants.add(records.rank, merchant_id.clone()),
                None => account.has_expired_leases = true,
            }
        }
        accounts
    }

    /// Leaves out the merchants at their limits, and returns when the first of them is below its rate limit.
    pub(super) fn leave_out_merchants_at_a_limit(
        &mut self,
        account: &Account,
        now: Instant,
    ) -> Option<Duration> {
        let (mut waiting, mut first) = (HashSet::new(), None::<Duration>);
        self.merchants.retain(|merchant_id| match account.merchants.wait(merchant_id, now) {
            Some(Duration::ZERO) => true,
            wait => {
                waiting.insert(merchant_id.to_owned());
                first = first.into_iter().chain(wait).min();
                false
            }
        });
        account.merchants.set_waiting(waiting);
        first
    }
}

/// Claims due records while permits and due records are left, and returns how many.
pub(super) async fn claim_due(
    pipeline: &Arc<Pipeline>,
    account: &Account,
    mut due: Due,
    permits: Vec<Permit>,
    turns: &mut Turns,
) -> Result<usize, StoreError> {
    let taken = permits.len();
    let mut free = Free { permits, merchants: HashMap::new() };
    let mut claimed = 0;
    while !free.permits.is_empty() {
        let Some(turn) = next_turn(account, &mut due, &mut free, turns) else { break };
        let links = match pipeline.store.claim(&account.name, free.permits.len(), &turn).await {
            Ok(links) => links,
            Err(error) => {
                account.rate.give_back(taken - claimed);
                return Err(error);
            }
        };
        claimed += links.len();
        let of_merchants = process(pipeline, account, links, &mut free);
        due.merchants.remove_exhausted(&turn, &of_merchants);
    }
    account.rate.give_back(taken - claimed);
    account.permits.set_backlog(free.permits.is_empty());
    if !free.permits.is_empty() {
        // Nothing more is due.
        account.permits.set_due_waits(false);
    }
    Ok(claimed)
}

/// Returns the next claim, and takes the merchants' permits for it.
fn next_turn(account: &Account, due: &mut Due, free: &mut Free, turns: &mut Turns) -> Option<Turn> {
    if std::mem::take(&mut due.has_expired_leases) {
        return Some(Turn::ExpiredLeases);
    }
    loop {
        let in_process = |merchant_id: &str| account.merchants.taken(merchant_id);
        let turn = due.merchants.next_turn(free.permits.len(), in_process, turns)?;
        let Turn::Waiting { ranks, mut shares } = turn else { return Some(turn) };
        let now = Instant::now();
        free.merchants.clear();
        for share in &mut shares {
            let permits: Vec<MerchantPermit> = (0..share.records)
                .map_while(|_| account.merchants.try_take(&share.merchant_id, now))
                .collect();
            share.records = permits.len();
            free.merchants.insert(share.merchant_id.clone(), permits);
        }
        let is_at_its_limit = |share: &Share| share.records == 0;
        if shares.iter().any(is_at_its_limit) {
            let full: Vec<&str> = shares
                .iter()
                .filter(|share| is_at_its_limit(share))
                .map(|share| &*share.merchant_id)
                .collect();
            due.merchants.retain(|merchant_id| !full.contains(&merchant_id));
        }
        shares.retain(|share| !is_at_its_limit(share));
        if !shares.is_empty() {
            return Some(Turn::Waiting { ranks, shares });
        }
    }
}

/// Processes claimed records, and returns their number by merchant.
fn process(
    pipeline: &Arc<Pipeline>,
    account: &Account,
    links: Vec<Result<Box<OpenLink>, StoreError>>,
    free: &mut Free,
) -> HashMap<String, usize> {
    let mut of_merchants: HashMap<String, usize> = HashMap::new();
    for link in links {
        match (link, free.permits.pop()) {
            (Ok(link), Some(permit)) => {
                let merchant_id = &link.merchant_id;
                *of_merchants.entry(merchant_id.clone()).or_default() += 1;
                let merchant = free.merchants.get_mut(merchant_id).and_then(Vec::pop);
                let merchant =
                    merchant.unwrap_or_else(|| account.merchants.take(merchant_id, Instant::now()));
                let (pipeline, name) = (pipeline.clone(), account.name.clone());
                pipeline.clone().spawn(async move {
                    if let Some(account) = pipeline.connectors.choose(Some(&name)) {
                        let call = CallPermit::reserved(account, permit, merchant);
                        pipeline.process_record(Work { link, account, call }).await;
                    }
                });
            }
            (Ok(_), None) => {}
            (Err(error), permit) => {
                drop(permit);
                account.rate.give_back(1);
                pipeline.report(&error);
            }
        }
    }
    // Unused ones are free again before the next turn counts.
    free.merchants.clear();
    of_merchants
}
