//! Makes the proof of a webhook: the signed bytes and the headers.

use std::fmt::Write;

use aws_lc_rs::hmac;
use time::OffsetDateTime;

/// The parts of a provider's proof.
pub(crate) struct Signable<'a> {
    pub(crate) secrets: &'a [String],
    pub(crate) event_id: &'a str,
    /// The time when this webhook is sent.
    pub(crate) at: OffsetDateTime,
    pub(crate) body: &'a [u8],
}

impl Signable<'_> {
    /// Returns the secret that signs.
    pub(crate) fn secret(&self) -> &str {
        self.secrets.first().map(String::as_str).unwrap_or_default()
    }
}

/// The headers of one webhook besides its content type.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Headers {
    pub(crate) plain: Vec<(&'static str, String)>,
    /// The headers that an unsigned webhook lacks.
    pub(crate) proof: Vec<(&'static str, String)>,
}

/// Returns the HMAC in lower-case hexadecimal.
pub(crate) fn hmac_hex(algorithm: hmac::Algorithm, secret: &str, parts: &[&[u8]]) -> String {
    let mut context = hmac::Context::with_key(&hmac::Key::new(algorithm, secret.as_bytes()));
    for part in parts {
        context.update(part);
    }
    context.sign().as_ref().iter().fold(String::new(), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
