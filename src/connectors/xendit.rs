//! Xendit's payout links (Indonesia): `POST /payouts`.
//!
//! Sources: docs.xendit.co/docs/integration-payout-links, docs.xendit.co/apidocs/rate-limits and the official SDKs.
//!
//! Out of doubt: `external_id` is ours, derived from the record, and unique for an account. A repeat makes the link or
//! is answered with `DUPLICATE_PAYOUT_ERROR`, without the payout; and nobody can ask by `external_id`. Such an outcome
//! stays unknown: the recipient has the provider's mail all the same.

use std::time::Duration;

use futures_util::{FutureExt, future::BoxFuture};
use reqwest::{RequestBuilder, header::CONTENT_TYPE};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use url::Url;

use super::{
    Call, Connector, ErrorField, Kind, Settings, Supports,
    exchange::{
        OptionalFields, at, identifier, judge, judge_unreadable, link_url, lost, parse, unasked, unreadable,
        unsettled, with_trace,
    },
    kind::read,
    supports::{feature_data, required, unsupported},
};
use crate::{
    contract::Rejection,
    domain::{ConnectorError, CreateLink, CreatedLink, Finding, Outcome, PayoutStatus, ReplayRule},
    http_client::{Answer, Client, HttpSettings, NoClient, decimal_seconds},
    setting_url,
};

pub(super) const KIND: Kind = Kind {
    name: "xendit",
    title: "Xendit (Indonesia)",
    needs: &["api_key"],
    supports: Supports {
        currencies: Some(&["IDR"]),
        amounts: &[],
        converts: false,
        job_fields: &["customer.email"],
        feature_data: &["for_user_id"],
        expiry: "three days after it was made",
        cancels: true,
    },
    error_fields: &[ErrorField::Code],
    read: read::<XenditSettings>,
};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct XenditSettings {
    #[serde(default = "production", deserialize_with = "setting_url::service")]
    url: Url,
    /// The secret key: it says by itself whether it is a test's.
    api_key: SecretString,
    /// For jobs whose `connector_feature_data` does not say otherwise.
    #[serde(default)]
    defaults: FeatureData,
}

/// Keys of `connector_feature_data`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FeatureData {
    /// A sub-account of xenPlatform.
    for_user_id: Option<String>,
}

fn production() -> Url {
    #[expect(clippy::expect_used, reason = "a constant")]
    Url::parse("https://api.xendit.co").expect("it is a URL")
}

impl Settings for XenditSettings {
    fn problems(&self, _lease: Duration, _on_its_way: Duration) -> Vec<String> {
        let bad = self.defaults.for_user_id.as_deref().is_some_and(|id| !is_header(id));
        bad.then(|| "defaults.for_user_id is not 1 to 255 visible characters".to_owned())
            .into_iter()
            .collect()
    }

    fn url(&self) -> &Url {
        &self.url
    }

    fn identity(&self) -> String {
        // A sub-account has payouts of its own.
        let sub_account = self.defaults.for_user_id.as_deref().unwrap_or_default();
        format!("{}\n{sub_account}", self.api_key.expose_secret())
    }

    fn connect(&self, http: HttpSettings) -> Result<Box<dyn Connector>, NoClient> {
        Ok(Box::new(Xendit {
            http: Client::new(http)?,
            settings: self.clone(),
            optional: OptionalFields::default(),
        }))
    }
}

struct Xendit {
    settings: XenditSettings,
    http: Client,
    optional: OptionalFields,
}

/// Nothing else is documented.
#[derive(Serialize)]
struct CreateBody<'a> {
    external_id: &'a str,
    /// Whole rupiah, though ISO 4217 gives them two decimals.
    amount: i64,
    email: &'a str,
}

#[derive(Deserialize)]
struct Payout {
    id: String,
    external_id: Option<String>,
    amount: i64,
    status: String,
    #[serde(default)]
    expiration_timestamp: Value,
    payout_url: Option<String>,
    /// As the same are called in the newer of Xendit's dialects.
    reference_id: Option<String>,
    #[serde(default)]
    expires_at: Value,
    payout_link_url: Option<String>,
}

#[derive(Deserialize)]
struct Failure {
    error_code: String,
    message: String,
}

