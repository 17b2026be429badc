//! Builds jobs as an upstream system would.

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use serde_json::{Value, json};

/// A message for the jobs queue.
#[derive(Debug, Clone)]
#[must_use]
pub struct Job {
    /// The body as it is published.
    pub body: Vec<u8>,
    /// The `message_id`.
    pub message_id: Option<String>,
    /// The `correlation_id`.
    pub correlation_id: Option<String>,
    /// The `reply_to`.
    pub reply_to: Option<String>,
    /// The `content_type`.
    pub content_type: Option<String>,
    /// The `expiration`, in milliseconds as in AMQP.
    pub expiration: Option<String>,
    /// Headers that are strings.
    pub headers: Vec<(String, String)>,
    /// Headers of any type.
    pub table: FieldTable,
    /// The other properties of a message.
    pub properties: BasicProperties,
    json: Value,
}

/// Builds a valid job of 12.50 EUR.
pub fn job(id: &str) -> Job {
    Job {
        body: Vec::new(),
        message_id: None,
        correlation_id: None,
        reply_to: None,
        content_type: Some("application/json".into()),
        expiration: None,
        headers: Vec::new(),
        table: FieldTable::default(),
        properties: BasicProperties::default(),
        json: json!({
            "merchant_payout_id": id,
            "address": {},
            "amount": { "minor_amount": 1250, "currency": "EUR" },
            "destination_currency": "EUR",
            "customer": { "name": "Ada Example", "email": "ada@example.com" },
        }),
    }
    .encoded()
}

impl Job {
    /// Returns its `merchant_payout_id`.
    pub fn id(&self) -> &str {
        self.json["merchant_payout_id"].as_str().unwrap()
    }

    /// Changes the amount, in cents of EUR.
    pub fn amount(self, minor_amount: i64) -> Self {
        self.with("amount", json!({ "minor_amount": minor_amount, "currency": "EUR" }))
    }

    /// Sets a field of the body.
    pub fn with(mut self, field: &str, value: Value) -> Self {
        self.json[field] = value;
        self.encoded()
    }

    /// Adds a header that is a string.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Adds a header of any type.
    pub fn value(mut self, name: &str, value: AMQPValue) -> Self {
        self.table.insert(name.into(), value);
        self
    }

    /// Changes the other properties.
    pub fn properties(mut self, change: impl FnOnce(BasicProperties) -> BasicProperties) -> Self {
        self.properties = change(self.properties);
        self
    }

    /// Sets `x-merchant-id`.
    pub fn merchant(self, id: &str) -> Self {
        self.header("x-merchant-id", id)
    }

    /// Sets `x-connector`.
    pub fn connector(self, name: &str) -> Self {
        self.header("x-connector", name)
    }

    /// Sets the `message_id`.
    pub fn message_id(mut self, id: &str) -> Self {
        self.message_id = Some(id.into());
        self
    }

    /// Sets the `correlation_id`.
    pub fn correlation_id(mut self, id: &str) -> Self {
        self.correlation_id = Some(id.into());
        self
    }

    /// Sets the `reply_to`.
    pub fn reply_to(mut self, queue: &str) -> Self {
        self.reply_to = Some(queue.into());
        self
    }

    /// Sets the `content_type`.
    pub fn content_type(mut self, kind: &str) -> Self {
        self.content_type = Some(kind.into());
        self
    }

    /// Replaces the body with these bytes.
    pub fn raw(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self
    }

    fn encoded(mut self) -> Self {
        self.body = self.json.to_string().into_bytes();
        self
    }
}
