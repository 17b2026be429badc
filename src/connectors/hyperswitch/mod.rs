//! Hyperswitch (Juspay): `POST /payouts/create` with `payout_link`.
//!
//! Sources: its OpenAPI document (`api-reference/v1/openapi_spec_v1.json` in juspay/hyperswitch), its error codes
//! (api-reference.hyperswitch.io/essentials/error_codes) and its payout link guide (docs.hyperswitch.io).
//!
//! Out of doubt: `payout_id` is ours, derived from the record, and unique there without end. A repeat is answered with
//! `HE_01` and never with the payout, which is then asked for by that id.

mod body;

use std::time::Duration;

use futures_util::{FutureExt, future::BoxFuture};
use reqwest::{
    RequestBuilder, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, HeaderName},
};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use self::body::{Billing, Browser, CreateBody, FeatureData, expose};
use super::{
    Call, Connector, ErrorField, Kind, Settings, Supports,
    exchange::{
        OptionalFields, at, judge, judge_unreadable, link_url, lost, parse, unasked, unreadable, unsettled,
        with_secret, with_trace,
    },
    kind::{read, settle_problem},
    supports::{feature_data, required, unsupported},
};
use crate::{
    contract::Rejection,
    domain::{
        ConnectorError, CreateLink, CreatedLink, Finding, LookUp, Outcome, PayoutStatus, ReplayRule,
        idempotency_uuid,
    },
    http_client::{Answer, Client, HttpSettings, NoClient},
    setting_url,
};

pub(super) const KIND: Kind = Kind {
    name: "hyperswitch",
    title: "Hyperswitch (Juspay)",
    needs: &["api_key"],
    supports: Supports {
        currencies: None,
        amounts: &[],
        converts: false,
        job_fields: &["customer.connector_customer_id or customer.id"],
        feature_data: &[
            "auto_fulfill",
            "connector",
            "entity_type",
            "metadata",
            "payout_link_config",
            "profile_id",
            "return_url",
            "session_expiry",
        ],
        expiry: "session_expiry seconds after it was made: 7 days, at most 7890000 s",
        cancels: true,
    },
    error_fields: &[ErrorField::Code],
    read: read::<HyperswitchSettings>,
};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct HyperswitchSettings {
    #[serde(default = "production", deserialize_with = "setting_url::service")]
    url: Url,
    api_key: SecretString,
    /// What the recipient is told where a job has no `description`.
    description: Option<String>,
    /// How long after a call "not there" counts. Longer than the timeout.
    #[serde(default = "ninety_seconds")]
    settle_seconds: u64,
    /// For jobs whose `connector_feature_data` does not say otherwise.
    #[serde(default)]
    defaults: FeatureData,
}

fn production() -> Url {
    #[expect(clippy::expect_used, reason = "a constant")]
    Url::parse("https://api.hyperswitch.io").expect("it is a URL")
}

fn ninety_seconds() -> u64 {
    90
}

/// Where nobody says how long: the provider's own default of 15 minutes is over before most mails are read.
const SEVEN_DAYS: u32 = 604_800;
/// About three months.
const MAX_SESSION: u32 = 7_890_000;

impl Settings for HyperswitchSettings {
    fn problems(&self, lease: Duration, on_its_way: Duration) -> Vec<String> {
        let mut problems: Vec<String> =
            settle_problem(self.settle_seconds, lease, on_its_way).into_iter().collect();
        if !self.defaults.session_expiry.is_none_or(|seconds| (1..=MAX_SESSION).contains(&seconds)) {
            problems.push(format!("defaults.session_expiry is not 1 to {MAX_SESSION}"));
        }
        problems
    }

    fn url(&self) -> &Url {
        &self.url
    }

    fn identity(&self) -> String {
        self.api_key.expose_secret().to_owned()
    }

    fn connect(&self, http: HttpSettings) -> Result<Box<dyn Connector>, NoClient> {
        Ok(Box::new(Hyperswitch {
            http: Client::new(http)?,
            settings: self.clone(),
            optional: OptionalFields::default(),
        }))
    }
}

struct Hyperswitch {
    settings: HyperswitchSettings,
    http: Client,
    optional: OptionalFields,
}

/// What is read of a payout. Its `client_secret` is not.
#[derive(Deserialize)]
struct Payout {
    payout_id: String,
    merchant_order_reference_id: Option<String>,
    amount: i64,
    currency: String,
    status: String,
    #[serde(default)]
    created: Value,
    payout_link: Option<PayoutLink>,
    #[serde(default)]
    error_code: Value,
    #[serde(default)]
    error_message: Value,
}

#[derive(Deserialize)]
struct PayoutLink {
    link: String,
}

#[derive(Deserialize)]
struct Failure {
    error: FailureDetails,
}

#[derive(Deserialize)]
struct FailureDetails {
    code: String,
    message: String,
    reason: Option<String>,
}

