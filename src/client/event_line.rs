//! An event as `nudged listen` prints it.

use std::fmt::{self, Write as _};

use serde::de::IgnoredAny;

use super::{OneLine, is_unsafe};
use crate::wire::Event;

/// An event as one line: `invalidate {"keys":["posts"]}  id=…`. Data that is JSON stays the same JSON, on one line and
/// with the characters beyond ASCII that a server has escaped (`\u00fc`). Other text has its line ends, backslashes and
/// unsafe characters as escapes of Rust (`\n`, `\\`, `\u{1b}`).
pub(super) struct EventLine<'a>(pub(super) &'a Event);

// ===== impl EventLine =====

impl fmt::Display for EventLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Event { name, data, id } = self.0;
        write!(f, "{} ", OneLine(name))?;
        match serde_json::from_str::<IgnoredAny>(data) {
            Ok(_) => write_json(f, data)?,
            Err(_) => data.chars().try_for_each(|c| match c {
                '\\' => f.write_str("\\\\"),
                c => OneLine(c.encode_utf8(&mut [0; 4])).fmt(f),
            })?,
        }
        if id.is_empty() { Ok(()) } else { write!(f, "  id={}", OneLine(id)) }
    }
}

fn write_json(f: &mut fmt::Formatter<'_>, json: &str) -> fmt::Result {
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        write_plain(f, &rest[..at])?;
        rest = &rest[at..];
        // A backslash and the character after it, or an escape with its four digits, or two that are one character.
        let length = [12, 6].into_iter().find(|length| unescaped(rest, *length).is_some());
        let (length, character) = match length {
            Some(length) => (length, unescaped(rest, length)),
            None => (2, None),
        };
        match character {
            Some(character) => f.write_char(character)?,
            None => f.write_str(&rest[..length])?,
        }
        rest = &rest[length..];
    }
    write_plain(f, rest)
}

/// Writes a part of JSON without backslashes. A control character of ASCII can only be white space between its parts, but
/// for DEL (RFC 8259, 7), and any other unsafe character is in a string.
fn write_plain(f: &mut fmt::Formatter<'_>, json: &str) -> fmt::Result {
    json.chars().try_for_each(|c| match c {
        '\t' | '\n' | '\r' => f.write_char(' '),
        c if is_unsafe(c) => write!(f, "\\u{:04x}", u32::from(c)),
        c => f.write_char(c),
    })
}

/// The character beyond ASCII that the escapes are of which the text begins with, in so many bytes, if it may be shown.
fn unescaped(json: &str, length: usize) -> Option<char> {
    let escapes = json.get(..length)?.split("\\u").skip(1);
    let units: Vec<u16> =
        escapes.map(|digits| u16::from_str_radix(digits, 16).ok()).collect::<Option<_>>()?;
    let is_whole = units.len() * 6 == length;
    let mut characters = char::decode_utf16(units);
    let character = characters.next()?.ok()?;
    let is_shown = !character.is_ascii() && !is_unsafe(character);
    (is_whole && characters.next().is_none() && is_shown).then_some(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(data: &str) -> String {
        let event = Event { name: "a".into(), data: data.into(), id: String::new() };
        EventLine(&event).to_string()
    }

    #[test]
    fn escapes_of_json_are_written_as_their_characters() {
        for (json, expected) in [
            (r#"{"keys":["\u00fc","\ud83d\ude00x"]}"#, r#"{"keys":["ü","😀x"]}"#),
            (r#"["\u000a\u0022\\u00fc\\\u00fc"]"#, r#"["\u000a\u0022\\u00fc\\ü"]"#),
            (r#"["\u00fc\u00fc","\n"]"#, r#"["üü","\n"]"#),
            (r#"{"keys":["posts"]}"#, r#"{"keys":["posts"]}"#),
        ] {
            assert_eq!(line(json), format!("a {expected}"));
        }
    }

    /// SCENARIO: a key or a payload has a character that is not shown raw, U+2028, a control of C1, or a bidi override,
    /// and a script reads the lines of `nudged listen` as JSON.
    /// BUG: the server's `\u2028` became `\u{2028}`, which is no JSON; so did raw ones, and line ends between parts.
    /// FIX: it stays an escape of JSON, and white space between the parts is a space.
    #[test]
    fn what_is_json_stays_json_on_one_line() {
        for (json, expected) in [
            (r#"["\u2028\u009b\u202e\u007f"]"#, r#"["\u2028\u009b\u202e\u007f"]"#),
            ("[\"\u{2028}\u{9b}\u{202e}\u{7f}\"]", r#"["\u2028\u009b\u202e\u007f"]"#),
            ("{\n\t\"a\":\r\n1}", r#"{  "a":  1}"#),
        ] {
            let shown = line(json);
            assert_eq!(shown, format!("a {expected}"));
            let parsed: serde_json::Value = serde_json::from_str(&shown[2..]).expect("JSON");
            assert_eq!(parsed, serde_json::from_str::<serde_json::Value>(json).expect("JSON"));
        }
    }

    /// SCENARIO: a topic's text has lines, and another one has a backslash before an n.
    /// BUG: both were written as `\n`.
    /// FIX: a backslash of a text that is no JSON is written as two.
    #[test]
    fn a_text_of_several_lines_is_one_line_that_can_be_read_back() {
        for (text, expected) in [
            ("<p>\n  x</p>", r"<p>\n  x</p>"),
            (r"C:\new", r"C:\\new"),
            ("\u{1b}[2J\u{2028}", r"\u{1b}[2J\u{2028}"),
            (r"no JSON: \u00fc", r"no JSON: \\u00fc"),
            ("", ""),
        ] {
            assert_eq!(line(text), format!("a {expected}"));
        }
    }
}
