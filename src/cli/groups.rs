//! The groups of `nudged serve --help`: under which heading each flag stands, in this order.

/// Each group, with its flags; `-*` at the end stands for any rest.
const GROUPS: &[(&str, &[&str])] = &[
    ("Check", &["check"]),
    (
        "Listening",
        &["listen", "internal-listen", "listen-mode", "workers", "insecure-open", "host", "ops"],
    ),
    ("TLS", &["tls-*", "plain-listen"]),
    (
        "Streams",
        &["keepalive", "retry-*", "stall-timeout", "peer-timeout", "max-stream-age", "public-*"],
    ),
    ("History", &["history-*", "idle-channels"]),
    ("Topics", &["topic-*", "topics-*", "idle-topics"]),
    (
        "Limits",
        &[
            "connections",
            "internal-connections",
            "address-*",
            "streams",
            "org-*",
            "connection-*",
            "head-*",
            "idle-timeout",
            "body-timeout",
            "trust-forwarded-for",
            "forwarded-field",
            "proxy-protocol-from",
        ],
    ),
    (
        "Publishing",
        &[
            "coalesce",
            "event-bytes",
            "keys",
            "key-bytes",
            "publish-bytes",
            "publish-rate",
            "publish-burst",
            "reread-*",
        ],
    ),
    ("Several servers as one", &["backplane", "backplane-*", "unready-when-cut-off"]),
    ("Publishing on COMMIT", &["outbox", "outbox-*"]),
    ("Tokens and origins", &["jwt-*", "jwks-*", "token-*", "publish-key", "cors-*"]),
    ("Shutdown", &["drain-*", "state"]),
    ("Logging", &["log", "log-*", "access-log"]),
];

/// The group of a flag; `None` for a flag that the table has not.
pub(super) fn of(flag: &str) -> Option<&'static str> {
    let is_in = |patterns: &[&str]| patterns.iter().any(|pattern| matches(pattern, flag));
    GROUPS.iter().find(|(_, patterns)| is_in(patterns)).map(|(heading, _)| *heading)
}

fn matches(pattern: &str, flag: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => flag.starts_with(start),
        None => flag == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::cli::Cli;

    /// The flags of the help text of these arguments, each with the heading that it stands under.
    fn help(args: &[&str]) -> Vec<(String, String)> {
        let help = Cli::from_args(args).expect_err("a text").to_string();
        let mut heading = "";
        let mut flags = Vec::new();
        for line in help.lines() {
            if let Some(text) = line.strip_suffix(':').filter(|text| !text.starts_with(' ')) {
                heading = text;
            }
            // A flag stands in this column, and text beside it further to the right.
            let flag = line.strip_prefix("      --").and_then(|line| line.split(' ').next());
            flags.extend(flag.map(|flag| (flag.to_owned(), heading.to_owned())));
        }
        flags
    }

    /// SCENARIO: a flag is added to the server.
    /// BUG: it stood under the heading that happened to be the last one, `--log` under "Tokens".
    /// FIX: one table has the heading of every flag. A flag that is not in it fails this test.
    #[test]
    fn every_flag_of_the_server_stands_in_its_group() {
        for args in
            [["nudged", "--help"].as_slice(), &["nudged", "serve", "--help"], &["nudged", "-h"]]
        {
            let flags = help(args);
            assert!(flags.len() > 40, "{flags:?}");
            for (flag, heading) in &flags {
                assert_eq!(of(flag), Some(&**heading), "--{flag}: is it in the table?");
            }
            let mut headings: Vec<_> = flags.iter().map(|(_, heading)| heading).collect();
            headings.dedup();
            let places = headings.iter().map(|heading| {
                GROUPS.iter().position(|(group, _)| group == *heading).expect("a group")
            });
            assert!(places.is_sorted_by(|one, next| one < next), "out of order: {headings:?}");
        }
    }

    #[test]
    fn no_flag_is_in_two_groups() {
        for flag in help(&["nudged", "--help"]).iter().map(|(flag, _)| flag) {
            let is_in = |patterns: &[&str]| patterns.iter().any(|pattern| matches(pattern, flag));
            let groups = GROUPS.iter().filter(|(_, patterns)| is_in(patterns)).count();
            assert!(groups <= 1, "{flag}");
        }
    }
}
