//! Knows whether the deployment has several merchants. Only then is a merchant's share of a full connector limited.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, Ordering},
};

/// The first merchant, and whether there is another one. It never forgets: the answer changes once at most.
#[derive(Debug, Default)]
pub(super) struct MerchantsSeen {
    first: OnceLock<String>,
    are_several: AtomicBool,
}

impl MerchantsSeen {
    /// Notes the merchant of a job or of a record.
    pub(super) fn note(&self, merchant_id: &str) {
        if self.are_several() {
            return;
        }
        if self.first.get_or_init(|| merchant_id.to_owned()) != merchant_id {
            self.note_several();
        }
    }

    /// Notes that there are several.
    pub(super) fn note_several(&self) {
        self.are_several.store(true, Ordering::Relaxed);
    }

    /// Returns whether several merchants were noted.
    pub(super) fn are_several(&self) -> bool {
        self.are_several.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_merchant_makes_several() {
        let seen = MerchantsSeen::default();
        for (merchant_id, are_several) in [("", false), ("", false), ("m1", true), ("", true)] {
            seen.note(merchant_id);
            assert_eq!(seen.are_several(), are_several);
        }
    }
}