impl Hyperswitch {
    fn body<'a>(&'a self, job: &'a CreateLink, idempotency_key: &str) -> Result<CreateBody<'a>, Rejection> {
        KIND.supports.check(job)?;
        if job.connector_payout_id.is_some() {
            let why = "The payout's id at Hyperswitch is derived from merchant_payout_id: leave connector_payout_id out.";
            return Err(unsupported("connector_payout_id", why));
        }
        let (own, defaults) = (feature_data::<FeatureData>(job)?, &self.settings.defaults);
        let customer = job.customer.as_deref();
        let customer_id = customer
            .and_then(|customer| customer.connector_customer_id.as_deref().or(customer.id.as_deref()));
        let customer_id =
            required(customer_id, "customer.id", "Hyperswitch makes no payout link without a customer.")?;
        if customer_id.len() > 255 {
            return Err(Rejection::invalid("customer.id", "The value is longer than 255 bytes: shorten it."));
        }
        let billing = job.address.billing_address.as_deref();
        Ok(CreateBody {
            payout_id: payout_id(idempotency_key),
            merchant_order_reference_id: job.merchant_payout_id.as_str(),
            amount: job.amount.minor_units(),
            currency: job.amount.currency.as_str(),
            payout_link: true,
            confirm: false,
            // Else the claimed payout waits for a second call.
            auto_fulfill: own.auto_fulfill.or(defaults.auto_fulfill).unwrap_or(true),
            session_expiry: self.session_expiry(&own)?,
            customer_id,
            name: customer.and_then(|customer| customer.full_name()),
            email: customer.and_then(|customer| expose(&customer.email)),
            phone: customer.and_then(|customer| expose(&customer.phone_number)),
            phone_country_code: customer.and_then(|customer| customer.phone_country_code.as_deref()),
            billing: billing.map(Billing::of),
            description: job.description.as_deref().or(self.settings.description.as_deref()),
            priority: job.priority.map(|priority| priority.as_str().to_lowercase()),
            browser_info: job.browser_info.as_deref().map(Browser::of),
            payout_link_config: own.payout_link_config.or_else(|| defaults.payout_link_config.clone()),
            entity_type: own.entity_type.or(defaults.entity_type),
            profile_id: own.profile_id.or_else(|| defaults.profile_id.clone()),
            return_url: own.return_url.or_else(|| defaults.return_url.clone()),
            connector: own.connector.or_else(|| defaults.connector.clone()),
            metadata: own.metadata.or_else(|| defaults.metadata.clone()),
        })
    }

    /// Always sent: the answer does not say when its link ends.
    fn session_expiry(&self, own: &FeatureData) -> Result<u32, Rejection> {
        let seconds = own.session_expiry.or(self.settings.defaults.session_expiry).unwrap_or(SEVEN_DAYS);
        if !(1..=MAX_SESSION).contains(&seconds) {
            let message = format!("The value must be 1 to {MAX_SESSION} seconds.");
            return Err(Rejection::invalid("connector_feature_data.session_expiry", message));
        }
        Ok(seconds)
    }

    fn request(&self, request: RequestBuilder, api_key: Option<&SecretString>) -> RequestBuilder {
        let api_key = api_key.unwrap_or(&self.settings.api_key);
        with_secret(
            request.header(ACCEPT, "application/json"),
            HeaderName::from_static("api-key"),
            "",
            api_key,
        )
    }

