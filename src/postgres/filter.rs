//! Which records an operator looks for, and the ranges of indexes that hold them.

use sqlx::{Postgres, QueryBuilder};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::{ConclusionCode, LinkStatus, PayoutLinkState, PayoutStatus};

/// Conditions of a list. All of them have to be met; an empty one matches every record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordFilter {
    /// Any of these; empty: every state.
    pub states: Vec<PayoutLinkState>,
    /// The status of the last result, in Prism's words.
    pub payout_status: Option<PayoutStatus>,
    /// The status of a created link.
    pub link_status: Option<LinkStatus>,
    /// The merchant (`x-merchant-id`).
    pub merchant_id: Option<String>,
    /// The connector account's name in the configuration.
    pub connector: Option<String>,
    /// The code of the conclusion.
    pub error_code: Option<ConclusionCode>,
    /// The job was accepted at this time or later, as its record's id says.
    pub since: Option<OffsetDateTime>,
    /// The job was accepted before this time.
    pub until: Option<OffsetDateTime>,
    /// Minor units of `currency`.
    pub min_amount: Option<i64>,
    /// Minor units of `currency`.
    pub max_amount: Option<i64>,
    /// ISO 4217 code of the amount.
    pub currency: Option<String>,
    /// Open, called before, not unknown, and not in its first call.
    pub is_retrying: bool,
    /// Open, and due for longer than [`OVERDUE_SECONDS`].
    pub is_overdue: bool,
    /// Concluded as unknown, or open with an outcome that is unknown so far.
    pub is_unknown: bool,
    /// Records whose data is erased are left out.
    pub excludes_erased: bool,
}

/// A record that has been due for longer than this is overdue: a worker with a free permit claims it within seconds.
pub const OVERDUE_SECONDS: u32 = 60;

/// A way into the table: a range of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Open records, in the order of service.
    Open,
    /// Failed records, by id.
    Failed,
    /// Unknown records, by id.
    Unknown,
    /// Records with the filter's error code, by id.
    Error,
    /// Links with the filter's status, if few have it, by id.
    Link,
    /// Concluded records of the filter's merchant, by id.
    Merchant,
    /// All records, by id.
    All,
}

impl Way {
    /// Returns whether the range is in the order of ids, so that a page can begin in its middle.
    pub(super) fn is_ordered(self) -> bool {
        self != Self::Open
    }
}

impl RecordFilter {
    /// Returns the smallest ranges that together hold every record of the filter.
    pub(super) fn ways(&self) -> Vec<Way> {
        use PayoutLinkState::{Created, Failed, Open, Unknown};
        let states: &[PayoutLinkState] = match (self.states.as_slice(), self.is_unknown) {
            _ if self.is_retrying || self.is_overdue => &[Open],
            ([], true) => &[Open, Unknown],
            (states, _) => states,
        };
        if self.error_code.is_some() {
            return vec![Way::Error];
        }
        if self.link_status.is_some_and(is_rare) {
            return vec![Way::Link];
        }
        let in_states =
            |all: &[PayoutLinkState]| !states.is_empty() && states.iter().all(|state| all.contains(state));
        if in_states(&[Open, Unknown]) || self.merchant_id.is_none() && in_states(&[Open, Failed, Unknown]) {
            return [(Open, Way::Open), (Failed, Way::Failed), (Unknown, Way::Unknown)]
                .into_iter()
                .filter_map(|(state, way)| states.contains(&state).then_some(way))
                .collect();
        }
        match self.merchant_id {
            Some(_) if in_states(&[Created, Failed, Unknown]) => vec![Way::Merchant],
            Some(_) => vec![Way::Merchant, Way::Open],
            None => vec![Way::All],
        }
    }

    /// Appends the condition of a way. States are written as literals: only so do partial indexes serve a plan that is
    /// made without the values.
    pub(super) fn push_way(&self, statement: &mut QueryBuilder<Postgres>, way: Way) {
        match way {
            Way::All => {
                statement.push("true");
            }
            Way::Failed => {
                statement.push("state = 'failed'");
            }
            Way::Unknown => {
                statement.push("state = 'unknown'");
            }
            Way::Error => {
                statement.push("error_code = ").push_bind(self.error_code.map(ConclusionCode::as_str));
            }
            Way::Link => {
                let status = self.link_status.map_or("", LinkStatus::as_str);
                statement.push("link_status = '").push(status).push("'");
            }
            Way::Merchant => {
                statement
                    .push("payout_status IS NOT NULL AND state <> 'open' AND merchant_id = ")
                    .push_bind(self.merchant_id.clone());
            }
            Way::Open => {
                statement.push("state = 'open'");
                if let Some(connector) = &self.connector {
                    statement.push(" AND connector = ").push_bind(connector.clone());
                }
            }
        }
    }

    /// Appends the limits of the record's time, as limits of its id.
    pub(super) fn push_times(&self, statement: &mut QueryBuilder<Postgres>) {
        if let Some(since) = self.since {
            statement.push(" AND id >= ").push_bind(first_id_at(since));
        }
        if let Some(until) = self.until {
            statement.push(" AND id < ").push_bind(first_id_at(until));
        }
    }

