//! Encrypts the secrets in PostgreSQL: AES-256-GCM under a key ring.
//!
//! `version 2 ‖ length of key id ‖ key id ‖ nonce (12) ‖ ciphertext ‖ tag (16)`
//!
//! Table, column, row and key id are associated data, so a value that was moved to another row cannot be decrypted.
//! The ring's first key encrypts new values; every key of the ring decrypts. Nonces are random: NIST SP 800-38D
//! allows 2³² values per key, which are counted (`seal_count.rs`). The row's id holds a MAC of merchant, identifier
//! and connector (`record_id.rs`). Values of version 2 are compressed first (`compression.rs`), values of version 1
//! are not.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use super::{
    compression::{self, compress, decompress},
    record_id::{Identity, RecordIds},
};
use crate::contract::FingerprintKey;

const VERSION: u8 = 2;
/// The version of values that are not compressed.
const UNCOMPRESSED: u8 = 1;

/// The sealing keys, newest first. They are never printed.
pub struct KeyRing {
    keys: Vec<(String, RandomizedNonceKey)>,
    /// Values that the first key has encrypted since the last record.
    seals: AtomicU64,
    /// Newest first: the first one makes fingerprints, all recognize duplicates.
    pub(super) fingerprints: Vec<FingerprintKey>,
    /// One for each fingerprint key, in their order.
    record_ids: Vec<RecordIds>,
}

/// The column of a sealed value.
#[derive(Debug, Clone, Copy)]
pub enum Column {
    /// `payout_links.request`: the job.
    Request,
    /// `result` of a record or event: it holds the link.
    Result,
}

impl Column {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Result => "result",
        }
    }

    fn dictionary(self) -> &'static [u8] {
        match self {
            Self::Request => compression::REQUEST,
            Self::Result => compression::RESULT,
        }
    }
}

/// A key ring that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[expect(missing_docs, reason = "each message says it")]
pub enum KeyError {
    #[error("the key ring is empty")]
    Empty,
    #[error("key {0:?}: a key is written ID:BASE64, the id 1 to 32 of [A-Za-z0-9_-]")]
    Form(usize),
    #[error("key {0:?} is not base64 of 32 bytes")]
    Length(String),
    #[error("key {0:?} is in the ring twice")]
    Twice(String),
    #[error("a key of keys.fingerprint is not base64 of 32 bytes")]
    Fingerprint,
}

/// A sealed value that cannot be decrypted.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[expect(missing_docs, reason = "each message says it")]
pub enum OpenError {
    #[error("sealed with key {0:?}, which is not in the key ring")]
    UnknownKey(String),
    #[error("the sealed value has been changed, or belongs to another row")]
    Corrupt,
    #[error(
        "the record's merchant_id, merchant_payout_id or connector has been changed since it was accepted"
    )]
    OtherIdentity,
}

impl KeyRing {
    /// Reads a key ring. `keys`: `ID:BASE64` of 32 bytes each, newest first. `fingerprint_key`: base64 of 32 bytes.
    ///
    /// # Errors
    ///
    /// If a key has the wrong form or length, or an id is in the ring twice.
    pub fn new(keys: &[SecretString], fingerprint_key: &SecretString) -> Result<Self, KeyError> {
        let mut ring: Vec<(String, RandomizedNonceKey)> = Vec::with_capacity(keys.len());
        for (index, key) in keys.iter().enumerate() {
            let (id, bytes) = key.expose_secret().split_once(':').ok_or(KeyError::Form(index))?;
            let named = (1..=32).contains(&id.len())
                && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
            if !named {
                return Err(KeyError::Form(index));
            }
            if ring.iter().any(|(known, _)| known == id) {
                return Err(KeyError::Twice(id.into()));
            }
            let bytes = STANDARD.decode(bytes).map_err(|_| KeyError::Length(id.into()))?;
            let key =
                RandomizedNonceKey::new(&AES_256_GCM, &bytes).map_err(|_| KeyError::Length(id.into()))?;
            ring.push((id.into(), key));
        }
        if ring.is_empty() {
            return Err(KeyError::Empty);
        }
        let fingerprint = read_fingerprint_key(fingerprint_key)?;
        let record_ids = vec![RecordIds::new(fingerprint.derived("record id"))];
        Ok(Self { keys: ring, seals: AtomicU64::new(0), fingerprints: vec![fingerprint], record_ids })
    }

