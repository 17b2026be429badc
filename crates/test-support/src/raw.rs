//! Publishes frames written by hand, which no client library would send.

use std::{
    io::{Read, Result, Write},
    net::TcpStream,
};

/// A publisher without a client library.
pub struct RawPublisher(TcpStream);

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
/// The flag of `headers`, one of the property flags (AMQP 0-9-1, section 4.2.6.1).
pub const HEADERS: u16 = 1 << 13;
/// The flag of `correlation_id`.
pub const CORRELATION_ID: u16 = 1 << 10;
/// The flag of `reply_to`.
pub const REPLY_TO: u16 = 1 << 9;
/// The flag of `message_id`.
pub const MESSAGE_ID: u16 = 1 << 7;

/// Encodes a short string: one byte of length.
pub fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text].concat()
}

/// Encodes a long string: four bytes of length.
pub fn long(text: &[u8]) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text].concat()
}

/// Builds a header `x-deep` with nested lists.
pub fn deep_headers(levels: u32) -> Vec<u8> {
    let mut table = short(b"x-deep");
    for level in (0..levels).rev() {
        table.push(b'A');
        table.extend((level * 5 + 1).to_be_bytes());
    }
    table.push(b'V');
    long(&table)
}

impl RawPublisher {
    /// Connects as guest to the vhost `/`, with confirms.
    pub fn connect(url: &str) -> Self {
        let url: url::Url = url.parse().unwrap();
        let address = (url.host_str().unwrap(), url.port().unwrap());
        let mut raw = Self(TcpStream::connect(address).unwrap());
        raw.0.write_all(b"AMQP\0\0\x09\x01").unwrap();
        let start = [&[0; 4][..], &short(b"PLAIN"), &long(b"\0guest\0guest"), &short(b"en_US")].concat();
        raw.asked(0, 10, 11, &start);
        raw.read();
        raw.method(0, 10, 31, &[0x07, 0xff, 0, 2, 0, 0, 0, 0]);
        raw.asked(0, 10, 40, &[&short(b"/")[..], &short(b""), &[0]].concat());
        raw.asked(1, 20, 10, &short(b""));
        raw.asked(1, 85, 10, &[0]);
        raw.read();
        raw
    }

    /// Publishes into a queue and waits for the confirm. `properties` are encoded in the order of their flags.
    pub fn publish(&mut self, queue: &str, body: &[u8], flags: u16, properties: &[u8]) {
        self.method(1, 60, 40, &[&[0, 0][..], &short(b""), &short(queue.as_bytes()), &[0]].concat());
        let size = (body.len() as u64).to_be_bytes();
        self.frame(HEADER, 1, &[&[0, 60, 0, 0][..], &size, &flags.to_be_bytes(), properties].concat());
        self.frame(BODY, 1, body);
        assert_eq!(self.read()[..4], [0, 60, 0, 80], "basic.ack");
    }

    /// Sends a method after the answer to the previous one.
    fn asked(&mut self, channel: u16, class: u16, method: u16, arguments: &[u8]) {
        if class != 10 || method == 11 {
            self.read();
        }
        self.method(channel, class, method, arguments);
    }

    fn method(&mut self, channel: u16, class: u16, method: u16, arguments: &[u8]) {
        self.frame(METHOD, channel, &[&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat());
    }

    fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let mut frame = vec![kind];
        frame.extend(channel.to_be_bytes());
        frame.extend(long(payload));
        frame.push(0xce);
        self.0.write_all(&frame).unwrap();
    }

    fn read(&mut self) -> Vec<u8> {
        self.try_read().unwrap()
    }

    fn try_read(&mut self) -> Result<Vec<u8>> {
        let mut head = [0; 7];
        self.0.read_exact(&mut head)?;
        let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        let mut payload = vec![0; length + 1];
        self.0.read_exact(&mut payload)?;
        Ok(payload)
    }
}
