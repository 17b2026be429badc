//! When two requests are the same request: any difference in meaning after decoding makes another one; spelling,
//! order and number-or-string forms do not, nor what a retry may carry fresh (contract, section 4).

use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use serde_json::Value;

use super::encode::{CanonicalRequest, canonical_request};
use crate::domain::CreateLink;

/// Keyed, so that guessing a card number against the table does not work.
pub struct FingerprintKey(hmac::Key);

impl FingerprintKey {
    /// Makes a fingerprint key from 32 random bytes.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// Derives a key for another purpose. A fingerprint's input has a NUL in it, a purpose has none: the two never meet.
    pub fn derived(&self, purpose: &str) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&self.0, purpose.as_bytes()).as_ref())
    }
}

/// Computes the fingerprint of a request. The connector's name counts, because the same request to another provider is another
/// payout.
pub fn fingerprint(request: &CanonicalRequest, connector: &str, key: &FingerprintKey) -> [u8; 32] {
    let mut context = hmac::Context::with_key(&key.0);
    context.update(connector.as_bytes());
    context.update(&[0]);
    for part in request.meaning() {
        context.update(part);
    }
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(context.sign().as_ref());
    fingerprint
}

/// Returns the paths of the fields that differ, in order, without their values.
pub fn differences(first: &CreateLink, second: &CreateLink) -> Vec<String> {
    let (first, second) = (leaves(first), leaves(second));
    let paths = first.keys().chain(second.keys()).filter(|path| first.get(*path) != second.get(*path));
    let mut paths: Vec<String> = paths.cloned().collect();
    paths.sort();
    paths.dedup();
    paths
}

fn leaves(job: &CreateLink) -> BTreeMap<String, Value> {
    let mut leaves = BTreeMap::new();
    let meaning = canonical_request(job).meaning().concat();
    let mut left = vec![(String::new(), serde_json::from_slice(&meaning).unwrap_or_default())];
    while let Some((path, value)) = left.pop() {
        match value {
            // An object that is there and empty differs from one that is absent.
            Value::Object(fields) if !fields.is_empty() => {
                left.extend(fields.into_iter().map(|(name, value)| {
                    let path = if path.is_empty() { name } else { format!("{path}.{name}") };
                    (path, value)
                }));
            }
            leaf => drop(leaves.insert(path, leaf)),
        }
    }
    leaves
}
