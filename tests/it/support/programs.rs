//! Programs that some tests need, and that a machine may lack. A test without its program is skipped, and reported as
//! such; where `NUDGED_TEST_ALL` is 1, it fails.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

pub(crate) struct Program {
    /// A command that succeeds where the program works.
    probe: &'static [&'static str],
    /// What is missing, and how to get it.
    advice: &'static str,
    works: OnceLock<bool>,
}

/// The path of what `.ci/run programs` installs.
macro_rules! locked {
    ($path:literal) => {
        concat!(env!("CARGO_MANIFEST_DIR"), "/target/programs/", $path)
    };
}
pub(crate) use locked;

pub(crate) static BROWSER_LIBRARIES: Program = Program::new(
    &["test", "-e", locked!("node_modules/swr"), "-a", "-e", locked!("node_modules/alpinejs")],
    "the libraries of the adapters' tests are missing: .ci/run programs",
);
pub(crate) static CADDY: Program =
    Program::new(&[locked!("bin/caddy"), "version"], "caddy is missing: .ci/run programs");
pub(crate) static CHROMEDRIVER: Program = Program::new(
    &["chromedriver", "--version"],
    "chromedriver is missing: apt-get install chromium-driver",
);
pub(crate) static CHROMIUM: Program =
    Program::new(&["chromium", "--version"], "chromium is missing: apt-get install chromium");
pub(crate) static CURL: Program =
    Program::new(&["curl", "--version"], "curl is missing: apt-get install curl");
pub(crate) static ENVOY: Program =
    Program::new(&[locked!("bin/envoy"), "--version"], "envoy is missing: .ci/run programs");
pub(crate) static FETCH_EVENT_SOURCE: Program = Program::new(
    &["test", "-e", locked!("node_modules/@microsoft/fetch-event-source")],
    "@microsoft/fetch-event-source is missing: .ci/run programs",
);
pub(crate) static FIREFOX: Program = Program::new(
    &["firefox-esr", "--version"],
    "firefox-esr is missing: apt-get install firefox-esr",
);
pub(crate) static FISH: Program =
    Program::new(&["fish", "--version"], "fish is missing: apt-get install fish");
pub(crate) static GO: Program =
    Program::new(&["go", "version"], "go is missing: apt-get install golang-go");
pub(crate) static GROFF: Program =
    Program::new(&["groff", "--version"], "groff is missing: apt-get install groff-base");
pub(crate) static HAPROXY: Program =
    Program::new(&["haproxy", "-v"], "haproxy is missing: apt-get install haproxy");
pub(crate) static HTTP_PROXY: Program = Program::new(
    &[locked!("bin/node"), "-e", concat!("require('", locked!("node_modules/http-proxy"), "')")],
    "http-proxy is missing: .ci/run programs",
);
pub(crate) static LOCKED_NODE: Program = Program::new(
    &[locked!("bin/node"), "--version"],
    "the locked version of node is missing: .ci/run programs",
);
/// For `LD_PRELOAD`; the dynamic linker knows the folder of the architecture.
pub(crate) const LIBFAKETIME_FILE: &str = "/usr/$LIB/faketime/libfaketime.so.1";
pub(crate) static LIBFAKETIME: Program = Program::new(
    &["sh", "-c", "ls /usr/lib/*/faketime/libfaketime.so.1"],
    "libfaketime is missing: apt-get install libfaketime",
);
pub(crate) static LIGHTTPD: Program = Program::new(
    &["sh", "-c", "lighttpd -v && test -e /usr/lib/lighttpd/mod_magnet.so"],
    "lighttpd is missing: apt-get install lighttpd lighttpd-modules-lua",
);
pub(crate) static MAN: Program =
    Program::new(&["man", "--version"], "man is missing: apt-get install man-db");
pub(crate) static MCP_SDK: Program = Program::new(
    &[
        locked!("bin/node"),
        "-e",
        concat!("require('", locked!("node_modules/@modelcontextprotocol/sdk/package.json"), "')"),
    ],
    "@modelcontextprotocol/sdk is missing: .ci/run programs",
);
pub(crate) static MOUNTS: Program = Program::new(
    &["unshare", "-m", "true"],
    "mount namespaces cannot be made: apt-get install util-linux, and run as root",
);
pub(crate) static NATS_SERVER: Program = Program::new(
    &["nats-server", "--version"],
    "nats-server is missing: apt-get install nats-server",
);
pub(crate) static NODE: Program =
    Program::new(&["node", "--version"], "node is missing: apt-get install nodejs");
