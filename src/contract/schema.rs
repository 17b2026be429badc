//! The contract as JSON Schema 2020-12 and as `AsyncAPI` 3.0, made from the tables that the decoder uses.
//!
//! A schema says the same as the decoder, apart from what JSON Schema cannot say: repeated fields, sizes in bytes, the depth,
//! numbers in strings that are not plain digits, and whether a URL can be parsed. The property test of this module holds both
//! to the same verdict.

mod asyncapi;
mod definitions;
mod job;
mod outputs;

use serde_json::Value;

pub use self::asyncapi::asyncapi;
use self::definitions::with_definitions;

/// A document of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// The body of a job.
    Job,
    /// The body of a result.
    Result,
    /// The body of a webhook.
    Webhook,
    /// All messages and channels.
    AsyncApi,
}

impl Schema {
    /// Every document.
    pub const ALL: [Self; 4] = [Self::Job, Self::Result, Self::Webhook, Self::AsyncApi];

    /// Returns the name of the document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Result => "result",
            Self::Webhook => "webhook",
            Self::AsyncApi => "asyncapi",
        }
    }

    /// Returns the document.
    pub fn document(self) -> Value {
        match self {
            Self::Job => standalone("A job: one CreateLink request", job::schema()),
            Self::Result => standalone("The result of an event", outputs::result()),
            Self::Webhook => standalone("A webhook: one event for the merchant", outputs::webhook()),
            Self::AsyncApi => asyncapi(),
        }
    }
}

/// The dialect of every schema.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

fn standalone(title: &str, schema: Value) -> Value {
    let mut schema = with_definitions(schema, "#");
    schema["$schema"] = DIALECT.into();
    schema["title"] = title.into();
    schema
}
