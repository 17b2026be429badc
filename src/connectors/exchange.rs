//! The parts of a call that all connectors share: headers, and the classification of answers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use reqwest::{
    RequestBuilder,
    header::{HeaderName, HeaderValue},
};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};
use url::Url;

use crate::{
    domain::{ConnectorError, Finding, Outcome, PayoutStatus, TraceContext, has_control, is_control},
    http_client::{Answer, CallError},
};

/// Builds an address below a provider's base URL, with each part percent-encoded.
pub(super) fn at(base: &Url, parts: &[&str]) -> Url {
    let mut url = base.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(parts);
    }
    url
}

/// Adds a header whose value is secret: `prefix` and the secret.
pub(super) fn with_secret(
    request: RequestBuilder,
    name: HeaderName,
    prefix: &str,
    secret: &SecretString,
) -> RequestBuilder {
    // A credential that no header can carry is left out: the provider answers as it does without one.
    match HeaderValue::try_from(format!("{prefix}{}", secret.expose_secret())) {
        Ok(mut value) => {
            value.set_sensitive(true);
            request.header(name, value)
        }
        Err(_) => request,
    }
}

/// Passes the sender's trace on to the provider.
pub(super) fn with_trace(request: RequestBuilder, trace: &TraceContext) -> RequestBuilder {
    let headers = [("traceparent", &trace.traceparent), ("tracestate", &trace.tracestate)];
    headers.into_iter().fold(request, |request, (name, value)| match value {
        Some(value) => request.header(name, value),
        None => request,
    })
}

/// Classifies a create call that was not answered.
pub(super) fn lost(error: CallError) -> Outcome {
    match error {
        CallError::NotSent(reason) => Outcome::NotSent(ConnectorError::unanswered(&reason)),
        CallError::Unknown(reason) => Outcome::Unknown(ConnectorError::unanswered(&reason)),
    }
}

/// Classifies a look-up that was not answered.
pub(super) fn unasked(error: CallError) -> Finding {
    Finding::Unanswered { error: ConnectorError::unanswered(&error.to_string()), retry_after: None }
}

/// Classifies a look-up whose answer resolves nothing.
pub(super) fn unsettled(answer: &Answer, error: ConnectorError) -> Finding {
    Finding::Unanswered { error, retry_after: answer.retry_after(OffsetDateTime::now_utc()) }
}

/// Parses a complete answer of the expected form, with or without a byte order mark.
pub(super) fn parse<T: DeserializeOwned>(answer: &Answer) -> Option<T> {
    let body = answer.body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&answer.body);
    serde_json::from_slice(body).ok().filter(|_| !answer.cut)
}

/// Builds the error for an answer that does not have the expected form. It repeats nothing of the answer.
pub(super) fn unreadable(answer: &Answer) -> ConnectorError {
    let status_code = answer.status.as_u16();
    if let Some(encoding) = answer.unread_encoding() {
        let reason = format!("the answer is compressed and cannot be read: content-encoding {encoding}");
        return ConnectorError::new(status_code, None, &reason, None);
    }
    let reason = match (answer.cut, answer.status.is_success()) {
        (true, _) => "the answer is too large",
        (false, true) => "the answer is not a payout link",
        (false, false) => "the answer is no error of the provider's",
    };
    ConnectorError::new(status_code, None, reason, None)
}

/// Returns the outcome of a create that the provider answered with success. `found`: the answer as the connector reads it.
pub(super) fn created(found: Option<Finding>, answer: &Answer) -> Outcome {
    match found {
        Some(Finding::Found(link)) => Outcome::Created(link),
        Some(Finding::Underway { connector_payout_id, status_code }) => {
            Outcome::Underway { connector_payout_id, status_code }
        }
        Some(Finding::Ended { error, .. }) => Outcome::Declined(error),
        Some(Finding::NotFound { .. } | Finding::Unanswered { .. }) | None => {
            Outcome::Unknown(unreadable(answer))
        }
    }
}

/// Judges an error in the provider's own form, unless the connector has judged it.
///
/// `own_credential`: it was called with the configuration's credential, not with the job's `access_token`. A
/// deployment's mistake must not fail payouts.
pub(super) fn judge(answer: &Answer, error: ConnectorError, own_credential: bool) -> Outcome {
    let retry_after = answer.retry_after(OffsetDateTime::now_utc());
    match answer.status.as_u16() {
        // Nothing is found at a base path that is wrong, or of an account that the credential does not see.
        401 | 403 | 404 if own_credential => Outcome::TryLater { error, retry_after },
        400 | 401 | 403 | 404 | 422 => Outcome::Declined(error),
        429 => Outcome::TryLater { error, retry_after },
        _ => Outcome::Unknown(error),
    }
}

