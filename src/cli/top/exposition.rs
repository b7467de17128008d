//! The text format of Prometheus, 0.0.4, as far as it is needed here: samples with their labels.

use std::collections::HashMap;

/// The samples of a text. Of what the server sends, no more is kept than [`SERIES_MAX`] series of each family that is
/// shown.
#[derive(Clone, Debug, Default)]
pub(super) struct Exposition(HashMap<String, Vec<Sample>>);

/// A sample of a family.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    labels: Vec<(String, String)>,
    value: f64,
}

/// The most series of one family; the histogram has 20.
const SERIES_MAX: usize = 64;

/// Longer lines are none of ours.
const LINE_BYTES_MAX: usize = 1024;

// ===== impl Exposition =====

impl Exposition {
    /// The samples of the families that `is_wanted`. A line that is no sample is skipped.
    pub(super) fn parse(text: &str, is_wanted: impl Fn(&str) -> bool) -> Self {
        let mut families: HashMap<String, Vec<Sample>> = HashMap::new();
        let lines = text.lines().filter(|line| line.len() <= LINE_BYTES_MAX);
        for (name, sample) in lines.filter_map(parse_line).filter(|(name, _)| is_wanted(name)) {
            let family = families.entry(name.to_owned()).or_default();
            if family.len() < SERIES_MAX {
                family.push(sample);
            }
        }
        Self(families)
    }

    fn samples(&self, name: &str) -> &[Sample] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// The value of a family, of all its series together; `None` if there is none.
    pub(super) fn sum(&self, name: &str) -> Option<f64> {
        let samples = self.samples(name);
        (!samples.is_empty()).then(|| samples.iter().map(|sample| sample.value).sum())
    }

    /// The series of a family, by the value of this label.
    pub(super) fn by<'a>(
        &'a self,
        name: &str,
        label: &'a str,
    ) -> impl Iterator<Item = (&'a str, f64)> {
        self.samples(name).iter().filter_map(move |sample| {
            let (_, value) = sample.labels.iter().find(|(name, _)| name == label)?;
            Some((value.as_str(), sample.value))
        })
    }

    /// The value of the series with this value of the label.
    pub(super) fn at(&self, name: &str, label: &str, value: &str) -> Option<f64> {
        self.by(name, label).find(|(found, _)| *found == value).map(|(_, value)| value)
    }

    /// The names of the families.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

// ===== lines =====

/// The name and the sample of a line; `None` for a comment, an empty line, and what is not in the format.
fn parse_line(line: &str) -> Option<(&str, Sample)> {
    let line = line.trim_matches(BLANK);
    let (name, rest) = parse_name(line, ":")?;
    let rest = rest.trim_start_matches(BLANK);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => parse_labels(rest)?,
        // Something has to stand between the name and the value.
        None if rest.len() == line.len() - name.len() => return None,
        None => (Vec::new(), rest),
    };
    let mut words = rest.split(BLANK).filter(|word| !word.is_empty());
    let value = words.next()?.parse().ok()?;
    // A time in milliseconds may follow.
    let is_end = words.next().is_none_or(|time| time.parse::<i64>().is_ok());
    (is_end && words.next().is_none()).then_some((name, Sample { labels, value }))
}

/// The labels, from behind the opening brace, and what follows the closing one.
fn parse_labels(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches(BLANK);
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, after) = parse_name(rest, "")?;
        let after = after.trim_start_matches(BLANK).strip_prefix('=')?;
        let (value, after) = parse_value(after.trim_start_matches(BLANK).strip_prefix('"')?)?;
        labels.push((name.to_owned(), value));
        let after = after.trim_start_matches(BLANK);
        rest = match after.strip_prefix(',') {
            Some(after) => after,
            None if after.starts_with('}') => after,
            None => return None,
        };
    }
}

/// A quoted value, from behind the opening quote, and what follows the closing one.
fn parse_value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                c @ ('\\' | '"') => c,
                _ => return None,
            }),
            c => value.push(c),
        }
    }
    None
}

/// The name at the beginning, which may have these characters too, and what follows it.
fn parse_name<'a>(text: &'a str, more: &str) -> Option<(&'a str, &'a str)> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || more.contains(c);
    let (name, rest) = text.split_at(text.find(|c| !is_part(c)).unwrap_or(text.len()));
    let is_name = name.chars().next().is_some_and(|first| !first.is_ascii_digit());
    is_name.then_some((name, rest))
}

