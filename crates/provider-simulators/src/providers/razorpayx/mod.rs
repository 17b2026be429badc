//! Simulates RazorpayX payout links, by <https://razorpay.com/docs/api/x/payout-links>.
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /v1/payout-links` | 200, the link; a repeat makes **another** one, whatever its `receipt` |
//! | `GET /v1/payout-links/{id}` · `?receipt=…&from=…&count=…` | the link · `{entity, count, items}`, the newest first |
//! | `POST /v1/payout-links/{id}/cancel` | the link, cancelled, while it is issued |
//! | `GET /v1/payouts/{id}` | the payout of a claimed link: a `processed` link's `payout_id` names it |
//!
//! `X-Payout-Idempotency` is documented for payouts and not for links, so the simulator ignores it. It does not know
//! contact types and purposes that were created in the dashboard.

mod reply;
mod status;
mod webhook;

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use self::reply::{FORM, invalid, no_such_link, payout_view, view, wrong};
use self::status::WORDS;
use self::webhook::WEBHOOKS;
use super::api::{Api, Job, Request, Task, same};
use super::fields::{Fields, Problem, boolean, one_of, pairs, text, whole};
use super::link::{NewLink, Words};
use super::state::ProviderState;
use super::webhooks::Webhooks;
use crate::fault_server::{ErrorReply, Form, Reply};

/// The account of the simulated RazorpayX.
#[derive(Clone)]
pub struct RazorpayXSettings {
    /// The user name of basic authentication.
    pub key_id: String,
    /// The password of basic authentication.
    pub key_secret: String,
    /// The account that is debited. No other account exists.
    pub account_number: String,
    /// Whether the expiry of links is enabled in the dashboard. Without it `expire_by` is rejected.
    pub expiry: bool,
}

impl RazorpayXSettings {
    /// Creates settings with the account `7878780080316316` of the documentation, and with expiry.
    pub fn new(key_id: impl Into<String>, key_secret: impl Into<String>) -> Self {
        Self {
            key_id: key_id.into(),
            key_secret: key_secret.into(),
            account_number: "7878780080316316".into(),
            expiry: true,
        }
    }
}

const PURPOSES: &[&str] = &["refund", "cashback", "payout", "salary", "utility bill", "vendor bill"];
const CONTACT_TYPES: &[&str] = &["vendor", "customer", "employee", "self"];
const MIN_LIFE: Duration = Duration::minutes(15);
const MAX_PAGE: usize = 100;

pub(super) struct RazorpayX {
    settings: RazorpayXSettings,
    links_url: String,
}

impl RazorpayX {
    pub(super) fn new(settings: RazorpayXSettings, links_url: String) -> Self {
        Self { settings, links_url }
    }

    fn create(&self, request: &Request) -> Result<Job, ErrorReply> {
        if request.content_type().as_deref() != Some("application/json") {
            return Err(invalid("The content type is application/json", None));
        }
        let now = OffsetDateTime::now_utc();
        let mut fields = Fields::of_json(&request.body).map_err(wrong)?;
        let draft = read_create(&mut fields).map_err(wrong)?;
        let asked = fields.end().map_err(wrong)?;
        if !same(&draft.account_number, &self.settings.account_number) {
            return Err(invalid("The account number is not one of yours", Some("account_number")));
        }
        let expires_at = match draft.expire_by.map(OffsetDateTime::from_unix_timestamp) {
            None => None,
            Some(_) if !self.settings.expiry => {
                return Err(invalid("Expiry is not enabled for this account", Some("expire_by")));
            }
            Some(Ok(at)) if at >= now + MIN_LIFE => Some(at),
            Some(_) => return Err(invalid("It is at least 15 minutes ahead", Some("expire_by"))),
        };
        let random = Uuid::new_v4().simple().to_string();
        let reference = draft.receipt.unwrap_or_default();
        let new = NewLink {
            id: format!("poutlk_{}", &random[..14]),
            reference: reference.clone(),
            amount: draft.amount.to_string(),
            currency: "INR".into(),
            lifetime: expires_at.map(|at| at - now),
            url: format!("{}/i/{}", self.links_url, &random[14..]),
            request: asked,
        };
        let job = Job::new(move |state| Reply::json(StatusCode::OK, &view(state.issue(new))));
        Ok(if reference.is_empty() { job } else { job.about(&reference) })
    }
}

impl Api for RazorpayX {
    fn form(&self) -> &'static Form {
        &FORM
    }

    fn words(&self) -> &'static Words {
        &WORDS
    }

    fn webhooks(&self) -> &'static Webhooks {
        &WEBHOOKS
    }

    fn task(&self, method: &Method, path: &[&str]) -> Option<Task> {
        match (method.as_str(), path) {
            ("POST", ["v1", "payout-links"]) => Some(Task::Create),
            ("GET", ["v1", "payout-links"]) => Some(Task::List),
            ("GET", ["v1", "payout-links", id]) => Some(Task::Get((*id).to_owned())),
            ("GET", ["v1", "payouts", id]) => Some(Task::Payout((*id).to_owned())),
            ("POST", ["v1", "payout-links", id, "cancel"]) => Some(Task::Cancel((*id).to_owned())),
            _ => None,
        }
    }

    fn job(&self, task: Task, request: &Request) -> Result<Job, ErrorReply> {
        let (key_id, key_secret) = request.basic().unwrap_or_default();
        if !same(&key_id, &self.settings.key_id) || !same(&key_secret, &self.settings.key_secret) {
            return Err(ErrorReply(StatusCode::UNAUTHORIZED, (FORM.error)(StatusCode::UNAUTHORIZED)));
        }
        match task {
            Task::Create => self.create(request),
            Task::Get(id) => Ok(Job::new(move |state| match state.look(&id) {
                Some(link) => Reply::json(StatusCode::OK, &view(link)),
                None => no_such_link().into(),
            })),
            Task::List => list(request),
            Task::Cancel(id) => Ok(Job::new(move |state| match state.cancel(&id) {
                Some((link, true)) => Reply::json(StatusCode::OK, &view(link)),
                Some((_, false)) => invalid("Only an issued payout link can be cancelled", None).into(),
                None => no_such_link().into(),
            })),
            Task::Payout(id) => Ok(Job::new(move |state| match state.payout(&id) {
                Some((link, payout)) => Reply::json(StatusCode::OK, &payout_view(link, payout)),
                None => no_such_link().into(),
            })),
            Task::Token => Err(ErrorReply(StatusCode::NOT_FOUND, (FORM.error)(StatusCode::NOT_FOUND))),
        }
    }
}

/// The fields that the simulator evaluates.
struct Draft {
    account_number: String,
    amount: i64,
    receipt: Option<String>,
    expire_by: Option<i64>,
}

fn read_create(fields: &mut Fields) -> Result<Draft, Problem> {
    let draft = Draft {
        account_number: fields.required("account_number", "a string", text(1..=40))?,
        amount: fields.required("amount", "an integer of paise, at least 100", whole(100..=i64::MAX))?,
        receipt: fields.optional("receipt", "at most 40 characters", text(1..=40))?,
        expire_by: fields.optional("expire_by", "Unix seconds", whole(0..=i64::MAX))?,
    };
    fields.required("currency", "INR", one_of(&["INR"]))?;
    fields.required("purpose", "one of the purposes", one_of(PURPOSES))?;
    fields.required("description", "at least 1 character", text(1..=2048))?;
    fields.optional("send_sms", "a boolean", boolean)?;
    fields.optional("send_email", "a boolean", boolean)?;
    fields.optional("notes", "at most 15 pairs, values of 256 characters", pairs(15, 256, 256))?;
    let mut contact = fields.object("contact")?.ok_or_else(|| Problem::Missing("contact".into()))?;
    let known = contact.optional("id", "cont_ and 14 characters", contact_id)?;
    // A contact is given by its id alone: any further field is rejected then.
    if known.is_none() {
        contact.required("name", "3 to 50 of letters, digits, space and ’-_/().", name)?;
        let phone = contact.optional("contact", "a phone number", phone)?;
        let email = contact.optional("email", "an e-mail address", email)?;
        if phone.is_none() && email.is_none() {
            return Err(Problem::Missing("contact.contact".into()));
        }
        contact.optional("type", "one of the contact types", one_of(CONTACT_TYPES))?;
    }
    contact.end()?;
    Ok(draft)
}

fn list(request: &Request) -> Result<Job, ErrorReply> {
    let (mut count, mut skip) = (10, 0);
    let (mut from, mut to) = (i64::MIN, i64::MAX);
    let mut wanted: Vec<(String, String)> = Vec::new();
    for (name, value) in request.query() {
        let bad = || invalid("The parameter is not valid", Some(&name));
        match name.as_str() {
            "count" => count = value.parse().ok().filter(|n| (1..=MAX_PAGE).contains(n)).ok_or_else(bad)?,
            "skip" => skip = value.parse().map_err(|_| bad())?,
            "from" => from = value.parse().map_err(|_| bad())?,
            "to" => to = value.parse().map_err(|_| bad())?,
            "id" | "purpose" | "status" | "receipt" | "short_url" | "contact_id" | "fund_account_id" => {
                wanted.push((name, value));
            }
            "contact_phone_number" => wanted.push(("contact.contact".into(), value)),
            "contact_email" => wanted.push(("contact.email".into(), value)),
            _ => return Err(bad()),
        }
    }
    let reference = wanted.iter().find(|(name, _)| name == "receipt").map(|(_, receipt)| receipt.clone());
    let job = Job::new(move |state: &mut ProviderState| {
        let found = state.look_at_all(|link| {
            let reply = view(link);
            let has = |name: &str, value: &str| match name.split_once('.') {
                Some((object, field)) => reply[object][field] == value,
                None => reply[name] == value,
            };
            (from..=to).contains(&link.created_at.unix_timestamp())
                && wanted.iter().all(|(name, value)| has(name, value))
        });
        let items: Vec<Value> = found.into_iter().skip(skip).take(count).map(view).collect();
        let page = json!({ "entity": "collection", "count": items.len(), "items": items });
        Reply::json(StatusCode::OK, &page)
    });
    Ok(match reference {
        Some(reference) => job.about(&reference),
        None => job,
    })
}

fn name(value: &Value) -> Option<()> {
    let name = text(3..=50)(value)?;
    let special = |c: char| "’-_/().".contains(c);
    let allowed = name.chars().all(|c| c.is_alphanumeric() || c == ' ' || special(c));
    let ends_well = name.chars().last().is_some_and(|last| last == '.' || !special(last));
    (allowed && ends_well).then_some(())
}

fn phone(value: &Value) -> Option<()> {
    let digits = value.as_str()?.trim_start_matches('+');
    ((8..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(())
}

fn email(value: &Value) -> Option<()> {
    let (local, domain) = value.as_str()?.split_once('@')?;
    (!local.is_empty() && domain.contains('.') && !domain.contains(['@', ' '])).then_some(())
}

fn contact_id(value: &Value) -> Option<()> {
    let rest = value.as_str()?.strip_prefix("cont_")?;
    (rest.len() == 14 && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())).then_some(())
}
