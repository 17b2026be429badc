//! Reads the create calls that a worker sends to a provider, and the answers that reach the worker.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

/// The create calls of all workers, and their answers. Clones share them.
#[derive(Clone, Default)]
#[must_use]
pub struct Calls {
    seen: Arc<Mutex<Seen>>,
    worker: usize,
}

#[derive(Default)]
struct Seen {
    references: HashSet<String>,
    answers: Vec<Answer>,
}

/// A complete answer to a create call, written to the worker's connection.
#[derive(Clone)]
pub struct Answer {
    /// The references of the links in the answer.
    pub references: Vec<String>,
    /// The number of the worker that received it.
    pub worker: usize,
    /// The time when the answer passed.
    pub at: SystemTime,
    /// The time between the call and its answer.
    pub took: Duration,
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// The maximum size of a request. It is larger than any request of a worker, so a longer stream is no such request.
const MAX_BYTES: usize = 512 * 1024;

impl Calls {
    /// Returns the references of the calls that passed.
    pub fn references(&self) -> HashSet<String> {
        self.seen.lock().unwrap().references.clone()
    }

    /// Returns the answers that passed, in order.
    pub fn answers(&self) -> Vec<Answer> {
        self.seen.lock().unwrap().answers.clone()
    }

    /// Returns the same calls for the connections of one worker.
    pub fn of_worker(&self, worker: usize) -> Self {
        Self { seen: self.seen.clone(), worker }
    }
}

/// Requests of one connection that have no answer yet: their references and times.
pub type Asked = Arc<Mutex<VecDeque<(Vec<String>, Instant)>>>;

/// Reads one connection's requests, framed by HTTP/1.1.
pub struct Reader {
    calls: Calls,
    asked: Asked,
    unread: Vec<u8>,
}

impl Reader {
    /// Creates a reader that records the calls of one connection.
    pub fn new(calls: Calls) -> Self {
        Self { calls, asked: Asked::default(), unread: Vec::new() }
    }

    /// Returns the reader of the other direction.
    pub fn answers(&self) -> AnswerReader {
        AnswerReader { calls: self.calls.clone(), asked: self.asked.clone(), unread: Vec::new() }
    }

    /// Reads bytes of requests. A request counts as soon as its bytes name a reference, because a part of it may be
    /// carried out.
    pub fn read(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        loop {
            let length = length(&self.unread);
            let available = length.unwrap_or(self.unread.len()).min(self.unread.len());
            let references = references(&self.unread[..available]);
            match length {
                Some(length) if length <= self.unread.len() && length > 0 => {
                    drop(self.unread.drain(..length));
                    self.calls.seen.lock().unwrap().references.extend(references.iter().cloned());
                    self.asked.lock().unwrap().push_back((references, Instant::now()));
                }
                _ => {
                    self.calls.seen.lock().unwrap().references.extend(references);
                    break;
                }
            }
        }
        if self.unread.len() > MAX_BYTES {
            self.unread.clear();
        }
    }
}

/// Reads one connection's answers, in the order of its requests.
pub struct AnswerReader {
    calls: Calls,
    asked: Asked,
    unread: Vec<u8>,
}

impl AnswerReader {
    /// Records bytes that were written to the worker. An answer without a declared length is no evidence.
    pub fn wrote(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        while let Some(length) = length(&self.unread).filter(|length| *length <= self.unread.len()) {
            let answer: Vec<u8> = self.unread.drain(..length).collect();
            let Some((references, asked_at)) = self.asked.lock().unwrap().pop_front() else { return };
            let Some(head) = head(&answer) else { return };
            let status = answer.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
            let answer = Answer {
                references,
                worker: self.calls.worker,
                at: SystemTime::now(),
                took: asked_at.elapsed(),
                status: status.unwrap_or(0),
                body: answer[head..].to_vec(),
            };
            if !answer.references.is_empty() {
                self.calls.seen.lock().unwrap().answers.push(answer);
            }
        }
        if self.unread.len() > MAX_BYTES {
            self.unread.clear();
        }
    }
}

fn head(message: &[u8]) -> Option<usize> {
    Some(message.windows(4).position(|end| end == b"\r\n\r\n")? + 4)
}

/// Returns the length of the first message, head and body, or `None` before its head is complete.
fn length(message: &[u8]) -> Option<usize> {
    let head = head(message)?;
    let text = String::from_utf8_lossy(&message[..head]).to_ascii_lowercase();
    let body = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    Some(head + body.unwrap_or(0))
}

/// Returns the references that a create call names. A look-up is a GET, so a POST with a reference creates.
fn references(request: &[u8]) -> Vec<String> {
    if !request.starts_with(b"POST ") {
        return Vec::new();
    }
    let words = request.split(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'-'));
    let references = words.filter(|word| word.len() == 32 || word.len() == 36);
    references.filter_map(|word| String::from_utf8(word.to_vec()).ok()).collect()
}
