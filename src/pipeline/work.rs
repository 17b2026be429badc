//! The values that pass from step to step. Each owns the permits that its step needs.

use std::time::{Duration, Instant};

use crate::{
    connectors::Account,
    domain::OpenLink,
    limits::{Lane, MerchantPermit, Permit, PooledPermit},
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

/// The permits of a record for its connector and its merchant, with one call reserved under the rate limits. A reservation
/// that is not used is given back when this is dropped.
pub(super) struct CallPermit<'a> {
    account: &'a Account,
    is_reserved: bool,
    merchant: MerchantPermit,
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
    /// Joins permits with the call that the caller reserved for them.
    pub(super) fn reserved(account: &'a Account, permit: Permit, merchant: MerchantPermit) -> Self {
        Self { account, is_reserved: true, merchant, _permit: permit }
    }

    /// Uses the reserved call up. Returns `false` if it was used before.
    pub(super) fn use_reservation(&mut self) -> bool {
        self.merchant.use_reservation();
        std::mem::take(&mut self.is_reserved)
    }

    /// Reserves another call under both rate limits if its wait is at most `limit`, and returns that wait.
    pub(super) fn reserve(&self, now: Instant, limit: Duration) -> Result<Duration, Duration> {
        let of_merchant = self.merchant.reserve(now, limit)?;
        let of_account = self.account.rate.reserve(now, limit);
        of_account.map(|wait| wait.max(of_merchant)).inspect_err(|_| self.merchant.give_back())
    }

    /// Gives back a call that was reserved and not made.
    pub(super) fn give_back(&self) {
        self.account.rate.give_back(1);
        self.merchant.give_back();
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
    use super::*;
    use crate::config::Config;

    /// Returns a connector with one call a minute, and one permit.
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
            let merchant = account.merchants.try_take("m1", Instant::now()).unwrap();
            CallPermit::reserved(account, account.permits.try_take().unwrap(), merchant)
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
