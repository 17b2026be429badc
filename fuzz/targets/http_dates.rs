//! `Retry-After`, `Date` and seconds with decimals: read or not, never a panic, never longer than any job lasts.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use payout_link_worker::http_client::{Answer, decimal_seconds};
use reqwest::{
    StatusCode,
    header::{DATE, HeaderMap, HeaderValue, RETRY_AFTER},
};
use time::OffsetDateTime;

const TEN_YEARS: Duration = Duration::from_secs(10 * 366 * 86_400);

fuzz_target!(|input: (i64, &[u8], &[u8])| {
    let (now, wait, date) = input;
    let (Ok(wait_value), Ok(date)) = (HeaderValue::from_bytes(wait), HeaderValue::from_bytes(date)) else { return };
    let Ok(now) = OffsetDateTime::from_unix_timestamp(now) else { return };
    let headers: HeaderMap = [(RETRY_AFTER, wait_value), (DATE, date)].into_iter().collect();
    let answer = Answer { status: StatusCode::OK, headers, body: Default::default(), cut: false };
    assert!(answer.retry_after(now).is_none_or(|wait| wait <= TEN_YEARS));
    answer.date();
    if let Ok(text) = std::str::from_utf8(wait) {
        assert!(decimal_seconds(text).is_none_or(|wait| wait <= TEN_YEARS));
    }
});
