//! `nudged generate`: the man page and the completions, from the same definition as the help.

mod man;

use std::process::ExitCode;

use clap::{Args, Command, CommandFactory, ValueEnum, ValueHint};
use clap_complete::Shell;

use super::{Cli, Exit, complete, output};

#[derive(Args, Clone, Debug)]
pub(crate) struct Generate {
    /// The man page, or the shell whose completions to print
    #[arg(value_enum, value_name = "WHAT")]
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// nudged.1
    Man,
    /// For /usr/share/bash-completion/completions/nudged
    Bash,
    /// For /usr/share/zsh/vendor-completions/_nudged
    Zsh,
    /// For /usr/share/fish/vendor_completions.d/nudged.fish
    Fish,
}

// ===== impl Generate =====

impl Generate {
    pub(crate) fn run(self) -> Result<ExitCode, Exit> {
        let text = match self.what {
            What::Man => man::page(definition()).map_err(Exit::failure)?,
            What::Bash => completions(Shell::Bash),
            What::Zsh => completions(Shell::Zsh),
            What::Fish => with_flag_at_end(completions(Shell::Fish)),
        };
        output::write(text)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// All commands with all of their flags and variables.
fn definition() -> Command {
    complete::complete(Cli::command(), None)
}

/// The same without the commands that the help does not list.
fn visible(all: &Command) -> Command {
    let commands = all.get_subcommands().filter(|command| !command.is_hide_set());
    let visible = Command::new("nudged").version(env!("CARGO_PKG_VERSION"));
    visible.args(all.get_arguments().cloned()).subcommands(commands.cloned())
}

/// In fish, the values of the last flag: a line that ends in one has no value for it yet, so that it is not parsed.
fn with_flag_at_end(fish: String) -> String {
    const PARSE: &str = "argparse -s (__fish_nudged_global_optspecs) -- $cmd";
    let parse = format!("{PARSE} 2>/dev/null\n    or");
    fish.replacen(&parse, &format!("{parse} {PARSE}[1..-2] 2>/dev/null\n    or"), 1)
}

fn completions(shell: Shell) -> String {
    let files = |command: Command| {
        command.mut_args(|arg| match arg.get_value_names() {
            Some([name]) if name == "FILE" => arg.value_hint(ValueHint::FilePath),
            _ => arg,
        })
    };
    let mut command = files(visible(&definition())).mut_subcommands(files);
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, "nudged", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}
