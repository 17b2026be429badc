//! Answers, and the times in their headers.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{
    StatusCode,
    header::{CONTENT_ENCODING, DATE, HeaderMap, RETRY_AFTER},
};
use time::OffsetDateTime;

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers, at most as many as the client reads.
    pub headers: HeaderMap,
    /// The body, decompressed if its encoding is known.
    pub body: Bytes,
    /// `true` if the body was longer than the limit.
    pub cut: bool,
}

/// A status line with headers. The body may be incomplete.
#[derive(Debug, Clone)]
pub struct StatusAnswer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers, at most as many as the client reads.
    pub headers: HeaderMap,
    /// How the reading of the body ended.
    pub body: BodyEnd,
}

/// The end of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyEnd {
    /// It was read completely.
    Whole,
    /// It was longer than the limit.
    Cut,
    /// It broke off, for this reason.
    Broken(String),
}

/// The maximum wait, which clocks and databases can represent.
const MAX_WAIT: Duration = Duration::from_hours(10 * 366 * 24);

impl Answer {
    /// Reads `Retry-After`; see [`retry_after`].
    pub fn retry_after(&self, now: OffsetDateTime) -> Option<Duration> {
        retry_after(&self.headers, now)
    }

    /// Returns the `Date` of the answer, by the clock of its sender.
    pub fn date(&self) -> Option<OffsetDateTime> {
        date(&self.headers)
    }

    /// Returns the encoding of a body that was not decompressed.
    pub fn unread_encoding(&self) -> Option<&str> {
        let encoding = self.headers.get(CONTENT_ENCODING)?.to_str().unwrap_or("unknown").trim();
        (!encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity")).then_some(encoding)
    }
}

impl StatusAnswer {
    /// Reads `Retry-After`; see [`retry_after`].
    pub fn retry_after(&self, now: OffsetDateTime) -> Option<Duration> {
        retry_after(&self.headers, now)
    }
}

/// Reads `Retry-After`: seconds, or a date in one of the three forms of RFC 9110, 5.6.7. A date counts from the answer's own
/// `Date`, as its clock need not be ours; from `now` where there is none.
fn retry_after(headers: &HeaderMap, now: OffsetDateTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|digit| digit.is_ascii_digit()) {
        // A number that does not fit means the maximum.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)).min(MAX_WAIT));
    }
    let wait = http_date(value)? - date(headers).unwrap_or(now);
    Some(Duration::try_from(wait).unwrap_or(Duration::ZERO).min(MAX_WAIT))
}

pub(super) fn date(headers: &HeaderMap) -> Option<OffsetDateTime> {
    http_date(headers.get(DATE)?.to_str().ok()?.trim())
}

fn http_date(value: &str) -> Option<OffsetDateTime> {
    httpdate::parse_http_date(value).ok().map(OffsetDateTime::from)
}

/// Reads seconds with decimals, `58.37`, for headers of providers that document them so.
pub fn decimal_seconds(value: &str) -> Option<Duration> {
    let value = value.trim();
    let is_plain = value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds: f64 = value.parse().ok().filter(|_| is_plain)?;
    Some(Duration::try_from_secs_f64(seconds).unwrap_or(MAX_WAIT).min(MAX_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(headers: &[(reqwest::header::HeaderName, &str)]) -> Option<Duration> {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        let answer = Answer { status: StatusCode::OK, headers, body: Bytes::new(), cut: false };
        answer.retry_after(OffsetDateTime::from_unix_timestamp(784_111_770).unwrap())
    }

    #[test]
    fn retry_after_is_read_in_all_forms() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (value, expected) in [
            ("120", seconds(120)),
            ("0", seconds(0)),
            // The same second in the three forms of RFC 9110, 5.6.7.
            ("Sun, 06 Nov 1994 08:49:37 GMT", seconds(7)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", seconds(7)),
            ("Sun Nov  6 08:49:37 1994", seconds(7)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", seconds(0)),
            ("18446744073709551616", Some(MAX_WAIT)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(MAX_WAIT)),
            ("soon", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(after(&[(RETRY_AFTER, value)]), expected, "{value:?}");
        }
    }

    #[test]
    fn a_date_counts_from_the_answers_own_clock() {
        for date in
            ["Sun, 06 Nov 1994 09:49:30 GMT", "Sunday, 06-Nov-94 09:49:30 GMT", "Sun Nov  6 09:49:30 1994"]
        {
            let headers = [(RETRY_AFTER, "Sun, 06 Nov 1994 09:49:37 GMT"), (DATE, date)];
            assert_eq!(after(&headers), Some(Duration::from_secs(7)), "{date}");
        }
    }

    #[test]
    fn seconds_may_have_decimals_where_they_are_documented() {
        assert_eq!(decimal_seconds("58.37"), Some(Duration::from_millis(58_370)));
        assert_eq!(decimal_seconds(" 58 "), Some(Duration::from_secs(58)));
        assert_eq!(decimal_seconds(&"9".repeat(400)), Some(MAX_WAIT));
        for value in ["", ".", "-1", "1e3", "inf", "NaN", "soon", "1.2.3"] {
            assert_eq!(decimal_seconds(value), None, "{value}");
        }
    }
}
