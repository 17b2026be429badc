//! The idempotency key of a record. Every call for the record carries it.

use aws_lc_rs::digest::{Context, SHA256, digest};
use uuid::Uuid;

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Returns 32 characters of `[a-z2-7]`: base32 of the first 20 bytes of SHA-256 over both parts, each prefixed with its length.
///
/// The key depends on the record's key alone, so any worker can compute it again. The strictest provider accepts 35
/// characters of `[A-Za-z0-9_-]`.
pub fn idempotency_key(merchant_id: &str, merchant_payout_id: &str) -> String {
    idempotency_key_of("", merchant_id, merchant_payout_id)
}

/// Returns the key for a named deployment, so that two deployments at one provider account share no key.
pub fn idempotency_key_of(deployment: &str, merchant_id: &str, merchant_payout_id: &str) -> String {
    let mut context = Context::new(&SHA256);
    let parts = [deployment, merchant_id, merchant_payout_id];
    // A deployment without a name has the keys of earlier versions. Two parts are never a prefix of three.
    for part in &parts[usize::from(deployment.is_empty())..] {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    let digest = context.finish();
    let mut key = String::with_capacity(32);
    for five in digest.as_ref()[..20].chunks_exact(5) {
        let bits = five.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        for digit in (0..8).rev() {
            let index = u8::try_from(bits >> (5 * digit) & 31).unwrap_or_default();
            key.push(char::from(ALPHABET[usize::from(index)]));
        }
    }
    key
}

/// Returns the key as a UUID, version 8 (RFC 9562, 5.8), from the key's SHA-256.
pub fn idempotency_uuid(idempotency_key: &str) -> Uuid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest(&SHA256, idempotency_key.as_bytes()).as_ref()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_same_for_ever() {
        assert_eq!(idempotency_key("", "po_1001"), idempotency_key("", "po_1001"));
        assert_eq!(idempotency_key("m_1", "po_1001").len(), 32);
        assert_ne!(idempotency_key("ab", "c"), idempotency_key("a", "bc"));
        assert_ne!(idempotency_key("", "a"), idempotency_key("a", ""));
        // Python: base64.b32encode(hashlib.sha256(struct.pack(">Q", 0) + struct.pack(">Q", 7) + b"po_1001").digest()[:20])
        assert_eq!(idempotency_key("", "po_1001"), "r2ixnkg2kzb4d2wbhpuc2i7k55z7f5oz");
        assert_eq!(idempotency_key_of("", "m_1", "po_1"), idempotency_key("m_1", "po_1"));
        assert_ne!(idempotency_key_of("live", "m_1", "po_1"), idempotency_key("m_1", "po_1"));
        assert_ne!(idempotency_key_of("live", "m_1", "po_1"), idempotency_key_of("staging", "m_1", "po_1"));
        let uuid = idempotency_uuid("r2ixnkg2kzb4d2wbhpuc2i7k55z7f5oz");
        assert_eq!(
            (uuid.to_string().as_str(), uuid.get_version_num()),
            ("a9899ec5-2537-8c28-8ada-c28aba351882", 8)
        );
    }
}
