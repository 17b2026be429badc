//! RazorpayX payout links: `POST /v1/payout-links`.
//!
//! Sources: razorpay.com/docs/api/x/payout-links and razorpay/markdown-docs.
//!
//! Out of doubt: there is no idempotency, and a repeat makes a second link. So before anything is repeated the list is
//! asked by `receipt`, which is the record's key, until what may still be under way is certain to show there.

use std::{collections::BTreeMap, time::Duration};

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
    kind::{read, settle_problem},
    supports::{feature_data, required, unsupported},
};
use crate::{
    contract::Rejection,
    domain::{ConnectorError, CreateLink, CreatedLink, Finding, LookUp, Outcome, PayoutStatus, ReplayRule},
    http_client::{Answer, Client, HttpSettings, NoClient},
    setting_url,
};

pub(super) const KIND: Kind = Kind {
    name: "razorpayx",
    title: "RazorpayX (India)",
    needs: &["key_id", "key_secret", "account_number", "purpose"],
    supports: Supports {
        currencies: Some(&["INR"]),
        amounts: &[("INR", 100, i64::MAX)],
        converts: false,
        job_fields: &[
            "customer.connector_customer_id or customer.name",
            "customer.connector_customer_id or customer.phone_number or customer.email",
            "description",
        ],
        feature_data: &[
            "account_number",
            "contact_type",
            "lifetime_seconds",
            "notes",
            "purpose",
            "send_email",
            "send_sms",
        ],
        expiry: "lifetime_seconds after it was made, at least 960 s, where expiry is enabled there; else never",
        cancels: true,
    },
    error_fields: &[ErrorField::Code, ErrorField::Reason],
    read: read::<RazorpayXSettings>,
};

/// 15 minutes are asked for; a minute more, so that a call that takes its time is not too late.
const MIN_LIFE: u64 = 960;
/// Under which the full `merchant_payout_id` stands in `notes`.
const OWN_NOTE: &str = "merchant_payout_id";
const MAX_NOTES: usize = 15;
const MAX_NOTE: usize = 256;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RazorpayXSettings {
    #[serde(default = "production", deserialize_with = "setting_url::service")]
    url: Url,
    key_id: String,
    key_secret: SecretString,
    /// The account that is debited.
    account_number: String,
    purpose: String,
    /// What the recipient is told where a job has no `description`.
    description: Option<String>,
    /// How long after a call "not there" counts. Longer than the timeout.
    #[serde(default = "two_minutes")]
    settle_seconds: u64,
    /// For jobs whose `connector_feature_data` does not say otherwise.
    #[serde(default)]
    defaults: FeatureData,
}

/// Keys of `connector_feature_data`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FeatureData {
    account_number: Option<String>,
    contact_type: Option<String>,
    lifetime_seconds: Option<u64>,
    notes: Option<BTreeMap<String, String>>,
    purpose: Option<String>,
    send_email: Option<bool>,
    send_sms: Option<bool>,
}

fn production() -> Url {
    #[expect(clippy::expect_used, reason = "a constant")]
    Url::parse("https://api.razorpay.com").expect("it is a URL")
}

fn two_minutes() -> u64 {
    120
}

impl Settings for RazorpayXSettings {
    fn problems(&self, lease: Duration, on_its_way: Duration) -> Vec<String> {
        let mut problems: Vec<String> =
            settle_problem(self.settle_seconds, lease, on_its_way).into_iter().collect();
        let texts =
            [("key_id", &self.key_id), ("account_number", &self.account_number), ("purpose", &self.purpose)];
        for (name, text) in texts {
            if text.is_empty() {
                problems.push(format!("{name} is empty"));
            }
        }
        if self.key_id.contains(':') {
            problems.push("key_id has a colon in it".to_owned());
        }
        if self.description.as_deref() == Some("") {
            problems.push("description is empty".to_owned());
        }
        problems.extend(self.defaults.problem().map(|(key, problem)| format!("defaults.{key}: {problem}")));
        problems
    }

    fn url(&self) -> &Url {
        &self.url
    }

    fn identity(&self) -> String {
        self.account_number.clone()
    }

    fn connect(&self, http: HttpSettings) -> Result<Box<dyn Connector>, NoClient> {
        Ok(Box::new(RazorpayX {
            http: Client::new(http)?,
            settings: self.clone(),
            optional: OptionalFields::default(),
        }))
    }
}

struct RazorpayX {
    settings: RazorpayXSettings,
    http: Client,
    optional: OptionalFields,
}

