//! Standard Webhooks signatures (https://www.standardwebhooks.com), symmetric: `v1`.

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretString};

/// A signing key. Never printed.
#[derive(Clone)]
pub struct SigningKey(hmac::Key);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a webhook secret is written whsec_ and base64 of 24 to 64 bytes")]
pub struct SecretForm;

impl SigningKey {
    /// `whsec_` and base64 of 24 to 64 bytes, as the specification has it.
    pub fn new(secret: &SecretString) -> Result<Self, SecretForm> {
        let encoded = secret.expose_secret().strip_prefix("whsec_").ok_or(SecretForm)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| SecretForm)?;
        if !(24..=64).contains(&bytes.len()) {
            return Err(SecretForm);
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey([REDACTED])")
    }
}

/// The `webhook-signature` header: one `v1,…` for each key, space-separated, so that keys can rotate.
pub(super) fn signature(keys: &[SigningKey], id: &str, timestamp: i64, body: &[u8]) -> String {
    let timestamp = timestamp.to_string();
    let mut header = String::new();
    for SigningKey(key) in keys {
        let mut context = hmac::Context::with_key(key);
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            context.update(part);
        }
        if !header.is_empty() {
            header.push(' ');
        }
        header.push_str("v1,");
        STANDARD.encode_string(context.sign(), &mut header);
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector of the specification's own libraries.
    #[test]
    fn the_known_vector_comes_out() {
        let key = SigningKey::new(&"whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD".into()).unwrap();
        let body = br#"{"email":"test@example.com","username":"test_user"}"#;
        assert_eq!(
            signature(&[key], "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1649367553, body),
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="
        );
    }

    #[test]
    fn while_keys_rotate_each_signs() {
        let key = |fill| SigningKey::new(&format!("whsec_{}", STANDARD.encode([fill; 32])).into()).unwrap();
        let both = signature(&[key(1), key(2)], "id", 1, b"{}");
        let each: Vec<&str> = both.split(' ').collect();
        assert_eq!(each, [signature(&[key(1)], "id", 1, b"{}"), signature(&[key(2)], "id", 1, b"{}")]);
    }

    #[test]
    fn a_secret_of_another_form_is_refused() {
        for bad in ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_AAAA", "whsec_not base64"] {
            assert!(SigningKey::new(&bad.into()).is_err(), "{bad}");
        }
    }
}
