//! Checks that a webhook came from the provider, and reads it. Only a webhook that is authentic is read.

use aws_lc_rs::{constant_time, digest, hmac};
use reqwest::header::HeaderMap;
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use time::{Duration, OffsetDateTime};

use super::{WebhookProblem, exchange::identifier};

/// How far the time of a signature may be from ours, to either side. A repeat of an older webhook is refused.
const REPLAY_WINDOW: Duration = Duration::minutes(5);

/// Returns the one header of this name. A webhook with two of them is not the provider's.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, WebhookProblem> {
    let mut values = headers.get_all(name).iter();
    match (values.next().and_then(|value| value.to_str().ok()), values.next()) {
        (Some(value), None) => Ok(value),
        _ => Err(WebhookProblem::NotAuthentic),
    }
}

/// Checks that one of `signatures` is the HMAC of the whole message under one of `secrets`, which rotate.
pub(super) fn check_signature(
    algorithm: hmac::Algorithm,
    secrets: &[SecretString],
    message: &[&[u8]],
    signatures: &[Vec<u8>],
) -> Result<(), WebhookProblem> {
    let is_signed = usable(secrets).any(|secret| {
        let mut context = hmac::Context::with_key(&hmac::Key::new(algorithm, secret));
        for part in message {
            context.update(part);
        }
        let expected = context.sign();
        signatures
            .iter()
            .any(|signature| constant_time::verify_slices_are_equal(expected.as_ref(), signature).is_ok())
    });
    if is_signed { Ok(()) } else { Err(WebhookProblem::NotAuthentic) }
}

/// Checks that `token` is one of `secrets`, which rotate.
pub(super) fn check_token(secrets: &[SecretString], token: &str) -> Result<(), WebhookProblem> {
    let is_known = usable(secrets)
        .any(|secret| constant_time::verify_slices_are_equal(secret, token.as_bytes()).is_ok());
    if is_known { Ok(()) } else { Err(WebhookProblem::NotAuthentic) }
}

/// Checks that the time of a signature is now, within the replay window.
pub(super) fn check_time(
    signed_at: Option<OffsetDateTime>,
    now: OffsetDateTime,
) -> Result<(), WebhookProblem> {
    let is_fresh = signed_at.is_some_and(|signed_at| (signed_at - now).abs() <= REPLAY_WINDOW);
    if is_fresh { Ok(()) } else { Err(WebhookProblem::NotAuthentic) }
}

/// Returns the secrets that are not empty: anybody can sign with an empty one.
fn usable(secrets: &[SecretString]) -> impl Iterator<Item = &[u8]> {
    secrets.iter().map(|secret| secret.expose_secret().as_bytes()).filter(|secret| !secret.is_empty())
}

/// Returns the signatures of a header such as `v1=0a1b…,v1=2c3d…`. Those of other schemes are left out.
pub(super) fn v1_signatures(header: &str) -> Vec<Vec<u8>> {
    header.split(',').filter_map(|part| from_hex(part.trim().strip_prefix("v1=")?)).collect()
}

