//! The completions and the man page, which the program prints.

use std::collections::BTreeSet;
use std::process::{Command, Output, Stdio};

use crate::support::Server;
use crate::support::programs::{FISH, GROFF, MAN, ZSH, requires};
use crate::support::temp_dir::TempDir;

fn run(command: &mut Command) -> Output {
    let command = command.stdin(Stdio::null()).stderr(Stdio::piped());
    command.output().expect("the program")
}

fn printed(args: &[&str]) -> String {
    let output = run(Server::command().args(args));
    assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
    assert_eq!(output.stderr, b"", "{args:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// What `nudged generate` prints, as a file.
fn generated(what: &str) -> (TempDir, String) {
    let folder = TempDir::new();
    // The name that zsh takes the function from.
    let file = folder.file("_nudged");
    std::fs::write(&file, printed(&["generate", what])).expect("a file");
    (folder, file)
}

/// Fails if the command says anything.
fn silent(program: &str, args: &[&str]) {
    let mut command = Command::new(program);
    command.args(args).env("LC_ALL", "C.UTF-8").env("MANROFFSEQ", "").env("MANWIDTH", "80");
    let output = run(command.stdout(Stdio::null()));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{program} {args:?}: {said}");
}

/// The commands that the help names, each with its flags.
fn commands() -> Vec<(String, BTreeSet<String>)> {
    let help = printed(&["--help"]);
    let (_, rest) = help.split_once("\nCommands:\n").expect("commands");
    let (lines, _) = rest.split_once("\n\n").expect("their end");
    // The text beside a name goes on further to the right.
    let names = lines.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let names = names.filter(|name| !["", "help"].contains(name));
    names.map(|name| (name.to_owned(), flags(&printed(&[name, "--help"])))).collect()
}

/// The long flags of a help text: each stands in one of two columns, behind a short one or blanks.
fn flags(help: &str) -> BTreeSet<String> {
    let flag = |line: &str| {
        let line = line.strip_prefix("      ").or_else(|| line.strip_prefix("  -")?.get(3..))?;
        let name = line.strip_prefix("--")?.split([' ', '[']).next()?;
        Some(name.to_owned())
    };
    help.lines().filter_map(flag).collect()
}

/// What stands between these two texts.
fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let (_, rest) = text.split_once(from).unwrap_or_else(|| panic!("no {from:?}"));
    rest.split(to).next().unwrap_or_default()
}

#[test]
fn the_man_page_and_the_completions_have_every_flag_of_the_help() {
    let [man, bash, zsh, fish] =
        ["man", "bash", "zsh", "fish"].map(|what| printed(&["generate", what]));
    let man = man.replace("\\-", "-");
    let commands = commands();
    assert_eq!(commands.len(), 10, "{commands:?}");
    for (command, flags) in &commands {
        assert!(flags.contains("help"), "{command}: {flags:?}");
        let in_man = match command.as_str() {
            "serve" => between(&man, "\n.SH OPTIONS\n", "\n.SH "),
            _ => between(&man, &format!("\n.SS nudged {command}\n"), "\n.SS nudged "),
        };
        let name = command.replace('-', "__subcmd__");
        let in_bash = between(&bash, &format!("\n        nudged__subcmd__{name})\n"), ";;");
        let in_zsh = between(&zsh, &format!("({command})\n_arguments"), "\n;;");
        let of_command = format!("subcommand {command}\"");
        for flag in flags {
            assert!(in_man.contains(&format!("\\fB--{flag}\\fR")), "{command} {flag}: {in_man}");
            let mut words = in_bash.split([' ', '"']);
            assert!(
                words.any(|word| word.strip_prefix("--") == Some(flag)),
                "{command} {flag}: {in_bash}"
            );
            let is_in_zsh =
                [format!("--{flag}["), format!("--{flag}=[")].iter().any(|f| in_zsh.contains(f));
            assert!(is_in_zsh, "{command} {flag}: {in_zsh}");
            let mut lines = fish.lines().filter(|line| line.contains(&of_command));
            assert!(
                lines.any(|line| line.contains(&format!(" -l {flag} "))),
                "{command} {flag} in fish"
            );
        }
    }
    for variable in ["NUDGED_LISTEN", "NUDGED_TLS_KEY", "NUDGED_TOKEN", "NUDGED_ACCESS_LOG"] {
        assert!(man.contains(variable), "{variable}");
    }
    for section in [
        "NAME",
        "SYNOPSIS",
        "DESCRIPTION",
        "COMMANDS",
        "OPTIONS",
        "EXAMPLES",
        "ENVIRONMENT",
        "SIGNALS",
        "FILES",
        "EXIT STATUS",
        "SEE ALSO",
    ] {
        let heading = format!(".SH {section}");
        assert_eq!(man.lines().filter(|line| **line == heading).count(), 1, "{section}");
    }
}

#[test]
fn the_man_page_has_no_warning() {
    requires!(MAN, GROFF);
    let (_folder, page) = generated("man");
    silent("man", &["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", &page]);
    silent("groff", &["-man", "-ww", "-Tutf8", "-z", &page]);
    let shown = run(Command::new("man").args(["-l", "-Tascii", &page]).env("MANWIDTH", "80"));
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.starts_with("NUDGED(1)") && shown.contains("User Commands"), "{shown}");
    // No text is taken for a request.
    assert!(shown.contains("HEALTHCHECK CMD [\"/nudged\", \"probe\"]"), "{shown}");
}

