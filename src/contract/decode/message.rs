//! Describes a message that is not JSON: the reason, the position and the remedy. It never repeats the message.

use std::str::Utf8Error;

/// RFC 1952, section 2.3.1.
const GZIP: &[u8] = &[0x1f, 0x8b];
const BYTE_ORDER_MARK: char = '\u{feff}';

pub(super) fn too_large(bytes: usize) -> String {
    format!("The message is larger than 256 KiB. It has {bytes} bytes.")
}

/// Describes a `body` that is not UTF-8.
pub(super) fn no_text(body: &[u8], error: &Utf8Error) -> String {
    if body.starts_with(GZIP) {
        return "The message is not UTF-8. It is compressed with gzip. Publish the JSON uncompressed.".into();
    }
    if body.starts_with(&[0xff, 0xfe]) || body.starts_with(&[0xfe, 0xff]) {
        return "The message is not UTF-8 but UTF-16. Publish the JSON in UTF-8, without a byte order mark."
            .into();
    }
    format!(
        "The message is not UTF-8. Byte {} begins no character. Publish the JSON in UTF-8.",
        error.valid_up_to()
    )
}

/// Describes a `text` that is not JSON, or not accepted JSON.
pub(super) fn no_json(text: &str, error: &serde_json::Error) -> String {
    if text.trim().is_empty() {
        return "The message is not JSON. It is empty. One JSON object is expected.".into();
    }
    if text.starts_with(BYTE_ORDER_MARK) {
        return "The message is not JSON. It begins with a byte order mark (U+FEFF). Publish it without one."
            .into();
    }
    let (line, column) = (error.line(), error.column());
    if error.is_data() {
        return format!("The message is nested deeper than 32 levels at line {line} column {column}.");
    }
    let found = text
        .lines()
        .nth(line.saturating_sub(1))
        .and_then(|line| line.as_bytes().get(column.saturating_sub(1)));
    if found == Some(&b'\'') {
        return format!(
            "The message is not JSON. Single quotes stand at line {line} column {column}. Names and strings have double quotes."
        );
    }
    // The words of the parser for mistakes of syntax are its own; none of them repeats the text.
    let shown = error.to_string();
    let reason = shown.split(" at line ").next().unwrap_or_default();
    format!("The message is not JSON. The parser says \"{reason}\" at line {line} column {column}.")
}
