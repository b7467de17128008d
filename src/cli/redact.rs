//! Arguments that nothing takes, and that may be the rest of a secret: a shell makes two arguments of one that has a
//! space and no quotes, and one that begins with a hyphen looks like a flag.

use std::ffi::{OsStr, OsString};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Error};

use super::Cli;

/// Flags whose value is a secret, or may contain one.
pub(super) const FLAGS: [&str; 18] = [
    "--backplane",
    "--outbox",
    "--outbox-direct",
    "--jwt-secret",
    "--jwt-secret-file",
    "--jwt-key",
    "--tls-key",
    "--publish-key",
    "--jwks-url",
    "--secret",
    "--secret-file",
    "--key",
    "--token",
    "--url",
    "--publish-url",
    "--publish-header",
    "--header",
    "-H",
];

/// The same error, but without the argument that it quotes, if that may be a part of a secret.
pub(super) fn hide(refused: Error, arguments: &[OsString]) -> Error {
    let text = |kind| match refused.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let quoted = match refused.kind() {
        ErrorKind::UnknownArgument => text(ContextKind::InvalidArg),
        ErrorKind::InvalidSubcommand | ErrorKind::ArgumentConflict => {
            let is_command = |name: &&str| Cli::command().find_subcommand(name).is_some();
            text(ContextKind::InvalidSubcommand).filter(|name| !is_command(name))
        }
        _ => None,
    };
    let Some(quoted) = quoted else { return refused };
    let is_flag = |argument: &OsStr| FLAGS.into_iter().find(|flag| argument == OsStr::new(flag));
    // A flag that does not exist is shown, unless it stands where the value of a flag does.
    let shown = quoted.starts_with("--")
        && !arguments.windows(2).any(|pair| {
            is_flag(&pair[0]).is_some() && pair[1].as_encoded_bytes().starts_with(b"-")
        });
    let secret = arguments.iter().find_map(|argument| {
        let text = argument.as_encoded_bytes();
        let name = text.split(|byte| *byte == b'=').next().unwrap_or_default();
        FLAGS.into_iter().find(|flag| name == flag.as_bytes())
    });
    match secret {
        Some(flag) if !shown => Cli::command().error(
            refused.kind(),
            format!(
                "an argument is not known, and not shown, because it may belong to the value of {flag}; \
                 quote a value with a space, and write one that begins with a hyphen as {flag}=…"
            ),
        ),
        _ => refused,
    }
}
