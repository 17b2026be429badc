//! What a connector answers, to a call that creates and to one that looks up: each of them judges it, none panics,
//! and a link that is passed on is one that may be.
#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use futures_util::FutureExt;
use libfuzzer_sys::fuzz_target;
use payout_link_worker::{
    config::Config,
    connectors::{Call, Connectors},
    domain::{CreateLink, CreatedLink, Finding, Outcome, TraceContext},
    http_client::{Answer, fuzzing},
    contract::{DecodePolicy, create_link},
};
use reqwest::{
    StatusCode,
    header::{HeaderMap, HeaderValue, RETRY_AFTER},
};
use secrecy::ExposeSecret;
use time::OffsetDateTime;

static CONNECTORS: LazyLock<Connectors> = LazyLock::new(|| {
    let text = include_str!("connectors.toml");
    let config = Config::from_text(text, std::iter::empty()).expect("the configuration");
    config.connectors().expect("clients")
});

static JOB: LazyLock<CreateLink> = LazyLock::new(|| {
    let policy = DecodePolicy::default();
    create_link(include_bytes!("job.json"), None, &policy).expect("the job")
});

fn answer(data: &[u8]) -> Option<Answer> {
    let (&[which, flags], rest) = data.split_first_chunk::<2>()?;
    let statuses = [200, 201, 202, 204, 301, 400, 401, 403, 404, 405, 409, 410, 422, 423, 429, 500, 502, 503];
    let status = StatusCode::from_u16(statuses[usize::from(which) % statuses.len()]).ok()?;
    let mut headers = HeaderMap::new();
    let mut body = rest;
    if flags & 1 != 0 {
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        headers.insert(RETRY_AFTER, HeaderValue::from_bytes(&rest[..end]).ok()?);
        body = &rest[(end + 1).min(rest.len())..];
    }
    Some(Answer { status, headers, body: Bytes::copy_from_slice(body), cut: flags & 2 != 0 })
}

fn may_be_passed_on(link: &CreatedLink) {
    let url = link.url.expose_secret();
    assert!(url.len() <= 2048 && url.starts_with("https://") && !url.chars().any(char::is_control), "{url}");
    assert!(link.connector_payout_id.len() < 4096);
}

fuzz_target!(|data: &[u8]| {
    let Some(answer) = answer(data) else { return };
    let trace = TraceContext::default();
    for account in CONNECTORS.iter() {
        let call = Call {
            job: &JOB,
            idempotency_key: "r2ixnkg2kzb4d2wbhpuc2i7k55z7f5oz",
            connector_payout_id: None,
            first_called_at: None,
            now: OffsetDateTime::UNIX_EPOCH,
            trace: &trace,
        };
        fuzzing::answer_with(answer.clone());
        if let Some(Outcome::Created(link)) = account.connector.create_link(call).now_or_never() {
            assert!(answer.status.is_success());
            may_be_passed_on(&link);
        }
        for connector_payout_id in [None, Some("plink_1")] {
            let call = Call { connector_payout_id, ..call };
            if let Some(Finding::Found(link)) = account.connector.find_link(call).now_or_never() {
                may_be_passed_on(&link);
            }
        }
    }
});