#[derive(Serialize)]
struct CreateBody<'a> {
    account_number: String,
    contact: Contact<'a>,
    amount: i64,
    currency: &'static str,
    purpose: String,
    description: &'a str,
    receipt: &'a str,
    send_sms: bool,
    send_email: bool,
    notes: BTreeMap<String, String>,
    /// Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    expire_by: Option<i64>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Contact<'a> {
    /// By its id alone: any other field is one too many.
    Known { id: &'a str },
    Described {
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        contact: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        email: Option<&'a str>,
        #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
        kind: Option<String>,
    },
}

#[derive(Deserialize)]
struct Link {
    id: String,
    status: String,
    amount: i64,
    currency: String,
    receipt: Option<String>,
    short_url: Option<String>,
    created_at: i64,
    #[serde(default)]
    expire_by: Value,
    #[serde(default)]
    expired_at: Value,
}

#[derive(Deserialize)]
struct Links {
    items: Vec<Link>,
}

#[derive(Deserialize)]
struct Failure {
    error: FailureDetails,
}

#[derive(Deserialize)]
struct FailureDetails {
    code: String,
    description: String,
    reason: Option<String>,
}

impl RazorpayX {
    fn body<'a>(&'a self, job: &'a CreateLink, receipt: &'a str) -> Result<CreateBody<'a>, Rejection> {
        KIND.supports.check(job)?;
        if job.connector_payout_id.is_some() {
            return Err(unsupported(
                "connector_payout_id",
                "RazorpayX gives each link an id of its own: leave connector_payout_id out.",
            ));
        }
        self.pair(job)?;
        let (own, defaults) = (feature_data::<FeatureData>(job)?, &self.settings.defaults);
        if let Some((key, problem)) = own.problem() {
            return Err(Rejection::invalid(format!("connector_feature_data.{key}"), problem));
        }
        let description = job.description.as_deref().or(self.settings.description.as_deref());
        let mut notes = own.notes.or_else(|| defaults.notes.clone()).unwrap_or_default();
        notes.insert(OWN_NOTE.into(), job.merchant_payout_id.as_str().into());
        let lifetime = own.lifetime_seconds.or(defaults.lifetime_seconds);
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let account_number = own.account_number.or_else(|| defaults.account_number.clone());
        let purpose = own.purpose.or_else(|| defaults.purpose.clone());
        Ok(CreateBody {
            account_number: account_number.unwrap_or_else(|| self.settings.account_number.clone()),
            contact: contact(job, own.contact_type.or_else(|| defaults.contact_type.clone()))?,
            amount: job.amount.minor_units(),
            currency: job.amount.currency.as_str(),
            purpose: purpose.unwrap_or_else(|| self.settings.purpose.clone()),
            description: required(description, "description", "RazorpayX shows it to the recipient.")?,
            receipt,
            // We tell of the link ourselves.
            send_sms: own.send_sms.or(defaults.send_sms).unwrap_or(false),
            send_email: own.send_email.or(defaults.send_email).unwrap_or(false),
            notes,
            expire_by: lifetime.and_then(|seconds| now.checked_add_unsigned(seconds)),
        })
    }

    /// Key id and secret: the job's own, as `id:secret`, go first.
    fn pair<'a>(&'a self, job: &'a CreateLink) -> Result<(&'a str, &'a str), Rejection> {
        match &job.access_token {
            None => Ok((&self.settings.key_id, self.settings.key_secret.expose_secret())),
            Some(token) => token.expose_secret().split_once(':').ok_or_else(|| {
                Rejection::invalid("access_token", "The value must have the form KEY_ID:KEY_SECRET.")
            }),
        }
    }

    fn links(&self, parts: &[&str]) -> Url {
        at(&at(&self.settings.url, &["v1", "payout-links"]), parts)
    }

    fn of_job(&self, request: RequestBuilder, call: Call<'_>) -> RequestBuilder {
        let request = with_trace(request, call.trace);
        match self.pair(call.job) {
            Ok((id, secret)) => request.basic_auth(id, Some(secret)),
            Err(_) => request,
        }
    }

    fn own(&self, request: RequestBuilder) -> RequestBuilder {
        request.basic_auth(&self.settings.key_id, Some(self.settings.key_secret.expose_secret()))
    }

    async fn create(&self, call: Call<'_>) -> Outcome {
        let body = match self.body(call.job, call.idempotency_key) {
            Ok(body) => serde_json::to_vec(&body).unwrap_or_default(),
            Err(rejection) => return Outcome::Declined(rejection.into()),
        };
        let request = self
            .of_job(self.http.post(self.links(&[])), call)
            .header(CONTENT_TYPE, "application/json")
            .body(body);
        let answer = match self.http.call(request).await {
            Ok(answer) => answer,
            Err(error) => return lost(error),
        };
        let own_credential = call.job.access_token.is_none();
        if answer.status.is_success() {
            return match parse(&answer).and_then(|link| self.read(link, call, &answer)) {
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
            Some(error) => judge(&answer, error, own_credential),
        }
    }

    async fn find(&self, call: Call<'_>) -> Finding {
        let url = match call.connector_payout_id {
            Some(id) => self.links(&[id]),
            None => self.search(call),
        };
        let answer = match self.http.call(self.of_job(self.http.get(url), call)).await {
            Ok(answer) => answer,
            Err(error) => return unasked(error),
        };
        if !answer.status.is_success() {
            return unsettled(&answer, failure(&answer).unwrap_or_else(|| unreadable(&answer)));
        }
        let link = match call.connector_payout_id {
            Some(_) => parse::<Link>(&answer),
            None => match parse::<Links>(&answer) {
                Some(Links { items }) if items.is_empty() => {
                    return Finding::NotFound { status_code: answer.status.as_u16() };
                }
                Some(Links { items }) => oldest(items, call.idempotency_key),
                None => None,
            },
        };
        let found = link.and_then(|link| self.read(link, call, &answer));
        found.unwrap_or_else(|| unsettled(&answer, unreadable(&answer)))
    }

    fn search(&self, call: Call<'_>) -> Url {
        let mut url = self.links(&[]);
        url.query_pairs_mut().append_pair("receipt", call.idempotency_key).append_pair("count", "100");
        // Not narrowed by time: clocks that disagree would leave out a link that is there.
        url
    }

    /// A link as RazorpayX has it; `None` where it is not this job's, or its URL cannot be passed on.
    fn read(&self, link: Link, call: Call<'_>, answer: &Answer) -> Option<Finding> {
        let (status_code, amount) = (answer.status.as_u16(), call.job.amount);
        let is_ours = link.receipt.as_deref() == Some(call.idempotency_key)
            && link.amount == amount.minor_units()
            && link.currency == amount.currency.as_str();
        if !is_ours {
            return None;
        }
        let connector_payout_id = identifier(link.id)?;
        let mut unknown_status = None;
        let payout_status = match link.status.as_str() {
            "pending" => PayoutStatus::RequiresConfirmation,
            // Also after a payout that failed: the recipient tries again.
            "issued" => PayoutStatus::RequiresFulfillment,
            "processing" | "queued" => PayoutStatus::Pending,
            "processed" => PayoutStatus::Success,
            // One word for both: a link that expired has the time at which it did.
            "cancelled" if !link.expired_at.is_null() => PayoutStatus::Expired,
            "cancelled" => PayoutStatus::Cancelled,
            "expired" => PayoutStatus::Expired,
            "rejected" => PayoutStatus::Failed,
            status => {
                unknown_status = Some(self.optional.unknown_status(status));
                PayoutStatus::RequiresFulfillment
            }
        };
        if matches!(payout_status, PayoutStatus::Cancelled | PayoutStatus::Expired | PayoutStatus::Failed) {
            let error = ConnectorError::new(status_code, None, &format!("the link is {}", link.status), None);
            return Some(Finding::Ended { error, payout_status, connector_payout_id });
        }
        let Some(url) = link.short_url else {
            return Some(Finding::Underway { connector_payout_id, status_code });
        };
        Some(Finding::Found(CreatedLink {
            url: link_url(&url, false)?,
            connector_payout_id,
            payout_status,
            unknown_status,
            expires_at: self.optional.unix_time("expire_by", &link.expire_by),
            status_code,
        }))
    }

    async fn cancel(&self, id: &str) -> Result<(), ConnectorError> {
        let request = self.own(self.http.post(self.links(&[id, "cancel"])));
        let answer =
            self.http.call(request).await.map_err(|error| ConnectorError::unanswered(&error.to_string()))?;
        match parse::<Link>(&answer) {
            Some(link) if answer.status.is_success() && link.status == "cancelled" => Ok(()),
            _ => Err(failure(&answer).unwrap_or_else(|| unreadable(&answer))),
        }
    }

    async fn try_credential(&self) -> Result<(), String> {
        let mut url = self.links(&[]);
        url.query_pairs_mut().append_pair("count", "1");
        let answer = self.http.call(self.own(self.http.get(url))).await.map_err(|error| error.to_string())?;
        match answer.status.is_success() {
            true => Ok(()),
            false => {
                let message = failure(&answer).unwrap_or_else(|| unreadable(&answer)).message;
                Err(format!("answered {}: {message}", answer.status))
            }
        }
    }
}