/// Judges an error that cannot be read: a gateway before the provider may have written it.
pub(super) fn judge_unreadable(answer: &Answer, own_credential: bool) -> Outcome {
    let error = unreadable(answer);
    let retry_after = answer.retry_after(OffsetDateTime::now_utc());
    match answer.status.as_u16() {
        401 | 403 if own_credential => Outcome::TryLater { error, retry_after },
        429 => Outcome::TryLater { error, retry_after },
        _ => Outcome::Unknown(error),
    }
}

/// Returns a link that may be passed on: an absolute `https` URL (`http` if that is configured), without
/// user-info or control characters, 2,048 bytes at most.
pub(crate) fn link_url(text: &str, allow_http: bool) -> Option<SecretString> {
    let url = Url::parse(text).ok()?;
    // Checked as written, because the parser corrects missing and reversed slashes.
    let scheme = text.starts_with("https://") || (allow_http && text.starts_with("http://"));
    let sound = scheme
        && !text.contains('\\')
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && text.len() <= 2048
        && !text.chars().any(|c| c.is_control() || c.is_whitespace());
    sound.then(|| text.into())
}

/// Describes the failed check of a credential. `error`: the provider's own error, if it can be read.
pub(super) fn not_checked(answer: &Answer, error: Option<ConnectorError>) -> String {
    let message = error.unwrap_or_else(|| unreadable(answer)).message;
    format!("answered {}: {message}", answer.status)
}

/// Returns the provider's identifier of a payout if it may be passed on: 1 to 255 bytes without control characters.
pub(super) fn identifier(id: String) -> Option<String> {
    ((1..=255).contains(&id.len()) && !has_control(&id)).then_some(id)
}

/// Reads the fields of an answer that a payout link can do without. One that is there and cannot be read is left out and counted.
#[derive(Debug, Default)]
pub(super) struct OptionalFields {
    unread: AtomicU64,
    unknown_statuses: AtomicU64,
}

impl OptionalFields {
    /// Fields that were there and could not be read.
    pub(super) fn unread(&self) -> u64 {
        self.unread.load(Relaxed)
    }

    /// Statuses that were not known.
    pub(super) fn unknown_statuses(&self) -> u64 {
        self.unknown_statuses.load(Relaxed)
    }

    /// Returns the status of a link, and its word for the timeline if this version does not know it. That is not an
    /// error, because providers add statuses: the link is there, so it counts as created.
    pub(super) fn status(&self, word: &str, known: Option<PayoutStatus>) -> (PayoutStatus, Option<String>) {
        match known {
            Some(status) => (status, None),
            None => (PayoutStatus::RequiresFulfillment, Some(self.unknown_status(word))),
        }
    }

    /// Counts a status that this version does not know, and returns its word.
    pub(super) fn unknown_status(&self, word: &str) -> String {
        self.unknown_statuses.fetch_add(1, Relaxed);
        // Without its text, which the account's secrets are not taken out of yet.
        tracing::warn!("unknown link status, the link counts as open (see the timeline for the status)");
        Self::shown(word)
    }

    /// Returns a provider's word as operators see it: at most 64 characters, none of them a control character.
    pub(super) fn shown(word: &str) -> String {
        word.chars().map(|letter| if is_control(letter) { ' ' } else { letter }).take(64).collect()
    }

    /// Reads a time in RFC 3339, with its zone.
    pub(super) fn time(&self, field: &'static str, value: &Value) -> Option<OffsetDateTime> {
        let read = |value: &Value| in_utc(OffsetDateTime::parse(value.as_str()?, &Rfc3339).ok()?);
        self.read(field, value, read)
    }

    /// Reads a time in Unix seconds.
    pub(super) fn unix_time(&self, field: &'static str, value: &Value) -> Option<OffsetDateTime> {
        let read = |value: &Value| in_utc(OffsetDateTime::from_unix_timestamp(value.as_i64()?).ok()?);
        self.read(field, value, read)
    }

    pub(super) fn text<'a>(&self, field: &'static str, value: &'a Value) -> Option<&'a str> {
        self.read(field, value, Value::as_str)
    }

