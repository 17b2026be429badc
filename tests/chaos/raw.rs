//! Writes AMQP frames by hand, for messages and dead letters that no client library would send or could read.

use std::{
    io::{Error, Read, Result, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const TIMEOUT: Duration = Duration::from_secs(10);
/// Property flags (AMQP 0-9-1, section 4.2.6.1), from the highest bit.
const CONTENT_TYPE: u16 = 1 << 15;
const CONTENT_ENCODING: u16 = 1 << 14;
const HEADERS: u16 = 1 << 13;
const DELIVERY_MODE: u16 = 1 << 12;
const PRIORITY: u16 = 1 << 11;
const CORRELATION_ID: u16 = 1 << 10;
const REPLY_TO: u16 = 1 << 9;
const EXPIRATION: u16 = 1 << 8;
const MESSAGE_ID: u16 = 1 << 7;

struct Raw(TcpStream);

/// Publishes a message whose `message_id` is not UTF-8, until it is confirmed. RabbitMQ accepts it; client libraries
/// do not.
pub fn publish_unreadable(node: SocketAddr, queue: &str) -> Result<()> {
    let mut raw = Raw::connect(node)?;
    raw.ask(1, 85, 10, &[0], (85, 11))?;
    raw.method(1, 60, 40, &[&[0, 0][..], &short(b""), &short(queue.as_bytes()), &[0]].concat())?;
    let body = b"{}";
    let properties = [&short(b"application/json")[..], &[2], &short(b"\xff\xfe")].concat();
    let flags = CONTENT_TYPE | DELIVERY_MODE | MESSAGE_ID;
    let size = (body.len() as u64).to_be_bytes();
    raw.frame(HEADER, 1, &[&[0, 60, 0, 0][..], &size, &flags.to_be_bytes(), &properties].concat())?;
    raw.frame(BODY, 1, body)?;
    raw.expect(60, 80).map(drop)
}

/// Takes all messages out of a queue, even unreadable ones. `found` gets each `message_id`, and whether the message
/// has a reason for its rejection. If the connection is lost, `found` may get a message twice.
pub fn take_all(node: SocketAddr, queue: &str, mut found: impl FnMut(String, bool)) -> Result<()> {
    let mut raw = Raw::connect(node)?;
    loop {
        raw.method(1, 60, 70, &[&[0, 0][..], &short(queue.as_bytes()), &[0]].concat())?;
        let (_, answer) = raw.read()?;
        if answer[..4] != [0, 60, 0, 71] {
            // The connection closes in order, so the broker has read the acknowledgements.
            return raw.ask(0, 10, 50, &[0, 200, 0, 0, 0, 0, 0], (10, 51));
        }
        let tag = answer.get(4..12).ok_or_else(|| Error::other("no delivery tag"))?.to_vec();
        let (_, header) = raw.read()?;
        let size = header.get(4..12).ok_or_else(|| Error::other("no body size"))?;
        let mut left = u64::from_be_bytes(size.try_into().unwrap());
        while left > 0 {
            left = left.saturating_sub(raw.frame_in()?.1.len() as u64);
        }
        let has = |name: &[u8]| header.windows(name.len()).any(|bytes| bytes == name);
        let message_id = message_id(&header).unwrap_or_default();
        found(
            String::from_utf8_lossy(&message_id).into_owned(),
            has(b"x-rejected-code") && has(b"x-rejected-reason"),
        );
        raw.method(1, 60, 80, &[&tag[..], &[0]].concat())?;
    }
}

/// Finds `message_id` in a content header. The properties follow class, weight, size and flags, in the order of their
/// flags.
fn message_id(header: &[u8]) -> Option<Vec<u8>> {
    let flags = u16::from_be_bytes([*header.get(12)?, *header.get(13)?]);
    let mut at = 14;
    let order = [
        CONTENT_TYPE,
        CONTENT_ENCODING,
        HEADERS,
        DELIVERY_MODE,
        PRIORITY,
        CORRELATION_ID,
        REPLY_TO,
        EXPIRATION,
        MESSAGE_ID,
    ];
    for flag in order.into_iter().filter(|flag| flags & flag != 0) {
        let length = match flag {
            HEADERS => 4 + u32::from_be_bytes(header.get(at..at + 4)?.try_into().ok()?) as usize,
            DELIVERY_MODE | PRIORITY => 1,
            _ => 1 + usize::from(*header.get(at)?),
        };
        if flag == MESSAGE_ID {
            return Some(header.get(at + 1..at + length)?.to_vec());
        }
        at += length;
    }
    None
}

fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text].concat()
}

fn long(text: &[u8]) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text].concat()
}

impl Raw {
    /// Connects as guest to the vhost `/`, and opens channel 1.
    fn connect(node: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&node, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let mut raw = Self(stream);
        raw.0.write_all(b"AMQP\0\0\x09\x01")?;
        raw.expect(10, 10)?;
        let start = [&[0; 4][..], &short(b"PLAIN"), &long(b"\0guest\0guest"), &short(b"en_US")].concat();
        raw.ask(0, 10, 11, &start, (10, 30))?;
        // Asks for no limit of channels, frames of 128 KiB and no heartbeats.
        raw.method(0, 10, 31, &[0x07, 0xff, 0, 2, 0, 0, 0, 0])?;
        raw.ask(0, 10, 40, &[&short(b"/")[..], &short(b""), &[0]].concat(), (10, 41))?;
        raw.ask(1, 20, 10, &short(b""), (20, 11))?;
        Ok(raw)
    }

    fn ask(
        &mut self,
        channel: u16,
        class: u16,
        method: u16,
        arguments: &[u8],
        wanted: (u16, u16),
    ) -> Result<()> {
        self.method(channel, class, method, arguments)?;
        self.expect(wanted.0, wanted.1).map(drop)
    }

    fn expect(&mut self, class: u16, method: u16) -> Result<Vec<u8>> {
        let (kind, payload) = self.read()?;
        let wanted = [class.to_be_bytes(), method.to_be_bytes()].concat();
        if kind == METHOD && payload.starts_with(&wanted) {
            return Ok(payload);
        }
        Err(Error::other(format!(
            "another frame than {class}.{method}: {:?}",
            &payload[..payload.len().min(60)]
        )))
    }

    fn method(&mut self, channel: u16, class: u16, method: u16, arguments: &[u8]) -> Result<()> {
        self.frame(METHOD, channel, &[&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat())
    }

    fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) -> Result<()> {
        let mut frame = vec![kind];
        frame.extend(channel.to_be_bytes());
        frame.extend(long(payload));
        frame.push(0xce);
        self.0.write_all(&frame)
    }

    /// Reads the next frame's kind and payload. No payload is shorter than a class and a method.
    fn read(&mut self) -> Result<(u8, Vec<u8>)> {
        let (kind, payload) = self.frame_in()?;
        if payload.len() < 4 {
            return Err(Error::other("a frame that is too short"));
        }
        Ok((kind, payload))
    }

    fn frame_in(&mut self) -> Result<(u8, Vec<u8>)> {
        let mut head = [0; 7];
        self.0.read_exact(&mut head)?;
        let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        let mut payload = vec![0; length + 1];
        self.0.read_exact(&mut payload)?;
        payload.pop();
        Ok((head[0], payload))
    }
}
