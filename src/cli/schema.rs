//! `schema`: prints the contract as JSON Schema 2020-12 or AsyncAPI 3.0.

use anyhow::Context;
use clap::ValueEnum;

use super::{exit::ExitStatus, output::say};
use crate::contract::Schema;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[arg(value_enum)]
    document: Document,
}

/// A document of the contract.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Document {
    /// The body of a job
    Job,
    /// The body of a result
    Result,
    /// The body of a webhook
    Webhook,
    /// All messages and channels, as AsyncAPI 3.0
    #[value(name = "asyncapi")]
    AsyncApi,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitStatus> {
    let schema = match arguments.document {
        Document::Job => Schema::Job,
        Document::Result => Schema::Result,
        Document::Webhook => Schema::Webhook,
        Document::AsyncApi => Schema::AsyncApi,
    };
    say(serde_json::to_string_pretty(&schema.document()).context("the schema")?)?;
    Ok(ExitStatus::Done)
}
