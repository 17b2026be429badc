//! Provides a simulator and a client for one test.

use std::time::Duration;

use provider_simulators::providers::{Provider, ProviderSimulator, Settings};
use reqwest::{Method, RequestBuilder, redirect};
use serde_json::{Map, Value};

/// Limits each wait. A test that takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) struct TestEnv {
    pub(crate) simulator: ProviderSimulator,
    client: reqwest::Client,
    /// The header by which the provider knows its client.
    credential: (&'static str, String),
}

impl TestEnv {
    pub(crate) async fn new(provider: Provider, credential: (&'static str, String)) -> Self {
        Self::with(Settings::new(provider), credential).await
    }

    pub(crate) async fn with(settings: Settings, credential: (&'static str, String)) -> Self {
        let simulator = ProviderSimulator::start(settings).await.unwrap();
        // The client follows no redirect and repeats no call.
        let client = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .timeout(DEADLINE)
            .build()
            .unwrap();
        Self { simulator, client, credential }
    }

    pub(crate) fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.simulator.url()))
    }

    /// Builds a call with the credential.
    pub(crate) fn call(&self, method: Method, path: &str) -> RequestBuilder {
        self.bare(method, path).header(self.credential.0, &self.credential.1)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        answer(self.call(Method::GET, path)).await
    }

    /// Posts a JSON body with the credential.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        let call = self.call(Method::POST, path).header("content-type", "application/json");
        answer(call.body(body.to_string())).await
    }

    pub(crate) fn links(&self) -> usize {
        self.simulator.ledger().links.len()
    }
}

/// An answer that was read to its end.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// Checks the status, and returns the body.
    pub(crate) fn with(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.json()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

pub(crate) async fn answer(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer { status, headers, body: response.text().await.unwrap() }
}

/// Returns the object with a changed field, at any depth: `changed(&body, "contact.name", "x".into())`. Null removes
/// the field.
pub(crate) fn changed(body: &Value, path: &str, value: Value) -> Value {
    let mut body = body.clone();
    let (way, name) = path.rsplit_once('.').unwrap_or(("", path));
    let mut place = &mut body;
    for step in way.split('.').filter(|step| !step.is_empty()) {
        place = &mut place[step];
    }
    if !place.is_object() {
        *place = Value::Object(Map::new());
    }
    let fields = place.as_object_mut().unwrap();
    match value {
        Value::Null => drop(fields.remove(name)),
        value => drop(fields.insert(name.to_owned(), value)),
    }
    body
}

/// Returns a number with exactly these digits.
pub(crate) fn number(digits: &str) -> Value {
    serde_json::from_str(digits).unwrap()
}