/// Decodes hexadecimal digits.
pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |digit: &u8| char::from(*digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    rest.is_empty()
        .then(|| pairs.iter().map(|[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect())
        .flatten()
}

/// Reads the body of an authentic webhook.
pub(super) fn read_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, WebhookProblem> {
    serde_json::from_slice(body).map_err(|_| WebhookProblem::Unreadable)
}

/// Reads an identifier of an authentic webhook, or the name of its event.
pub(super) fn read_identifier(text: String) -> Result<String, WebhookProblem> {
    identifier(text).ok_or(WebhookProblem::Unreadable)
}

/// Returns a dedupe key for a webhook without an id of its own.
pub(super) fn body_digest(body: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, body);
    digest.as_ref().iter().fold("sha256:".to_owned(), |key, byte| format!("{key}{byte:02x}"))
}

#[cfg(test)]
pub(super) mod tests {
    use reqwest::header::HeaderName;

    use super::*;
    use crate::connectors::ProviderWebhook;

    /// A request to the listener of webhooks.
    #[derive(Clone)]
    pub(in crate::connectors) struct Delivery {
        pub(in crate::connectors) headers: HeaderMap,
        pub(in crate::connectors) body: Vec<u8>,
    }

    impl Delivery {
        pub(in crate::connectors) fn new(headers: &[(&str, &str)], body: &str) -> Self {
            let header = |(name, value): &(&str, &str)| {
                let name: HeaderName = name.parse().unwrap();
                (name, value.parse().unwrap())
            };
            Self { headers: headers.iter().map(header).collect(), body: body.into() }
        }
    }

    /// The signed example deliveries of a provider, each with the name of its event.
    pub(in crate::connectors) struct Deliveries {
        secret: String,
        pub(in crate::connectors) all: Vec<(String, Delivery)>,
    }

    impl Deliveries {
        pub(in crate::connectors) fn of(fixture: &str) -> Self {
            let fixture: serde_json::Value = serde_json::from_str(fixture).unwrap();
            let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
            let delivery = |delivery: &serde_json::Value| {
                let headers: Vec<(&str, &str)> = delivery["headers"]
                    .as_object()
                    .unwrap()
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
                    .collect();
                (text(&delivery["event"]), Delivery::new(&headers, delivery["body"].as_str().unwrap()))
            };
            let all = fixture["deliveries"].as_array().unwrap().iter().map(delivery).collect();
            Self { secret: text(&fixture["secret"]), all }
        }

        pub(in crate::connectors) fn reader(&self, read: Read) -> Reader {
            Reader { read, secret: self.secret.clone(), now: OffsetDateTime::UNIX_EPOCH }
        }
    }

    /// Returns the signature of a message, in hexadecimal digits.
    pub(in crate::connectors) fn signed(algorithm: hmac::Algorithm, secret: &str, message: &[u8]) -> String {
        let tag = hmac::sign(&hmac::Key::new(algorithm, secret.as_bytes()), message);
        tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(in crate::connectors) type Read =
        fn(&[SecretString], &HeaderMap, &[u8], OffsetDateTime) -> Result<ProviderWebhook, WebhookProblem>;

    /// A provider's reader of webhooks, with its secret and its time.
    pub(in crate::connectors) struct Reader {
        pub(in crate::connectors) read: Read,
        pub(in crate::connectors) secret: String,
        pub(in crate::connectors) now: OffsetDateTime,
    }

    impl Reader {
        pub(in crate::connectors) fn read(
            &self,
            delivery: &Delivery,
        ) -> Result<ProviderWebhook, WebhookProblem> {
            // The right secret is not the first one: they rotate.
            self.with(&["another-secret", &self.secret], delivery)
        }

        fn with(&self, keys: &[&str], delivery: &Delivery) -> Result<ProviderWebhook, WebhookProblem> {
            (self.read)(&secrets(keys), &delivery.headers, &delivery.body, self.now)
        }

        /// Checks that the delivery is accepted, and that nothing like it is. `proofs`: the headers of its proof.
        pub(in crate::connectors) fn refuses_all_but(&self, delivery: &Delivery, proofs: &[&str]) {
            assert!(self.read(delivery).is_ok());
            let refused = |delivery: &Delivery, reason: &str| {
                assert_eq!(self.read(delivery), Err(WebhookProblem::NotAuthentic), "{reason}");
            };
            for keys in [&[][..], &[""], &["another-secret"], &[&self.secret[1..]]] {
                assert_eq!(self.with(keys, delivery), Err(WebhookProblem::NotAuthentic), "{keys:?}");
            }
            for proof in proofs {
                let mut changed = delivery.clone();
                changed.headers.remove(*proof);
                refused(&changed, "a header is missing");
                let mut changed = delivery.clone();
                changed
                    .headers
                    .append(proof.parse::<HeaderName>().unwrap(), delivery.headers[*proof].clone());
                refused(&changed, "a header is there twice");
                let value = delivery.headers[*proof].to_str().unwrap();
                for (place, digit) in
                    value.char_indices().filter(|(_, letter)| letter.is_ascii_alphanumeric())
                {
                    let other = if digit == '0' { "1" } else { "0" };
                    let text = format!("{}{other}{}", &value[..place], &value[place + 1..]);
                    let mut changed = delivery.clone();
                    changed.headers.insert(proof.parse::<HeaderName>().unwrap(), text.parse().unwrap());
                    refused(&changed, &text);
                }
            }
        }

        /// Checks that no other body is accepted with the delivery's proof.
        pub(in crate::connectors) fn refuses_other_bodies(&self, delivery: &Delivery) {
            for place in 0..delivery.body.len() {
                let mut changed = delivery.clone();
                changed.body[place] ^= 1;
                assert_eq!(self.read(&changed), Err(WebhookProblem::NotAuthentic), "byte {place}");
            }
            for body in [Vec::new(), vec![b'x'; 256 * 1024], [&delivery.body[..], b" "].concat()] {
                let changed = Delivery { body, ..delivery.clone() };
                assert_eq!(self.read(&changed), Err(WebhookProblem::NotAuthentic));
            }
        }
    }

    fn secrets(secrets: &[&str]) -> Vec<SecretString> {
        secrets.iter().map(|secret| (*secret).into()).collect()
    }

    /// RFC 4231, test case 2.
    #[test]
    fn a_signature_counts_under_one_of_the_secrets() {
        let signature = from_hex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843").unwrap();
        let check = |keys: &[&str], message: &[&[u8]], signatures: &[Vec<u8>]| {
            check_signature(hmac::HMAC_SHA256, &secrets(keys), message, signatures).is_ok()
        };
        let message: &[&[u8]] = &[b"what do ya want ", b"for nothing?"];
        let signatures = [signature.clone()];
        assert!(check(&["Jefe"], message, &signatures));
        assert!(check(&["another", "Jefe"], message, &signatures));
        assert!(check(&["Jefe"], message, &[vec![0; 32], signature.clone()]));
        for (keys, message, signatures) in [
            (&[][..], message, &signatures[..]),
            (&["jefe"], message, &signatures),
            (&["Jefe"], &[b"what do ya want for nothing!"], &signatures),
            (&["Jefe"], message, &[]),
            (&["Jefe"], message, &[signature[..31].to_vec()]),
            (&["Jefe"], message, &[Vec::new()]),
        ] {
            assert!(!check(keys, message, signatures), "{keys:?} {signatures:?}");
        }
    }

    #[test]
    fn nothing_is_proved_with_an_empty_secret() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"");
        let signature = hmac::sign(&key, b"{}").as_ref().to_vec();
        let check = check_signature(hmac::HMAC_SHA256, &secrets(&[""]), &[b"{}"], &[signature]);
        assert_eq!(check, Err(WebhookProblem::NotAuthentic));
        assert_eq!(check_token(&secrets(&[""]), ""), Err(WebhookProblem::NotAuthentic));
    }

    #[test]
    fn a_token_is_compared_whole() {
        let secrets = secrets(&["token-1", "token-2"]);
        assert_eq!(check_token(&secrets, "token-2"), Ok(()));
        for token in ["", "token", "token-12", "Token-1"] {
            assert_eq!(check_token(&secrets, token), Err(WebhookProblem::NotAuthentic), "{token}");
        }
    }

    #[test]
    fn a_signature_of_another_time_does_not_count() {
        let now = OffsetDateTime::from_unix_timestamp(1_795_000_000).unwrap();
        for (seconds, fresh) in [(0, true), (300, true), (-300, true), (301, false), (-301, false)] {
            let signed_at = now + Duration::seconds(seconds);
            assert_eq!(check_time(Some(signed_at), now).is_ok(), fresh, "{seconds}");
        }
        assert_eq!(check_time(None, now), Err(WebhookProblem::NotAuthentic));
    }

    #[test]
    fn a_header_is_there_once() {
        let mut headers = HeaderMap::new();
        assert_eq!(header(&headers, "x-token"), Err(WebhookProblem::NotAuthentic));
        headers.append("x-token", "a".parse().unwrap());
        assert_eq!(header(&headers, "X-Token"), Ok("a"));
        headers.append("x-token", "b".parse().unwrap());
        assert_eq!(header(&headers, "x-token"), Err(WebhookProblem::NotAuthentic));
    }

    #[test]
    fn signatures_are_read_from_hexadecimal_digits() {
        assert_eq!(from_hex("00fFa1"), Some(vec![0, 255, 161]));
        for text in ["0", "0g", "+1", " 1", "é1"] {
            assert_eq!(from_hex(text), None, "{text}");
        }
        assert_eq!(v1_signatures("v1=01,v0=02, v1=03,v1=4,"), [vec![1], vec![3]]);
    }

    #[test]
    fn a_body_has_one_digest() {
        // Python: hashlib.sha256(b"{}").hexdigest()
        let expected = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        assert_eq!(body_digest(b"{}"), expected);
    }
}