impl Xendit {
    fn body<'a>(&self, job: &'a CreateLink, external_id: &'a str) -> Result<CreateBody<'a>, Rejection> {
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

    fn for_user_id(&self, job: &CreateLink) -> Result<Option<String>, Rejection> {
        let own = feature_data::<FeatureData>(job)?.for_user_id;
        match own.or_else(|| self.settings.defaults.for_user_id.clone()) {
            Some(id) if !is_header(&id) => {
                let message = "The value must have 1 to 255 visible characters.";
                Err(Rejection::invalid("connector_feature_data.for_user_id", message))
            }
            id => Ok(id),
        }
    }

    /// The key is the user, the password is empty.
    fn request(&self, request: RequestBuilder, key: Option<&SecretString>) -> RequestBuilder {
        request.basic_auth(key.unwrap_or(&self.settings.api_key).expose_secret(), None::<&str>)
    }

    fn of_job(&self, request: RequestBuilder, call: Call<'_>) -> RequestBuilder {
        let request = with_trace(self.request(request, call.job.access_token.as_ref()), call.trace);
        match self.for_user_id(call.job) {
            Ok(Some(id)) => request.header("for-user-id", id),
            _ => request,
        }
    }

    async fn create(&self, call: Call<'_>) -> Outcome {
        let body = match self.body(call.job, call.idempotency_key) {
            Ok(body) => serde_json::to_vec(&body).unwrap_or_default(),
            Err(rejection) => return Outcome::Declined(rejection.into()),
        };
        let request = self
            .of_job(self.http.post(at(&self.settings.url, &["payouts"])), call)
            .header(CONTENT_TYPE, "application/json")
            .body(body);
        let answer = match self.http.call(request).await {
            Ok(answer) => answer,
            Err(error) => return lost(error),
        };
        let own_credential = call.job.access_token.is_none();
        if answer.status.is_success() {
            return match parse(&answer).and_then(|payout| self.read(payout, call, &answer)) {
                Some(Finding::Found(link)) => Outcome::Created(link),
                Some(Finding::Underway { connector_payout_id, status_code }) => {
                    Outcome::Underway { connector_payout_id, status_code }
                }
                Some(Finding::Ended { error, .. }) => Outcome::Declined(error),
                _ => Outcome::Unknown(unreadable(&answer)),
            };
        }
        let outcome = match failure(&answer) {
            None => judge_unreadable(&answer, own_credential),
            // The documentation does not say with which status it comes.
            Some(error) if error.code.as_deref() == Some("DUPLICATE_PAYOUT_ERROR") => {
                Outcome::AlreadyExists(error)
            }
            Some(error) => judge(&answer, error, own_credential),
        };
        match outcome {
            Outcome::TryLater { error, retry_after } => {
                Outcome::TryLater { error, retry_after: retry_after.or_else(|| reset(&answer)) }
            }
            outcome => outcome,
        }
    }

    async fn find(&self, call: Call<'_>) -> Finding {
        let Some(id) = call.connector_payout_id else {
            let error = ConnectorError::unanswered("Xendit cannot be asked by our reference");
            return Finding::Unanswered { error, retry_after: None };
        };
        let request = self.of_job(self.http.get(at(&self.settings.url, &["payouts", id])), call);
        let answer = match self.http.call(request).await {
            Ok(answer) => answer,
            Err(error) => return unasked(error),
        };
        if answer.status.is_success() {
            let payout = parse(&answer).and_then(|payout| self.read(payout, call, &answer));
            return payout.unwrap_or_else(|| unsettled(&answer, unreadable(&answer)));
        }
        unsettled(&answer, failure(&answer).unwrap_or_else(|| unreadable(&answer)))
    }

    /// A payout as Xendit has it; `None` where it is not this job's, or its link cannot be passed on.
    fn read(&self, payout: Payout, call: Call<'_>, answer: &Answer) -> Option<Finding> {
        let status_code = answer.status.as_u16();
        let reference = payout.external_id.or(payout.reference_id);
        let is_ours = reference.as_deref() == Some(call.idempotency_key)
            && call.job.amount.whole_major_units() == Some(payout.amount);
        if !is_ours {
            return None;
        }
        let connector_payout_id = identifier(payout.id)?;
        let expires_at = self
            .optional
            .time("expiration_timestamp", &payout.expiration_timestamp)
            .or_else(|| self.optional.time("expires_at", &payout.expires_at));
        let is_over = expires_at.is_some_and(|end| end <= OffsetDateTime::now_utc());
        let mut unknown_status = None;
        let payout_status = match payout.status.as_str() {
            "PENDING" | "ISSUED" | "ACTIVE" => PayoutStatus::RequiresFulfillment,
            "CLAIMED" | "DISBURSING" => PayoutStatus::Pending,
            "COMPLETED" | "SUCCEEDED" => PayoutStatus::Success,
            "EXPIRED" => PayoutStatus::Expired,
            "REVERSED" => PayoutStatus::Reversed,
            // One word for two things: nobody claimed it in time, or it failed.
            "FAILED" if is_over => PayoutStatus::Expired,
            "FAILED" | "LOCKED" => PayoutStatus::Failed,
            status if is_voided(status) && is_over => PayoutStatus::Expired,
            status if is_voided(status) => PayoutStatus::Cancelled,
            status => {
                unknown_status = Some(self.optional.unknown_status(status));
                PayoutStatus::RequiresFulfillment
            }
        };
        if matches!(
            payout_status,
            PayoutStatus::Failed | PayoutStatus::Expired | PayoutStatus::Cancelled | PayoutStatus::Reversed
        ) {
            let message = format!("the payout is {}", payout.status);
            let error = ConnectorError::new(status_code, None, &message, None);
            return Some(Finding::Ended { error, payout_status, connector_payout_id });
        }
        let Some(url) = payout.payout_url.or(payout.payout_link_url) else {
            return Some(Finding::Underway { connector_payout_id, status_code });
        };
        Some(Finding::Found(CreatedLink {
            url: link_url(&url, false)?,
            connector_payout_id,
            payout_status,
            unknown_status,
            expires_at,
            status_code,
        }))
    }

    async fn void(&self, id: &str) -> Result<(), ConnectorError> {
        let mut request =
            self.request(self.http.post(at(&self.settings.url, &["payouts", id, "void"])), None);
        if let Some(id) = &self.settings.defaults.for_user_id {
            request = request.header("for-user-id", id);
        }
        let answer =
            self.http.call(request).await.map_err(|error| ConnectorError::unanswered(&error.to_string()))?;
        match parse::<Payout>(&answer) {
            Some(payout) if answer.status.is_success() && is_voided(&payout.status) => Ok(()),
            _ => Err(failure(&answer).unwrap_or_else(|| unreadable(&answer))),
        }
    }

    async fn try_credential(&self) -> Result<(), String> {
        // No payout has this id: that it is not there is for whom the key is good to know.
        let url = at(&self.settings.url, &["payouts", "00000000-0000-4000-8000-000000000000"]);
        let answer = self
            .http
            .call(self.request(self.http.get(url), None))
            .await
            .map_err(|error| error.to_string())?;
        match (answer.status.as_u16(), failure(&answer)) {
            (200, _) | (404, Some(_)) => Ok(()),
            (_, error) => {
                let message = error.unwrap_or_else(|| unreadable(&answer)).message;
                Err(format!("answered {}: {message}", answer.status))
            }
        }
    }
}

impl Connector for Xendit {
    fn replay_rule(&self) -> ReplayRule {
        ReplayRule::SameKey { window: ReplayRule::NO_END, look_up: None }
    }

