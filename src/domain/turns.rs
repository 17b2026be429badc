//! Turns of merchants: whose due records are claimed next.
//!
//! Due records of a connector are claimed by group: unknown outcomes first, then retries and parked jobs by priority. Within a
//! group, the next permit goes to the merchant with the fewest records in process, so a merchant with a million jobs does
//! not delay another's ten. Of one merchant, retries come before parked jobs, and then the oldest is first.
//!
//! Every eighth turn goes to another group than the first: however many instant payouts arrive, no retry waits until its
//! age ends it.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap},
};

use super::order::{PRIORITIES, UNKNOWN_RANKS};

/// The merchants with due records of one connector, by group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DueMerchants(BTreeMap<i16, BTreeSet<String>>);

/// The records of one claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// Records whose lease has expired, of any merchant.
    ExpiredLeases,
    /// Records that wait.
    Waiting {
        /// The ranks of the group, in claim order.
        ranks: Vec<i16>,
        /// In the order in which merchants are served.
        shares: Vec<Share>,
    },
}

/// One merchant's part of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Value of `x-merchant-id`.
    pub merchant_id: String,
    /// At most so many records.
    pub records: usize,
}

/// The turns of one connector until now.
#[derive(Debug, Clone, Default)]
pub struct Turns {
    /// The merchant that had the last turn.
    served_last: String,
    number: usize,
}

/// One of so many turns goes to another group than the first.
const TURNS_OF_FIRST: usize = 8;

impl Turns {
    /// Counts a turn, and returns which of the groups it goes to. The others take turns as well.
    fn next_group(&mut self, groups: usize) -> usize {
        self.number = self.number.wrapping_add(1);
        let others = groups.saturating_sub(1);
        if others == 0 || !self.number.is_multiple_of(TURNS_OF_FIRST) {
            return 0;
        }
        1 + self.number / TURNS_OF_FIRST % others
    }
}

impl DueMerchants {
    /// Adds a merchant with due records of this rank.
    pub fn add(&mut self, rank: i16, merchant_id: String) {
        self.0.entry(group(rank)).or_default().insert(merchant_id);
    }

    /// Returns whether no merchant is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns every merchant, once for each group.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.values().flatten().map(String::as_str)
    }

    /// Keeps the merchants for which `keeps` returns true.
    pub fn retain(&mut self, mut keeps: impl FnMut(&str) -> bool) {
        self.0.retain(|_, merchants| {
            merchants.retain(|merchant| keeps(merchant));
            !merchants.is_empty()
        });
    }

    /// Divides `permits` among the merchants of the next group. `in_process` returns how many records of a merchant are
    /// in process. Among equals, those after the merchant with the last turn come first.
    pub fn next_turn(
        &self,
        permits: usize,
        in_process: impl Fn(&str) -> usize,
        turns: &mut Turns,
    ) -> Option<Turn> {
        let (group, merchants) = self.0.iter().nth(turns.next_group(self.0.len()))?;
        let served_last = turns.served_last.as_str();
        let later = merchants.iter().filter(|merchant| merchant.as_str() > served_last);
        let earlier = merchants.iter().filter(|merchant| merchant.as_str() <= served_last);
        let order: Vec<&String> = later.chain(earlier).collect();
        let mut queue: BinaryHeap<Reverse<(usize, usize)>> = order
            .iter()
            .enumerate()
            .map(|(place, merchant)| Reverse((in_process(merchant), place)))
            .collect();
        let mut records = vec![0; order.len()];
        for _ in 0..permits {
            let Some(mut fewest) = queue.peek_mut() else { break };
            let Reverse((taken, place)) = &mut *fewest;
            *taken += 1;
            records[*place] += 1;
        }
        let shares: Vec<Share> = order
            .into_iter()
            .zip(records)
            .filter(|(_, records)| *records > 0)
            .map(|(merchant, records)| Share { merchant_id: merchant.clone(), records })
            .collect();
        if let Some(last) = shares.last() {
            turns.served_last.clone_from(&last.merchant_id);
        }
        Some(Turn::Waiting { ranks: ranks(*group), shares })
    }

    /// Removes the merchants of a turn that had fewer records than their share.
    pub fn remove_exhausted(&mut self, turn: &Turn, claimed: &HashMap<String, usize>) {
        let Turn::Waiting { ranks, shares } = turn else { return };
        let Some(group) = ranks.first().map(|rank| group(*rank)) else { return };
        let Some(merchants) = self.0.get_mut(&group) else { return };
        for Share { merchant_id, records } in shares {
            if claimed.get(merchant_id).copied().unwrap_or_default() < *records {
                merchants.remove(merchant_id);
            }
        }
        if merchants.is_empty() {
            self.0.remove(&group);
        }
    }
}

