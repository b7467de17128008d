//! What every dated record has in common: its files, and what it says of where it comes from.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// The files of one record, written together.
pub(crate) struct Files {
    folder: PathBuf,
    /// Date and mode, with which each name begins.
    stem: String,
    texts: Vec<(PathBuf, String)>,
}

/// The benchmark that this is part of.
const BENCH: &str = env!("CARGO_CRATE_NAME");
pub(crate) const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/record");

// ===== impl Files =====

impl Files {
    /// Goes to `benches/record` unless another folder is given.
    pub(crate) fn new(folder: Option<&Path>, mode: &str) -> Self {
        let folder = folder.unwrap_or_else(|| Path::new(FOLDER)).to_owned();
        Self { folder, stem: format!("{}-{mode}", today()), texts: Vec::new() }
    }

    /// The rest of a name, with its extension, and what is in the file.
    pub(crate) fn add(&mut self, rest: &str, text: String) {
        self.texts.push((self.folder.join(format!("{}{rest}", self.stem)), text));
    }

    /// Returns the paths.
    pub(crate) fn write(self) -> io::Result<Vec<PathBuf>> {
        fs::create_dir_all(&self.folder)?;
        let write = |(path, text)| fs::write(&path, text).map(|()| path);
        self.texts.into_iter().map(write).collect()
    }
}

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

pub(crate) fn today() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()[..10].to_owned()
}

fn command() -> String {
    let given = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let given: Vec<String> = given.collect();
    let command = format!("cargo bench --bench {BENCH} -- {}", given.join(" "));
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
