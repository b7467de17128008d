//! The man page: one for all commands.

use std::io;

use clap::Command;
use clap_mangen::Man;

/// What the definition of the commands does not have: examples, environment, signals, files, exit status.
const SECTIONS: &str = include_str!("sections.man");

const NAME: &str = "nudged";

/// What `roff` writes at the beginning of each part: how an apostrophe is written.
const QUOTE: &str = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n";

/// The page, as roff.
pub(super) fn page(mut command: Command) -> io::Result<String> {
    command.build();
    let mut page = Vec::new();
    Man::new(command.clone()).render_name_section(&mut page)?;
    let version = env!("CARGO_PKG_VERSION");
    let mut page = format!(
        "{QUOTE}.TH {} 1 \"\" \"{NAME} {version}\" \"User Commands\"\n.ad l\n.nh\n{}",
        NAME.to_uppercase(),
        text(page)
    );

    page += ".SH SYNOPSIS\n";
    let commands = || command.get_subcommands().filter(|sub| !sub.is_hide_set());
    for sub in commands().filter(|sub| sub.get_name() != "help") {
        page += &synopsis(sub)?;
    }
    let (before, after) = SECTIONS.split_once(OPTIONS).unwrap_or((SECTIONS, ""));
    page += before;

    let mut serve = None;
    page += ".SH COMMANDS\n";
    for sub in commands().filter(|sub| sub.get_name() != "help") {
        let mut about = Vec::new();
        Man::new(sub.clone()).render_description_section(&mut about)?;
        let about = without_heading(&text(about));
        page += &format!(".SS {NAME} {}\n{about}", roff(sub.get_name()));
        match sub.get_name() {
            "serve" => {
                page += ".PP\nIts options are below, in\n.BR OPTIONS .\n";
                serve = Some(sub);
            }
            _ => page += &without_heading(&options(sub)?),
        }
    }
    page += ".SH OPTIONS\nThose of\n.BR \"nudged serve\" .\n";
    if let Some(serve) = serve {
        page += &options(serve)?.replace(".SH ", ".SS ");
    }
    Ok(page + after)
}

/// Where the options stand among the sections.
const OPTIONS: &str = ".\\\" OPTIONS\n";

/// A line for each form of the command.
fn synopsis(command: &Command) -> io::Result<String> {
    // As in the help: that of clap_mangen lists every flag.
    let usage = command.clone().render_usage().to_string();
    let mut lines = String::new();
    for form in usage.trim_start_matches("Usage:").lines().map(str::trim) {
        let (name, rest) =
            form.split_at(form.match_indices(' ').nth(1).map_or(form.len(), |(at, _)| at));
        lines += &format!(".br\n\\fB{}\\fR{}\n", roff(name), roff(rest));
    }
    Ok(lines)
}

/// The options and their groups, each a section.
fn options(command: &Command) -> io::Result<String> {
    let mut options = Vec::new();
    Man::new(command.clone()).render_options_section(&mut options)?;
    Ok(text(options))
}

/// A text whose characters mean nothing to roff.
fn roff(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq")
}

/// A part of the page, without what stands at the beginning of each.
fn text(part: Vec<u8>) -> String {
    let part = String::from_utf8_lossy(&part).replace(QUOTE, "");
    let words = part.split_inclusive(char::is_whitespace).map(|word| match word.len() > WORD {
        true => word.replace(']', "]\\:"),
        false => word.to_owned(),
    });
    words.collect()
}

/// A longer word, most often a URL with all of its optional parts, may be broken behind each of these.
const WORD: usize = 40;

fn without_heading(section: &str) -> String {
    let lines = section.lines().filter(|line| !line.starts_with(".SH "));
    lines.map(|line| format!("{line}\n")).collect()
}
