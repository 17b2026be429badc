//! Simulates Hyperswitch: payouts with a link, by its OpenAPI document v1 and its source
//! (`crates/api_models/src/payouts.rs`, `crates/router/src/core/payouts/validator.rs`).
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /payouts/create` | 200, the payout; 400 `HE_01` for a `payout_id` that is taken, without the payout |
//! | `GET /payouts/{id}` | the payout; 404 `HE_02` |
//! | `POST /payouts/list` | `{size, data, total_count}` |
//! | `POST /payouts/{id}/cancel` | the payout, `cancelled`, or `failed` once it is at the processor; 422 `IR_06` if it is over |
//!
//! An unknown field is rejected. The published schema does not have `payout_id`, but the server accepts it, and
//! otherwise creates an id. The codes of the error table are `IR_01` credential, `IR_04` missing, `IR_06` invalid and
//! `IR_07` value.

mod reply;
mod request;
mod status;
mod webhook;

use axum::http::header::RETRY_AFTER;
use axum::http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use time::Duration;
use uuid::Uuid;

use self::reply::{api_error, invalid, list_view, no_such_payout, view, wrong};
use self::request::{Page, payout_id, read_create, read_page};
use self::status::WORDS;
use self::webhook::WEBHOOKS;
use super::api::{Api, Job, Request, Task, same};
use super::fields::{Fields, Problem};
use super::link::{NewLink, Words};
use super::state::ProviderState;
use super::webhooks::Webhooks;
use crate::fault_server::{ErrorReply, Form, Reply};

/// The profile of the API key.
#[derive(Clone)]
pub struct HyperswitchSettings {
    /// The value of the `api-key` header.
    pub api_key: String,
    /// Whether the profile's `payout_link_config.allowed_domains` are set. Without them only links with `test_mode`
    /// are created.
    pub allowed_domains: bool,
    /// Whether it is production, where `test_mode` is rejected.
    pub production: bool,
}

impl HyperswitchSettings {
    /// Creates the settings of a sandbox whose profile is set up for links.
    pub fn new(api_key: impl Into<String>) -> Self {
        Self { api_key: api_key.into(), allowed_domains: true, production: false }
    }
}

const MERCHANT: &str = "merchant_stand_in";
static FORM: Form = Form {
    created: StatusCode::OK,
    wait: RETRY_AFTER,
    error: |status| {
        let (kind, code, message) = match status.as_u16() {
            401 | 403 => ("invalid_request", "IR_01", "API key not provided or invalid API key used"),
            404 => ("invalid_request", "IR_02", "Unrecognized request URL"),
            429 => ("api", "HE_00", "Too many requests, or the object is locked by another one"),
            400..=499 => ("invalid_request", "IR_06", "The request is invalid"),
            _ => ("api", "HE_00", "Something went wrong"),
        };
        json!({ "error": { "type": kind, "message": message, "code": code } })
    },
    link: || {
        json!({
            "payout_id": "payout_that_is_not",
            "merchant_id": MERCHANT,
            "status": WORDS.stages[0],
            "amount": 1,
            "currency": "EUR",
            "created": "2026-01-01T00:00:00Z",
            "payout_link": { "payout_link_id": "payout_link_none", "link": "https://links.example/payout_link/none" },
        })
    },
    url: ("/payout_link", "link"),
};

pub(super) struct Hyperswitch {
    settings: HyperswitchSettings,
    links_url: String,
}

impl Hyperswitch {
    pub(super) fn new(settings: HyperswitchSettings, links_url: String) -> Self {
        Self { settings, links_url }
    }

    fn create(&self, request: &Request) -> Result<Job, ErrorReply> {
        let mut fields = json_fields(request)?;
        let draft = read_create(&mut fields).map_err(wrong)?;
        let asked = fields.end().map_err(wrong)?;
        let payout_id = draft.payout_id.unwrap_or_else(|| format!("payout_{}", Uuid::new_v4().simple()));
        if draft.payout_link {
            self.allows_a_link(&asked)?;
        }
        let new = NewLink {
            url: match draft.payout_link {
                true => format!("{}/payout_link/{MERCHANT}/{payout_id}?locale=en", self.links_url),
                false => String::new(),
            },
            id: payout_id.clone(),
            reference: payout_id.clone(),
            amount: draft.amount.to_string(),
            currency: draft.currency,
            lifetime: Some(Duration::seconds(draft.session_expiry)),
            request: asked,
        };
        let job = Job::new(move |state| {
            if state.is_taken(&new.reference) {
                let message =
                    format!("The payout with the specified payout_id '{}' already exists", new.reference);
                return api_error(StatusCode::BAD_REQUEST, "duplicate_request", "HE_01", &message).into();
            }
            Reply::json(StatusCode::OK, &view(state.issue(new)))
        });
        Ok(job.about(&payout_id))
    }

    fn allows_a_link(&self, asked: &Map<String, Value>) -> Result<(), ErrorReply> {
        let field = |name: &str| asked.get(name).filter(|value| !value.is_null());
        if field("confirm") == Some(&Value::Bool(true)) {
            return Err(invalid("cannot confirm a payout while creating a payout link"));
        }
        if field("payout_method_id").is_some() {
            return Err(invalid("payout_method_id asks for confirm to be true"));
        }
        // The validator reads only the flat field, although the schema calls it deprecated.
        if field("customer_id").is_none() {
            return Err(wrong(Problem::Missing("customer_id".into())));
        }
        let config = asked.get("payout_link_config");
        let test_mode = config.and_then(|config| config["test_mode"].as_bool()).unwrap_or(false);
        if test_mode && self.settings.production {
            return Err(invalid("test_mode cannot be true for creating payout_links in production"));
        }
        if !test_mode && !self.settings.allowed_domains {
            let message = "Payout link configuration error: allowed_domains are not set in the profile";
            return Err(api_error(StatusCode::BAD_REQUEST, "invalid_request", "IR_06", message));
        }
        Ok(())
    }
}

impl Api for Hyperswitch {
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
            ("POST", ["payouts", "create"]) => Some(Task::Create),
            ("POST", ["payouts", "list"]) => Some(Task::List),
            ("POST", ["payouts", id, "cancel"]) => Some(Task::Cancel((*id).to_owned())),
            ("GET", ["payouts", id]) => Some(Task::Get((*id).to_owned())),
            _ => None,
        }
    }

    fn job(&self, task: Task, request: &Request) -> Result<Job, ErrorReply> {
        if !request.header("api-key").is_some_and(|key| same(key, &self.settings.api_key)) {
            return Err(ErrorReply(StatusCode::UNAUTHORIZED, (FORM.error)(StatusCode::UNAUTHORIZED)));
        }
        match task {
            Task::Create => self.create(request),
            Task::Get(id) => get(id, request),
            Task::List => list(request),
            Task::Cancel(id) => cancel(id, request),
            Task::Payout(_) | Task::Token => {
                Err(ErrorReply(StatusCode::NOT_FOUND, (FORM.error)(StatusCode::NOT_FOUND)))
            }
        }
    }
}

fn get(id: String, request: &Request) -> Result<Job, ErrorReply> {
    for (name, value) in request.query() {
        if name != "force_sync" || !matches!(value.as_str(), "true" | "false") {
            return Err(invalid("the only parameter is force_sync, true or false"));
        }
    }
    Ok(Job::new(move |state| match state.look(&id) {
        Some(link) => Reply::json(StatusCode::OK, &view(link)),
        None => no_such_payout().into(),
    }))
}

fn list(request: &Request) -> Result<Job, ErrorReply> {
    let Page { reference, payout_id, limit, offset } = read_page(json_fields(request)?).map_err(wrong)?;
    Ok(Job::new(move |state: &mut ProviderState| {
        let all = state.look_at_all(|link| {
            let reply = link.request.get("merchant_order_reference_id").and_then(Value::as_str);
            reference.as_deref().is_none_or(|wanted| reply == Some(wanted))
                && payout_id.as_deref().is_none_or(|wanted| link.id == wanted)
        });
        let data: Vec<Value> = all.iter().skip(offset).take(limit).map(|link| list_view(link)).collect();
        let found = json!({ "size": data.len(), "data": data, "total_count": all.len() });
        Reply::json(StatusCode::OK, &found)
    }))
}

fn cancel(id: String, request: &Request) -> Result<Job, ErrorReply> {
    let mut fields = json_fields(request)?;
    let named =
        fields.required("payout_id", "1 to 64 of letters, digits, _ and -", payout_id).map_err(wrong)?;
    fields.end().map_err(wrong)?;
    if named != id {
        return Err(invalid("payout_id is not that of the path"));
    }
    Ok(Job::new(move |state| match state.cancel(&id) {
        Some((link, true)) => Reply::json(StatusCode::OK, &view(link)),
        Some((link, false)) => {
            let message = format!("Payout {id} cannot be cancelled for status {}", link.status);
            api_error(StatusCode::UNPROCESSABLE_ENTITY, "invalid_request", "IR_06", &message).into()
        }
        None => no_such_payout().into(),
    }))
}

fn json_fields(request: &Request) -> Result<Fields, ErrorReply> {
    if request.content_type().as_deref() != Some("application/json") {
        return Err(invalid("the content type is application/json"));
    }
    Fields::of_json(&request.body).map_err(wrong)
}
