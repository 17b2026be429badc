//! The history checker: reads everything that was published, created, delivered and stored, and finds every broken
//! rule of the contract.
//!
//! | rule | says |
//! | --- | --- |
//! | R1 | every published job has a record, or a rejection and a dead letter |
//! | R2 | a key has at most one link at the provider |
//! | R3 | a `created` record's link is the provider's link |
//! | R4 | no `failed` record has a link at the provider |
//! | R5 | a record is `unknown` only if the replay rule left no other way, and never silently |
//! | R6 | an event has at least one result, and its content never changes between repeats |
//! | R7 | an event has at least one webhook, always the same, unless the merchant answered 410 or the schedule ended |
//! | R8 | a conflicting job never changes the first |
//! | R9 | results and webhooks carry ids that make repeats recognizable |
//! | R10 | nothing stays open, leased or undelivered |
//! | R11 | no secret is in results, webhooks, database or logs |
//! | R12 | a message is accepted or rejected, never both, in any order |
//! | R13 | a record is `unknown` only if a create call reached the provider, or a proxy in front of it |
//! | R14 | due work is claimed within its bound while its provider is well |
//! | R15 | after all faults are healed, every minute finishes something until nothing is left, and nothing is overdue at the end |
//! | R16 | a link whose answer reached a worker is the link of its record, if the worker lived until the record was concluded |
//! | R17 | a result is published within its bound while RabbitMQ, the database and the workers are well; it waits for no merchant and no requester |
//! | R18 | the sequences of a record's results have no gap, and no sequence has two ids |
//! | R19 | the webhooks of a record arrive in sequence, repeats aside |
//! | R20 | nothing follows a final status, but `succeeded` after `cancelled` or `expired`, and `reversed` after `succeeded` |
//! | R21 | each change at the provider is announced at most once and in its order, and the last status of every link is announced |
//! | R22 | no cancelled or expired link is announced as paid without the provider saying so |
//! | R23 | a record is concluded again by an operator's act alone, and each such act concludes it once |
//! | R24 | an operator's command that is done is recorded, at most once a run, and has its effect: a webhook is delivered again, a dead letter is none any more |
//! | R25 | the results of a record arrive at a queue in sequence, repeats and replays aside |
//! | R26 | no dead letter is deleted within its retention |
//!
//! Only a run that samples the system can collect the evidence for R13 to R17, R24 and R26 (`called`, `overdue`, `progress`,
//! `overdue_at_end`, `answered`, `unpublished`, `commands`, `letters_seen`) and for the last status of R21 (`asked_later`). R21 and
//! R22 need the history of each link, R25 the queue of each result, and find nothing without it.
//!
//! The checker shares no code with the worker: the caller reads the database and provides the idempotency keys.
//! `check` reads a history once, so its cost grows linearly. `docs/reference/history-checker.md` describes the
//! formats of the files.

mod files;
mod letters;
mod liveness;
mod operators;
mod rules;
mod secrets;
mod statuses;
#[cfg(test)]
mod tests;

use std::{collections::HashSet, time::Duration};

pub use self::{
    files::{FileError, Files, read},
    rules::check,
    secrets::Secrets,
};

/// The replay rule of a job's connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The same idempotency key returns the same link.
    SameKey,
    /// The payout is looked up before a retry.
    LookUp,
    /// Neither: an unknown outcome stays unknown.
    Never,
}

/// A job that RabbitMQ confirmed.
#[derive(Debug, Clone)]
pub struct Published {
    /// The `message_id`. Each message has its own, even if several have the same key.
    pub message_id: String,
    /// The key of the payout: see [`key`].
    pub key: String,
    /// The meaning of the request. Two requests with different fingerprints are in conflict.
    pub fingerprint: String,
    /// `1250 EUR`: minor units and currency.
    pub amount: String,
    /// Whether the contract accepts it.
    pub is_valid: bool,
    /// The replay rule of its connector.
    pub rule: Rule,
    /// Whether it has a `webhook_url`.
    pub wants_webhook: bool,
    /// Whether it has a `reply_to`.
    pub wants_reply: bool,
    /// The message came after its key's record was concluded, so it needs a result of its own.
    pub came_late: bool,
}

/// A link at the connector.
#[derive(Debug, Clone)]
pub struct Link {
    /// The provider's id.
    pub id: String,
    /// The key of the job for which it was created: see [`key`].
    pub key: String,
    /// `1250 EUR`: minor units and currency.
    pub amount: String,
    /// The URL, if the provider shows it.
    pub url: Option<String>,
    /// Every status that the link entered, the first one included, in the words of events or of the sandbox.
    pub history: Option<Vec<String>>,
}

