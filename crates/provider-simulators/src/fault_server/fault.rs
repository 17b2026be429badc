//! Defines the faults of a call and their moment.
//!
//! As JSON a fault is its name, or an object with its name as the only key: `"reset"`, `{"status": {"code": 503,
//! "retry_after": 1}}`, `{"slow": {"milliseconds": 500}}`, `{"garbage": "html"}`.

use std::time::Duration;

use axum::http::header::LOCATION;
use axum::http::{HeaderValue, StatusCode};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

use super::answer::{Answer, Payload, Reply};
use super::form::Form;
use super::hold::Gate;
use super::server::{Cut, Stop};

/// A call's operation, as faults and the ledger name it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// A call that creates a link.
    #[default]
    Create,
    /// A call that reads one link.
    Get,
    /// A call that lists links.
    List,
    /// A call that cancels a link.
    Cancel,
    /// A request for an access token.
    Token,
    /// A POST to the webhook receiver.
    Webhook,
}

/// Whether the fault happens before the work or after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// The work is not done.
    #[default]
    Before,
    /// The work is done, but the answer is not the real one.
    After,
}

/// A fault of a call.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// Another status, with an error body in the API's own form unless one is given.
    Status {
        /// The status of the answer.
        #[serde(with = "status_code")]
        code: StatusCode,
        /// The value of `Retry-After`, or of the API's own header for it: seconds or an HTTP date.
        #[serde(default, with = "header_text")]
        retry_after: Option<HeaderValue>,
        /// The body of the answer.
        #[serde(default)]
        body: Option<String>,
    },
    /// A 307 to another URL.
    Redirect {
        /// The `Location` header.
        #[serde(with = "header_text")]
        location: Option<HeaderValue>,
    },
    /// A delay before a correct answer.
    Slow {
        /// The length of the delay.
        milliseconds: u64,
    },
    /// No answer until the client gives up or the server stops.
    Silence,
    /// TCP reset instead of an answer.
    Reset,
    /// The connection closes normally, without an answer.
    Close,
    /// Half of the body, then the end of the connection.
    Truncated,
    /// Half of the body, then silence.
    Stalled,
    /// An answer that looks like success but is none.
    Garbage(Garbage),
    /// Waits until a test releases it. Only a test in the same process can use it.
    #[serde(skip_deserializing)]
    Hold(Gate),
}

/// Answers that a client must not take for a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Garbage {
    /// Status 200 and a web page.
    Html,
    /// The status of success, and a text that claims to be JSON but is not.
    NotJson,
    /// The status of success and an empty body.
    Empty,
    /// The status of success and a link without a URL.
    MissingFields,
    /// The status of success, and a link whose URL is plain `http` on another host.
    InsecureUrl,
    /// The status of success, and a good link followed by 32 MiB of white space.
    Huge,
}

impl Fault {
    /// Creates a fault with this status.
    ///
    /// # Panics
    ///
    /// If `code` is not a valid HTTP status.
    pub fn status(code: u16) -> Self {
        let code = StatusCode::from_u16(code).expect("a status between 100 and 999");
        Self::Status { code, retry_after: None, body: None }
    }

    /// Creates a fault with a status and a `Retry-After` of whole seconds or an HTTP date.
    ///
    /// # Panics
    ///
    /// If `code` is not a valid HTTP status or `retry_after` not a valid header value.
    pub fn status_with_retry_after(code: u16, retry_after: &str) -> Self {
        let code = StatusCode::from_u16(code).expect("a status between 100 and 999");
        let retry_after = Some(HeaderValue::from_str(retry_after).expect("a header's value"));
        Self::Status { code, retry_after, body: None }
    }

    /// Returns the fault's name in JSON, for logs and the ledger.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Status { .. } => "status",
            Self::Redirect { .. } => "redirect",
            Self::Slow { .. } => "slow",
            Self::Silence => "silence",
            Self::Reset => "reset",
            Self::Close => "close",
            Self::Truncated => "truncated",
            Self::Stalled => "stalled",
            Self::Garbage(_) => "garbage",
            Self::Hold(_) => "hold",
        }
    }
}

/// A fault at its moment of a call.
#[derive(Clone, Debug)]
pub(crate) struct ActiveFault {
    pub(crate) fault: Fault,
    pub(crate) when: When,
}

impl ActiveFault {
    /// Does the work and answers the call, as far as the fault allows.
    pub(super) async fn around(&self, form: &Form, stop: &Stop, work: impl FnOnce() -> Answer) -> Answer {
        match self.when {
            When::Before => match stop.or(self.fault.pause()).await {
                Some(()) => self.fault.spoil(form, None).unwrap_or_else(work),
                None => Answer::Nothing(Cut::Close),
            },
            When::After => {
                let answer = work();
                match stop.or(self.fault.pause()).await {
                    Some(()) => self.fault.spoil(form, Some(&answer)).unwrap_or(answer),
                    None => Answer::Nothing(Cut::Close),
                }
            }
        }
    }
}

