//! Which creating calls a worker sent: read on the way to a provider, whatever becomes of them behind it.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

/// References of creating calls, as they were sent.
#[derive(Clone, Default)]
pub struct Calls(Arc<Mutex<HashSet<String>>>);

/// More than any request of a worker. A stream that does not fit is no such request.
const MAX_BYTES: usize = 512 * 1024;

impl Calls {
    pub fn references(&self) -> HashSet<String> {
        self.0.lock().unwrap().clone()
    }
}

/// One connection's requests, as HTTP/1.1 frames them.
pub struct Reader {
    calls: Calls,
    unread: Vec<u8>,
}

impl Reader {
    pub fn new(calls: Calls) -> Self {
        Self { calls, unread: Vec::new() }
    }

    /// A request counts from its first bytes that name a reference: a part of it may have been carried out.
    pub fn read(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        loop {
            let length = self.length();
            let available = length.unwrap_or(self.unread.len()).min(self.unread.len());
            self.note(&self.unread[..available]);
            match length {
                Some(length) if length <= self.unread.len() && length > 0 => {
                    drop(self.unread.drain(..length))
                }
                _ => break,
            }
        }
        if self.unread.len() > MAX_BYTES {
            self.unread.clear();
        }
    }

    /// Of the first request, head and body; `None` before its head is complete.
    fn length(&self) -> Option<usize> {
        let head = self.unread.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
        let text = String::from_utf8_lossy(&self.unread[..head]).to_ascii_lowercase();
        let body = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        Some(head + body.unwrap_or(0))
    }

    /// Look-ups are GET. What is POST and names a reference creates.
    fn note(&self, request: &[u8]) {
        if !request.starts_with(b"POST ") {
            return;
        }
        let words = request.split(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'-'));
        let references = words.filter(|word| word.len() == 32 || word.len() == 36);
        let references = references.filter_map(|word| String::from_utf8(word.to_vec()).ok());
        self.calls.0.lock().unwrap().extend(references);
    }
}
