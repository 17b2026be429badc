//! Builds the requests to Xendit.

use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

use super::{KIND, Xendit};
use crate::{
    connectors::supports::{feature_data, required, unsupported},
    domain::{CreateLink, Rejection},
};

/// Keys of `connector_feature_data`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FeatureData {
    /// A sub-account of xenPlatform.
    pub(super) for_user_id: Option<String>,
}

/// Nothing else is documented.
#[derive(Serialize)]
pub(super) struct CreateBody<'a> {
    pub(super) external_id: &'a str,
    /// Whole rupiah, though ISO 4217 gives them two decimals.
    pub(super) amount: i64,
    pub(super) email: &'a str,
}

impl Xendit {
    pub(super) fn body<'a>(
        &self,
        job: &'a CreateLink,
        external_id: &'a str,
    ) -> Result<CreateBody<'a>, Rejection> {
        KIND.supports.check(job)?;
        if job.connector_payout_id.is_some() {
            return Err(unsupported(
                "connector_payout_id",
                "Xendit gives each payout an id of its own: leave connector_payout_id out.",
            ));
        }
        self.for_user_id(job)?;
        let email = job.customer.as_deref().and_then(|customer| customer.email.as_ref());
        Ok(CreateBody {
            external_id,
            amount: whole_rupiah(job)?,
            email: required(
                email.map(ExposeSecret::expose_secret),
                "customer.email",
                "Xendit sends the link and its password there.",
            )?,
        })
    }

    pub(super) fn for_user_id(&self, job: &CreateLink) -> Result<Option<String>, Rejection> {
        let own = feature_data::<FeatureData>(job)?.for_user_id;
        match own.or_else(|| self.settings.defaults.for_user_id.clone()) {
            Some(id) if !is_header(&id) => {
                let message = "The value must have 1 to 255 visible characters.";
                Err(Rejection::invalid("connector_feature_data.for_user_id", message))
            }
            id => Ok(id),
        }
    }
}

pub(super) fn whole_rupiah(job: &CreateLink) -> Result<i64, Rejection> {
    job.amount.whole_major_units().ok_or_else(|| {
        unsupported(
            "amount.minor_amount",
            "Xendit takes whole rupiah: minor_amount must be a multiple of 100.",
        )
    })
}

pub(super) fn is_header(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}
