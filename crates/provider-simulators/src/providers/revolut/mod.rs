//! Simulates Revolut Business payout links, by its OpenAPI document (revolut-engineering/revolut-openapi
//! `yaml/business.yaml`) and its guide on access tokens.
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /api/1.0/auth/token` | 200, an access token for a refresh token and a signed assertion |
//! | `POST /api/1.0/payout-links` | 201, the link, without `url` until it is `active`; of a repeat see [`Duplicates`] |
//! | `GET /api/1.0/payout-links/{id}` · `?created_before=…&limit=…&state=…` | the link · a list, the newest first |
//! | `POST /api/1.0/payout-links/{id}/cancel` | 204, while nobody has claimed it |
//! | `GET /api/1.0/transaction/{id}` | the transaction of a claimed link: the link's `transaction_id` names it |
//!
//! [`ACCOUNTS`] lists the accounts that can be debited. The answer of the token endpoint to a bad request is not
//! documented. Here it has OAuth's own form (RFC 6749, 5.2).

mod reply;
mod status;
mod tokens;
mod webhook;

use axum::http::{Method, StatusCode};
use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use self::reply::{FORM, api_error, bare, invalid, microseconds, transaction_view, view, wrong};
use self::status::{WORDS, WORDS_AT_ONCE};
use self::tokens::Tokens;
pub use self::tokens::{ACCESS_TOKEN_LIFETIME, RevolutClient};
use self::webhook::WEBHOOKS;
use super::api::{Api, Job, Request, Task};
use super::fields::{Fields, Problem, boolean, text, uuid};
use super::link::{NewLink, Words};
use super::state::ProviderState;
use super::webhooks::Webhooks;
use crate::fault_server::{ErrorReply, Form, Reply};

/// The account of the simulated Revolut.
#[derive(Clone)]
pub struct RevolutSettings {
    /// The client that may request access tokens.
    pub client: RevolutClient,
    /// The answer to a repeated request id.
    pub duplicates: Duplicates,
    /// Whether it is the sandbox, which has no cards.
    pub sandbox: bool,
    /// A new link is active in the first answer. Otherwise it is created first, and active at the next look-up.
    pub at_once: bool,
}

impl RevolutSettings {
    /// Creates settings of a simulator that answers a repeated request with the first link.
    pub fn new(client: RevolutClient) -> Self {
        Self { client, duplicates: Duplicates::default(), sandbox: true, at_once: false }
    }
}

/// The answer to a repeated `request_id`. It is not documented for links, so a client must handle both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Duplicates {
    /// The error 400 with code 3020, as documented for transfers.
    #[default]
    ErrorReply,
    /// Status 201 and the link as it is now; 3020 if the request is another.
    SameLink,
}

/// An account: its id, its currency, and the minimum and maximum of a link in minor units (£1 to £2,500 or the
/// equivalent).
pub const ACCOUNTS: &[(&str, &str, i64, i64)] = &[
    ("5d6e7f80-1111-4222-8333-944455566601", "GBP", 100, 250_000),
    ("5d6e7f80-1111-4222-8333-944455566602", "EUR", 115, 287_500),
    ("5d6e7f80-1111-4222-8333-944455566603", "USD", 130, 325_000),
    ("5d6e7f80-1111-4222-8333-944455566604", "JPY", 190, 475_000),
];

/// The time in which a repeated `request_id` is recognized.
const WINDOW: Duration = Duration::weeks(2);
const MAX_PAGE: usize = 1_000;
const DEFAULT_PAGE: usize = 100;
pub(super) struct Revolut {
    settings: RevolutSettings,
    tokens: Tokens,
    links_url: String,
}

impl Revolut {
    pub(super) fn new(settings: RevolutSettings, links_url: String) -> Self {
        Self { tokens: Tokens::new(settings.client.clone()), settings, links_url }
    }

    fn create(&self, request: &Request) -> Result<Job, ErrorReply> {
        if request.content_type().as_deref() != Some("application/json") {
            return Err(invalid("the content type is application/json"));
        }
        let mut fields = Fields::of_json(&request.body).map_err(wrong)?;
        let draft = self.read_create(&mut fields).map_err(wrong)?;
        let asked = fields.end().map_err(wrong)?;
        let account = ACCOUNTS.iter().find(|(id, ..)| *id == draft.account_id);
        let Some((_, currency, least, most)) = account else {
            return Err(invalid("account_id: there is no such account"));
        };
        if *currency != draft.currency {
            return Err(invalid("currency is not the account's"));
        }
        match minor_units(&draft.amount, currency) {
            Some(minor) if (*least..=*most).contains(&minor) => {}
            Some(_) => return Err(invalid("amount is not between £1 and £2,500 or the equivalent")),
            None => return Err(invalid("amount has more digits than the currency")),
        }
        let reference = draft.request_id.clone();
        let new = NewLink {
            id: Uuid::new_v4().to_string(),
            reference: draft.request_id,
            amount: draft.amount,
            currency: draft.currency,
            lifetime: Some(draft.expiry),
            url: format!("{}/p/{}", self.links_url, Uuid::new_v4().simple()),
            request: asked,
        };
        let duplicates = self.settings.duplicates;
        Ok(Job::new(move |state| issue(state, new, duplicates)).about(&reference))
    }

    fn read_create(&self, fields: &mut Fields) -> Result<Draft, Problem> {
        let draft = Draft {
            request_id: fields.required("request_id", "1 to 40 characters", text(1..=40))?,
            account_id: fields.required("account_id", "a UUID", uuid)?,
            amount: fields.required("amount", "a number", decimal)?,
            currency: fields.required("currency", "three capital letters", letters)?,
            expiry: fields
                .optional("expiry_period", "P1D to P7D", expiry_period)?
                .unwrap_or(Duration::days(7)),
        };
        fields.required("counterparty_name", "at least 1 character", text(1..=255))?;
        fields.required("reference", "1 to 100 characters", text(1..=100))?;
        fields.optional("save_counterparty", "a boolean", boolean)?;
        fields.optional("transfer_reason_code", "a string", text(1..=255))?;
        let card = !self.settings.sandbox;
        fields.optional("payout_methods", "of revolut, bank_account, card", |value| methods(value, card))?;
        Ok(draft)
    }
}

impl Api for Revolut {
    fn form(&self) -> &'static Form {
        &FORM
    }

    fn words(&self) -> &'static Words {
        if self.settings.at_once { &WORDS_AT_ONCE } else { &WORDS }
    }

    fn webhooks(&self) -> &'static Webhooks {
        &WEBHOOKS
    }

    fn task(&self, method: &Method, path: &[&str]) -> Option<Task> {
        let ["api", "1.0", path @ ..] = path else { return None };
        match (method.as_str(), path) {
            ("POST", ["auth", "token"]) => Some(Task::Token),
            ("POST", ["payout-links"]) => Some(Task::Create),
            ("GET", ["payout-links"]) => Some(Task::List),
            ("GET", ["payout-links", id]) => Some(Task::Get((*id).to_owned())),
            ("GET", ["transaction", id]) => Some(Task::Payout((*id).to_owned())),
            ("POST", ["payout-links", id, "cancel"]) => Some(Task::Cancel((*id).to_owned())),
            _ => None,
        }
    }

    fn job(&self, task: Task, request: &Request) -> Result<Job, ErrorReply> {
        if let Task::Token = task {
            return self.tokens.grant(request);
        }
        if !request.bearer().is_some_and(|token| self.tokens.knows(token)) {
            return Err(bare(StatusCode::UNAUTHORIZED));
        }
        match task {
            Task::Create => self.create(request),
            Task::Get(id) => Ok(Job::new(move |state| match state.look(&id) {
                Some(link) => Reply::json(StatusCode::OK, &view(link)),
                None => bare(StatusCode::NOT_FOUND).into(),
            })),
            Task::List => list(request),
            Task::Cancel(id) => Ok(Job::new(move |state| match state.cancel(&id) {
                Some((_, true)) => Reply::new(StatusCode::NO_CONTENT, "application/json", ""),
                Some((_, false)) => invalid("a link that is claimed or over cannot be cancelled").into(),
                None => bare(StatusCode::NOT_FOUND).into(),
            })),
            Task::Payout(id) => Ok(Job::new(move |state| match state.payout(&id) {
                Some((link, transaction)) => {
                    Reply::json(StatusCode::OK, &transaction_view(link, transaction))
                }
                None => bare(StatusCode::NOT_FOUND).into(),
            })),
            Task::Token => Err(bare(StatusCode::NOT_FOUND)),
        }
    }

    fn forget_tokens(&self) {
        self.tokens.forget();
    }
}

/// The fields that the simulator evaluates.
struct Draft {
    request_id: String,
    account_id: String,
    amount: String,
    currency: String,
    expiry: Duration,
}

fn issue(state: &mut ProviderState, new: NewLink, duplicates: Duplicates) -> Reply {
    let recent = OffsetDateTime::now_utc() - WINDOW;
    let mut links = state.ledger.links.iter();
    match links.find(|link| link.reference == new.reference && link.created_at > recent) {
        None => Reply::json(StatusCode::CREATED, &view(state.issue(new))),
        Some(link) if duplicates == Duplicates::SameLink && link.request == new.request => {
            Reply::json(StatusCode::CREATED, &view(link))
        }
        Some(_) => {
            let message = format!("Duplicate request: {}", new.reference);
            api_error(StatusCode::BAD_REQUEST, 3020, &message).into()
        }
    }
}

fn list(request: &Request) -> Result<Job, ErrorReply> {
    let (mut before, mut limit, mut states) = (None, DEFAULT_PAGE, Vec::new());
    for (name, value) in request.query() {
        let bad = || invalid(&format!("{name} is not valid"));
        match name.as_str() {
            "created_before" => before = Some(OffsetDateTime::parse(&value, &Rfc3339).map_err(|_| bad())?),
            "limit" => limit = value.parse().ok().filter(|n| (1..=MAX_PAGE).contains(n)).ok_or_else(bad)?,
            "state" if WORDS.all.contains(&value.as_str()) => states.push(value),
            _ => return Err(bad()),
        }
    }
    Ok(Job::new(move |state: &mut ProviderState| {
        let found = state.look_at_all(|link| {
            before.is_none_or(|before| microseconds(link.created_at) < before)
                && (states.is_empty() || states.contains(&link.status))
        });
        let page: Vec<Value> = found.into_iter().take(limit).map(view).collect();
        Reply::json(StatusCode::OK, &page)
    }))
}

/// Returns the digits of a JSON number as they were sent.
fn decimal(value: &Value) -> Option<String> {
    value.as_number().map(ToString::to_string)
}

/// Converts decimal text without an exponent. Returns `None` if it has more digits than the currency.
fn minor_units(amount: &str, currency: &str) -> Option<i64> {
    let exponent = usize::from(iso_currency::Currency::from_code(currency)?.exponent()?);
    let (whole, fraction) = amount.split_once('.').unwrap_or((amount, ""));
    let plain = whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit());
    (plain && fraction.len() <= exponent).then(|| format!("{whole}{fraction:0<exponent$}").parse().ok())?
}

fn letters(value: &Value) -> Option<String> {
    text(3..=3)(value).filter(|code| code.bytes().all(|byte| byte.is_ascii_uppercase()))
}

/// Parses an ISO 8601 period of a length that a link can have.
fn expiry_period(value: &Value) -> Option<Duration> {
    let period = value.as_str()?;
    let length = if let Some(days) = period.strip_prefix('P').and_then(|rest| rest.strip_suffix('D')) {
        Duration::days(days.parse().ok()?)
    } else if let Some(hours) = period.strip_prefix("PT").and_then(|rest| rest.strip_suffix('H')) {
        Duration::hours(hours.parse().ok()?)
    } else {
        return None;
    };
    (Duration::days(1)..=Duration::days(7)).contains(&length).then_some(length)
}

fn methods(value: &Value, card: bool) -> Option<()> {
    let methods = value.as_array().filter(|methods| !methods.is_empty())?;
    let known = |method: &Value| match method.as_str() {
        Some("revolut" | "bank_account") => true,
        Some("card") => card,
        _ => false,
    };
    methods.iter().all(known).then_some(())
}
