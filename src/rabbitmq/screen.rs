//! Filters the stream between RabbitMQ and lapin: it passes every frame except message properties that lapin cannot
//! parse.
//!
//! lapin closes a connection at properties that it cannot parse, and all unsettled deliveries return with it. Any
//! client can write such properties: a `message_id` that is not UTF-8 is enough. The frame around them is valid, so
//! it is replaced by one whose only property is a mark. The delivery arrives and is rejected by its delivery tag, and
//! no other delivery is affected. RabbitMQ still has the original, and dead-letters that.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use async_rs::{Runtime, Tokio, TokioRuntime, traits::Reactor, util::RuntimeParts};
use futures_util::{AsyncRead, AsyncWrite, Stream};
use lapin::{AsyncTcpStream, BasicProperties, protocol::basic::parse_properties, types::AMQPValue};
use uuid::Uuid;

/// The header that marks unreadable properties. Its value is specific to the connection, so no publisher can write
/// it.
const MARK: &str = "x-unreadable-properties";

/// Returns whether the properties of a message on a connection were replaced by its mark.
pub(super) fn is_marked(properties: &BasicProperties, mark: Uuid) -> bool {
    let value = properties.headers().as_ref().and_then(|headers| headers.inner().get(MARK));
    matches!(value, Some(AMQPValue::LongString(text)) if text.as_bytes() == mark.to_string().as_bytes())
}

/// lapin's runtime, over streams of this module.
pub(super) type ScreenedRuntime = Runtime<RuntimeParts<Tokio, Screened>>;

pub(super) fn runtime() -> ScreenedRuntime {
    let tokio = TokioRuntime::tokio_current();
    Runtime::new(RuntimeParts::new(Tokio::current(), Screened(tokio)))
}

/// A reactor for filtered streams. lapin gets its stream from the caller, so this type never connects.
#[derive(Debug, Clone)]
pub(super) struct Screened(TokioRuntime);

impl Reactor for Screened {
    type TcpStream = Screen;
    type Sleep = tokio::time::Sleep;

    fn register<H: io::Read + io::Write + std::os::fd::AsFd + std::os::fd::AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        _: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        std::future::ready(Err(io::Error::from(io::ErrorKind::Unsupported)))
    }
}

type Inner = AsyncTcpStream<<TokioRuntime as Reactor>::TcpStream>;

/// One connection's stream.
pub(super) struct Screen {
    inner: Inner,
    frames: Frames,
}

impl Screen {
    pub(super) fn new(inner: Inner, mark: Uuid) -> Self {
        Self { inner, frames: Frames { mark: mark.to_string(), ..Frames::default() } }
    }
}

impl AsyncRead for Screen {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let this = &mut *self;
            let taken = this.frames.take(buffer);
            if taken > 0 {
                return Poll::Ready(Ok(taken));
            }
            let read = ready!(Pin::new(&mut this.inner).poll_read(cx, buffer))?;
            if read == 0 {
                return Poll::Ready(Ok(0));
            }
            let passed = this.frames.pass(&buffer[..read]);
            if passed > 0 {
                return Poll::Ready(Ok(passed));
            }
        }
    }
}

impl AsyncWrite for Screen {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, buffers)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

/// Follows the frames of a stream (AMQP 0-9-1, section 2.3.5): type, channel, size, payload, end.
#[derive(Default)]
struct Frames {
    mark: String,
    /// Bytes of the current frame that need no inspection.
    unlooked: usize,
    /// The beginning of an incomplete frame.
    begun: Vec<u8>,
    /// Filtered bytes that are not read yet.
    screened: Vec<u8>,
    taken: usize,
}

const HEAD: usize = 7;
const HEADER_FRAME: u8 = 2;
const FRAME_END: u8 = 0xCE;
/// Class, weight and body size precede the properties.
const BEFORE_PROPERTIES: usize = 12;
/// RabbitMQ sends no larger header frame; lapin reports one.
const MAX_HEADER_FRAME: usize = 16 << 20;

enum Look {
    /// Pass this many bytes unchanged; this many more need no inspection.
    Pass(usize, usize),
    /// Replace unreadable properties in a frame of this many bytes.
    Replace(usize),
    /// Wait for more bytes.
    Wait,
}

impl Frames {
    /// Reads filtered bytes.
    fn take(&mut self, buffer: &mut [u8]) -> usize {
        let left = &self.screened[self.taken..];
        let taken = left.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&left[..taken]);
        self.taken += taken;
        if self.taken == self.screened.len() {
            self.screened.clear();
            self.taken = 0;
        }
        taken
    }

    /// Inspects bytes, and returns how many pass in place; the others are buffered.
    fn pass(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        if self.begun.is_empty() {
            while at < bytes.len() {
                let rest = &bytes[at..];
                if self.unlooked > 0 {
                    let passed = self.unlooked.min(rest.len());
                    self.unlooked -= passed;
                    at += passed;
                    continue;
                }
                match look(rest) {
                    Look::Pass(passed, unlooked) => {
                        at += passed;
                        self.unlooked = unlooked;
                    }
                    Look::Replace(_) | Look::Wait => break,
                }
            }
            if at == bytes.len() {
                return at;
            }
        }
        self.begun.extend_from_slice(&bytes[at..]);
        self.screen();
        at
    }

    /// Inspects buffered bytes.
    fn screen(&mut self) {
        let begun = std::mem::take(&mut self.begun);
        let mut at = 0;
        while at < begun.len() {
            let rest = &begun[at..];
            let passed = if self.unlooked > 0 {
                let passed = self.unlooked.min(rest.len());
                self.unlooked -= passed;
                passed
            } else {
                match look(rest) {
                    Look::Pass(passed, unlooked) => {
                        self.unlooked = unlooked;
                        passed
                    }
                    Look::Replace(length) => {
                        let marked = marked(&rest[..length], &self.mark);
                        self.screened.extend_from_slice(&marked);
                        at += length;
                        continue;
                    }
                    Look::Wait => break,
                }
            };
            self.screened.extend_from_slice(&rest[..passed]);
            at += passed;
        }
        self.begun.extend_from_slice(&begun[at..]);
    }
}

