//! Makes record ids, each of which binds a request to its merchant, its identifier and its connector.
//!
//! The request is encrypted with the record's id as associated data, so it can be decrypted only with that id. The id
//! holds a MAC of merchant, identifier and connector. An attacker who can write to the database can change
//! `merchant_id`, but cannot compute the id that belongs to it. So a request is never sent under another idempotency
//! key or to another connector.
//!
//! `48 bits of milliseconds ‖ version 8 ‖ 12 bits of MAC ‖ variant ‖ 30 bits of MAC ‖ 32 bits of a counter`
//!
//! The MAC is HMAC-SHA256 under a key derived from the fingerprint key, over all other bits. It has 42 bits. Guessing
//! needs a worker, which logs and counts every wrong id and then leaves the record alone for minutes. Only the id
//! differs from earlier versions, whose ids are UUIDv7 and bind nothing, so an earlier version can read these
//! records.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use aws_lc_rs::hmac;
use time::OffsetDateTime;
use uuid::Uuid;

/// The values of a record that its id binds.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// Value of `x-merchant-id`.
    pub merchant_id: &'a str,
    /// The merchant's identifier of the payout.
    pub merchant_payout_id: &'a str,
    /// The connector's name in the configuration.
    pub connector: &'a str,
}

pub(super) struct RecordIds {
    key: hmac::Key,
    /// Makes ids of one identity in one millisecond different, so that a duplicate never looks like the first record.
    next: AtomicU32,
}

/// The bits of version and variant of a UUIDv8 (RFC 9562).
const VERSION: u128 = 0x8 << 76;
const VARIANT: u128 = 0b10 << 62;
/// The bits of the MAC.
const MAC: u128 = 0xfff << 64 | 0x3fff_ffff << 32;
const COUNTER: u128 = 0xffff_ffff;

impl RecordIds {
    pub(super) fn new(key: hmac::Key) -> Self {
        let [a, b, c, d, ..] = Uuid::new_v4().into_bytes();
        Self { key, next: u32::from_be_bytes([a, b, c, d]).into() }
    }

    /// Makes the id of a new record.
    pub(super) fn make(&self, identity: Identity<'_>) -> Uuid {
        let millis = OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
        let time = u128::try_from(millis).unwrap_or_default() << 80;
        let clear = time | VERSION | VARIANT | u128::from(self.next.fetch_add(1, Relaxed));
        Uuid::from_u128(clear | self.mac(clear, identity))
    }

    /// Returns whether a record of this identity may have this id. An id of an earlier version binds nothing, so it
    /// may belong to every record.
    pub(super) fn is_of(&self, id: Uuid, identity: Identity<'_>) -> bool {
        if id.get_version_num() != 8 {
            return true;
        }
        let id = id.as_u128();
        id & MAC == self.mac(id & !MAC, identity)
    }

    fn mac(&self, clear: u128, identity: Identity<'_>) -> u128 {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&clear.to_be_bytes());
        for part in [identity.merchant_id, identity.merchant_payout_id, identity.connector] {
            // With its length, so that no byte can move from one value to the next.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let tag = context.sign();
        let bytes = tag.as_ref().iter().take(16).fold(0u128, |bytes, byte| bytes << 8 | u128::from(*byte));
        bytes & MAC
    }
}

/// The MAC changes its own bits only.
const _: () = assert!(MAC & (VERSION | VARIANT | COUNTER) == 0 && MAC.count_ones() == 42);

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(key: u8) -> RecordIds {
        RecordIds::new(hmac::Key::new(hmac::HMAC_SHA256, &[key; 32]))
    }

    const ONE: Identity<'_> =
        Identity { merchant_id: "m_1", merchant_payout_id: "po_1", connector: "revolut" };

    #[test]
    fn an_id_goes_with_its_own_record_alone() {
        let ids = ids(1);
        let id = ids.make(ONE);
        assert!(ids.is_of(id, ONE));
        for other in [
            Identity { merchant_id: "mallory", ..ONE },
            Identity { merchant_id: "", merchant_payout_id: "m_1po_1", ..ONE },
            Identity { merchant_payout_id: "po_2", ..ONE },
            Identity { connector: "xendit", ..ONE },
        ] {
            assert!(!ids.is_of(id, other), "{other:?}");
        }
        for bit in 0..128 {
            let changed = Uuid::from_u128(id.as_u128() ^ 1 << bit);
            // With another version in the id the request cannot be decrypted: the id is associated data.
            assert!(!ids.is_of(changed, ONE) || changed.get_version_num() != 8, "bit {bit}");
        }
        assert!(!RecordIds::new(hmac::Key::new(hmac::HMAC_SHA256, &[2; 32])).is_of(id, ONE), "another key");
    }

    #[test]
    fn an_id_of_an_earlier_version_goes_with_everything() {
        assert!(ids(1).is_of(Uuid::now_v7(), ONE));
    }

    #[test]
    fn ids_are_of_their_time_and_never_the_same() {
        let ids = ids(1);
        let before = Uuid::now_v7().as_u128() >> 80;
        let mut made: Vec<Uuid> = (0..1000).map(|_| ids.make(ONE)).collect();
        let after = Uuid::now_v7().as_u128() >> 80;
        assert!(made.iter().all(|id| (before..=after).contains(&(id.as_u128() >> 80))));
        assert!(made.iter().all(|id| id.get_variant() == uuid::Variant::RFC4122));
        made.sort();
        made.dedup();
        assert_eq!(made.len(), 1000);
    }
}
