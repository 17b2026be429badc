//! Reads the headers of a delivery that more than one step needs.

use crate::{domain::TraceContext, rabbitmq::Delivery};

/// Returns the merchant's id for a log line. An id that is longer than a valid one is left out.
pub(super) fn logged_merchant_id(delivery: &Delivery) -> &str {
    Some(merchant_id(delivery)).filter(|id| id.len() <= 255).unwrap_or_default()
}

/// Returns the merchant's id; empty if the job names none.
pub(super) fn merchant_id(delivery: &Delivery) -> &str {
    delivery.header("x-merchant-id").unwrap_or_default()
}

/// Returns the trace context of the job.
pub(super) fn trace(delivery: &Delivery) -> TraceContext {
    // Passed on unchanged, unless a header cannot carry it.
    let is_sound =
        |value: &&str| (1..=512).contains(&value.len()) && value.bytes().all(|b| (b' '..=b'~').contains(&b));
    let header = |name| delivery.header(name).filter(is_sound);
    TraceContext {
        traceparent: header("traceparent").map(str::to_owned),
        tracestate: header("tracestate").map(str::to_owned),
    }
}
