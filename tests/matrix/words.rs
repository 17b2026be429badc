//! Describes a chunk in words: a statement, a method, a request.

use std::collections::HashMap;

use crate::proxy::{Direction, Service};

/// The log line when a worker is ready for jobs.
pub const CONSUMING: &str = "basic.consume-ok";

/// A pool's test that the server answers, or accepts writes.
pub const PING: &str = "a ping";

/// The beginning of the name of a statement whose parts (`WITH … AS (UPDATE …)`) write. Its answer counts the rows of its
/// last part only.
const WRITES_IN_PARTS: &str = "writes in parts: ";

/// Part of the statement that asks whether the server accepts writes.
const ACCEPTS_WRITES: &str = "transaction_read_only";

/// The state of one connection, from which its chunks are described.
pub struct Words {
    service: Service,
    statements: HashMap<String, String>,
    last: String,
}

impl Words {
    pub fn new(service: Service) -> Self {
        Self { service, statements: HashMap::new(), last: String::new() }
    }

    /// Describes a chunk. Returns `None` for a heartbeat.
    pub fn of(&mut self, direction: Direction, chunk: &[u8]) -> Option<String> {
        let what = match (self.service, direction) {
            (Service::Postgres | Service::OperatorPostgres, Direction::Out) => self.asked(chunk),
            (Service::Postgres | Service::OperatorPostgres, Direction::In) => {
                let answers: Vec<String> = messages(chunk).map(|(kind, body)| answer(kind, body)).collect();
                format!("{} to {}", squeezed(&answers.join(" ")), self.last)
            }
            (Service::RabbitMq | Service::OperatorRabbitMq, _) => frames(chunk)?,
            (Service::Connector | Service::Merchant, _) => first_line(chunk),
        };
        let (service, arrow) = (self.service, if direction == Direction::Out { "->" } else { "<-" });
        Some(format!("{arrow} {service:?}: {what}"))
    }

    fn asked(&mut self, chunk: &[u8]) -> String {
        let mut said = Vec::new();
        for (kind, body) in messages(chunk) {
            let mut texts = body.split(|byte| *byte == 0).map(String::from_utf8_lossy);
            let (first, second) = (texts.next().unwrap_or_default(), texts.next().unwrap_or_default());
            match kind {
                b'P' => {
                    self.last = statement(&second);
                    self.statements.insert(first.into_owned(), self.last.clone());
                    said.push(format!("prepare {}", self.last));
                }
                b'B' => {
                    self.last = self.statements.get(&*second).cloned().unwrap_or_default();
                    said.push(format!("execute {}", self.last));
                }
                b'Q' => {
                    self.last = statement(&first);
                    said.push(self.last.clone());
                }
                b'X' => said.push("terminate".into()),
                _ => {}
            }
        }
        if said.is_empty() && matches!(messages(chunk).next(), Some((b'S', _))) {
            self.last = PING.into();
            return self.last.clone();
        }
        if said.is_empty() { squeezed(&String::from_utf8_lossy(chunk)) } else { said.join(", ") }
    }
}

/// Splits a chunk into messages of PostgreSQL: a letter, a length, a body.
fn messages(mut chunk: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (kind, rest) = chunk.split_first()?;
        let length = u32::from_be_bytes(*rest.first_chunk::<4>()?) as usize;
        let body = rest.get(4..length)?;
        chunk = &rest[length..];
        Some((*kind, body))
    })
}

fn answer(kind: u8, body: &[u8]) -> String {
    match kind {
        b'1' => "parsed".into(),
        b'2' => "bound".into(),
        b'C' => String::from_utf8_lossy(body).trim_matches('\0').to_owned(),
        b'D' => "row".into(),
        b'E' => format!("error {}", String::from_utf8_lossy(body).replace('\0', " ")),
        b'Z' => "ready".into(),
        other => char::from(other).to_string(),
    }
}

