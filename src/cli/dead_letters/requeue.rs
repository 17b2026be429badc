//! `dead-letters requeue`: publishes letters again to the queue that they came from.

use std::path::PathBuf;

use anyhow::Context;
use serde_json::Value;

use super::{
    act::{self, Acting},
    plan::Plan,
    row::{Queue, Row},
    select::{Selection, source},
};
use crate::{
    cli::{ExitStatus, output::Output},
    config::Config,
    contract::{self, DecodePolicy},
    domain::{LinkRequestKind, Rejection},
    rabbitmq::{Letter, Names, Source},
};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    acting: Acting,
    /// A JSON merge patch (RFC 7396) that corrects each message before it is published
    #[arg(long, value_name = "FILE")]
    patch: Option<PathBuf>,
    /// The kind of message: create, cancel or status. Needed where the letter does not say it
    #[arg(long, value_name = "KIND", value_parser = source)]
    to: Option<Source>,
    /// Publish letters that this version's decoder rejects
    #[arg(long)]
    force: bool,
}

pub(super) async fn run(
    config: &Config,
    output: Output,
    arguments: &Arguments,
) -> anyhow::Result<ExitStatus> {
    let patch = arguments.patch.as_ref().map(|file| -> anyhow::Result<Value> {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        serde_json::from_str(&text).with_context(|| format!("{} is not JSON", file.display()))
    });
    let requeue = Requeue {
        names: config.broker().names,
        policy: config.pipeline().decode,
        queue: arguments.selection.queue,
        patch: patch.transpose().map_err(|error| ExitStatus::WrongUse.because(format!("{error:#}")))?,
        to: arguments.to,
        force: arguments.force,
    };
    if requeue.queue == Queue::Results && (requeue.patch.is_some() || requeue.to.is_some()) {
        let reason = "a result is published as it is: --patch and --to are for jobs";
        return Err(ExitStatus::WrongUse.because(reason).into());
    }
    let what = (&arguments.selection, &arguments.acting, requeue.patch.is_some());
    act::run(config, output, ("dead-letters requeue", "requeued"), what, |letter, row| {
        requeue.plan(letter, row)
    })
    .await
}

struct Requeue {
    names: Names,
    policy: DecodePolicy,
    queue: Queue,
    patch: Option<Value>,
    to: Option<Source>,
    force: bool,
}

impl Requeue {
    /// Decides where a letter goes, or why it is refused.
    fn plan(&self, letter: &Letter, row: &Row) -> Result<Plan, String> {
        if letter.is_unreadable {
            return Err("its properties cannot be read: move it with a shovel".to_owned());
        }
        if self.queue == Queue::Results {
            let routing_key = letter.kind().ok_or("it has no type: it is no result of a worker")?.to_owned();
            return Ok(Plan::Publish {
                exchange: self.names.results_exchange.clone(),
                routing_key,
                body: None,
                payout: None,
            });
        }
        let source = self.to.or(row.source).ok_or(
            "it does not say which kind of message it is: add --to create, --to cancel or --to status",
        )?;
        let patched = self.patch.as_ref().map(|patch| contract::merge_patch(&letter.body, patch));
        let body = patched.transpose().map_err(|error| error.to_string())?;
        if !self.force {
            let verdict = self.decode(source, body.as_deref().unwrap_or(&letter.body), letter.message_id());
            verdict.map_err(|rejection| {
                let field = rejection.field.map(|field| format!("{field}: ")).unwrap_or_default();
                format!(
                    "it would be rejected again: {} {field}{}",
                    rejection.code.as_str(),
                    rejection.message
                )
            })?;
        }
        // The message_id stands in for an identifier that the body does not have.
        let payout_of = |body: &[u8]| {
            contract::outline(body).merchant_payout_id.or_else(|| letter.message_id().map(str::to_owned))
        };
        let payout = body.as_deref().filter(|_| source == Source::Jobs).and_then(|body| {
            let id = payout_of(body)?;
            let is_changed = payout_of(&letter.body).as_ref() != Some(&id);
            Some((id, is_changed))
        });
        Ok(Plan::Publish {
            exchange: self.names.jobs_exchange.clone(),
            routing_key: self.names.routing_key(source).to_owned(),
            body,
            payout,
        })
    }

    fn decode(&self, source: Source, body: &[u8], message_id: Option<&str>) -> Result<(), Rejection> {
        match source {
            Source::Jobs => contract::create_link(body, message_id, &self.policy).map(drop),
            Source::Cancel => contract::link_request(body, LinkRequestKind::Cancel, &self.policy).map(drop),
            Source::Status => contract::link_request(body, LinkRequestKind::Status, &self.policy).map(drop),
        }
    }
}
