//! Decompression of bodies that a server compressed although the client did not ask for it.

use std::io::Read;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use reqwest::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap};

/// Decompresses a gzip body, `max_bytes` at most, and removes its `content-encoding`.
///
/// A body of another encoding, or one that breaks off, is returned unchanged. The second value says whether the body was cut.
pub(super) fn decoded(headers: &mut HeaderMap, body: Bytes, cut: bool, max_bytes: usize) -> (Bytes, bool) {
    let Some(encoding) = headers.get(CONTENT_ENCODING) else { return (body, cut) };
    if ![&b"gzip"[..], b"x-gzip"].iter().any(|gzip| encoding.as_bytes().eq_ignore_ascii_case(gzip)) {
        return (body, cut);
    }
    let mut plain = Vec::new();
    let limit = u64::try_from(max_bytes).unwrap_or(u64::MAX).saturating_add(1);
    match MultiGzDecoder::new(&*body).take(limit).read_to_end(&mut plain) {
        Ok(length) => {
            headers.remove(CONTENT_ENCODING);
            headers.remove(CONTENT_LENGTH);
            plain.truncate(max_bytes);
            (plain.into(), cut || length > max_bytes)
        }
        Err(_) => (body, cut),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn gzip(plain: &[u8]) -> Bytes {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap().into()
    }

    fn encoded_as(encoding: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_ENCODING, encoding.parse().unwrap())])
    }

    #[test]
    fn gzip_is_read_within_its_limit() {
        for encoding in ["gzip", "x-gzip", "GZIP"] {
            let mut headers = encoded_as(encoding);
            assert_eq!(decoded(&mut headers, gzip(b"{}"), false, 100), (Bytes::from("{}"), false));
            assert!(headers.is_empty());
        }
        let bomb = gzip(&vec![b'a'; 10_000_000]);
        let (body, cut) = decoded(&mut encoded_as("gzip"), bomb, false, 1000);
        assert_eq!((body.len(), cut), (1000, true));
    }

    #[test]
    fn what_cannot_be_decompressed_stays_as_it_came() {
        let broken = gzip(b"hello").slice(..12);
        for (encoding, body) in [("br", Bytes::from("x")), ("gzip", broken), ("gzip", Bytes::from("{}"))] {
            let mut headers = encoded_as(encoding);
            assert_eq!(decoded(&mut headers, body.clone(), false, 100), (body, false));
            assert_eq!(headers.len(), 1);
        }
    }
}