/// Describes the frames of AMQP (type, channel, length, payload, end), without headers and bodies.
fn frames(mut chunk: &[u8]) -> Option<String> {
    let (mut said, mut beats) = (Vec::new(), 0_u32);
    while let [kind, _, _, a, b, c, d, rest @ ..] = chunk {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        match (kind, rest) {
            (1, [c1, c2, m1, m2, ..]) => {
                said.push(method(u16::from_be_bytes([*c1, *c2]), u16::from_be_bytes([*m1, *m2])));
            }
            (8, _) => beats += 1,
            (2 | 3, _) => {}
            _ => break,
        }
        chunk = rest.get(length + 1..).unwrap_or_default();
    }
    match (said.is_empty(), beats) {
        (true, 1..) => None,
        (true, 0) => Some("the rest of a message".into()),
        (false, _) => Some(said.join(", ")),
    }
}

fn method(class: u16, method: u16) -> String {
    let name = match (class, method) {
        (10, 50) => "connection.close",
        (10, 51) => "connection.close-ok",
        (20, 10) => "channel.open",
        (20, 11) => "channel.open-ok",
        (20, 40) => "channel.close",
        (60, 21) => CONSUMING,
        (60, 30) => "basic.cancel",
        (60, 40) => "basic.publish",
        (60, 50) => "basic.return",
        (60, 60) => "basic.deliver",
        (60, 80) => "basic.ack",
        (60, 90) => "basic.reject",
        (60, 120) => "basic.nack",
        (85, 10) => "confirm.select",
        (85, 11) => "confirm.select-ok",
        _ => return format!("method {class}.{method}"),
    };
    name.into()
}

/// Describes an HTTP message by its first line. The rest may contain secrets.
fn first_line(chunk: &[u8]) -> String {
    let line = chunk.split(|byte| *byte == b'\r').next().unwrap_or_default();
    match line {
        line if line.starts_with(b"HTTP/") || line.ends_with(b"HTTP/1.1") => {
            String::from_utf8_lossy(line).into_owned()
        }
        _ => "the rest of a body".into(),
    }
}

/// Returns the statement that a chunk executes, if its answer shows whether it changes anything.
pub fn executed(words: &str) -> Option<&str> {
    let statement = words.split_once("Postgres: execute ")?.1;
    (!statement.starts_with(WRITES_IN_PARTS)).then_some(statement)
}

/// Returns whether the chunk is the answer to a statement.
pub fn answers(words: &str, statement: &str) -> bool {
    words.starts_with("<-") && words.strip_suffix(statement).is_some_and(|before| before.ends_with(" to "))
}

/// Returns whether the answer has no row, and says that no row was changed.
pub fn found_nothing(words: &str) -> bool {
    let nothing = [" SELECT 0 ", " UPDATE 0 ", " DELETE 0 ", " INSERT 0 0 "];
    !words.contains(" row ") && nothing.iter().any(|nothing| words.contains(nothing))
}

/// Returns whether a chunk on the way to or from PostgreSQL may belong to a change: to a transaction, or to a statement
/// that does not only read.
pub fn may_change(words: &str) -> bool {
    let Some((_, what)) = words.split_once("Postgres: ") else { return true };
    let statement = if words.starts_with("<-") {
        what.split_once(" to ")
            .filter(|(answer, _)| !answer.contains("parsed"))
            .map(|(_, statement)| statement)
    } else {
        Some(what.rsplit_once("execute ").map_or(what, |(_, statement)| statement))
    };
    let changes =
        [WRITES_IN_PARTS, "WITH", "INSERT", "UPDATE", "DELETE", "BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT"];
    statement.is_some_and(|statement| changes.iter().any(|change| statement.starts_with(change)))
}

/// Names a statement by its beginning.
fn statement(text: &str) -> String {
    if text.contains(ACCEPTS_WRITES) {
        return PING.into();
    }
    let without_comments: Vec<&str> =
        text.lines().map(|line| line.split("--").next().unwrap_or(line)).collect();
    let code = without_comments.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
    let has_writing_part = ["INSERT", "UPDATE", "DELETE"]
        .iter()
        .any(|write| ["AS (", "AS ( "].iter().any(|part| code.contains(&format!("{part}{write} "))));
    if has_writing_part { squeezed(&format!("{WRITES_IN_PARTS}{code}")) } else { squeezed(&code) }
}

fn squeezed(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().filter(|c| !c.is_control()).take(72).collect()
}
