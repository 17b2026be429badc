//! Standard Webhooks signatures (<https://www.standardwebhooks.com>): symmetric (`v1`, HMAC-SHA256 with a secret that the
//! merchant has too) and asymmetric (`v1a`, ed25519, where the merchant has the public key alone).

use std::sync::Arc;

use aws_lc_rs::{
    hmac,
    signature::{Ed25519KeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretString};

/// A signing key. It is never printed.
#[derive(Clone)]
pub struct SigningKey(Key);

#[derive(Clone)]
enum Key {
    Symmetric(Arc<hmac::Key>),
    Asymmetric(Arc<Ed25519KeyPair>),
}

/// The secret has the wrong form.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "a webhook secret is written whsec_ and base64 of 24 to 64 bytes, or whsk_ and base64 of an ed25519 seed of 32 bytes, its public key after it or not"
)]
pub struct SecretForm;

impl SigningKey {
    /// Parses `whsec_…` or `whsk_…`, as the specification defines them.
    ///
    /// # Errors
    ///
    /// Returns an error if the secret has another form.
    pub fn new(secret: &SecretString) -> Result<Self, SecretForm> {
        let secret = secret.expose_secret();
        let bytes = |encoded: &str| STANDARD.decode(encoded).map_err(|_| SecretForm);
        if let Some(encoded) = secret.strip_prefix("whsk_") {
            let bytes = bytes(encoded)?;
            let pair = match bytes.split_at_checked(32) {
                Some((seed, [])) => Ed25519KeyPair::from_seed_unchecked(seed),
                Some((seed, public)) => Ed25519KeyPair::from_seed_and_public_key(seed, public),
                None => return Err(SecretForm),
            };
            return Ok(Self(Key::Asymmetric(Arc::new(pair.map_err(|_| SecretForm)?))));
        }
        let bytes = bytes(secret.strip_prefix("whsec_").ok_or(SecretForm)?)?;
        if !(24..=64).contains(&bytes.len()) {
            return Err(SecretForm);
        }
        Ok(Self(Key::Symmetric(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))))
    }

    /// Derives the secret of one merchant, `whsec_…`, from a master secret. It is always the same.
    ///
    /// # Errors
    ///
    /// Returns an error if the master secret is not written `whsec_` and base64 of 24 to 64 bytes.
    pub fn derive(master: &SecretString, merchant_id: &str) -> Result<SecretString, SecretForm> {
        let Key::Symmetric(master) = Self::new(master)?.0 else { return Err(SecretForm) };
        let derived = hmac::sign(&master, format!("payout links webhook secret\0{merchant_id}").as_bytes());
        Ok(format!("whsec_{}", STANDARD.encode(derived)).into())
    }

    /// Returns whether the verifying side could also sign with it.
    pub fn is_shared(&self) -> bool {
        matches!(self.0, Key::Symmetric(_))
    }

    /// Returns the public key, `whpk_…`, of an asymmetric key.
    pub fn public(&self) -> Option<String> {
        match &self.0 {
            Key::Symmetric(_) => None,
            Key::Asymmetric(pair) => Some(format!("whpk_{}", STANDARD.encode(pair.public_key()))),
        }
    }

    fn sign(&self, content: &[u8]) -> String {
        match &self.0 {
            Key::Symmetric(key) => format!("v1,{}", STANDARD.encode(hmac::sign(key, content))),
            Key::Asymmetric(pair) => format!("v1a,{}", STANDARD.encode(pair.sign(content))),
        }
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey([REDACTED])")
    }
}

/// Returns the `webhook-signature` header: a signature for each key, space-separated, so that keys can rotate.
pub fn signature(keys: &[SigningKey], id: &str, timestamp: i64, body: &[u8]) -> String {
    let content = [id.as_bytes(), b".", timestamp.to_string().as_bytes(), b".", body].concat();
    keys.iter().map(|key| key.sign(&content)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_secret_is_a_merchants_own_and_always_the_same() {
        let master = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into();
        let of = |merchant| SigningKey::derive(&master, merchant).unwrap().expose_secret().to_owned();
        // Python: base64.b64encode(hmac.digest(base64.b64decode("MfKQ…"), b"payout links webhook secret\0m_1", "sha256"))
        assert_eq!(of("m_1"), "whsec_lV9HDnYyACgp173U2clEoEI8e+qSrr1Cp84itUqa7yw=");
        assert_ne!(of("m_1"), of("m_2"));
        assert!(SigningKey::new(&of("").into()).is_ok());
        assert!(SigningKey::derive(&format!("whsk_{}", "A".repeat(43) + "=").into(), "m_1").is_err());
    }

    /// The vector of the specification's own libraries.
    #[test]
    fn the_known_vector_comes_out() {
        let key = SigningKey::new(&"whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD".into()).unwrap();
        let body = br#"{"email":"test@example.com","username":"test_user"}"#;
        assert_eq!(
            signature(&[key], "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1_649_367_553, body),
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

    /// RFC 8032, section 7.1, test 1, for the key; the signature is verified by other libraries in tests/it/webhooks.rs.
    #[test]
    fn a_pair_of_keys_has_its_public_one() {
        let seed = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
        let public = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
        let key = SigningKey::new(&format!("whsk_{seed}").into()).unwrap();
        assert_eq!(key.public().unwrap(), format!("whpk_{public}"));
        assert!(signature(&[key], "id", 1, b"{}").starts_with("v1a,"));
        // The long form has both, and they have to belong together.
        let both = |public: &str| {
            let bytes = [STANDARD.decode(seed).unwrap(), STANDARD.decode(public).unwrap()].concat();
            SigningKey::new(&format!("whsk_{}", STANDARD.encode(bytes)).into())
        };
        assert!(both(public).is_ok());
        assert_eq!(both(seed).unwrap_err(), SecretForm);
        assert_eq!(both("AAAA").unwrap_err(), SecretForm);
    }

    #[test]
    fn a_secret_of_another_form_is_refused() {
        for bad in [
            "",
            "whsec_",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_AAAA",
            "whsec_not base64",
            "whsk_AAAA",
            "whpk_AAAA",
        ] {
            assert!(SigningKey::new(&bad.into()).is_err(), "{bad}");
        }
    }
}
