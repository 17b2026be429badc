//! The values that pass from step to step. Each owns the permits that its step needs.

use crate::{
    connectors::Account,
    domain::OpenLink,
    limits::{Lane, Permit, PooledPermit},
    postgres::DueEvent,
    rabbitmq::Delivery,
};

/// A delivery that is being accepted.
pub(super) struct Incoming {
    pub(super) delivery: Box<Delivery>,
    /// Its permit among the deliveries being accepted.
    pub(super) _permit: PooledPermit,
}

/// A record that this worker holds, ready to be processed.
pub(super) struct Work<'a> {
    pub(super) link: Box<OpenLink>,
    pub(super) account: &'a Account,
    pub(super) call: CallPermit<'a>,
}

/// The permit of a record for its connector, with one call reserved under the rate limit. A reservation that is not
/// used is given back when this is dropped.
pub(super) struct CallPermit<'a> {
    account: &'a Account,
    is_reserved: bool,
    _permit: Permit,
}

/// An event whose result may be published.
pub(super) struct Deliverable {
    pub(super) event: Box<DueEvent>,
    /// Its permit among the events being published: free as soon as the result is published.
    pub(super) publishing: PooledPermit,
    /// The permits that its webhook may take.
    pub(super) lane: Lane,
}

impl<'a> CallPermit<'a> {
    /// Joins a permit with the call that the caller reserved for it.
    pub(super) fn reserved(account: &'a Account, permit: Permit) -> Self {
        Self { account, is_reserved: true, _permit: permit }
    }

    /// Uses the reserved call up. Returns `false` if it was used before.
    pub(super) fn use_reservation(&mut self) -> bool {
        std::mem::take(&mut self.is_reserved)
    }
}

impl Drop for CallPermit<'_> {
    fn drop(&mut self) {
        if self.is_reserved {
            self.account.rate.give_back(1);
        }
    }
}

impl Work<'_> {
    /// Makes the span of everything that is logged about the record.
    pub(super) fn span(&self) -> tracing::Span {
        let Self { link, account, .. } = self;
        tracing::info_span!(
            "payout_link",
            payout_link.id = %link.id,
            merchant.id = link.merchant_id,
            merchant_payout_id = link.job.merchant_payout_id.as_str(),
            connector.name = %account.name,
            attempt.number = tracing::field::Empty,
            event.id = tracing::field::Empty,
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::config::Config;

    /// A connector with one call a minute, and one permit.
    fn connectors() -> crate::connectors::Connectors {
        let example = include_str!("../../config.example.toml");
        let limits = [("CONCURRENCY", "1"), ("REQUESTS_PER_MINUTE", "1")].map(|(name, value)| {
            (format!("PAYOUT_LINK__CONNECTORS__SANDBOX__CALLS__{name}"), value.to_owned())
        });
        Config::from_text(example, limits.into_iter()).unwrap().connectors().unwrap()
    }

    #[test]
    fn a_reserved_call_that_is_not_made_is_given_back_with_its_permit() {
        let connectors = connectors();
        let account = connectors.choose(Some("sandbox")).unwrap();
        let take = || {
            account.rate.reserve(Instant::now(), Duration::ZERO).unwrap();
            CallPermit::reserved(account, account.permits.try_take().unwrap())
        };
        let is_free = || (account.rate.wait(Instant::now()).is_zero(), account.permits.taken() == 0);
        let unused = take();
        assert_eq!(is_free(), (false, false));
        drop(unused);
        assert_eq!(is_free(), (true, true));
        let mut used = take();
        assert!(used.use_reservation() && !used.use_reservation());
        drop(used);
        assert_eq!(is_free(), (false, true));
    }
}