/// A newer one, which has `node:sqlite`.
pub(crate) static NODE_SQLITE: Program = Program::new(
    &[locked!("bin/node"), "-e", "require('node:sqlite')"],
    "a Node with node:sqlite is missing: .ci/run programs",
);
pub(crate) static NGINX: Program =
    Program::new(&["nginx", "-v"], "nginx is missing: apt-get install nginx");
pub(crate) static NGINX_STREAM: Program = Program::new(
    &["sh", "-c", "nginx -v && test -e /usr/lib/nginx/modules/ngx_stream_module.so"],
    "nginx's stream module is missing: apt-get install nginx libnginx-mod-stream",
);
pub(crate) static OPENSSL: Program =
    Program::new(&["openssl", "version"], "openssl is missing: apt-get install openssl");
pub(crate) static PGBOUNCER: Program = Program::new(
    &["/usr/sbin/pgbouncer", "--version"],
    "pgbouncer is missing: apt-get install pgbouncer",
);
pub(crate) static POSTGRES: Program = Program::new(
    &["/usr/lib/postgresql/15/bin/postgres", "--version"],
    "postgresql is missing: apt-get install postgresql-15",
);
pub(crate) static PROMETHEUS: Program =
    Program::new(&["prometheus", "--version"], "prometheus is missing: apt-get install prometheus");
pub(crate) static PROMTOOL: Program =
    Program::new(&["promtool", "--version"], "promtool is missing: apt-get install prometheus");
pub(crate) static PYTHON: Program =
    Program::new(&["python3", "--version"], "python3 is missing: apt-get install python3");
pub(crate) static REDIS_SERVER: Program = Program::new(
    &["redis-server", "--version"],
    "redis-server is missing: apt-get install redis-server",
);
pub(crate) static SOCKET_ACTIVATE: Program = Program::new(
    &["systemd-socket-activate", "--version"],
    "systemd-socket-activate is missing: apt-get install systemd",
);
pub(crate) static ZSH: Program =
    Program::new(&["zsh", "--version"], "zsh is missing: apt-get install zsh");

/// Returns from a test whose programs are not all installed.
macro_rules! requires {
    ($($program:ident),+) => {
        if !$crate::support::programs::are_available(&[$(&$program),+]) {
            return;
        }
    };
}
pub(crate) use requires;

/// Whether all of them are installed. Reports each that is not.
pub(crate) fn are_available(programs: &[&Program]) -> bool {
    programs.iter().filter(|program| !program.is_available_for("")).count() == 0
}

// ===== impl Program =====

impl Program {
    pub(crate) const fn new(probe: &'static [&'static str], advice: &'static str) -> Self {
        Self { probe, advice, works: OnceLock::new() }
    }

    /// Whether it is installed. If not, reports that this part of the running test is skipped, or fails it.
    pub(crate) fn is_available_for(&self, part: &str) -> bool {
        let works = *self.works.get_or_init(|| {
            let mut command = Command::new(self.probe[0]);
            command.args(&self.probe[1..]).stdin(Stdio::null());
            let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
            status.is_ok_and(|status| status.success())
        });
        if !works {
            self.report(part);
        }
        works
    }

    fn report(&self, part: &str) {
        let advice = self.advice;
        let all = std::env::var("NUDGED_TEST_ALL").is_ok_and(|all| all == "1");
        assert!(!all, "{advice} (NUDGED_TEST_ALL=1: nothing is skipped)");
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("a test");
        // libtest captures `eprintln!`, but not this.
        _ = writeln!(std::io::stderr(), "SKIPPED {part}{test}: {advice}");
        count(advice);
    }
}

/// Counts it in the summary at the end of the run. No test code runs then, so a child process prints the summary: it
/// reads until the test process has ended.
fn count(advice: &str) {
    static COUNTER: OnceLock<Mutex<Child>> = OnceLock::new();
    let counter = COUNTER.get_or_init(|| {
        let mut command = Command::new("sh");
        command.args(["-c", "{ echo; sort | uniq -c; } >&2"]).stdin(Stdio::piped());
        Mutex::new(command.spawn().expect("sh(1)"))
    });
    let mut counter = counter.lock().unwrap_or_else(PoisonError::into_inner);
    let stdin = counter.stdin.as_mut().expect("piped");
    writeln!(stdin, "tests SKIPPED, wholly or in part: {advice}").expect("it reads");
}
