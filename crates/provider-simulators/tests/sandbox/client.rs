//! Provides a sandbox and a client for one test.

use std::time::Duration;

use provider_simulators::sandbox::{Sandbox, SandboxLedger, Settings};
use reqwest::{Method, RequestBuilder, Response, redirect};
use serde_json::{Value, json};

pub(crate) const TOKEN: &str = "token-of-the-tests";

/// Limits each wait. A test that takes longer hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) struct TestEnv {
    pub(crate) sandbox: Sandbox,
    pub(crate) client: reqwest::Client,
}

impl TestEnv {
    pub(crate) async fn new() -> Self {
        Self::with(Settings::new(TOKEN)).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        let sandbox = Sandbox::start(settings).await.unwrap();
        Self { sandbox, client: client() }
    }

    /// Builds a request with the token.
    pub(crate) fn call(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.sandbox.url())).bearer_auth(TOKEN)
    }

    pub(crate) fn create(&self, key: &str, body: &Value) -> RequestBuilder {
        self.call(Method::POST, "/v1/payout-links")
            .header("idempotency-key", key)
            .header("content-type", "application/json")
            .body(body.to_string())
    }

    /// Creates a link, and returns it.
    pub(crate) async fn created(&self, key: &str, body: &Value) -> Value {
        let answer = answer(self.create(key, body)).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.json()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        answer(self.call(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        answer(self.call(Method::POST, path).body(body.to_string())).await
    }

    pub(crate) async fn inject_fault(&self, rule: Value) {
        let answer = self.post("/control/faults", &rule).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
    }

    pub(crate) async fn until(&self, wanted: impl FnMut(&SandboxLedger) -> bool) -> SandboxLedger {
        tokio::time::timeout(DEADLINE, self.sandbox.until(wanted)).await.expect("the ledger as wanted")
    }
}

/// Builds a client that follows no redirect and repeats no call.
pub(crate) fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .timeout(DEADLINE)
        .build()
        .unwrap()
}

pub(crate) fn request(reference: &str, minor_amount: i64) -> Value {
    json!({
        "reference": reference,
        "amount": { "minor_amount": minor_amount, "currency": "EUR" },
        "destination_currency": "EUR",
        "recipient": { "name": "Ada Lovelace", "email": "ada@example.com" },
    })
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

    pub(crate) fn error_code(&self) -> String {
        self.json()["error"]["code"].as_str().expect("an error with a code").to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

pub(crate) async fn answer(request: RequestBuilder) -> Answer {
    read(request.send().await.unwrap()).await.unwrap()
}

pub(crate) async fn read(response: Response) -> reqwest::Result<Answer> {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Ok(Answer { status, headers, body: response.text().await? })
}
