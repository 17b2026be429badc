//! Reads a history from files of JSON Lines, one object a line. Unknown fields are ignored, so the output of other
//! programs (the sandbox's ledger, its receiver's list) needs no change.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::{DeadLetter, History, Leak, Link, Published, ReceivedMessage, Rule, Secrets, Webhook, key};

/// The files of a history. An absent file counts as empty.
#[derive(Debug, Default)]
pub struct Files {
    /// Published jobs.
    pub published: Option<PathBuf>,
    /// Results and replies.
    pub results: Option<PathBuf>,
    /// Dead letters.
    pub dead_letters: Option<PathBuf>,
    /// Webhooks that the merchants received.
    pub webhooks: Option<PathBuf>,
    /// Links that the provider has.
    pub ledger: Option<PathBuf>,
    /// Calls that reached the provider.
    pub calls: Option<PathBuf>,
    /// Logs, which are only searched for secrets.
    pub logs: Vec<PathBuf>,
}

/// The reason why a history cannot be read.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum FileError {
    #[error("{0}: {1}")]
    Io(PathBuf, std::io::Error),
    #[error("{0} line {1}: {2}")]
    Line(PathBuf, usize, serde_json::Error),
    #[error("{0} line {1}: no connector {2:?} is configured")]
    Connector(PathBuf, usize, String),
}

#[derive(Deserialize)]
struct PublishedLine {
    message_id: String,
    #[serde(default)]
    merchant_id: String,
    merchant_payout_id: Option<String>,
    amount: Option<Money>,
    fingerprint: Option<String>,
    connector: Option<String>,
    #[serde(default = "yes")]
    valid: bool,
    #[serde(default)]
    webhook: bool,
    #[serde(default)]
    reply: bool,
    #[serde(default)]
    late: bool,
}

#[derive(Deserialize)]
struct Money {
    minor_amount: i64,
    currency: String,
}

#[derive(Deserialize)]
struct ResultLine {
    #[serde(default)]
    reply: bool,
    message_id: Option<String>,
    r#type: String,
    correlation_id: Option<String>,
    #[serde(default)]
    merchant_id: String,
    body: Box<RawValue>,
    queue: Option<String>,
    #[serde(default)]
    replayed: bool,
    #[serde(default)]
    redelivered: bool,
    timestamp: Option<i64>,
}

#[derive(Deserialize)]
struct DeadLetterLine {
    message_id: Option<String>,
    code: Option<String>,
    reason: Option<String>,
}

/// A webhook in the format of the sandbox's receiver.
#[derive(Deserialize)]
struct WebhookLine {
    id: Option<String>,
    #[serde(default)]
    merchant_id: String,
    status: Option<u16>,
    #[serde(default = "yes")]
    verified: bool,
    body: Box<RawValue>,
}

/// A link in the format of the sandbox's ledger.
#[derive(Deserialize)]
struct LinkLine {
    id: String,
    reference: String,
    amount: Money,
    url: Option<String>,
    history: Option<Vec<ChangeLine>>,
}

#[derive(Deserialize)]
struct ChangeLine {
    status: String,
}

/// A call in the format of the sandbox's ledger.
#[derive(Deserialize)]
struct CallLine {
    #[serde(default = "create")]
    operation: String,
    reference: Option<String>,
    idempotency_key: Option<String>,
}

/// The fields of a result and a webhook that the rules need.
#[derive(Deserialize, Default)]
struct ResultBody {
    merchant_payout_id: Option<String>,
    payout_link: Option<LinkBody>,
    sequence: Option<u32>,
}

#[derive(Deserialize)]
struct LinkBody {
    url: String,
}

#[derive(Deserialize, Default)]
struct WebhookBody {
    #[serde(default)]
    r#type: String,
    data: ResultBody,
}

fn yes() -> bool {
    true
}

fn create() -> String {
    "create".into()
}