const BLANK: [char; 2] = [' ', '\t'];

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;

    type Line = (String, Vec<(String, String)>, f64);

    fn parsed(line: &str) -> Option<Line> {
        let (name, Sample { labels, value }) = parse_line(line)?;
        Some((name.to_owned(), labels, value))
    }

    /// A naive twin, which goes from state to state with each character.
    fn naive(line: &str) -> Option<Line> {
        #[derive(PartialEq)]
        enum At {
            Name,
            BehindName,
            Label,
            LabelName,
            Equals,
            Quote,
            Value,
            Escape,
            BehindValue,
            Rest,
        }
        let line = line.trim_matches([' ', '\t']);
        let (mut at, mut name, mut rest) = (At::Name, String::new(), String::new());
        let mut labels: Vec<(String, String)> = Vec::new();
        let blank = |c| c == ' ' || c == '\t';
        let first = |c: char| c.is_ascii_alphabetic() || c == '_';
        let later = |c: char| first(c) || c.is_ascii_digit();
        for c in line.chars() {
            at = match (at, c) {
                (At::Name, c) if first(c) || c == ':' || !name.is_empty() && later(c) => {
                    name.push(c);
                    At::Name
                }
                (At::Name | At::BehindName, '{') if !name.is_empty() => At::Label,
                (At::Name | At::BehindName, c) if blank(c) && !name.is_empty() => At::BehindName,
                (At::BehindName, c) => {
                    rest.push(c);
                    At::Rest
                }
                (At::Label, c) if blank(c) => At::Label,
                (At::Label, '}') => At::Rest,
                (At::Label, c) if first(c) => {
                    labels.push((c.into(), String::new()));
                    At::LabelName
                }
                (At::LabelName, c) if later(c) => {
                    labels.last_mut()?.0.push(c);
                    At::LabelName
                }
                (At::LabelName | At::Equals, c) if blank(c) => At::Equals,
                (At::LabelName | At::Equals, '=') => At::Quote,
                (At::Quote, c) if blank(c) => At::Quote,
                (At::Quote, '"') => At::Value,
                (At::Value, '\\') => At::Escape,
                (At::Value, '"') => At::BehindValue,
                (At::Value, c) => {
                    labels.last_mut()?.1.push(c);
                    At::Value
                }
                (At::Escape, c) if "\\\"n".contains(c) => {
                    labels.last_mut()?.1.push(if c == 'n' { '\n' } else { c });
                    At::Value
                }
                (At::BehindValue, c) if blank(c) => At::BehindValue,
                (At::BehindValue, ',') => At::Label,
                (At::BehindValue, '}') => At::Rest,
                (At::Rest, c) => {
                    rest.push(c);
                    At::Rest
                }
                _ => return None,
            };
        }
        let words: Vec<_> = rest.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
        match (at, &words[..]) {
            (At::Rest, [value]) => Some((name, labels, value.parse().ok()?)),
            (At::Rest, [value, time]) => {
                time.parse::<i64>().ok()?;
                Some((name, labels, value.parse().ok()?))
            }
            _ => None,
        }
    }

    /// The same, where no number is not equal to itself.
    fn same(one: &Option<Line>, other: &Option<Line>) -> bool {
        format!("{one:?}") == format!("{other:?}")
    }

    #[test]
    fn a_line_is_a_sample_or_nothing() {
        for (line, value) in [
            ("a 1", Some(1.0)),
            ("  a:b_c\t-1.5e3  ", Some(-1500.0)),
            ("a{} 2", Some(2.0)),
            ("a {b = \"c\" , d=\"\",} 3 1700000000000", Some(3.0)),
            ("a{b=\"}, \\\" \\\\ \\n\"} +Inf", Some(f64::INFINITY)),
            ("a{b=\"é\"}4", Some(4.0)),
            ("", None),
            ("# HELP a b", None),
            ("a", None),
            ("a ", None),
            ("1a 1", None),
            ("a1", None),
            ("é 1", None),
            ("a b", None),
            ("a 1 b", None),
            ("a 1 2 3", None),
            ("a{b} 1", None),
            ("a{b=c} 1", None),
            ("a{b=\"c} 1", None),
            ("a{b=\"c\\", None),
            ("a{b=\"c\\x\"} 1", None),
            ("a{b=\"c\"d=\"e\"} 1", None),
            ("a{,} 1", None),
            ("a{b=\"c\"", None),
        ] {
            assert_eq!(parsed(line).map(|(.., value)| value), value, "{line:?}");
            assert!(same(&naive(line), &parsed(line)), "{line:?}: {:?}", naive(line));
        }
        assert!(parsed("a NaN").expect("a sample").2.is_nan());
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            name in "[a-zA-Z_:][a-zA-Z0-9_:]{0,9}",
            labels in prop::collection::vec(("[a-zA-Z_][a-z0-9_]{0,5}", "\\PC{0,8}|[\"\\\\\n,}{=]{0,5}"), 0..4),
            value in any::<f64>(),
        ) {
            let mut line = format!("{name}{{");
            for (name, value) in &labels {
                let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                write!(line, "{name}=\"{value}\",").expect("a string");
            }
            write!(line, "}} {value}").expect("a string");
            prop_assert!(same(&parsed(&line), &Some((name, labels, value))), "{line:?}");
        }

        #[test]
        fn a_line_of_any_characters_is_read_as_the_twin_reads_it(
            line in "[a1_:{}\"\\\\n=,# \t.+é-]{0,24}|a\\{[a\"\\\\n=, ]{0,12}\\} 1",
        ) {
            prop_assert!(same(&parsed(&line), &naive(&line)), "{line:?}");
        }

        #[test]
        fn any_text_is_read(text in "\\PC*|[a-c{}=\"\n 1]{0,200}") {
            Exposition::parse(&text, |_| true);
        }
    }

    #[test]
    fn what_is_kept_of_a_text_is_bounded() {
        let mut text: String = (0..1000).map(|n| format!("a{{n=\"{n}\"}} 1\nb{n} 1\n")).collect();
        text += &format!("c{{l=\"{}\"}} 1\nc 2\n", "x".repeat(LINE_BYTES_MAX));
        let kept = Exposition::parse(&text, |name| matches!(name, "a" | "c"));
        assert_eq!(kept.sum("a"), Some(64.0));
        assert_eq!(kept.at("a", "n", "63"), Some(1.0));
        assert_eq!((kept.sum("b1"), kept.sum("c")), (None, Some(2.0)));
        assert_eq!(kept.names().count(), 2);
    }
}