    /// Appends every condition but those of the time.
    pub(super) fn push_conditions(&self, statement: &mut QueryBuilder<Postgres>) {
        if !self.states.is_empty() {
            let states: Vec<String> =
                self.states.iter().map(|state| format!("'{}'", state.as_str())).collect();
            statement.push(" AND state IN (").push(states.join(", ")).push(")");
        }
        let mut equal = |column: &str, value: Option<&str>| {
            if let Some(value) = value {
                statement.push(" AND ").push(column).push(" = ").push_bind(value.to_owned());
            }
        };
        equal("payout_status", self.payout_status.map(PayoutStatus::as_str));
        equal("link_status", self.link_status.map(LinkStatus::as_str));
        equal("merchant_id", self.merchant_id.as_deref());
        equal("connector", self.connector.as_deref());
        equal("error_code", self.error_code.map(ConclusionCode::as_str));
        equal("currency", self.currency.as_deref());
        if let Some(amount) = self.min_amount {
            statement.push(" AND amount_minor >= ").push_bind(amount);
        }
        if let Some(amount) = self.max_amount {
            statement.push(" AND amount_minor <= ").push_bind(amount);
        }
        if self.is_retrying {
            statement.push(RETRYING);
        }
        if self.is_overdue {
            let overdue = " AND state = 'open' AND due_at < now() - interval '1 second' * ";
            statement.push(overdue).push_bind(f64::from(OVERDUE_SECONDS));
        }
        if self.is_unknown {
            statement.push(" AND (state = 'unknown' OR state = 'open' AND in_doubt_since IS NOT NULL)");
        }
        if self.excludes_erased {
            statement.push(" AND erased_at IS NULL");
        }
    }
}

/// A record in its first call has a lease and one attempt.
const RETRYING: &str =
    " AND state = 'open' AND attempts > 0 AND in_doubt_since IS NULL AND (attempts > 1 OR NOT leased)";

/// Returns whether few links have a status, so that it has an index: what a payout rarely comes to.
fn is_rare(status: LinkStatus) -> bool {
    match status {
        LinkStatus::PayoutFailed | LinkStatus::Cancelled | LinkStatus::Reversed => true,
        LinkStatus::Unclaimed
        | LinkStatus::Claimed
        | LinkStatus::Processing
        | LinkStatus::Succeeded
        | LinkStatus::Expired => false,
    }
}

/// Returns the smallest id of a record of this time: 48 bits of milliseconds, then zeros.
pub(super) fn first_id_at(time: OffsetDateTime) -> Uuid {
    let millis = u128::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
    Uuid::from_u128(millis.min((1 << 48) - 1) << 80)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use PayoutLinkState::{Created, Failed, Open, Unknown};

    #[test]
    fn a_filter_takes_the_smallest_ranges() {
        let merchant_id = || Some("m1".to_owned());
        let of =
            |states: &[PayoutLinkState]| RecordFilter { states: states.to_vec(), ..RecordFilter::default() };
        let all = RecordFilter::default;
        for (filter, ways) in [
            (all(), vec![Way::All]),
            (of(&[Created]), vec![Way::All]),
            (of(&[Failed]), vec![Way::Failed]),
            (of(&[Failed, Open]), vec![Way::Open, Way::Failed]),
            (of(&[Failed, Created]), vec![Way::All]),
            (RecordFilter { is_unknown: true, ..all() }, vec![Way::Open, Way::Unknown]),
            (RecordFilter { is_unknown: true, ..of(&[Unknown]) }, vec![Way::Unknown]),
            (RecordFilter { is_retrying: true, ..all() }, vec![Way::Open]),
            (RecordFilter { is_overdue: true, merchant_id: merchant_id(), ..all() }, vec![Way::Open]),
            (RecordFilter { merchant_id: merchant_id(), ..all() }, vec![Way::Merchant, Way::Open]),
            (RecordFilter { merchant_id: merchant_id(), ..of(&[Failed]) }, vec![Way::Merchant]),
            (RecordFilter { merchant_id: merchant_id(), ..of(&[Unknown]) }, vec![Way::Unknown]),
            (RecordFilter { error_code: Some(ConclusionCode::ConnectorRejected), ..all() }, vec![Way::Error]),
            (RecordFilter { link_status: Some(LinkStatus::Reversed), ..all() }, vec![Way::Link]),
            (RecordFilter { link_status: Some(LinkStatus::Succeeded), ..all() }, vec![Way::All]),
        ] {
            assert_eq!(filter.ways(), ways, "{filter:?}");
        }
    }

    #[test]
    fn a_time_is_the_smallest_id_of_its_millisecond() {
        let time = datetime!(2026-11-29 06:00 UTC);
        let id = first_id_at(time);
        let made = Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, 1_795_932_000, 0));
        assert_eq!(id.as_bytes()[..6], made.as_bytes()[..6]);
        assert!(id < made && made < first_id_at(time + time::Duration::MILLISECOND));
        assert_eq!(first_id_at(OffsetDateTime::UNIX_EPOCH - time::Duration::DAY), Uuid::nil());
    }
}
