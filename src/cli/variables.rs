//! The environment: an empty variable is none, and one that no setting has is noticed, since a server whose key is in a
//! misspelt variable would be open.

use std::ffi::OsStr;

use clap::{Arg, Command};

/// Variables that are set but that no setting of the program has.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// A slip away from the name of a setting.
    Misspelt { name: String, meant: String },
    /// Anything else that begins as the names of settings do.
    Other { name: String },
}

const PREFIX: &str = "NUDGED_";

/// Variables of the client's commands, which not every build has, of the project's own tests, and of a process that takes
/// over from another one.
const KNOWN: [&str; 5] =
    ["NUDGED_URL", "NUDGED_TOKEN", "NUDGED_TEST_ALL", "NUDGED_FUZZ_SECONDS", "NUDGED_UPGRADE"];

/// The most letters that a slip changes, adds, leaves out, or exchanges with the next one.
const SLIP: usize = 2;

/// Makes the variable of this setting count as unset if it is empty.
pub(super) fn unset_if_empty(arg: Arg) -> Arg {
    match arg.get_env().is_some_and(is_empty) {
        true => arg.env(None::<&'static str>),
        false => arg,
    }
}

fn is_empty(variable: &OsStr) -> bool {
    std::env::var_os(variable).is_some_and(|value| value.is_empty())
}

/// What is set in the environment of a server and means nothing to it, in the order of the names.
pub(super) fn unknown<'a>(
    command: &Command,
    environment: impl Iterator<Item = (&'a str, &'a str)>,
) -> Vec<Unknown> {
    let mut known: Vec<_> = KNOWN.map(String::from).into();
    names(command, &mut known);
    let set = environment.filter(|(_, value)| !value.is_empty());
    let strange = set
        .filter(|(name, value)| !known.iter().any(|k| k == name) && !is_of_kubernetes(name, value));
    let mut unknown: Vec<_> = strange
        .filter_map(|(name, _)| {
            let name = name.to_owned();
            match known.iter().find(|known| is_slip(&name, known)) {
                Some(meant) => Some(Unknown::Misspelt { name, meant: meant.clone() }),
                None => name.starts_with(PREFIX).then_some(Unknown::Other { name }),
            }
        })
        .collect();
    unknown.sort_by(|one, other| one.name().cmp(other.name()));
    unknown
}

/// The variables of all settings of a command and of its subcommands.
fn names(command: &Command, found: &mut Vec<String>) {
    let variables = command.get_arguments().filter_map(Arg::get_env);
    found.extend(variables.map(|name| name.to_string_lossy().into_owned()));
    command.get_subcommands().for_each(|command| names(command, found));
}

/// Whether it is the name with one or two slips: of a short name, one, because two would make another word of it.
fn is_slip(name: &str, known: &str) -> bool {
    let letters = known.len().saturating_sub(PREFIX.len());
    let name = name.to_ascii_uppercase();
    name.len().abs_diff(known.len()) <= SLIP
        && strsim::osa_distance(&name, known) <= (letters / 3).clamp(1, SLIP)
}

/// Whether Kubernetes makes it, for a service whose name is `nudged` or begins so: `NUDGED_SERVICE_HOST`,
/// `NUDGED_SERVICE_PORT`, `NUDGED_SERVICE_PORT_{NAME}`, `NUDGED_PORT` (a URL), `NUDGED_PORT_{N}_{PROTOCOL}`, and the
/// last with `_PROTO`, `_PORT` or `_ADDR`.
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    let Some(rest) = name.strip_prefix("NUDGED") else { return false };
    if rest.ends_with("_SERVICE_HOST")
        || rest.ends_with("_SERVICE_PORT")
        || rest.contains("_SERVICE_PORT_")
    {
        return true;
    }
    if rest.ends_with("_PORT") && value.contains("://") {
        return true;
    }
    let mut ports = rest.match_indices("_PORT_").map(|(at, mark)| &rest[at + mark.len()..]);
    ports.any(|port| {
        let mut parts = port.split('_');
        let (number, protocol, what) = (parts.next(), parts.next(), parts.next());
        number.is_some_and(|number| number.parse::<u16>().is_ok())
            && matches!(protocol, Some("TCP" | "UDP" | "SCTP"))
            && matches!(what, None | Some("PROTO" | "PORT" | "ADDR"))
            && parts.next().is_none()
    })
}

// ===== impl Unknown =====

impl Unknown {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Misspelt { name, .. } | Self::Other { name } => name,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    fn unknown_of(name: &str, value: &str) -> Option<Unknown> {
        let mut unknown = unknown(&Cli::command(), [(name, value)].into_iter());
        assert!(unknown.len() <= 1);
        unknown.pop()
    }

    #[test]
    fn a_name_with_one_or_two_slips_is_misspelt() {
        for (wrong, right) in [
            ("NUDGED_LISTNE", "NUDGED_LISTEN"),
            ("NUDGED_LISSTENN", "NUDGED_LISTEN"),
            ("NUDGED_LOGS", "NUDGED_LOG"),
            ("NUDGED_KEY", "NUDGED_KEYS"),
            ("NUDGED_HSOT", "NUDGED_HOST"),
            ("NUDGED_COR_ORIGIN", "NUDGED_CORS_ORIGIN"),
            ("NUDGED_PUBLIC_ORG", "NUDGED_PUBLIC_ORGS"),
            ("NUDGED-LISTEN", "NUDGED_LISTEN"),
            ("Nudged_Listen", "NUDGED_LISTEN"),
            ("NUGDED_LISTEN", "NUDGED_LISTEN"),
        ] {
            let meant = right.to_owned();
            let misspelt = Unknown::Misspelt { name: wrong.to_owned(), meant };
            assert_eq!(unknown_of(wrong, "1"), Some(misspelt));
            assert_eq!(unknown_of(wrong, ""), None, "{wrong} is empty");
            assert_eq!(unknown_of(right, "1"), None);
        }
    }

    #[test]
    fn another_word_is_unknown_and_no_slip() {
        for name in
            ["NUDGED_TAG", "NUDGED_UID", "NUDGED_HOME", "NUDGED_VERSION", "NUDGED_", "NUDGED_PORT"]
        {
            assert_eq!(unknown_of(name, "1"), Some(Unknown::Other { name: name.into() }));
        }
        for name in
            ["PATH", "HOST", "LISTEN", "NUDGE", "LISTEN_FDS", "HOME", "RUST_LOG", "NUDGER_PORT"]
        {
            assert_eq!(unknown_of(name, "1"), None);
        }
    }

    #[test]
    fn what_kubernetes_makes_is_no_setting() {
        for name in ["NUDGED", "NUDGED_INTERNAL", "NUDGED_EU_WEST_1"] {
            for (rest, value) in [
                ("SERVICE_HOST", "10.0.0.1"),
                ("SERVICE_PORT", "6834"),
                ("SERVICE_PORT_HTTP", "6834"),
                ("PORT", "tcp://10.0.0.1:6834"),
                ("PORT_6834_TCP", "tcp://10.0.0.1:6834"),
                ("PORT_6834_UDP_PROTO", "udp"),
                ("PORT_6834_SCTP_PORT", "6834"),
                ("PORT_6834_TCP_ADDR", "10.0.0.1"),
            ] {
                assert_eq!(unknown_of(&format!("{name}_{rest}"), value), None, "{name} {rest}");
            }
        }
        for name in
            ["NUDGED_PORT_", "NUDGED_PORT_X_TCP", "NUDGED_PORT_1_TCP_ADR", "NUDGED_SERVICES"]
        {
            assert!(unknown_of(name, "1").is_some(), "{name}");
        }
    }
}