/// Reads all files.
///
/// `rule` returns the replay rule of a connector, by its name; `None` is the default connector. `idempotency_key`
/// returns the key under which a payout is called, by `merchant_id` and `merchant_payout_id`.
///
/// # Errors
///
/// Returns an error if a file cannot be read or names an unknown connector.
pub fn read(
    files: &Files,
    secrets: &Secrets,
    rule: impl Fn(Option<&str>) -> Option<Rule>,
    idempotency_key: impl Fn(&str, &str) -> String,
) -> Result<History, FileError> {
    let mut history = History::default();
    let mut by_reference: HashMap<String, String> = HashMap::new();
    if let Some(path) = &files.published {
        for (number, line) in lines::<PublishedLine>(path)? {
            let line = line?;
            let id = line.merchant_payout_id.unwrap_or_else(|| line.message_id.clone());
            let amount = line.amount.map(|money| money.text()).unwrap_or_default();
            let key = key(&line.merchant_id, &id);
            by_reference.insert(idempotency_key(&line.merchant_id, &id), key.clone());
            // A rejected job may name a connector that does not exist.
            let rule = match rule(line.connector.as_deref()) {
                Some(rule) => rule,
                None if !line.valid => Rule::Never,
                None => {
                    let name = line.connector.unwrap_or_default();
                    return Err(FileError::Connector(path.clone(), number, name));
                }
            };
            history.published.push(Published {
                message_id: line.message_id,
                key,
                fingerprint: line.fingerprint.unwrap_or_else(|| amount.clone()),
                amount,
                is_valid: line.valid,
                rule,
                wants_webhook: line.webhook,
                wants_reply: line.reply,
                came_late: line.late,
            });
        }
    }
    if let Some(path) = &files.results {
        for (number, line) in lines::<ResultLine>(path)? {
            let line = line?;
            let body = text(&line.body);
            history.leaks.extend(secrets.find(body.as_bytes(), || location(path, number)));
            let result: ResultBody = serde_json::from_str(&body).unwrap_or_default();
            history.messages.push(ReceivedMessage {
                is_reply: line.reply,
                id: line.message_id,
                kind: line.r#type,
                key: key(&line.merchant_id, result.merchant_payout_id.as_deref().unwrap_or_default()),
                correlation_id: line.correlation_id,
                link_url: result.payout_link.map(|link| link.url),
                sequence: result.sequence,
                body: digest(&SHA256, body.as_bytes()).as_ref().to_vec(),
                queue: line.queue,
                is_replayed: line.replayed,
                is_redelivered: line.redelivered,
                timestamp: line.timestamp,
            });
        }
    }
    if let Some(path) = &files.dead_letters {
        for (_, line) in lines::<DeadLetterLine>(path)? {
            let line = line?;
            let has_reason = line.code.is_some() && line.reason.is_some();
            history.dead.push(DeadLetter { message_id: line.message_id, has_reason });
        }
    }
    if let Some(path) = &files.webhooks {
        for (number, line) in lines::<WebhookLine>(path)? {
            let line = line?;
            let body = text(&line.body);
            history.leaks.extend(secrets.find(body.as_bytes(), || location(path, number)));
            let webhook: WebhookBody = serde_json::from_str(&body).unwrap_or_default();
            history.webhooks.push(Webhook {
                id: line.id,
                key: key(&line.merchant_id, webhook.data.merchant_payout_id.as_deref().unwrap_or_default()),
                kind: webhook.r#type,
                sequence: webhook.data.sequence,
                status: line.status,
                is_verified: line.verified,
                body: format!("{:?}", digest(&SHA256, body.as_bytes())),
            });
        }
    }
    if let Some(path) = &files.ledger {
        for (_, line) in lines::<LinkLine>(path)? {
            let line = line?;
            // A reference without a published job becomes a key of its own: a link without a record.
            let key = by_reference.get(&line.reference).cloned().unwrap_or(line.reference);
            let entered =
                line.history.map(|changes| changes.into_iter().map(|change| change.status).collect());
            let amount = line.amount.text();
            history.links.push(Link { id: line.id, key, amount, url: line.url, history: entered });
        }
    }
    if let Some(path) = &files.calls {
        let mut called = HashSet::new();
        for (_, line) in lines::<CallLine>(path)? {
            let line = line?;
            let references = line.reference.into_iter().chain(line.idempotency_key);
            let keys = references.filter_map(|reference| by_reference.get(&reference).cloned());
            called.extend(keys.filter(|_| line.operation == "create"));
        }
        history.called = Some(called);
    }
    for path in &files.logs {
        history.leaks.extend(search(path, secrets)?);
    }
    Ok(history)
}

impl Money {
    fn text(&self) -> String {
        format!("{} {}", self.minor_amount, self.currency)
    }
}

/// Returns the bytes of a body, which is an object or a string that holds one byte for byte.
fn text(body: &RawValue) -> String {
    serde_json::from_str(body.get()).unwrap_or_else(|_| body.get().to_owned())
}

fn location(path: &Path, number: usize) -> String {
    format!("{} line {number}", path.display())
}

fn open(path: &Path) -> Result<BufReader<File>, FileError> {
    File::open(path).map(BufReader::new).map_err(|error| FileError::Io(path.to_owned(), error))
}

/// Reads the lines that are not empty, with their numbers from 1.
fn lines<T: DeserializeOwned>(
    path: &Path,
) -> Result<impl Iterator<Item = (usize, Result<T, FileError>)>, FileError> {
    let lines = open(path)?.lines().enumerate();
    Ok(lines.filter_map(move |(index, line)| {
        let number = index + 1;
        let line = match line {
            Ok(line) if line.trim().is_empty() => return None,
            Ok(line) => {
                serde_json::from_str(&line).map_err(|error| FileError::Line(path.to_owned(), number, error))
            }
            Err(error) => Err(FileError::Io(path.to_owned(), error)),
        };
        Some((number, line))
    }))
}

fn search(path: &Path, secrets: &Secrets) -> Result<Vec<Leak>, FileError> {
    let (mut leaks, mut reader, mut line, mut number) = (Vec::new(), open(path)?, Vec::new(), 0);
    while {
        line.clear();
        reader.read_until(b'\n', &mut line).map_err(|error| FileError::Io(path.to_owned(), error))? > 0
    } {
        number += 1;
        leaks.extend(secrets.find(&line, || location(path, number)));
    }
    Ok(leaks)
}
