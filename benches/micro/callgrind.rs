//! Valgrind's callgrind, which counts instructions: of one function of this program, or of a server
//! between two moments.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::shared::process::{NUDGED, Process, guarded};

/// `nudged serve` under callgrind. It is killed when this is dropped.
pub(crate) struct CountedServer {
    process: Process,
    pub(crate) address: SocketAddr,
    folder: PathBuf,
    dumps: u32,
}

const INSTALL: &str = "valgrind is missing: install it (Debian: apt-get install valgrind)";

/// Lets a server finish the work that follows its last response.
const REST: Duration = Duration::from_millis(100);

/// Valgrind's version, or how to install it.
pub(crate) fn find() -> Outcome<String> {
    let printed = Command::new("valgrind").arg("--version").output().map_err(|_| INSTALL)?;
    Ok(String::from_utf8_lossy(&printed.stdout).trim().to_owned())
}

/// Nanoseconds of all work that was measured.
static TOOK: AtomicU64 = AtomicU64::new(0);

/// Does the work whose instructions are counted, and takes its time.
pub(crate) fn measured<T>(work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = counted(work);
    let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
    TOOK.fetch_add(took, Ordering::Relaxed);
    done
}

#[inline(never)]
fn counted<T>(work: impl FnOnce() -> T) -> T {
    std::hint::black_box(work())
}

/// The time of all that was measured. Under valgrind it says nothing.
pub(crate) fn took() -> Duration {
    Duration::from_nanos(TOOK.load(Ordering::Relaxed))
}

/// Runs this program with these arguments, without valgrind. Returns what it says of the time of one operation.
pub(crate) fn time_ours(role: &str, name: &str) -> Outcome<String> {
    let done = Command::new(std::env::current_exe()?).args([role, name]).output()?;
    let stderr = String::from_utf8_lossy(&done.stderr);
    let failed = || format!("{name} failed:\n{stderr}");
    Ok(stderr.lines().last().filter(|_| done.status.success()).ok_or_else(failed)?.to_owned())
}

/// Runs this program with these arguments. It prints how many operations it did in [`measured`]; returns
/// the instructions of one.
pub(crate) fn count_ours(role: &str, name: &str) -> Outcome<f64> {
    let mut valgrind = callgrind(Path::new("/dev/null"))?;
    valgrind.arg("--toggle-collect=*callgrind::counted*");
    let done = valgrind.arg(std::env::current_exe()?).args([role, name]).output()?;
    let (stdout, stderr) =
        (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    let mut lines = stderr.lines().filter_map(|line| line.split_once("Collected :"));
    let collected = lines.find_map(|(_, count)| count.trim().parse::<f64>().ok());
    let failed = || format!("{name} failed under valgrind:\n{stderr}");
    let operations: f64 = stdout.trim().parse().map_err(|_| failed())?;
    Ok(collected.ok_or_else(failed)? / operations)
}

fn callgrind(out: &Path) -> io::Result<Command> {
    let mut command = guarded("valgrind")?;
    command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", out.display()));
    Ok(command)
}

// ===== impl CountedServer =====

impl CountedServer {
    /// Starts a server with one worker.
    pub(crate) fn start(args: &[&str]) -> Outcome<Self> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("nudged-micro-{}-{number}", process::id()));
        fs::create_dir_all(&folder)?;
        let mut command = callgrind(&folder.join("count"))?;
        command.args([NUDGED, "serve", "--listen", "127.0.0.1:0", "--workers", "1"]);
        command.args(["--coalesce", "0ms"]).args(args).stderr(Stdio::null());
        let process = Process::start(&mut command)?;
        let address = process.url.trim_start_matches("http://").parse()?;
        Ok(Self { process, address, folder, dumps: 0 })
    }

    /// The instructions of all threads of the server while `work` is done.
    pub(crate) fn count(&mut self, work: impl FnOnce() -> Outcome<()>) -> Outcome<f64> {
        self.control("--zero")?;
        work()?;
        self.control("--dump")?;
        self.dumps += 1;
        let text = fs::read_to_string(self.folder.join(format!("count.{}", self.dumps)))?;
        let totals = text.lines().filter_map(|line| line.strip_prefix("totals:"));
        let totals = totals.map(|total| total.trim().parse::<f64>());
        Ok(totals.sum::<Result<f64, _>>()?)
    }

    fn control(&self, what: &str) -> Outcome<()> {
        thread::sleep(REST);
        let mut control = Command::new("callgrind_control");
        let done = control.args([what, &self.process.id().to_string()]).output()?;
        if done.status.success() { Ok(()) } else { Err(format!("{control:?}: {done:?}").into()) }
    }
}

impl Drop for CountedServer {
    fn drop(&mut self) {
        // Killed, because a drain would only take time. It may have ended already.
        self.process.child.kill().ok();
        fs::remove_dir_all(&self.folder).ok();
    }
}