#[test]
fn each_shell_takes_its_completions() {
    requires!(ZSH, FISH);
    for (shell, args) in [("bash", ["-n"]), ("zsh", ["-n"]), ("fish", ["-n"])] {
        let (_folder, file) = generated(shell);
        silent(shell, &[&args[..], &[&file]].concat());
    }
}

/// What bash proposes for the last word.
fn in_bash(file: &str, words: &[&str]) -> Vec<String> {
    let script = "source \"$1\"; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMP_LINE=\"$*\"; \
                  _nudged nudged \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD-1]}\"; \
                  printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut command = Command::new("bash");
    let output = run(command.args(["--norc", "-c", script, "bash", file]).args(words));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_flags_and_values() {
    let (_folder, file) = generated("bash");
    for (words, expected) in [
        (&["nudged", "pub"][..], &["publish"][..]),
        (&["nudged", "serve", "--log-form"], &["--log-format"]),
        (&["nudged", "serve", "--log-format", ""], &["text", "json"]),
        (&["nudged", "--log-format", "j"], &["json"]),
        (&["nudged", "top", "--by", ""], &["streams", "publishes"]),
        // The help does not list it.
        (&["nudged", "gen"], &[""]),
    ] {
        assert_eq!(in_bash(&file, words), expected, "{words:?}");
    }
    // The names of files.
    let folder = TempDir::new();
    std::fs::write(folder.file("chain.pem"), "").expect("a file");
    let start = folder.file("ch");
    assert_eq!(in_bash(&file, &["nudged", "--tls-cert", &start]), [folder.file("chain.pem")]);
}

#[test]
fn fish_completes_commands_and_values() {
    requires!(FISH);
    let (_folder, file) = generated("fish");
    let in_fish = |line: &str| {
        let script = "source $argv[1]; complete -C $argv[2]";
        let home = TempDir::new();
        let mut command = Command::new("fish");
        command.args(["--no-config", "-c", script, &file, line]).env("HOME", home.path());
        let output = run(&mut command);
        assert!(output.status.success(), "{output:?}");
        let shown = String::from_utf8(output.stdout).expect("text");
        let names = shown.lines().filter_map(|line| line.split('\t').next().map(str::to_owned));
        names.collect::<BTreeSet<_>>()
    };
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(in_fish("nudged pub"), set(&["publish"]));
    assert_eq!(in_fish("nudged serve --log-format "), set(&["text", "json"]));
    // SCENARIO: without a command, the values of a flag.
    // BUG: the names of files were proposed, and `generate`, which is hidden.
    // FIX: what stands before the flag is parsed without it.
    assert_eq!(in_fish("nudged --log-format "), set(&["text", "json"]));
    assert_eq!(in_fish("nudged --listen :1 --log-format j"), set(&["json"]));
    assert!(!in_fish("nudged ").contains("generate"));
}
