//! The decodings of a text: plain, unescaped and from base64, each with and without separators.

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

/// One character, and the bytes of the text that it was decoded from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unit {
    pub(super) letter: char,
    pub(super) start: usize,
    pub(super) end: usize,
}

pub(super) struct View {
    pub(super) units: Vec<Unit>,
    /// The letters and digits alone, because card numbers are written in groups.
    pub(super) compact: Vec<Unit>,
    /// `true` if the decoding is text. Bytes that were never base64 decode to something else.
    pub(super) is_text: bool,
}

/// The maximum depth of nested escapes: JSON within JSON within a form.
const MAX_UNESCAPES: usize = 3;
/// The maximum depth of nested base64.
const MAX_BASE64: usize = 2;
/// The shortest base64 text that is decoded: four characters are three bytes, the shortest secret.
const MIN_BASE64_CHARS: usize = 4;

pub(super) fn units(text: &str) -> Vec<Unit> {
    text.char_indices()
        .map(|(start, letter)| Unit { letter, start, end: start + letter.len_utf8() })
        .collect()
}

pub(super) fn compact(units: &[Unit]) -> Vec<Unit> {
    units.iter().copied().filter(|unit| unit.letter.is_alphanumeric()).collect()
}

pub(super) fn of(text: &str) -> Vec<View> {
    let mut views = Vec::new();
    add(units(text), true, MAX_BASE64, &mut views);
    views
}

fn add(units: Vec<Unit>, is_text: bool, base64_left: usize, views: &mut Vec<View>) {
    let mut level = units;
    for _ in 0..=MAX_UNESCAPES {
        if base64_left > 0 {
            for (units, is_text) in out_of_base64(&level) {
                add(units, is_text, base64_left - 1, views);
            }
        }
        let unescaped = unescaped(&level);
        let is_last = unescaped.len() == level.len();
        views.push(View { compact: compact(&level), units: level, is_text });
        if is_last {
            return;
        }
        level = unescaped;
    }
}

/// Decodes one level of escapes (JSON, percent-encoding, HTML). Each makes the text shorter.
fn unescaped(units: &[Unit]) -> Vec<Unit> {
    let mut read = Vec::with_capacity(units.len());
    let mut rest = units;
    while let Some(first) = rest.first() {
        let (letter, taken) = match first.letter {
            '\\' => json_escape(rest),
            '%' => percent(rest),
            '&' => html_entity(rest),
            _ => None,
        }
        .unwrap_or((first.letter, 1));
        read.push(Unit { letter, start: first.start, end: rest[taken - 1].end });
        rest = &rest[taken..];
    }
    read
}

fn json_escape(units: &[Unit]) -> Option<(char, usize)> {
    let letter = match units.get(1)?.letter {
        plain @ ('"' | '\\' | '/' | '\'') => plain,
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'u' => return unicode_escape(units),
        _ => return None,
    };
    Some((letter, 2))
}

fn unicode_escape(units: &[Unit]) -> Option<(char, usize)> {
    let high = hex(units.get(2..6)?)?;
    if let Some(letter) = char::from_u32(high) {
        return Some((letter, 6));
    }
    // Half of a pair.
    let low = units.get(6..12).filter(|low| low[0].letter == '\\' && low[1].letter == 'u')?;
    let pair = [u16::try_from(high).ok()?, u16::try_from(hex(&low[2..])?).ok()?];
    let letter = char::decode_utf16(pair).next()?.ok()?;
    Some((letter, 12))
}

fn percent(units: &[Unit]) -> Option<(char, usize)> {
    let byte = |at: usize| {
        let escape = units.get(at..at + 3).filter(|escape| escape[0].letter == '%')?;
        u8::try_from(hex(&escape[1..])?).ok()
    };
    let length = match byte(0)? {
        0..0x80 => 1,
        0xc0..0xe0 => 2,
        0xe0..0xf0 => 3,
        _ => 4,
    };
    let bytes: Option<Vec<u8>> = (0..length).map(|number| byte(number * 3)).collect();
    let letter = std::str::from_utf8(&bytes?).ok()?.chars().next()?;
    Some((letter, length * 3))
}

fn html_entity(units: &[Unit]) -> Option<(char, usize)> {
    let end = units.iter().take(10).position(|unit| unit.letter == ';')?;
    let name: String = units[1..end].iter().map(|unit| unit.letter).collect();
    let letter = match name.as_str() {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)?
        }
    };
    Some((letter, end + 1))
}

fn hex(digits: &[Unit]) -> Option<u32> {
    digits.iter().try_fold(0, |number, unit| Some(number * 16 + unit.letter.to_digit(16)?))
}

/// Decodes each stretch of base64 letters at each of the four offsets of a group, because the stretch may be truncated or follow
/// a word. The whole stretch is replaced.
fn out_of_base64(units: &[Unit]) -> Vec<(Vec<Unit>, bool)> {
    const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
    let mut found = Vec::new();
    for stretch in units.split(|unit| base64_letter(unit.letter).is_none()) {
        let (Some(first), Some(last)) = (stretch.first(), stretch.last()) else { continue };
        if stretch.len() < MIN_BASE64_CHARS {
            continue;
        }
        let letters: Vec<u8> = stretch.iter().filter_map(|unit| base64_letter(unit.letter)).collect();
        for begin in 0..4 {
            // A single letter after the last whole group encodes no byte.
            let length = letters.len() - begin;
            let end = letters.len() - usize::from(length % 4 == 1);
            let Ok(bytes) = BASE64.decode(&letters[begin..end]) else { continue };
            let text = String::from_utf8_lossy(&bytes);
            let is_text = begin == 0 && !text.chars().any(|c| c == '\u{fffd}' || c.is_control());
            let (start, end) = (first.start, last.end);
            found.push((text.chars().map(|letter| Unit { letter, start, end }).collect(), is_text));
        }
    }
    found
}

/// Maps a letter of the standard or the URL alphabet to the standard alphabet.
fn base64_letter(letter: char) -> Option<u8> {
    match letter {
        'A'..='Z' | 'a'..='z' | '0'..='9' | '+' | '/' => u8::try_from(letter).ok(),
        '-' => Some(b'+'),
        '_' => Some(b'/'),
        _ => None,
    }
}