    pub(super) fn read<'a, T>(
        &self,
        field: &'static str,
        value: &'a Value,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Option<T> {
        if value.is_null() {
            return None;
        }
        let found = read(value);
        if found.is_none() {
            self.unread.fetch_add(1, Relaxed);
            tracing::info!(field, "optional field of the connector's answer unreadable, left out");
        }
        found
    }
}

/// Returns the same time in UTC, if both the calendar and RFC 3339 can represent it.
fn in_utc(time: OffsetDateTime) -> Option<OffsetDateTime> {
    time.checked_to_offset(UtcOffset::UTC).filter(|time| (0..=9999).contains(&time.year()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &'static [u8], encoding: Option<&str>) -> Answer {
        let headers = encoding.map(|encoding| (reqwest::header::CONTENT_ENCODING, encoding.parse().unwrap()));
        Answer {
            status: reqwest::StatusCode::OK,
            headers: headers.into_iter().collect(),
            body: body.into(),
            cut: false,
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_an_answer() {
        assert_eq!(parse::<Value>(&answer(b"\xef\xbb\xbf{}", None)), Some(serde_json::json!({})));
        assert_eq!(parse::<Value>(&answer(b"\xef\xbb\xbf\xef\xbb\xbf{}", None)), None);
    }

    #[test]
    fn a_compressed_answer_that_cannot_be_read_is_named_as_such() {
        let error = unreadable(&answer(b"x", Some("br")));
        assert_eq!(error.message, "the answer is compressed and cannot be read: content-encoding br");
        assert_eq!(unreadable(&answer(b"x", Some("identity"))).message, "the answer is not a payout link");
    }

    #[test]
    fn only_what_can_be_passed_on_is_an_identifier() {
        for id in ["plink_7Hq2", "1", &"a".repeat(255)] {
            assert_eq!(identifier(id.to_owned()).as_deref(), Some(id));
        }
        for id in ["", &"a".repeat(256), "plink_\0", "plink_\u{1b}[2J", "plink\u{202e}", "a\nb", "\u{9b}2J"] {
            assert_eq!(identifier(id.to_owned()), None, "{id:?}");
        }
    }

    #[test]
    fn an_optional_field_that_cannot_be_read_is_left_out_and_counted() {
        use serde_json::json;
        let fields = OptionalFields::default();
        let noon = OffsetDateTime::from_unix_timestamp(1_796_126_400).unwrap();
        for (value, time) in [
            (json!("2026-12-01T12:00:00Z"), Some(noon)),
            (json!("2026-12-01T13:00:00+01:00"), Some(noon)),
            (Value::Null, None),
        ] {
            assert_eq!(fields.time("expires_at", &value), time, "{value}");
        }
        assert_eq!(fields.unix_time("expire_by", &json!(1_796_126_400)), Some(noon));
        assert_eq!(fields.unread(), 0);
        let unreadable = [
            json!("2026-12-01T12:00:00"),
            json!(1_796_126_400),
            json!("tomorrow"),
            json!({}),
            json!("9999-12-31T23:59:59-01:00"),
            json!("0000-01-01T00:00:00+01:00"),
        ];
        for value in &unreadable {
            assert_eq!(fields.time("expires_at", value), None, "{value}");
        }
        assert_eq!(fields.unix_time("expire_by", &json!("1796126400")), None);
        assert_eq!(fields.unix_time("expire_by", &json!(i64::MAX)), None);
        assert_eq!(fields.text("error_message", &json!(7)), None);
        assert_eq!(fields.unread(), unreadable.len() as u64 + 3);
    }

    #[test]
    fn only_what_is_plainly_a_link_is_one() {
        let longest = format!("https://pay.example/{}", "a".repeat(2048 - 20));
        for link in ["https://pay.example/1", "https://pay.example:8443/l/1?a=b#c", &longest] {
            assert!(link_url(link, false).is_some(), "{link}");
        }
        for other in [
            "",
            "/l/1",
            "pay.example/1",
            "http://pay.example/1",
            "javascript:alert(1)",
            "https://",
            // Forms that the parser would correct.
            "https:/pay.example/1",
            "https:pay.example/1",
            "https:$/pay.example/1",
            "https:\\\\pay.example\\1",
            "https://pay.example\\@elsewhere.example/1",
            "https://ada@pay.example/1",
            "https://ada:secret@pay.example/1",
            "https://pay.example/1\n",
            " https://pay.example/1",
            "https://pay.example/\u{7f}1",
            &format!("{longest}a"),
        ] {
            assert!(link_url(other, false).is_none(), "{other:?}");
        }
        assert!(link_url("http://127.0.0.1:1/l/1", true).is_some());
    }
}
