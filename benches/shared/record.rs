//! The common parts of all dated records: their files, and the command, commit and machine that they name.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// The files of one record, written together.
pub(crate) struct Files {
    folder: PathBuf,
    /// Date and mode, with which each name begins.
    stem: String,
    texts: Vec<(PathBuf, String)>,
}

/// The sources of this build.
struct Source {
    commit: String,
    /// Whether a file differs from the commit.
    is_dirty: bool,
}

/// The program that includes this module.
const BENCH: &str = env!("CARGO_CRATE_NAME");
/// What has to be given for it to be built.
const FEATURES: &str = if cfg!(feature = "postgres") { "full" } else { "bench" };
const CRATE: &str = env!("CARGO_MANIFEST_DIR");
pub(crate) const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/record");

// ===== impl Files =====

impl Files {
    /// In `benches/record` unless another folder is given.
    pub(crate) fn new(folder: Option<&Path>, mode: &str) -> Self {
        let folder = folder.unwrap_or_else(|| Path::new(FOLDER)).to_owned();
        Self { folder, stem: format!("{}-{mode}", today()), texts: Vec::new() }
    }

    /// The rest of a name, with its extension, and the text of the file.
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

/// Has to be called before measuring: refuses a record in the repository that its commit could not reproduce.
pub(crate) fn check_reproducible(folder: Option<&Path>) -> Result<(), String> {
    match caveats().first().filter(|_| folder.is_none()) {
        Some(why) => {
            Err(format!("no record in benches/record: {why}; --out FOLDER writes a marked one"))
        }
        None => Ok(()),
    }
}

/// Date, command, commit and machine, with which every record of a benchmark begins.
pub(crate) fn heading(mode: &str) -> String {
    heading_of(mode, &format!("cargo bench --features {FEATURES} --bench {BENCH}"))
}

/// The same for another program, which this command starts.
pub(crate) fn heading_of(mode: &str, start: &str) -> String {
    let caveats: String =
        caveats().iter().map(|why| format!("**Not reproducible: {why}.**\n\n")).collect();
    format!(
        "# {mode}, {}\n\n* command: `{}`\n* nudged: {}\n* machine: {}\n\n{caveats}",
        today(),
        command(start),
        revision(),
        machine()
    )
}

/// Why the named commit does not reproduce these figures.
fn caveats() -> Vec<&'static str> {
    let dirty = source().is_dirty.then_some("the working tree has changes that are not committed");
    let debug = cfg!(debug_assertions).then_some("this is a debug build");
    dirty.into_iter().chain(debug).collect()
}

pub(crate) fn today() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()[..10].to_owned()
}

fn command(start: &str) -> String {
    let given = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let given: Vec<String> = given.collect();
    let command = format!("{start} -- {}", given.join(" "));
    command.trim_end_matches([' ', '-']).to_owned()
}

fn revision() -> String {
    let Source { commit, is_dirty } = source();
    let dirty = if *is_dirty { "-dirty" } else { "" };
    format!("{} ({commit}{dirty})", env!("CARGO_PKG_VERSION"))
}

/// The sources at the first call: the working tree may change during a long run.
fn source() -> &'static Source {
    static SOURCE: OnceLock<Source> = OnceLock::new();
    SOURCE.get_or_init(|| {
        let commit = git(&["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "no git".into());
        // Records do not count: they are written one after the other.
        let paths = [".", ":(exclude)benches/record"];
        let status = ["status", "--porcelain", "--untracked-files=no", "--"];
        let changes = git(&[&status[..], &paths].concat());
        Source { commit, is_dirty: changes.is_some_and(|changes| !changes.is_empty()) }
    })
}

fn git(arguments: &[&str]) -> Option<String> {
    let done = Command::new("git").args(arguments).current_dir(CRATE).output().ok()?;
    let text = || String::from_utf8_lossy(&done.stdout).trim().to_owned();
    done.status.success().then(text)
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
