//! Completes the definition of every command with what holds for all of its flags.

use std::ffi::OsStr;

use clap::{Arg, ArgAction, Command};

use super::groups;
use super::variables::unset_if_empty;

/// Completes the command, which is called with this first argument.
pub(super) fn complete(command: Command, first: Option<&OsStr>) -> Command {
    let is_called = |sub: &Command| first.is_some_and(|first| first == sub.get_name());
    let has_subcommand = command.get_subcommands().any(is_called) || first == Some("help".as_ref());
    let command = command.mut_args(|arg| {
        let arg = setting(arg);
        // A variable of the server is none of another command, which it must not stop.
        if has_subcommand { arg.env(None::<&str>) } else { arg }
    });
    command.mut_subcommands(|sub| match sub.get_name() {
        "serve" => sub.mut_args(setting),
        _ => sub.mut_args(flag),
    })
}

/// A flag of the server.
fn setting(arg: Arg) -> Arg {
    let group = arg.get_long().filter(|_| !arg.is_hide_set()).and_then(groups::of);
    flag(match group {
        Some(heading) => arg.help_heading(heading),
        None => arg,
    })
}

/// A flag of any command.
fn flag(arg: Arg) -> Arg {
    let arg = unset_if_empty(arg);
    match arg.get_action() {
        ArgAction::SetTrue => arg.value_parser(switch),
        _ => arg,
    }
}

/// The value of a variable that stands for a flag without a value.
fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err("write 1, true, yes or on; or 0, false, no or off".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_has_the_usual_values_in_any_case() {
        for (texts, value) in [
            (["1", "true", "True", "YES", "on"], Ok(true)),
            (["0", "false", "FALSE", "No", "off"], Ok(false)),
        ] {
            texts.iter().for_each(|text| assert_eq!(switch(text), value, "{text}"));
        }
        for text in ["", "2", "ja", "truee"] {
            assert!(switch(text).expect_err(text).contains("write 1, true, yes or on"));
        }
    }
}
