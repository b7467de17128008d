//! Valgrind's callgrind, which counts instructions: of one function here, or of a server between two
//! moments.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::Outcome;

/// `nudged serve`, whose instructions are counted. It is killed when this is dropped.
pub(crate) struct Watched {
    child: Child,
    /// Open, so that a server that prints does not die of it.
    _output: ChildStdout,
    pub(crate) address: SocketAddr,
    folder: PathBuf,
    counted: u32,
}

const NUDGED: &str = env!("CARGO_BIN_EXE_nudged");
const INSTALL: &str = "valgrind is not there: install it (Debian: apt-get install valgrind)";

/// Lets a server finish what it goes on with after its last answer.
const REST: Duration = Duration::from_millis(100);

/// The version, or how to get it.
pub(crate) fn find() -> Outcome<String> {
    let said = Command::new("valgrind").arg("--version").output().map_err(|_| INSTALL)?;
    Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

/// Does the work whose instructions are counted.
#[inline(never)]
pub(crate) fn measured<T>(work: impl FnOnce() -> T) -> T {
    std::hint::black_box(work())
}

/// Runs this program in another role, which prints how many operations it did in [`measured`], and
/// returns the instructions of one.
pub(crate) fn count_ours(role: &str, name: &str) -> Outcome<f64> {
    let mut valgrind = callgrind(Path::new("/dev/null"));
    valgrind.arg("--toggle-collect=*callgrind::measured*");
    let done = valgrind.arg(std::env::current_exe()?).args([role, name]).output()?;
    let (stdout, stderr) =
        (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    let mut lines = stderr.lines().filter_map(|line| line.split_once("Collected :"));
    let collected = lines.find_map(|(_, count)| count.trim().parse::<f64>().ok());
    let failed = || format!("{name} failed under valgrind:\n{stderr}");
    let operations: f64 = stdout.trim().parse().map_err(|_| failed())?;
    Ok(collected.ok_or_else(failed)? / operations)
}

fn callgrind(out: &Path) -> Command {
    let mut command = Command::new("valgrind");
    command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", out.display()));
    command
}

// ===== impl Watched =====

impl Watched {
    /// Starts a server with one worker; no environment of ours changes what it does.
    pub(crate) fn start(args: &[&str]) -> Outcome<Self> {
        static STARTED: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = STARTED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("nudged-micro-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder)?;
        let mut command = callgrind(&folder.join("count"));
        command.args([NUDGED, "serve", "--listen", "127.0.0.1:0", "--workers", "1"]);
        command.args(["--coalesce", "0ms"]).args(args);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("NUDGED_")) {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        while output.read_line(&mut line)? > 0 {
            if let Some((_, rest)) = line.split_once("listening on http://") {
                let address = rest.split_whitespace().next().unwrap_or_default().parse()?;
                return Ok(Self {
                    child,
                    _output: output.into_inner(),
                    address,
                    folder,
                    counted: 0,
                });
            }
            line.clear();
        }
        Err(format!("the server ended without listening: {}", child.wait()?).into())
    }

    /// The instructions that all of the server's threads take for this.
    pub(crate) fn count(&mut self, work: impl FnOnce() -> Outcome<()>) -> Outcome<f64> {
        self.control("--zero")?;
        work()?;
        self.control("--dump")?;
        self.counted += 1;
        let text = fs::read_to_string(self.folder.join(format!("count.{}", self.counted)))?;
        let totals = text.lines().filter_map(|line| line.strip_prefix("totals:"));
        let totals = totals.map(|total| total.trim().parse::<f64>());
        Ok(totals.sum::<Result<f64, _>>()?)
    }

    fn control(&self, what: &str) -> Outcome<()> {
        thread::sleep(REST);
        let mut control = Command::new("callgrind_control");
        let done = control.args([what, &self.child.id().to_string()]).output()?;
        if done.status.success() { Ok(()) } else { Err(format!("{control:?}: {done:?}").into()) }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // It may be gone by now, which is as well.
        self.child.kill().ok();
        self.child.wait().ok();
        fs::remove_dir_all(&self.folder).ok();
    }
}