/// Inspects the beginning of a frame.
fn look(bytes: &[u8]) -> Look {
    let Some(head) = bytes.first_chunk::<HEAD>() else { return Look::Wait };
    let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
    let whole = HEAD + size + 1;
    // Bytes that are no frame (such as "AMQP") pass to lapin.
    if head[0] != HEADER_FRAME || whole > MAX_HEADER_FRAME || size < BEFORE_PROPERTIES {
        return Look::Pass(HEAD, size + 1);
    }
    if bytes.len() < whole {
        return Look::Wait;
    }
    let is_whole = bytes[whole - 1] == FRAME_END;
    let properties = &bytes[HEAD + BEFORE_PROPERTIES..whole - 1];
    if is_whole && !is_readable(properties) { Look::Replace(whole) } else { Look::Pass(whole, 0) }
}

fn is_readable(properties: &[u8]) -> bool {
    parse_properties(properties).is_ok_and(|(rest, _)| rest.is_empty())
}

/// Returns the frame with the mark instead of its properties: one header, a long string.
#[expect(
    clippy::cast_possible_truncation,
    reason = "lengths of AMQP are 32 bits, and a mark is a short text"
)]
fn marked(frame: &[u8], mark: &str) -> Vec<u8> {
    const HEADERS_FLAG: u16 = 1 << 13;
    let mut entry = vec![MARK.len() as u8];
    entry.extend_from_slice(MARK.as_bytes());
    entry.push(b'S');
    entry.extend_from_slice(&(mark.len() as u32).to_be_bytes());
    entry.extend_from_slice(mark.as_bytes());
    let mut payload = frame[HEAD..HEAD + BEFORE_PROPERTIES].to_vec();
    payload.extend_from_slice(&HEADERS_FLAG.to_be_bytes());
    payload.extend_from_slice(&(entry.len() as u32).to_be_bytes());
    payload.extend_from_slice(&entry);
    let mut marked = frame[..3].to_vec();
    marked.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    marked.extend_from_slice(&payload);
    marked.push(FRAME_END);
    marked
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "the frames of these tests are short")]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![kind, 0, 1];
        frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        frame.extend_from_slice(payload);
        frame.push(FRAME_END);
        frame
    }

    /// Returns a content header whose `message_id` (flag 7) is these bytes.
    fn header(message_id: &[u8]) -> Vec<u8> {
        let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3];
        payload.extend_from_slice(&(1_u16 << 7).to_be_bytes());
        payload.push(message_id.len() as u8);
        payload.extend_from_slice(message_id);
        frame(HEADER_FRAME, &payload)
    }

    /// Returns the bytes that lapin reads if they arrive in pieces of this size.
    fn screened(bytes: &[u8], piece: usize) -> Vec<u8> {
        let mut frames = Frames { mark: "mark".into(), ..Frames::default() };
        let mut read = Vec::new();
        let mut buffer = [0; 7];
        for piece in bytes.chunks(piece) {
            let passed = frames.pass(piece);
            read.extend_from_slice(&piece[..passed]);
            loop {
                let taken = frames.take(&mut buffer);
                if taken == 0 {
                    break;
                }
                read.extend_from_slice(&buffer[..taken]);
            }
        }
        read
    }

    #[test]
    fn sound_frames_pass_as_they_are_in_pieces_of_any_size() {
        let stream =
            [frame(1, b"method"), header(b"id"), frame(3, &[HEADER_FRAME; 300]), frame(8, b""), header(b"")];
        let stream = stream.concat();
        for piece in 1..=stream.len() {
            assert_eq!(screened(&stream, piece), stream, "{piece}");
        }
    }

    #[test]
    fn properties_that_cannot_be_read_are_replaced_and_nothing_else_is() {
        let (before, bad, after) = (frame(1, b"deliver"), header(b"\xff\xfe"), frame(3, b"abc"));
        let stream = [&before[..], &bad, &after, &before, &header(b"good")].concat();
        let expected = [&before[..], &marked(&bad, "mark"), &after, &before, &header(b"good")].concat();
        for piece in 1..=stream.len() {
            assert_eq!(screened(&stream, piece), expected, "{piece}");
        }
        // The mark itself can be read, and the body's size is the original's.
        let replaced = marked(&bad, "mark");
        assert!(matches!(look(&replaced), Look::Pass(length, 0) if length == replaced.len()));
        assert_eq!(replaced[HEAD..HEAD + BEFORE_PROPERTIES], bad[HEAD..HEAD + BEFORE_PROPERTIES]);
    }
}
