//! Builds the requests to the sandbox.

use secrecy::ExposeSecret;
use serde::Serialize;

use crate::connectors::Call;

#[derive(Serialize)]
pub(super) struct CreateBody<'a> {
    pub(super) reference: &'a str,
    pub(super) amount: Amount,
    pub(super) destination_currency: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) recipient: Option<Recipient<'a>>,
}

#[derive(Serialize)]
pub(super) struct Amount {
    pub(super) minor_amount: i64,
    pub(super) currency: &'static str,
}

#[derive(Serialize)]
pub(super) struct Recipient<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) email: Option<&'a str>,
}

pub(super) fn create_body(call: Call<'_>) -> Vec<u8> {
    let job = call.job;
    let customer = job.customer.as_deref();
    let name = customer.and_then(|customer| customer.name.as_deref());
    let email = customer.and_then(|customer| customer.email.as_ref()).map(|email| email.expose_secret());
    let body = CreateBody {
        reference: call.idempotency_key,
        amount: Amount { minor_amount: job.amount.minor_units(), currency: job.amount.currency.as_str() },
        destination_currency: job.destination_currency.as_str(),
        recipient: (name.is_some() || email.is_some()).then_some(Recipient { name, email }),
    };
    serde_json::to_vec(&body).unwrap_or_default()
}
