//! The topics that a token is valid for.

use crate::ids::TopicName;

/// Names, and prefixes of names, which are written with a final `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Topics {
    All,
    /// None without a name.
    Listed(Vec<String>),
}

// ===== impl Topics =====

impl Topics {
    /// Those of the claim `topics`. A lone `*` is every topic.
    pub(super) fn of(patterns: Vec<String>) -> Self {
        if patterns.iter().any(|pattern| pattern == "*") {
            return Self::All;
        }
        Self::Listed(patterns)
    }

    /// A pattern with an asterisk elsewhere than at its end includes nothing, since no name has one.
    pub(crate) fn allow(&self, topic: &TopicName) -> bool {
        let topic = topic.as_str();
        let includes = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => topic.starts_with(prefix),
            None => topic == pattern,
        };
        match self {
            Self::All => true,
            Self::Listed(patterns) => patterns.iter().any(includes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_allowed_by_its_name_or_a_prefix() {
        let topic: TopicName = "run-7".parse().expect("a name");
        let allowed = |patterns: &[&str]| {
            Topics::of(patterns.iter().map(|pattern| (*pattern).to_owned()).collect()).allow(&topic)
        };
        for good in [&["run-7"][..], &["run-*"], &["run-7*"], &["r*"], &["*"], &["a", "*"]] {
            assert!(allowed(good), "{good:?}");
        }
        for bad in [
            &[][..],
            &[""],
            &["run-"],
            &["run-77"],
            &["run-77*"],
            &["RUN-7"],
            &["Run-*"],
            &["*-7"],
            &["*7"],
            &["r*7"],
            &["run-**"],
            &["**"],
            &["run-7 run-8"],
            &["run-? "],
        ] {
            assert!(!allowed(bad), "{bad:?}");
        }
    }
}