/// A row of the database, with the event of its conclusion.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The key of the payout: see [`key`].
    pub key: String,
    /// `1250 EUR`: minor units and currency.
    pub amount: String,
    /// `open`, `created`, `failed` or `unknown`.
    pub state: String,
    /// The provider's id of the link.
    pub link_id: Option<String>,
    /// `true` while the outcome of a create call is unknown.
    pub is_unknown: bool,
    /// Whether a worker has claimed it.
    pub leased: bool,
    /// Whether its `due_at` has passed.
    pub due: bool,
    /// The outcomes of its create calls, in their order.
    pub calls: Vec<String>,
    /// The event of its conclusion.
    pub event: Option<Event>,
}

/// An event of a record, with the state of its delivery.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// `message_id` of the result and `webhook-id`.
    pub id: String,
    /// The type: `payout_link.created`.
    pub kind: String,
    /// Whether its result is published.
    pub published: bool,
    /// Whether its `due_at` has passed.
    pub due: bool,
    /// Whether a worker has claimed it.
    pub leased: bool,
    /// `none`, `pending`, `delivered` or `abandoned`.
    pub webhook_state: String,
    /// Attempts to deliver the webhook.
    pub webhook_attempts: u32,
}

/// An event after the first one of its record.
#[derive(Debug, Clone)]
pub struct LaterEvent {
    /// The key of its record: see [`key`].
    pub key: String,
    /// The event.
    pub event: Event,
}

/// An operator's action after which a record is concluded again: `resolve`, `retry`, or a `look-up` that found a
/// link.
#[derive(Debug, Clone)]
pub struct OperatorAction {
    /// The key of the record: see [`key`].
    pub key: String,
    /// The command: `resolve`, `retry` or `look-up`.
    pub command: String,
}

/// An operator's command, as somebody ran it.
#[derive(Debug, Clone)]
pub struct CommandRun {
    /// The key of the record: see [`key`].
    pub key: String,
    /// The command, as it is recorded: `dead-letters requeue`.
    pub command: String,
    /// Whether it ended by saying that it was done. One that died did not.
    pub is_done: bool,
}

/// An operator's act, as the database has it.
#[derive(Debug, Clone)]
pub struct RecordedAct {
    /// The key of the record: see [`key`].
    pub key: String,
    /// The command.
    pub command: String,
    /// The event whose webhook it delivers again.
    pub event_id: Option<String>,
}

/// The event of a conclusion that another conclusion of the same record followed.
#[derive(Debug, Clone)]
pub struct EarlierEvent {
    /// The key of its record: see [`key`].
    pub key: String,
    /// The event.
    pub event: Event,
}

/// A message on the results exchange, or on a reply queue.
#[derive(Debug, Clone)]
pub struct ReceivedMessage {
    /// Whether it came to a reply queue.
    pub is_reply: bool,
    /// Its `message_id`: the event's id.
    pub id: Option<String>,
    /// Its `type`.
    pub kind: String,
    /// The key of its record: see [`key`].
    pub key: String,
    /// The `correlation_id`, which a reply repeats.
    pub correlation_id: Option<String>,
    /// The URL of the link, a secret.
    pub link_url: Option<String>,
    /// The event's number in its record, from 1; `None` is the first.
    pub sequence: Option<u32>,
    /// The body, or a digest of it.
    pub body: Vec<u8>,
    /// The queue at which it arrived. The messages of one queue stand in the order of their arrival. If it is `None`, the
    /// order is unknown, and R25 does not judge the message.
    pub queue: Option<String>,
    /// Whether it has `x-replayed`: the answer to a duplicate, or published again by an operator.
    pub is_replayed: bool,
    /// Whether RabbitMQ had delivered it to another consumer before, which did not acknowledge it.
    pub is_redelivered: bool,
    /// Its `timestamp`, in Unix seconds: of a rejection, when it was published.
    pub timestamp: Option<i64>,
}

/// A job that was rejected.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// The `message_id` of the job.
    pub message_id: Option<String>,
    /// Whether its headers give the reason for its rejection.
    pub has_reason: bool,
}

/// A dead letter that was in its queue before the end of the history.
#[derive(Debug, Clone)]
pub struct SeenLetter {
    /// The `message_id` of the job.
    pub message_id: String,
    /// When it was rejected, in Unix seconds. A letter without a time is never deleted.
    pub rejected_at: Option<i64>,
}

/// The retention of dead letters.
#[derive(Debug, Clone, Copy)]
pub struct LetterRetention {
    /// The time from its rejection until a letter may be deleted.
    pub length: Duration,
    /// The end of the history, in Unix seconds.
    pub ended_at: i64,
}

