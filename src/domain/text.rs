//! Control characters in texts.

use std::{borrow::Cow, fmt::Write};

/// Returns whether a text has characters that control a terminal, a line or the text direction.
pub fn has_control(text: &str) -> bool {
    text.chars().any(is_control)
}

/// Escapes control characters as `\u{1b}`, so that the text is safe on a terminal, in a log line and in a header.
pub fn escape_control(text: &str) -> Cow<'_, str> {
    if !has_control(text) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        if is_control(letter) {
            // A write to a String cannot fail.
            let _ = write!(escaped, "\\u{{{:x}}}", u32::from(letter));
        } else {
            escaped.push(letter);
        }
    }
    Cow::Owned(escaped)
}

/// Returns whether a character is C0, DEL, C1, a line separator, a direction mark (Unicode, UAX 9) or invisible.
pub fn is_control(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_controls_a_terminal_is_written_out() {
        for (text, escaped) in [
            ("po_1001, Zoë, 支払い", "po_1001, Zoë, 支払い"),
            ("a\u{1b}[2J\u{7}", "a\\u{1b}[2J\\u{7}"),
            ("\u{9b}2J\u{7f}\r\n", "\\u{9b}2J\\u{7f}\\u{d}\\u{a}"),
            ("a\u{202e}b\u{2028}", "a\\u{202e}b\\u{2028}"),
        ] {
            assert_eq!(escape_control(text), escaped);
        }
    }
}
