//! Defines the interface of a simulated provider: its paths, statuses and rules.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName, Method};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use url::form_urlencoded;

use super::link::Words;
use super::state::ProviderState;
use super::webhooks::Webhooks;
use crate::fault_server::{ErrorReply, Form, Operation, Reply};

pub(super) trait Api: Send + Sync + 'static {
    fn form(&self) -> &'static Form;

    fn words(&self) -> &'static Words;

    fn webhooks(&self) -> &'static Webhooks;

    /// Returns the task of a call at this path (without its query), or `None` for an unknown path.
    fn task(&self, method: &Method, path: &[&str]) -> Option<Task>;

    /// Decodes the request, or rejects it.
    fn job(&self, task: Task, request: &Request) -> Result<Job, ErrorReply>;

    /// Invalidates all access tokens.
    fn forget_tokens(&self) {}

    /// Returns the rate limit headers of every answer: the limit, the remaining calls, and the seconds until it resets.
    fn pace_headers(&self) -> Option<&'static [HeaderName; 3]> {
        None
    }
}

/// The task of a call. A string is the id of the link or of its payout.
#[derive(Debug)]
pub(super) enum Task {
    Create,
    Get(String),
    List,
    Cancel(String),
    /// The payout or transaction behind a link.
    Payout(String),
    Token,
}

impl Task {
    pub(super) fn operation(&self) -> Operation {
        match self {
            Self::Create => Operation::Create,
            Self::Get(_) | Self::Payout(_) => Operation::Get,
            Self::List => Operation::List,
            Self::Cancel(_) => Operation::Cancel,
            Self::Token => Operation::Token,
        }
    }
}

/// A valid request, ready to be carried out.
pub(super) struct Job {
    /// The client's reference of the link, if the request has one.
    pub(super) reference: Option<String>,
    pub(super) work: Box<dyn FnOnce(&mut ProviderState) -> Reply + Send>,
}

impl Job {
    pub(super) fn new(work: impl FnOnce(&mut ProviderState) -> Reply + Send + 'static) -> Self {
        Self { reference: None, work: Box::new(work) }
    }

    pub(super) fn about(self, reference: &str) -> Self {
        Self { reference: Some(reference.to_owned()), ..self }
    }
}

pub(super) struct Request {
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Request {
    /// Returns the decoded parameters of the query.
    pub(super) fn query(&self) -> impl Iterator<Item = (String, String)> {
        form_urlencoded::parse(self.query.as_bytes()).into_owned()
    }

    pub(super) fn header(&self, name: impl axum::http::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns the content type without parameters and in lower case, if there is one.
    pub(super) fn content_type(&self) -> Option<String> {
        let content_type = self.header(axum::http::header::CONTENT_TYPE)?.split(';').next()?;
        Some(content_type.trim().to_ascii_lowercase())
    }

    pub(super) fn bearer(&self) -> Option<&str> {
        self.header(AUTHORIZATION)?.strip_prefix("Bearer ")
    }

    /// Decodes the credential of basic authentication (RFC 7617).
    pub(super) fn basic(&self) -> Option<(String, String)> {
        let encoded = self.header(AUTHORIZATION)?.strip_prefix("Basic ")?;
        let pair = String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()?;
        let (user, password) = pair.split_once(':')?;
        Some((user.to_owned(), password.to_owned()))
    }
}

pub(super) fn same(given: &str, known: &str) -> bool {
    verify_slices_are_equal(given.as_bytes(), known.as_bytes()).is_ok()
}
