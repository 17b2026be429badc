//! Builds the requests to Revolut.

use serde::Serialize;
use serde_json::Number;
use uuid::Uuid;

use super::{
    KIND,
    settings::{FeatureData, MAX_REFERENCE, PayoutMethod, RevolutSettings},
};
use crate::{
    connectors::supports::{feature_data, required, unsupported},
    domain::{CreateLink, Rejection},
};

#[derive(Serialize)]
pub(super) struct CreateBody<'a> {
    request_id: &'a str,
    account_id: Uuid,
    counterparty_name: String,
    amount: Number,
    currency: &'static str,
    reference: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiry_period: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payout_methods: Option<Vec<PayoutMethod>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    save_counterparty: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transfer_reason_code: Option<String>,
}

impl RevolutSettings {
    pub(super) fn body<'a>(
        &self,
        job: &CreateLink,
        idempotency_key: &'a str,
    ) -> Result<CreateBody<'a>, Rejection> {
        KIND.supports.check(job)?;
        if job.connector_payout_id.is_some() {
            return Err(unsupported(
                "connector_payout_id",
                "Revolut gives each link an id of its own: leave connector_payout_id out.",
            ));
        }
        let (own, defaults) = (feature_data::<FeatureData>(job)?, &self.defaults);
        if let Some((key, problem)) = own.problem() {
            return Err(Rejection::invalid(format!("connector_feature_data.{key}"), problem));
        }
        let currency = job.amount.currency.as_str();
        // The default account may be of another currency; one for the currency goes before it.
        let account = own.account_id.or_else(|| self.accounts.get(currency).copied()).or(defaults.account_id);
        let account_id = account.ok_or_else(|| {
            unsupported("amount.currency", "The connector's settings have no account of this currency: use another currency, or have an account configured.")
        })?;
        let customer = job.customer.as_deref().and_then(|customer| customer.full_name());
        let billing = job.address.billing_address.as_deref();
        let name = customer.or_else(|| billing.and_then(|address| address.full_name()));
        let why = "Revolut compares it with the name of the person who claims.";
        Ok(CreateBody {
            request_id: idempotency_key,
            account_id,
            counterparty_name: required(name.as_deref(), "customer.name", why)?.to_owned(),
            amount: exact(&job.amount.major_units()),
            currency,
            reference: own.reference.map_or_else(|| self.reference(job, idempotency_key), Ok)?,
            expiry_period: own.expiry_period.or_else(|| defaults.expiry_period.clone()),
            payout_methods: own.payout_methods.or_else(|| defaults.payout_methods.clone()),
            save_counterparty: own.save_counterparty.or(defaults.save_counterparty),
            transfer_reason_code: own.transfer_reason_code.or_else(|| defaults.transfer_reason_code.clone()),
        })
    }

    /// Returns the job's description, else the configured text, else the payout's id where it fits.
    fn reference(&self, job: &CreateLink, idempotency_key: &str) -> Result<String, Rejection> {
        let fits = |text: &str| text.chars().count() <= MAX_REFERENCE;
        if let Some(description) = job.description.as_deref().filter(|text| !text.is_empty()) {
            return match fits(description) {
                true => Ok(description.to_owned()),
                false => Err(Rejection::invalid(
                    "description",
                    "Revolut takes 100 characters at most: shorten the description.",
                )),
            };
        }
        let id = job.merchant_payout_id.as_str();
        let id = if fits(id) { id } else { idempotency_key };
        Ok(self.defaults.reference.as_deref().unwrap_or(id).to_owned())
    }
}

/// Builds a JSON number of exactly these digits.
fn exact(digits: &str) -> Number {
    #[expect(clippy::expect_used, reason = "Money writes nothing else")]
    serde_json::from_str(digits).expect("a decimal number")
}
