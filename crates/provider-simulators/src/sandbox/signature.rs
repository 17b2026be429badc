//! Verifies Standard Webhooks signatures, on the merchant's side.
//!
//! The code follows the specification, not the worker's own signing code, so the two check each other.

use std::time::Duration;

use aws_lc_rs::hmac;
use axum::http::HeaderMap;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use time::OffsetDateTime;

const SECRET_PREFIX: &str = "whsec_";
const SIGNATURE_PREFIX: &str = "v1,";
/// The tolerance between the sender's clock and the receiver's, as in the specification's libraries.
const TOLERANCE: Duration = Duration::from_mins(5);

#[derive(Debug, thiserror::Error)]
#[error("a webhook secret is whsec_ and base64")]
pub(super) struct BadSecret;

/// The secrets that may have signed: several while they rotate.
pub(super) struct Verifier {
    keys: Vec<hmac::Key>,
}

impl Verifier {
    pub(super) fn new(secrets: &[String]) -> Result<Self, BadSecret> {
        let keys = secrets.iter().map(|secret| key(secret)).collect::<Result<_, _>>()?;
        Ok(Self { keys })
    }

    pub(super) fn has_secrets(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Verifies that the webhook was signed with one of the secrets.
    pub(super) fn verify(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now: OffsetDateTime,
    ) -> Result<(), &'static str> {
        let id = header(headers, "webhook-id").ok_or("webhook-id is missing")?;
        let timestamp = header(headers, "webhook-timestamp").ok_or("webhook-timestamp is missing")?;
        let signatures = header(headers, "webhook-signature").ok_or("webhook-signature is missing")?;
        let seconds: i64 = timestamp.parse().map_err(|_| "webhook-timestamp is not a number")?;
        let sent =
            OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| "webhook-timestamp is not a time")?;
        if (now - sent).unsigned_abs() > TOLERANCE {
            return Err("webhook-timestamp is not within 5 minutes of now");
        }
        let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
        if signatures.split(' ').any(|signature| self.matches(signature, &signed)) {
            Ok(())
        } else {
            Err("no signature is by a known secret")
        }
    }

    fn matches(&self, signature: &str, signed: &[u8]) -> bool {
        let Some(encoded) = signature.strip_prefix(SIGNATURE_PREFIX) else { return false };
        let Ok(tag) = BASE64_STANDARD.decode(encoded) else { return false };
        self.keys.iter().any(|key| hmac::verify(key, signed, &tag).is_ok())
    }
}

fn key(secret: &str) -> Result<hmac::Key, BadSecret> {
    let encoded = secret.strip_prefix(SECRET_PREFIX).ok_or(BadSecret)?;
    let bytes = BASE64_STANDARD.decode(encoded).map_err(|_| BadSecret)?;
    if bytes.is_empty() { Err(BadSecret) } else { Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes)) }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks specification and of its libraries' tests.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const SENT: i64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn verify(secrets: &[&str], signature: &str, late_seconds: i64, body: &[u8]) -> Result<(), &'static str> {
        let secrets: Vec<String> = secrets.iter().map(ToString::to_string).collect();
        let headers = [
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", &SENT.to_string()),
            ("webhook-signature", signature),
        ];
        let headers =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let now = OffsetDateTime::from_unix_timestamp(SENT + late_seconds).unwrap();
        Verifier::new(&secrets).unwrap().verify(&headers, body, now)
    }

    #[test]
    fn the_specifications_own_example_verifies() {
        assert_eq!(verify(&[SECRET], SIGNATURE, 0, BODY), Ok(()));
        assert_eq!(verify(&[SECRET], SIGNATURE, 300, BODY), Ok(()));
        assert_eq!(verify(&[SECRET], SIGNATURE, -300, BODY), Ok(()));
        assert_eq!(
            verify(&["whsec_b3RoZXI=", SECRET], &format!("v1a,x v1,AAAA {SIGNATURE}"), 0, BODY),
            Ok(())
        );
    }

    #[test]
    fn anything_else_does_not() {
        let no_match = Err("no signature is by a known secret");
        assert_eq!(verify(&["whsec_b3RoZXI="], SIGNATURE, 0, BODY), no_match);
        assert_eq!(verify(&[], SIGNATURE, 0, BODY), no_match);
        assert_eq!(verify(&[SECRET], SIGNATURE, 0, b"{}"), no_match);
        assert_eq!(verify(&[SECRET], &SIGNATURE.replace("v1,", "v2,"), 0, BODY), no_match);
        assert_eq!(verify(&[SECRET], "", 0, BODY), no_match);
        assert!(verify(&[SECRET], SIGNATURE, 301, BODY).is_err());
        assert!(verify(&[SECRET], SIGNATURE, -301, BODY).is_err());
    }

    #[test]
    fn a_secret_has_its_prefix_and_is_base64() {
        for secret in ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_not base64"] {
            assert!(Verifier::new(&[secret.to_owned()]).is_err(), "{secret}");
        }
    }
}