    fn timeout(&self) -> Duration {
        self.http.timeout()
    }

    fn supports(&self, job: &CreateLink) -> Result<(), Rejection> {
        self.body(job, "").map(drop)
    }

    fn create_link<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Outcome> {
        self.create(call).boxed()
    }

    fn find_link<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Finding> {
        self.find(call).boxed()
    }

    fn cancel_link<'a>(&'a self, connector_payout_id: &'a str) -> BoxFuture<'a, Result<(), ConnectorError>> {
        self.void(connector_payout_id).boxed()
    }

    fn credentials(&self) -> Vec<SecretString> {
        vec![self.settings.api_key.clone()]
    }

    fn unread_fields(&self) -> u64 {
        self.optional.unread()
    }

    fn unknown_statuses(&self) -> u64 {
        self.optional.unknown_statuses()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), String>> {
        self.try_credential().boxed()
    }
}

/// In the words of the dialects that Xendit's pages have.
fn is_voided(status: &str) -> bool {
    matches!(status, "VOIDED" | "VOID" | "CANCELED" | "CANCELLED")
}

fn whole_rupiah(job: &CreateLink) -> Result<i64, Rejection> {
    job.amount.whole_major_units().ok_or_else(|| {
        unsupported(
            "amount.minor_amount",
            "Xendit takes whole rupiah: minor_amount must be a multiple of 100.",
        )
    })
}

fn is_header(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Seconds until the limit of calls is whole again.
fn reset(answer: &Answer) -> Option<Duration> {
    // Documented with decimals: `Rate-Limit-Reset: 58.37`.
    decimal_seconds(answer.headers.get("rate-limit-reset")?.to_str().ok()?)
}

/// An error in the provider's own words; `None` where the answer holds none.
fn failure(answer: &Answer) -> Option<ConnectorError> {
    let Failure { error_code, message } = parse(answer)?;
    Some(ConnectorError::new(answer.status.as_u16(), Some(&error_code), &message, None))
}