impl Fault {
    /// Waits as long as the fault delays the call.
    async fn pause(&self) {
        match self {
            Self::Slow { milliseconds } => tokio::time::sleep(Duration::from_millis(*milliseconds)).await,
            Self::Silence => std::future::pending().await,
            Self::Hold(gate) => gate.pass().await,
            Self::Status { .. }
            | Self::Redirect { .. }
            | Self::Reset
            | Self::Close
            | Self::Truncated
            | Self::Stalled
            | Self::Garbage(_) => {}
        }
    }

    /// Returns the answer that replaces the true one. There is a true one only if the work was done.
    fn spoil(&self, form: &Form, answer: Option<&Answer>) -> Option<Answer> {
        let spoilt = match self {
            Self::Slow { .. } | Self::Silence | Self::Hold(_) => return None,
            Self::Reset => return Some(Answer::Nothing(Cut::Reset)),
            Self::Close => return Some(Answer::Nothing(Cut::Close)),
            Self::Status { code, retry_after, body } => {
                error_status(form, *code, retry_after.clone(), body.clone())
            }
            Self::Redirect { location } => redirect(location.clone()),
            Self::Truncated => with_body(form, answer, Payload::Truncated),
            Self::Stalled => with_body(form, answer, Payload::Stalled),
            Self::Garbage(garbage) => garbage.reply(form, answer),
        };
        Some(spoilt.into())
    }
}

impl Garbage {
    fn reply(self, form: &Form, answer: Option<&Answer>) -> Reply {
        let json = |text: Bytes| Reply::new(form.created, "application/json", text);
        match self {
            Self::Html => {
                Reply::new(StatusCode::OK, "text/html", "<!doctype html><title>Welcome</title><p>It works.")
            }
            Self::NotJson => json("{\"id\": \"plink_".into()),
            Self::Empty => json(Bytes::new()),
            Self::MissingFields => with_url(form, answer, None),
            Self::InsecureUrl => with_url(form, answer, Some("http://links.example/l/insecure")),
            Self::Huge => with_body(form, answer, Payload::Huge),
        }
    }
}

fn error_status(
    form: &Form,
    code: StatusCode,
    retry_after: Option<HeaderValue>,
    body: Option<String>,
) -> Reply {
    let reply = match body {
        Some(body) => Reply::new(code, "application/json", body),
        None => form.error(code),
    };
    match retry_after {
        Some(value) => form.wait(reply, value),
        None => reply,
    }
}

fn redirect(location: Option<HeaderValue>) -> Reply {
    let reply = Reply::new(StatusCode::TEMPORARY_REDIRECT, "text/plain", "look elsewhere");
    match location {
        Some(location) => reply.with(LOCATION, location),
        None => reply,
    }
}

/// Sends the true reply's body in another way, or an invented one if the work was not done.
fn with_body(form: &Form, answer: Option<&Answer>, payload: fn(Bytes) -> Payload) -> Reply {
    let made_up = Reply::json(form.created, &(form.link)());
    let reply = match answer {
        Some(Answer::Reply(reply)) => reply,
        Some(Answer::Nothing(_)) | None => &made_up,
    };
    Reply { status: reply.status, headers: reply.headers.clone(), body: payload(reply.bytes().clone()) }
}

/// Returns the true link, or an invented one, with another URL or without one.
fn with_url(form: &Form, answer: Option<&Answer>, url: Option<&str>) -> Reply {
    let issued = match answer {
        Some(Answer::Reply(reply)) => serde_json::from_slice(reply.bytes()).ok(),
        Some(Answer::Nothing(_)) | None => None,
    };
    let mut link: Value = issued.unwrap_or_else(form.link);
    let (way, name) = form.url;
    if let Some(Value::Object(around)) = link.pointer_mut(way) {
        match url {
            Some(url) => around.insert(name.into(), url.into()),
            None => around.remove(name),
        };
    }
    Reply::json(form.created, &link)
}

mod status_code {
    use super::{Deserialize, Deserializer, Serializer, StatusCode, de};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
    pub(crate) fn serialize<S: Serializer>(code: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(code.as_u16())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StatusCode, D::Error> {
        let code = u16::deserialize(deserializer)?;
        if !(200..=599).contains(&code) {
            return Err(de::Error::custom("a status is between 200 and 599"));
        }
        StatusCode::from_u16(code).map_err(de::Error::custom)
    }
}

/// Serializes a header's value, which may be given as a string or a whole number.
mod header_text {
    use super::{Deserialize, Deserializer, HeaderValue, Serialize, Serializer, Value, de};

    #[expect(clippy::ref_option, reason = "serde calls it")]
    pub(crate) fn serialize<S: Serializer>(
        value: &Option<HeaderValue>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().and_then(|value| value.to_str().ok()).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<HeaderValue>, D::Error> {
        let text = match Value::deserialize(deserializer)? {
            Value::Null => return Ok(None),
            Value::String(text) => text,
            Value::Number(number) if number.is_u64() => number.to_string(),
            _ => return Err(de::Error::custom("a header's value is a string or a whole number")),
        };
        HeaderValue::from_str(&text).map(Some).map_err(de::Error::custom)
    }
}