    async fn create(&self, call: Call<'_>) -> Outcome {
        let body = match self.body(call.job, call.idempotency_key) {
            Ok(body) => serde_json::to_vec(&body).unwrap_or_default(),
            Err(rejection) => return Outcome::Declined(rejection.into()),
        };
        let request = self
            .request(
                self.http.post(at(&self.settings.url, &["payouts", "create"])),
                call.job.access_token.as_ref(),
            )
            .header(CONTENT_TYPE, "application/json")
            .body(body);
        let answer = match self.http.call(with_trace(request, call.trace)).await {
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
        match failure(&answer) {
            None => judge_unreadable(&answer, own_credential),
            Some(error) => match error.code.as_deref() {
                Some("HE_01") => Outcome::AlreadyExists(error),
                // Out of order, or a processor's word: with whatever status they come, save "too many".
                Some("HE_00" | "HE_03" | "CE_00") if answer.status != StatusCode::TOO_MANY_REQUESTS => {
                    Outcome::Unknown(error)
                }
                _ => judge(&answer, error, own_credential),
            },
        }
    }

    async fn find(&self, call: Call<'_>) -> Finding {
        let mut url = at(&self.settings.url, &["payouts", &payout_id(call.idempotency_key)]);
        url.set_query(Some("force_sync=false"));
        let request = self.request(self.http.get(url), call.job.access_token.as_ref());
        let answer = match self.http.call(with_trace(request, call.trace)).await {
            Ok(answer) => answer,
            Err(error) => return unasked(error),
        };
        if answer.status.is_success() {
            let payout = parse(&answer).and_then(|payout| self.read(payout, call, &answer));
            return payout.unwrap_or_else(|| unsettled(&answer, unreadable(&answer)));
        }
        match failure(&answer) {
            Some(error) if error.code.as_deref() == Some("HE_02") => {
                Finding::NotFound { status_code: answer.status.as_u16() }
            }
            error => unsettled(&answer, error.unwrap_or_else(|| unreadable(&answer))),
        }
    }

    /// A payout as Hyperswitch has it; `None` where it is not this job's, or its link cannot be passed on.
    fn read(&self, payout: Payout, call: Call<'_>, answer: &Answer) -> Option<Finding> {
        let status_code = answer.status.as_u16();
        let (job, id) = (call.job, payout_id(call.idempotency_key));
        let is_ours = payout.payout_id == id
            && payout.amount == job.amount.minor_units()
            && payout.currency == job.amount.currency.as_str()
            && payout.merchant_order_reference_id.is_none_or(|own| own == job.merchant_payout_id.as_str());
        if !is_ours {
            return None;
        }
        // The contract's, in lower case.
        let known = PayoutStatus::new(&payout.status.to_uppercase());
        let unknown_status =
            if known.is_none() { Some(self.optional.unknown_status(&payout.status)) } else { None };
        let payout_status = known.unwrap_or(PayoutStatus::RequiresFulfillment);
        use PayoutStatus::{Cancelled, Expired, Failed, Ineligible, NotPermitted, Reversed};
        if matches!(payout_status, Cancelled | Expired | Failed | Ineligible | NotPermitted | Reversed) {
            let message = self.optional.text("error_message", &payout.error_message);
            let message = message.map_or_else(|| format!("the payout is {}", payout.status), str::to_owned);
            let code = self.optional.text("error_code", &payout.error_code);
            let error = ConnectorError::new(status_code, code, &message, None);
            return Some(Finding::Ended { error, payout_status, connector_payout_id: id });
        }
        let Some(link) = payout.payout_link else {
            return Some(Finding::Underway { connector_payout_id: id, status_code });
        };
        let created = self.optional.time("created", &payout.created);
        let lives = self.session_expiry(&feature_data(job).ok()?).ok()?;
        Some(Finding::Found(CreatedLink {
            url: link_url(&link.link, false)?,
            connector_payout_id: id,
            payout_status,
            unknown_status,
            expires_at: created
                .and_then(|created| created.checked_add(time::Duration::seconds(lives.into()))),
            status_code,
        }))
    }

    async fn cancel(&self, id: &str) -> Result<(), ConnectorError> {
        let url = at(&self.settings.url, &["payouts", id, "cancel"]);
        let body = serde_json::json!({ "payout_id": id }).to_string();
        let request =
            self.request(self.http.post(url), None).header(CONTENT_TYPE, "application/json").body(body);
        let answer =
            self.http.call(request).await.map_err(|error| ConnectorError::unanswered(&error.to_string()))?;
        match parse::<Payout>(&answer) {
            Some(payout) if answer.status.is_success() && payout.status == "cancelled" => Ok(()),
            _ => Err(failure(&answer).unwrap_or_else(|| unreadable(&answer))),
        }
    }

    async fn try_credential(&self) -> Result<(), String> {
        // No payout has this id: that it is not there is for whom the key is good to know.
        let url = at(&self.settings.url, &["payouts", "00000000-0000-8000-8000-000000000000"]);
        let answer = self
            .http
            .call(self.request(self.http.get(url), None))
            .await
            .map_err(|error| error.to_string())?;
        let error = failure(&answer);
        match error.as_ref().and_then(|error| error.code.as_deref()) {
            Some("HE_02") => Ok(()),
            _ if answer.status.is_success() => Ok(()),
            _ => {
                let message = error.unwrap_or_else(|| unreadable(&answer)).message;
                Err(format!("answered {}: {message}", answer.status))
            }
        }
    }
}

impl Connector for Hyperswitch {
    fn replay_rule(&self) -> ReplayRule {
        let look_up = LookUp { settle: Duration::from_secs(self.settings.settle_seconds) };
        ReplayRule::SameKey { window: ReplayRule::NO_END, look_up: Some(look_up) }
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
        self.cancel(connector_payout_id).boxed()
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

/// A hyphenated UUID: what older servers ask for and newer ones take.
fn payout_id(idempotency_key: &str) -> String {
    idempotency_uuid(idempotency_key).hyphenated().to_string()
}

/// An error in the provider's own words; `None` where the answer holds none.
fn failure(answer: &Answer) -> Option<ConnectorError> {
    let Failure { error } = parse(answer)?;
    let status_code = answer.status.as_u16();
    Some(ConnectorError::new(status_code, Some(&error.code), &error.message, error.reason.as_deref()))
}