    /// Adds former fingerprint keys, which recognize duplicates of earlier records and the ids of those records.
    ///
    /// # Errors
    ///
    /// `Fingerprint` if one is not base64 of 32 bytes.
    pub fn with_former_fingerprint_keys(mut self, keys: &[SecretString]) -> Result<Self, KeyError> {
        for key in keys {
            let fingerprint = read_fingerprint_key(key)?;
            self.record_ids.push(RecordIds::new(fingerprint.derived("record id")));
            self.fingerprints.push(fingerprint);
        }
        Ok(self)
    }

    /// Makes the id of a new record, which binds its identity.
    pub fn record_id(&self, identity: Identity<'_>) -> Uuid {
        self.record_ids[0].make(identity)
    }

    /// Decrypts a record's request, if its identity has not changed since it was accepted.
    ///
    /// # Errors
    ///
    /// If it cannot be decrypted, or if merchant, identifier or connector have changed.
    pub fn open_request(
        &self,
        row: Uuid,
        identity: Identity<'_>,
        sealed: &[u8],
    ) -> Result<Vec<u8>, OpenError> {
        if !self.record_ids.iter().any(|ids| ids.is_of(row, identity)) {
            return Err(OpenError::OtherIdentity);
        }
        self.open(Column::Request, row, sealed)
    }

    /// Returns the first key's id, and the number of values it has encrypted since the last call.
    pub(super) fn take_seals(&self) -> (&str, u64) {
        let (id, _) = &self.keys[0];
        (id, self.seals.swap(0, Relaxed))
    }

    pub(super) fn give_seals_back(&self, seals: u64) {
        self.seals.fetch_add(seals, Relaxed);
    }

    /// Returns the ids of the keys, newest first.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|(id, _)| id.as_str())
    }

    /// Returns the prefix of every value of the first key.
    pub(super) fn current_prefix(&self) -> Vec<u8> {
        let (id, _) = &self.keys[0];
        [&[VERSION, length(id)], id.as_bytes()].concat()
    }

    /// Compresses and encrypts a value for one column of one row.
    #[expect(
        clippy::expect_used,
        clippy::missing_panics_doc,
        reason = "fails only past 2^36 bytes, where a request has 2^18 at most"
    )]
    pub fn seal(&self, column: Column, row: Uuid, clear: &[u8]) -> Vec<u8> {
        let (id, key) = &self.keys[0];
        self.seals.fetch_add(1, Relaxed);
        let mut compressed = compress(clear, column.dictionary());
        let nonce = key
            .seal_in_place_append_tag(associated_data(VERSION, column, row, id), &mut compressed)
            .expect("a request is far below AES-GCM's limit");
        let mut sealed = Vec::with_capacity(2 + id.len() + NONCE_LEN + compressed.len());
        sealed.extend([VERSION, length(id)]);
        sealed.extend(id.as_bytes());
        sealed.extend(nonce.as_ref());
        sealed.extend(compressed);
        sealed
    }

    /// Decrypts a value of one column of one row.
    ///
    /// # Errors
    ///
    /// If its key is not in the ring, or the value was changed or belongs to another row.
    pub fn open(&self, column: Column, row: Uuid, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        let (version, id, rest) = opening(sealed).ok_or(OpenError::Corrupt)?;
        let (_, key) = self
            .keys
            .iter()
            .find(|(known, _)| known == id)
            .ok_or_else(|| OpenError::UnknownKey(id.into()))?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN).ok_or(OpenError::Corrupt)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| OpenError::Corrupt)?;
        let mut clear = sealed.to_vec();
        let length = key
            .open_in_place(nonce, associated_data(version, column, row, id), &mut clear)
            .map_err(|_| OpenError::Corrupt)?
            .len();
        clear.truncate(length);
        if version == UNCOMPRESSED {
            Ok(clear)
        } else {
            decompress(&clear, column.dictionary()).ok_or(OpenError::Corrupt)
        }
    }
}

fn read_fingerprint_key(key: &SecretString) -> Result<FingerprintKey, KeyError> {
    let bytes: Option<[u8; 32]> =
        STANDARD.decode(key.expose_secret()).ok().and_then(|bytes| bytes.try_into().ok());
    Ok(FingerprintKey::new(&bytes.ok_or(KeyError::Fingerprint)?))
}

/// Splits a sealed value into its version, its key's id, and the rest.
/// Returns the length of a key's id in one byte: an id has at most 32.
fn length(id: &str) -> u8 {
    u8::try_from(id.len()).unwrap_or(u8::MAX)
}

fn opening(sealed: &[u8]) -> Option<(u8, &str, &[u8])> {
    let (&[version, length], rest) = sealed.split_first_chunk::<2>()?;
    let (id, rest) = rest.split_at_checked(length.into())?;
    let id = std::str::from_utf8(id).ok()?;
    (matches!(version, VERSION | UNCOMPRESSED) && id.is_ascii()).then_some((version, id, rest))
}