impl Connector for RazorpayX {
    fn replay_rule(&self) -> ReplayRule {
        ReplayRule::LookUp(LookUp { settle: Duration::from_secs(self.settings.settle_seconds) })
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
        vec![self.settings.key_id.clone().into(), self.settings.key_secret.clone()]
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

impl FeatureData {
    /// What is wrong though it can be read: a key, and a sentence.
    fn problem(&self) -> Option<(&'static str, &'static str)> {
        if self.lifetime_seconds.is_some_and(|seconds| seconds < MIN_LIFE) {
            return Some(("lifetime_seconds", "The value must be 960 or more."));
        }
        let texts = [
            ("account_number", &self.account_number),
            ("contact_type", &self.contact_type),
            ("purpose", &self.purpose),
        ];
        if let Some((name, _)) = texts.into_iter().find(|(_, text)| text.as_deref() == Some("")) {
            return Some((name, "The value is empty: give one, or leave the key out."));
        }
        let notes = self.notes.as_ref()?;
        let long = notes.values().any(|value| value.chars().count() > MAX_NOTE);
        if long || notes.contains_key(OWN_NOTE) || notes.len() >= MAX_NOTES {
            let problem =
                "At most 14 notes of 256 characters are possible, and none may be called merchant_payout_id.";
            return Some(("notes", problem));
        }
        None
    }
}

fn contact(job: &CreateLink, kind: Option<String>) -> Result<Contact<'_>, Rejection> {
    let customer = job.customer.as_deref();
    if let Some(id) = customer.and_then(|customer| customer.connector_customer_id.as_deref()) {
        if !id.starts_with("cont_") {
            let message = "The value must begin with cont_, as the contacts of RazorpayX do.";
            return Err(Rejection::invalid("customer.connector_customer_id", message));
        }
        return Ok(Contact::Known { id });
    }
    let billing = job.address.billing_address.as_deref();
    let name = customer
        .and_then(|customer| customer.full_name())
        .or_else(|| billing.and_then(|address| address.full_name()));
    let name = required(name.as_deref(), "customer.name", "RazorpayX makes no contact without one.")?;
    if !is_name(name) {
        let message = "RazorpayX takes names of 3 to 50 letters, digits, spaces and ’-_/()., which end with a letter, a digit or a dot.";
        return Err(Rejection::invalid("customer.name", message));
    }
    let email = customer.and_then(|customer| customer.email.as_ref()).map(ExposeSecret::expose_secret);
    let phone = customer.and_then(|customer| {
        let number = customer.phone_number.as_ref()?.expose_secret();
        phone(customer.phone_country_code.as_deref().unwrap_or_default(), number)
    });
    if phone.is_none() {
        required(email, "customer.email", "RazorpayX needs it, or customer.phone_number.")?;
    }
    Ok(Contact::Described {
        name: name.to_owned(),
        contact: phone,
        email: email.filter(|email| !email.is_empty()),
        kind,
    })
}

fn is_name(name: &str) -> bool {
    let special = |c: char| "’-_/().".contains(c);
    let last = name.chars().last();
    (3..=50).contains(&name.chars().count())
        && name.chars().all(|c| c.is_alphanumeric() || c == ' ' || special(c))
        && last.is_some_and(|last| last == '.' || !special(last))
}

/// Digits alone, behind a plus where the country is known.
fn phone(country_code: &str, number: &str) -> Option<String> {
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    let (country, rest) = (digits(country_code), digits(number));
    match (rest.is_empty(), country.is_empty() && !number.trim_start().starts_with('+')) {
        (true, _) => None,
        (false, true) => Some(rest),
        (false, false) => Some(format!("+{country}{rest}")),
    }
}

/// Of several the first that was made: the others were made by somebody who did not look.
fn oldest(links: Vec<Link>, receipt: &str) -> Option<Link> {
    let ours: Vec<Link> = links.into_iter().filter(|link| link.receipt.as_deref() == Some(receipt)).collect();
    if ours.len() > 1 {
        tracing::error!(
            links = ours.len(),
            connector.reference = receipt,
            "RazorpayX has several links with one receipt: cancel all but the oldest"
        );
    }
    ours.into_iter().min_by_key(|link| link.created_at)
}

/// An error in the provider's own words; `None` where the answer holds none.
fn failure(answer: &Answer) -> Option<ConnectorError> {
    let Failure { error } = parse(answer)?;
    let status_code = answer.status.as_u16();
    Some(ConnectorError::new(status_code, Some(&error.code), &error.description, error.reason.as_deref()))
}

#[cfg(test)]
mod tests;
