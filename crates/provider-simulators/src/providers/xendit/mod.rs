//! Simulates Xendit's payout links (Indonesia), by <https://docs.xendit.co/docs/integration-payout-links>.
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /payouts` | 200, the payout; `DUPLICATE_PAYOUT_ERROR` for an `external_id` that is taken, without the payout |
//! | `GET /payouts/{id}` | the payout; there is no look-up by `external_id` |
//! | `POST /payouts/{id}/void` | the payout, voided, while it is pending |
//!
//! The page does not document the HTTP statuses of errors: a duplicate is 400 here, and a client should read the
//! code. Bodies are JSON or a form. `external_id` is unique for each account; `for-user-id` names a sub-account.

mod status;
mod webhook;

use axum::http::header::HeaderName;
use axum::http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{Duration, OffsetDateTime};
use url::form_urlencoded;
use uuid::Uuid;

use self::status::WORDS;
use self::webhook::WEBHOOKS;
use super::api::{Api, Job, Request, Task, same};
use super::fields::{Fields, Problem, text, whole};
use super::link::{Link, NewLink, Words};
use super::webhooks::Webhooks;
use crate::fault_server::{ErrorReply, Form, Reply};

/// The account of the simulated Xendit.
#[derive(Clone)]
pub struct XenditSettings {
    /// The user name of basic authentication. The password is empty.
    pub secret_key: String,
    /// The fund balance in rupiah. A payout that asks for more is declined.
    pub balance: i64,
}

impl XenditSettings {
    /// Creates settings with a balance that is always enough.
    pub fn new(secret_key: impl Into<String>) -> Self {
        Self { secret_key: secret_key.into(), balance: i64::MAX }
    }
}

const LIFETIME: Duration = Duration::days(3);
const FOR_USER_ID: &str = "for-user-id";
const ACCOUNT: &str = "account";
const TIMESTAMP: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
static PACE: [HeaderName; 3] = [
    HeaderName::from_static("rate-limit-limit"),
    HeaderName::from_static("rate-limit-remaining"),
    HeaderName::from_static("rate-limit-reset"),
];

static FORM: Form = Form {
    created: StatusCode::OK,
    wait: HeaderName::from_static("rate-limit-reset"),
    error: |status| {
        let (code, message) = match status.as_u16() {
            401 => ("INVALID_API_KEY", "API key is not authorized for this API service"),
            403 => ("REQUEST_FORBIDDEN_ERROR", "API key does not have the permission"),
            404 => ("DATA_NOT_FOUND", "there is nothing at this address"),
            429 => ("RATE_LIMIT_EXCEEDED", "too many requests"),
            400..=499 => ("API_VALIDATION_ERROR", "the request is invalid"),
            _ => ("SERVER_ERROR", "there was an error in our server"),
        };
        json!({ "error_code": code, "message": message })
    },
    link: || {
        json!({
            "id": "00000000-0000-4000-8000-000000000000",
            "external_id": "none",
            "amount": 1,
            "merchant_name": "None",
            "status": "PENDING",
            "expiration_timestamp": "2999-12-31T00:00:00.000Z",
            "created": "2026-01-01T00:00:00.000Z",
            "payout_url": "https://links.example/web/none",
        })
    },
    url: ("", "payout_url"),
};

pub(super) struct Xendit {
    settings: XenditSettings,
    links_url: String,
}

impl Xendit {
    pub(super) fn new(settings: XenditSettings, links_url: String) -> Self {
        Self { settings, links_url }
    }

    fn create(&self, account: String, request: &Request) -> Result<Job, ErrorReply> {
        let mut fields = read_body(request)?;
        let Draft { external_id, amount } = read_create(&mut fields).map_err(wrong)?;
        let mut asked = fields.end().map_err(wrong)?;
        asked.insert(ACCOUNT.into(), account.clone().into());
        let balance = self.settings.balance;
        let id = Uuid::new_v4().to_string();
        let url = format!("{}/web/{id}", self.links_url);
        let reference = external_id.clone();
        let job = Job::new(move |state| {
            let mut links = state.ledger.links.iter();
            if links.any(|link| link.reference == external_id && is_of(link, &account)) {
                let message = "a payout with this external_id exists already";
                return api_error("DUPLICATE_PAYOUT_ERROR", message).into();
            }
            if amount > balance {
                return api_error("INSUFFICIENT_BALANCE", "the balance is not enough for this payout").into();
            }
            let link = state.issue(NewLink {
                id,
                reference: external_id,
                amount: amount.to_string(),
                currency: "IDR".into(),
                lifetime: Some(LIFETIME),
                url,
                request: asked,
            });
            Reply::json(StatusCode::OK, &view(link))
        });
        Ok(job.about(&reference))
    }
}

impl Api for Xendit {
    fn form(&self) -> &'static Form {
        &FORM
    }

    fn words(&self) -> &'static Words {
        &WORDS
    }

    fn webhooks(&self) -> &'static Webhooks {
        &WEBHOOKS
    }

    fn pace_headers(&self) -> Option<&'static [HeaderName; 3]> {
        Some(&PACE)
    }

    fn task(&self, method: &Method, path: &[&str]) -> Option<Task> {
        match (method.as_str(), path) {
            ("POST", ["payouts"]) => Some(Task::Create),
            ("GET", ["payouts", id]) => Some(Task::Get((*id).to_owned())),
            ("POST", ["payouts", id, "void"]) => Some(Task::Cancel((*id).to_owned())),
            _ => None,
        }
    }

    fn job(&self, task: Task, request: &Request) -> Result<Job, ErrorReply> {
        let (user, password) = request.basic().unwrap_or_default();
        if !same(&user, &self.settings.secret_key) || !password.is_empty() {
            return Err(bare(StatusCode::UNAUTHORIZED));
        }
        let account = request.header(FOR_USER_ID).unwrap_or_default().to_owned();
        match task {
            Task::Create => self.create(account, request),
            Task::Get(id) => Ok(Job::new(move |state| match state.look(&id) {
                Some(link) if is_of(link, &account) => Reply::json(StatusCode::OK, &view(link)),
                Some(_) | None => bare(StatusCode::NOT_FOUND).into(),
            })),
            Task::Cancel(id) => Ok(Job::new(move |state| match state.cancel(&id) {
                Some((link, true)) => Reply::json(StatusCode::OK, &view(link)),
                Some((_, false)) => {
                    api_error("API_VALIDATION_ERROR", "only a pending payout can be voided").into()
                }
                None => bare(StatusCode::NOT_FOUND).into(),
            })),
            Task::List | Task::Payout(_) | Task::Token => Err(bare(StatusCode::NOT_FOUND)),
        }
    }
}

struct Draft {
    external_id: String,
    amount: i64,
}

fn read_create(fields: &mut Fields) -> Result<Draft, Problem> {
    let draft = Draft {
        external_id: fields.required("external_id", "at least 1 character", text(1..=1000))?,
        amount: fields.required("amount", "a whole number of rupiah, above 0", whole(1..=i64::MAX))?,
    };
    fields.required("email", "an e-mail address", email)?;
    Ok(draft)
}

/// Reads JSON, or a form as in the documentation's sample.
fn read_body(request: &Request) -> Result<Fields, ErrorReply> {
    match request.content_type().as_deref() {
        Some("application/json") => Fields::of_json(&request.body).map_err(wrong),
        Some("application/x-www-form-urlencoded") => {
            let form = form_urlencoded::parse(&request.body).into_owned();
            let fields: Map<String, Value> = form.map(|(name, value)| typed(name, value)).collect();
            Ok(Fields::of(String::new(), fields))
        }
        _ => Err(api_error("API_VALIDATION_ERROR", "the body is JSON or a form")),
    }
}

/// Converts a field of a form, which has only strings.
fn typed(name: String, value: String) -> (String, Value) {
    match value.parse::<i64>() {
        Ok(number) if name == "amount" => (name, number.into()),
        _ => (name, value.into()),
    }
}

fn email(value: &Value) -> Option<()> {
    let (local, domain) = value.as_str()?.rsplit_once('@')?;
    let sound =
        !local.is_empty() && domain.contains('.') && !domain.starts_with('.') && !domain.ends_with('.');
    let spaced = value.as_str()?.chars().any(|c| c.is_whitespace() || c.is_control());
    (sound && !spaced).then_some(())
}

fn is_of(link: &Link, account: &str) -> bool {
    link.request.get(ACCOUNT).and_then(Value::as_str) == Some(account)
}

fn view(link: &Link) -> Value {
    let time = |at: OffsetDateTime| at.format(TIMESTAMP).unwrap_or_default();
    let mut payout = json!({
        "id": link.id,
        "external_id": link.reference,
        "amount": link.amount.parse::<i64>().unwrap_or_default(),
        "merchant_name": "Simulator Store",
        "status": link.status,
        "expiration_timestamp": link.expires_at.map(time),
        "created": time(link.created_at),
    });
    // A voided payout has no page.
    if link.status != "VOIDED" {
        payout["payout_url"] = link.url.clone().into();
    }
    payout
}

fn bare(status: StatusCode) -> ErrorReply {
    ErrorReply(status, (FORM.error)(status))
}

fn api_error(code: &str, message: &str) -> ErrorReply {
    ErrorReply(StatusCode::BAD_REQUEST, json!({ "error_code": code, "message": message }))
}

fn wrong(problem: Problem) -> ErrorReply {
    let message = match problem {
        Problem::NotAnObject => "the body is no JSON object".to_owned(),
        Problem::Missing(field) => format!("{field} is required"),
        Problem::Wrong { field, rule } => format!("{field} is {rule}"),
        Problem::Unknown(field) => format!("{field} is not allowed"),
    };
    api_error("API_VALIDATION_ERROR", &message)
}