/// Returns the group of a rank: the ranks of unknown outcomes are groups of their own; retries and parked jobs of one
/// priority are one group.
fn group(rank: i16) -> i16 {
    if rank < UNKNOWN_RANKS { rank } else { UNKNOWN_RANKS + rank % PRIORITIES }
}

/// Returns the ranks of a group, in claim order.
fn ranks(group: i16) -> Vec<i16> {
    if group < UNKNOWN_RANKS { vec![group] } else { vec![group, group + PRIORITIES] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(of: &[(i16, &str)]) -> DueMerchants {
        let mut due = DueMerchants::default();
        for (rank, merchant) in of {
            due.add(*rank, (*merchant).into());
        }
        due
    }

    fn shares(
        due: &DueMerchants,
        permits: usize,
        busy: &[(&str, usize)],
        last: &str,
    ) -> Vec<(String, usize)> {
        let in_process =
            |merchant: &str| busy.iter().find(|(name, _)| *name == merchant).map_or(0, |(_, count)| *count);
        let mut turns = Turns { served_last: last.to_owned(), number: 0 };
        match due.next_turn(permits, in_process, &mut turns) {
            Some(Turn::Waiting { shares, .. }) => {
                shares.into_iter().map(|share| (share.merchant_id, share.records)).collect()
            }
            _ => Vec::new(),
        }
    }

    fn expected(of: &[(&str, usize)]) -> Vec<(String, usize)> {
        of.iter().map(|(merchant, records)| ((*merchant).to_owned(), *records)).collect()
    }

    #[test]
    fn unknown_outcomes_come_first_then_the_others_by_priority() {
        let mut due = due(&[(8, "a"), (5, "b"), (6, "c"), (2, "d"), (4, "e")]);
        let mut order = Vec::new();
        let mut turns = Turns::default();
        while let Some(turn) = due.next_turn(9, |_| 0, &mut turns) {
            let Turn::Waiting { ranks, .. } = &turn else { unreachable!() };
            order.push(ranks.clone());
            due.remove_exhausted(&turn, &HashMap::new());
        }
        assert_eq!(order, [vec![2], vec![3, 6], vec![4, 7], vec![5, 8]]);
    }

    #[test]
    fn permits_go_to_the_merchants_with_the_fewest_records_in_process() {
        let due = due(&[(8, "a"), (8, "b"), (5, "c")]);
        assert_eq!(shares(&due, 9, &[], ""), expected(&[("a", 3), ("b", 3), ("c", 3)]));
        assert_eq!(shares(&due, 4, &[("a", 60), ("c", 2)], ""), expected(&[("b", 3), ("c", 1)]));
        assert_eq!(shares(&due, 2, &[("a", 60), ("b", 60), ("c", 60)], "a"), expected(&[("b", 1), ("c", 1)]));
        assert_eq!(shares(&due, 1, &[], "c"), expected(&[("a", 1)]));
        assert_eq!(shares(&due, 0, &[], ""), expected(&[]));
    }

    #[test]
    fn a_merchant_without_more_records_leaves_its_permits_to_the_others() {
        let mut due = due(&[(8, "a"), (8, "b")]);
        let turn = due.next_turn(8, |_| 0, &mut Turns::default()).unwrap();
        due.remove_exhausted(&turn, &HashMap::from([("a".into(), 4), ("b".into(), 1)]));
        assert_eq!(shares(&due, 3, &[], "b"), expected(&[("a", 3)]));
        due.retain(|merchant| merchant != "a");
        assert!(due.is_empty() && due.next_turn(3, |_| 0, &mut Turns::default()).is_none());
    }

    #[test]
    fn no_group_waits_for_ever_behind_a_fuller_one() {
        // Unknown outcomes and instant payouts that never end, and two groups behind them.
        let due = due(&[(2, "a"), (3, "a"), (4, "b"), (5, "c")]);
        let mut turns = Turns::default();
        let mut served: BTreeMap<i16, usize> = BTreeMap::new();
        for _ in 0..240 {
            let Some(Turn::Waiting { ranks, .. }) = due.next_turn(1, |_| 0, &mut turns) else {
                unreachable!()
            };
            *served.entry(ranks[0]).or_default() += 1;
        }
        assert_eq!(served, BTreeMap::from([(2, 210), (3, 10), (4, 10), (5, 10)]));
    }
}