fn associated_data(version: u8, column: Column, row: Uuid, key_id: &str) -> Aad<Vec<u8>> {
    let mut data = Vec::with_capacity(80);
    for part in ["payout_links", column.as_str(), key_id] {
        data.extend(part.as_bytes());
        data.push(0);
    }
    data.extend(row.as_bytes());
    if version != UNCOMPRESSED {
        data.push(version);
    }
    Aad::from(data)
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(id, _)| id)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(keys: &[(&str, u8)]) -> KeyRing {
        let key = |fill: u8| STANDARD.encode([fill; 32]);
        let keys: Vec<SecretString> =
            keys.iter().map(|(id, fill)| format!("{id}:{}", key(*fill)).into()).collect();
        KeyRing::new(&keys, &key(9).into()).unwrap()
    }

    #[test]
    fn a_value_opens_in_its_own_column_and_row_only() {
        let (ring, row) = (ring(&[("k1", 1)]), Uuid::now_v7());
        let sealed = ring.seal(Column::Request, row, b"secret");
        assert!(!sealed.windows(6).any(|w| w == b"secret"));
        assert_eq!(ring.open(Column::Request, row, &sealed).unwrap(), b"secret");
        assert_eq!(ring.open(Column::Result, row, &sealed), Err(OpenError::Corrupt));
        assert_eq!(ring.open(Column::Request, Uuid::now_v7(), &sealed), Err(OpenError::Corrupt));
    }

    #[test]
    fn after_a_rotation_old_values_open_and_new_ones_take_the_new_key() {
        let row = Uuid::now_v7();
        let sealed = ring(&[("k1", 1)]).seal(Column::Request, row, b"old");
        let rotated = ring(&[("k2", 2), ("k1", 1)]);
        assert_eq!(rotated.open(Column::Request, row, &sealed).unwrap(), b"old");
        let renewed = rotated.seal(Column::Request, row, b"new");
        assert_eq!(opening(&renewed).unwrap().1, "k2");
        assert_eq!(
            ring(&[("k1", 1)]).open(Column::Request, row, &renewed),
            Err(OpenError::UnknownKey("k2".into()))
        );
    }

    #[test]
    fn uncompressed_values_of_version_1_open() {
        // Given a value of version 1,
        let (ring, row) = (ring(&[("k1", 1)]), Uuid::now_v7());
        let mut clear = b"as it is".to_vec();
        let data = associated_data(UNCOMPRESSED, Column::Request, row, "k1");
        let nonce = ring.keys[0].1.seal_in_place_append_tag(data, &mut clear).unwrap();
        let mut sealed = [&[UNCOMPRESSED, 2], &b"k1"[..], nonce.as_ref(), &clear].concat();
        // then it opens; called version 2 it does not, nor is one of version 2 taken for it.
        assert_eq!(ring.open(Column::Request, row, &sealed).unwrap(), b"as it is");
        sealed[0] = VERSION;
        assert_eq!(ring.open(Column::Request, row, &sealed), Err(OpenError::Corrupt));
        let mut sealed = ring.seal(Column::Request, row, b"compressed");
        sealed[0] = UNCOMPRESSED;
        assert_eq!(ring.open(Column::Request, row, &sealed), Err(OpenError::Corrupt));
    }

    #[test]
    fn cut_or_flipped_values_are_corrupt_and_never_a_panic() {
        let (ring, row) = (ring(&[("k1", 1)]), Uuid::now_v7());
        let sealed = ring.seal(Column::Request, row, b"secret");
        for length in 0..sealed.len() {
            assert!(ring.open(Column::Request, row, &sealed[..length]).is_err(), "cut to {length}");
        }
        for index in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[index] ^= 1;
            assert!(ring.open(Column::Request, row, &flipped).is_err(), "flipped at {index}");
        }
    }

    #[test]
    fn a_bad_ring_says_which_key() {
        let good = SecretString::from(STANDARD.encode([1; 32]));
        let bad = |keys: &[&str]| {
            let keys: Vec<SecretString> = keys.iter().map(|&key| key.into()).collect();
            KeyRing::new(&keys, &good).unwrap_err()
        };
        assert_eq!(bad(&[]), KeyError::Empty);
        assert_eq!(bad(&["nocolon"]), KeyError::Form(0));
        assert_eq!(bad(&["k1:AAAA"]), KeyError::Length("k1".into()));
    }
}
