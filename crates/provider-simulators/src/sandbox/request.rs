//! Decodes a create request strictly, so that an error of the worker shows at its first call.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

const MAX_REFERENCE_BYTES: usize = 255;

/// The body of `POST /v1/payout-links`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateRequest {
    /// The client's own identifier of the payout.
    #[serde(deserialize_with = "reference")]
    pub reference: String,
    /// The amount of the payout.
    #[serde(deserialize_with = "object")]
    pub amount: Amount,
    /// The ISO 4217 code, which must equal the amount's.
    #[serde(deserialize_with = "currency")]
    pub destination_currency: String,
    /// The recipient, if the client knows them.
    #[serde(default, deserialize_with = "optional_object")]
    pub recipient: Option<Recipient>,
}

/// A positive amount of one currency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Amount {
    /// The amount in the currency's minor units.
    #[serde(deserialize_with = "positive")]
    pub minor_amount: i64,
    /// The ISO 4217 code.
    #[serde(deserialize_with = "currency")]
    pub currency: String,
}

/// The recipient. These are personal data: shown to the recipient, never logged, and not in the ledger's JSON.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipient {
    /// The name that the claim page shows.
    #[serde(default)]
    pub name: Option<String>,
    /// The address to which the link would be sent.
    #[serde(default)]
    pub email: Option<String>,
}

impl fmt::Debug for CreateRequest {
    /// Formats without the recipient.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateRequest")
            .field("reference", &self.reference)
            .field("amount", &self.amount)
            .field("destination_currency", &self.destination_currency)
            .finish_non_exhaustive()
    }
}

/// Decodes the request, or returns one sentence about its problem.
pub(super) fn decode(body: &[u8]) -> Result<CreateRequest, String> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let request = object(&mut deserializer).map_err(|error| error.to_string())?;
    deserializer.end().map_err(|error| error.to_string())?;
    Ok(request)
}

fn reference<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let reference = String::deserialize(deserializer)?;
    if reference.is_empty() || reference.len() > MAX_REFERENCE_BYTES {
        return Err(D::Error::custom(format!("a reference has 1 to {MAX_REFERENCE_BYTES} bytes")));
    }
    Ok(reference)
}

fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let amount = i64::deserialize(deserializer)?;
    if amount <= 0 { Err(D::Error::custom("an amount is greater than 0")) } else { Ok(amount) }
}

/// Checks the form of an ISO 4217 code. The list of codes changes over the years, so the worker checks it.
fn currency<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let code = String::deserialize(deserializer)?;
    if code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_uppercase()) {
        Ok(code)
    } else {
        Err(D::Error::custom("a currency is an ISO 4217 code: three capital letters"))
    }
}

fn optional_object<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    object(deserializer).map(Some)
}

/// Decodes an object only. Serde's own structs would also accept an array of the fields' values.
fn object<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct ObjectOnly<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectOnly<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }

    deserializer.deserialize_map(ObjectOnly(PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"{"reference":"po_1","amount":{"minor_amount":1250,"currency":"EUR"},
        "destination_currency":"USD","recipient":{"name":"Ada","email":"ada@example.com"}}"#;

    #[test]
    fn a_full_request_and_one_without_recipient_are_read() {
        let full = decode(FULL.as_bytes()).unwrap();
        assert_eq!((full.amount.minor_amount, full.amount.currency.as_str()), (1250, "EUR"));
        assert_eq!(full.recipient.unwrap().name.unwrap(), "Ada");

        let bare = r#"{"reference":"po_1","amount":{"minor_amount":1,"currency":"JPY"},"destination_currency":"JPY"}"#;
        assert!(decode(bare.as_bytes()).unwrap().recipient.is_none());
    }

    #[test]
    fn anything_else_is_refused() {
        let bad = [
            ("", "EOF"),
            ("[]", "an object"),
            (r#"["po_1",[1250,"EUR"],"USD",null]"#, "an object"),
            (&FULL.replace("1250", "\"1250\""), "invalid type: string"),
            (&FULL.replace("1250", "12.5"), "invalid type: floating point"),
            (&FULL.replace("1250", "1250.0"), "invalid type: floating point"),
            (&FULL.replace("1250", "0"), "greater than 0"),
            (&FULL.replace("1250", "-5"), "greater than 0"),
            (&FULL.replace("1250", "9223372036854775808"), "expected i64"),
            (&FULL.replace("EUR", "eur"), "ISO 4217"),
            (&FULL.replace("USD", "US"), "ISO 4217"),
            (&FULL.replace("\"po_1\"", "\"\""), "1 to 255 bytes"),
            (&FULL.replace("\"po_1\"", "7"), "invalid type"),
            (&FULL.replace("\"name\"", "\"nick\""), "unknown field `nick`"),
            (&FULL.replace("\"recipient\"", "\"who\""), "unknown field `who`"),
            (&FULL.replace("\"destination_currency\"", "\"reference\""), "duplicate field"),
            (&FULL.replace("{\"minor_amount\":1250,\"currency\":\"EUR\"}", "[1250,\"EUR\"]"), "an object"),
            (&format!("{FULL} {{}}"), "trailing"),
        ];
        for (body, expected) in bad {
            let error = decode(body.as_bytes()).err().unwrap();
            assert!(error.contains(expected), "{body}\n{error}");
        }
    }
}
