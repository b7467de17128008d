//! What every record has in common: its date, how it was made and where, and the folder it is in.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

pub(crate) const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/record");

/// Date, command and machine, which every record begins with.
pub(crate) fn heading(mode: &str) -> String {
    format!(
        "# {mode}, {}\n\n* command: `{}`\n* nudged: {}\n* machine: {}\n\n",
        today(),
        command(),
        revision(),
        machine()
    )
}

/// Writes a record of its own kind.
pub(crate) fn write_text(folder: Option<&Path>, mode: &str, text: &str) -> io::Result<PathBuf> {
    let folder = folder.unwrap_or_else(|| Path::new(FOLDER));
    fs::create_dir_all(folder)?;
    let path = folder.join(format!("{}-{mode}.md", today()));
    fs::write(&path, text)?;
    Ok(path)
}

pub(crate) fn today() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()[..10].to_owned()
}

fn command() -> String {
    let given = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let given: Vec<String> = given.collect();
    let bench = env!("CARGO_CRATE_NAME");
    let command = format!("cargo bench --bench {bench} -- {}", given.join(" "));
    command.trim_end_matches([' ', '-']).to_owned()
}

fn revision() -> String {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let said = git.output().ok().filter(|done| done.status.success());
    let said = said.map(|done| String::from_utf8_lossy(&done.stdout).trim().to_owned());
    format!("{} ({})", env!("CARGO_PKG_VERSION"), said.unwrap_or_else(|| "no git".into()))
}

pub(crate) fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let field = |text: String, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
        line.unwrap_or_default().trim_start_matches([' ', '\t', ':']).to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{cores} × {}, {} memory, Linux {}",
        field(read("/proc/cpuinfo"), "model name"),
        field(read("/proc/meminfo"), "MemTotal"),
        read("/proc/sys/kernel/osrelease").trim()
    )
}
