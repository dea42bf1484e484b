//! The little of JSON that serde does not do: literals kept as they stand.
//!
//! An event's `data` is opaque text. We never decode and re-encode it: the JSON string literal that the
//! publisher sent is put into the frame as it stands, which is both exact and cheap.

use std::borrow::Cow;

use serde_json::value::RawValue;

/// `text` up to `max` bytes, cut at a character, with `…` where something was left out.
///
/// For whatever a stranger wrote and we repeat, in an error or a log line.
pub fn cut(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(max);
    Cow::Owned(format!("{}…", &text[..end]))
}

/// The same on one line: control characters are escaped. For errors that are plain text.
pub fn one_line(text: &str, max: usize) -> String {
    let mut line = String::new();
    for c in cut(text, max).chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

/// The value as the JSON string literal that a frame carries (protocol rule "double encoding").
///
/// A string stays as it is, escapes included; anything else is serialised compactly into a string.
pub fn data_literal(raw: &RawValue) -> Cow<'_, str> {
    let raw = raw.get();
    if raw.starts_with('"') {
        return Cow::Borrowed(raw);
    }
    let mut literal = Vec::with_capacity(raw.len() + 16);
    push_string(&mut literal, &compact(raw));
    // `push_string` writes UTF-8 because its input is UTF-8.
    Cow::Owned(String::from_utf8(literal).unwrap_or_default())
}

/// Whether a valid JSON string literal stands for more than `max` bytes of UTF-8.
pub fn is_longer(literal: &str, max: usize) -> bool {
    // Nothing in it stands for more bytes than it has, so most need not be counted.
    literal.len() > max.saturating_add(2) && decoded_len(literal) > max
}

/// How many bytes of UTF-8 a valid JSON string literal stands for.
///
/// A lone surrogate, which has no UTF-8, counts as the three bytes of its replacement.
fn decoded_len(literal: &str) -> usize {
    let body =
        literal.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(literal).as_bytes();
    let mut len = 0;
    let mut at = 0;
    while let Some(&byte) = body.get(at) {
        let (read, stands_for) = match (byte, body.get(at + 1)) {
            (b'\\', Some(b'u')) => unicode_escape(&body[at..]),
            (b'\\', _) => (2, 1),
            _ => (1, 1),
        };
        at += read;
        len += stands_for;
    }
    len
}

/// Bytes read and bytes stood for, of an escape `\uXXXX` or a pair of them.
fn unicode_escape(bytes: &[u8]) -> (usize, usize) {
    match hex4(bytes) {
        Some(0..=0x7f) => (6, 1),
        Some(0x80..=0x7ff) => (6, 2),
        Some(0xd800..=0xdbff)
            if bytes.get(6..).and_then(hex4).is_some_and(|low| (0xdc00..=0xdfff).contains(&low)) =>
        {
            (12, 4)
        }
        _ => (6, 3),
    }
}

fn hex4(bytes: &[u8]) -> Option<u32> {
    let digits = bytes.strip_prefix(b"\\u")?.get(..4)?;
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Valid JSON without the white space between its tokens. Numbers and escapes stay digit for digit.
fn compact(raw: &str) -> Cow<'_, str> {
    let mut in_string = false;
    let mut escaped = false;
    let mut keep = |c: char| {
        if in_string {
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
            return true;
        }
        in_string = c == '"';
        !matches!(c, ' ' | '\t' | '\n' | '\r')
    };
    if raw.bytes().any(|byte| byte.is_ascii_whitespace()) {
        Cow::Owned(raw.chars().filter(|c| keep(*c)).collect())
    } else {
        Cow::Borrowed(raw)
    }
}

/// Appends `text` as a JSON string literal, quotes included.
pub(super) fn push_string(out: &mut Vec<u8>, text: &str) {
    // Writing a string into memory cannot fail.
    let _ = serde_json::to_writer(out, text);
}

/// The value as a JSON object's text, if it is one.
pub fn object(raw: &RawValue) -> Option<&str> {
    Some(raw.get()).filter(|text| text.starts_with('{'))
}

/// The value as a decoded string, if it is one.
pub fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    let text = raw.get();
    let body = text.strip_prefix('"')?.strip_suffix('"')?;
    if !body.contains('\\') {
        return Some(Cow::Borrowed(body));
    }
    serde_json::from_str(text).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).expect("valid JSON")
    }

    #[test]
    fn p39_a_string_stays_as_it_was_written() {
        for literal in [r#""plain""#, r#""\u00eb \/ \n""#, r#""{\"a\": 1}""#, r#""""#, r#""\ud800""#] {
            assert_eq!(data_literal(&raw(literal)), literal);
        }
    }

    #[test]
    fn p67_anything_else_becomes_a_compact_string() {
        assert_eq!(data_literal(&raw("{ \"a b\" : [1, 2.50,\n true] }")), r#""{\"a b\":[1,2.50,true]}""#);
        assert_eq!(data_literal(&raw(r#"{"q":"x \" y"}"#)), r#""{\"q\":\"x \\\" y\"}""#);
        assert_eq!(data_literal(&raw("12345678901234567890123")), r#""12345678901234567890123""#);
        assert_eq!(data_literal(&raw("null")), r#""null""#);
    }

    #[test]
    fn decoded_length_counts_bytes_not_escapes() {
        for (literal, len) in [
            (r#""""#, 0),
            (r#""abc""#, 3),
            (r#""\n\"\\""#, 3),
            (r#""\u00eb""#, 2),
            (r#""ë日""#, 5),
            (r#""\ud83d\ude00""#, 4),
        ] {
            assert_eq!(decoded_len(literal), len, "{literal}");
        }
    }

    #[test]
    fn a_cut_never_splits_a_character() {
        assert_eq!(cut("日本", 4), "日…");
        assert_eq!(cut("ab", 2), "ab");
        assert_eq!(one_line("a\nb\u{7f}ë", 20), "a\\nb\\u{7f}ë");
    }

    proptest! {
        #[test]
        fn decoded_length_agrees_with_a_decoder(text: String) {
            let literal = serde_json::to_string(&text).expect("a string");
            prop_assert_eq!(decoded_len(&literal), text.len());
            prop_assert!(!is_longer(&literal, text.len()));
            prop_assert!(text.is_empty() || is_longer(&literal, text.len() - 1));
            let ascii: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
            prop_assert_eq!(decoded_len(&format!("\"{ascii}\"")), text.len());
        }

        #[test]
        fn compacting_changes_no_value(text in r#"\{"a ?": ?\[?[ 0-9]{1,3}"#, string: String) {
            let value = serde_json::json!({ "text": string, "more": [text, null, 1.5] });
            let pretty = serde_json::to_string_pretty(&value).expect("a value");
            prop_assert_eq!(compact(&pretty), value.to_string());
        }
    }
}
