//! Lines of a terminal, and numbers in them.

use std::time::Duration;

/// A line, in parts.
#[derive(Clone, Debug, Default)]
pub(super) struct Line(Vec<(Style, String)>);

/// How a part is shown, where colours are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    /// A heading.
    Bold,
    /// What is beside the number.
    Dim,
    /// What may need an operator.
    Alert,
}

// ===== impl Line =====

impl Line {
    pub(super) fn new(style: Style, text: impl Into<String>) -> Self {
        Self::default().and(style, text)
    }

    pub(super) fn and(mut self, style: Style, text: impl Into<String>) -> Self {
        self.0.push((style, text.into()));
        self
    }

    /// Writes it in at most `width` columns. What a server sends is only ever written here: each character that is not
    /// visible ASCII becomes a question mark, so that none of them is a command to the terminal, and each has one
    /// column.
    pub(super) fn write(&self, text: &mut String, mut width: usize, has_style: bool) {
        for (style, part) in &self.0 {
            let code = if has_style { style.code() } else { "" };
            text.push_str(code);
            for c in part.chars().take(width) {
                text.push(if matches!(c, ' '..='~') { c } else { '?' });
                width -= 1;
            }
            if !code.is_empty() {
                text.push_str("\x1b[0m");
            }
        }
    }
}

// ===== impl Style =====

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "\x1b[1m",
            Self::Dim => "\x1b[2m",
            Self::Alert => "\x1b[1;31m",
        }
    }
}

// ===== numbers =====

/// What is shown of a number that is not there.
pub(super) const NONE: &str = "-";

/// Zero has a sign, and so has the sum of nothing.
fn positive(number: f64) -> f64 {
    if number > 0.0 { number } else { 0.0 }
}

/// A whole number, in groups of three digits.
pub(super) fn count(number: f64) -> String {
    let digits = format!("{:.0}", positive(number));
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return NONE.into();
    }
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A number that may be less than ten.
pub(super) fn decimal(number: f64) -> String {
    if number < 99.95 { format!("{:.1}", positive(number)) } else { count(number) }
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.0} %", (share * 100.0).clamp(0.0, 999.0))
}

pub(super) fn bytes(bytes: f64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut bytes, mut unit) = (positive(bytes), 0);
    while bytes >= 1024.0 && unit + 1 < UNITS.len() {
        bytes /= 1024.0;
        unit += 1;
    }
    let number = if unit == 0 { count(bytes) } else { decimal(bytes) };
    format!("{number} {}", UNITS[unit])
}

/// A short time.
pub(super) fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 0.001 => format!("{:.0} us", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s => format!("{s:.1} s"),
    }
}

/// A long time, in its two largest units.
pub(super) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, ..) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_short() {
        assert_eq!(
            [0.0, 999.4, 1_234.0, 1_234_567.8].map(count),
            ["0", "999", "1,234", "1,234,568"]
        );
        assert_eq!([f64::NAN, f64::INFINITY, -1.0, -0.0].map(count), ["0", NONE, "0", "0"]);
        assert_eq!(
            [-0.0, 0.05, 9.96, 99.9, 100.0, 1e4].map(decimal),
            ["0.0", "0.1", "10.0", "99.9", "100", "10,000"]
        );
        assert_eq!([0.0, 0.005, 1.0, f64::INFINITY].map(percent), ["0 %", "0 %", "100 %", "999 %"]);
        assert_eq!(
            [0.0, 1023.0, 1024.0, 5.5e8, 1e20].map(bytes),
            ["0 B", "1,023 B", "1.0 KiB", "525 MiB", "90,949,470 TiB"]
        );
        assert_eq!([0.0, 2e-5, 0.0012, 3.0].map(seconds), ["0 us", "20 us", "1.2 ms", "3.0 s"]);
        let spans = [0, 61, 3_660, 90_000].map(|s| span(Duration::from_secs(s)));
        assert_eq!(spans, ["0s", "1m 1s", "1h 1m", "1d 1h"]);
    }

    #[test]
    fn no_character_of_a_server_is_a_command_to_the_terminal() {
        let line =
            Line::new(Style::Plain, "a\x1b[2J\u{9b}1m\r\n\t\u{202e}é漢b").and(Style::Alert, "cde");
        let mut text = String::new();
        line.write(&mut text, 80, false);
        assert_eq!(text, "a?[2J?1m??????bcde");
        let mut text = String::new();
        line.write(&mut text, 17, true);
        assert_eq!(text, "a?[2J?1m??????b\x1b[1;31mcd\x1b[0m");
    }
}