/// A webhook as a merchant received it.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// `webhook-id`: the event's id.
    pub id: Option<String>,
    /// The key of its record: see [`key`].
    pub key: String,
    /// The event's type.
    pub kind: String,
    /// The event's number in its record, from 1; `None` is the first.
    pub sequence: Option<u32>,
    /// The status of the merchant's answer, if there was one.
    pub status: Option<u16>,
    /// Whether the signature is valid.
    pub is_verified: bool,
    /// The body, or a digest.
    pub body: String,
}

/// A secret that was found where it must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leak {
    /// The index of the secret, counted from 1. The secret itself is never shown.
    pub secret: usize,
    /// Where it was found: a file and a line, or a column.
    pub location: String,
}

/// Everything that a run left behind.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Jobs that RabbitMQ confirmed.
    pub published: Vec<Published>,
    /// Links that the provider has.
    pub links: Vec<Link>,
    /// Records that were concluded before the last jobs of their keys came.
    pub before: Vec<Record>,
    /// Records of the database.
    pub records: Vec<Record>,
    /// Results and replies.
    pub messages: Vec<ReceivedMessage>,
    /// Dead letters.
    pub dead: Vec<DeadLetter>,
    /// Dead letters that were seen in their queue, and that nobody has removed but the worker's retention.
    pub letters_seen: Vec<SeenLetter>,
    /// The retention of dead letters. If it is `None`, they are never deleted.
    pub letter_retention: Option<LetterRetention>,
    /// Webhooks in the order of their arrival.
    pub webhooks: Vec<Webhook>,
    /// The later events in the database. If it is empty because the caller did not read them, R6, R7 and R10 judge
    /// only first events.
    pub later: Vec<LaterEvent>,
    /// The events of conclusions that others followed, in their order for each record.
    pub earlier: Vec<EarlierEvent>,
    /// Operators' actions that conclude records again.
    pub actions: Vec<OperatorAction>,
    /// Operators' commands as they were run.
    pub commands: Vec<CommandRun>,
    /// Every recorded act of those commands, whether it concludes a record or not.
    pub acts: Vec<RecordedAct>,
    /// Webhooks that arrived after an operator had them delivered again, in the order in which they arrived. R7, R9 and
    /// R19 do not judge them.
    pub redelivered: Vec<Webhook>,
    /// Message ids of dead letters whose cause an operator corrected before they were requeued: they were rejected, and
    /// are accepted.
    pub corrected: HashSet<String>,
    /// Keys with links about which the next question is not due yet, so their last statuses may be unannounced. If it
    /// is `None`, R21 does not judge last statuses.
    pub asked_later: Option<HashSet<String>>,
    /// Jobs still in the queue.
    pub waiting: u32,
    /// Secrets that were found where they must not be.
    pub leaks: Vec<Leak>,
    /// Keys with a create call that reached the provider or a proxy in front of it, answered or not. If it is `None`,
    /// no proxy recorded calls, and R13 is not checked.
    pub called: Option<HashSet<String>>,
    /// Message ids under which the queue may have held two messages. One of them may be rejected and one accepted, so
    /// R12 leaves them out.
    pub ambiguous: HashSet<String>,
    /// Called records that were due but not claimed: the worst sample of each.
    pub overdue: Vec<Overdue>,
    /// Samples after the last fault was healed, in their order.
    pub progress: Vec<Progress>,
    /// Records and events that were due when the run ended.
    pub overdue_at_end: Vec<Overdue>,
    /// Links whose answers reached a worker that lived, with its database, until the record was concluded.
    pub answered: Vec<Answered>,
    /// Events whose results were not published: the worst sample of each.
    pub unpublished: Vec<Overdue>,
}

/// A created link whose answer a worker received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The key of its record: see [`key`].
    pub key: String,
    /// The provider's id of the link.
    pub link_id: String,
}

/// A sample of a record or event whose `due_at` had passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overdue {
    /// The record's key, or the event's id.
    pub what: String,
    /// The time since `due_at`.
    pub overdue: Duration,
    /// The time since the last fault of its provider, of the connections to it and of the database.
    pub well: Duration,
    /// The allowed time, including the time for everything that was due before.
    pub bound: Duration,
}

/// A sample of the work after all faults were healed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The time since the last fault was healed.
    pub after: Duration,
    /// Received results and rejections, each id once, and finished events. The number only grows.
    pub finished: usize,
    /// Jobs, records and events that are not finished.
    pub left: usize,
}

/// A broken rule, with the evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The number of the rule: `R1`.
    pub rule: &'static str,
    /// The evidence, without secrets.
    pub evidence: String,
}

/// Joins the parts of a record's key in one text.
pub fn key(merchant_id: &str, merchant_payout_id: &str) -> String {
    if merchant_id.is_empty() {
        merchant_payout_id.to_owned()
    } else {
        format!("{merchant_id}/{merchant_payout_id}")
    }
}
