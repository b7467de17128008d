//! The processes of these tests, killed when they are dropped.

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::support::killed::Killed;
use crate::support::log::Log;
use crate::support::programs::locked;
use crate::support::temp_dir::TempDir;

/// A script of this folder, run by Node.
pub(super) struct Script {
    _process: Killed,
    stdout: Log,
    address: Option<SocketAddr>,
    _dir: TempDir,
}

/// The example.
pub(super) struct HeartbeatProxy {
    _process: Killed,
    pub(super) address: SocketAddr,
    pub(super) stderr: Log,
}

// ===== impl Script =====

impl Script {
    pub(super) fn server(silence: &str) -> Self {
        let mut server = Self::run("server.mjs", include_str!("server.mjs"), silence);
        server.address = Some(listening(&server.stdout));
        server
    }

    pub(super) fn client(of: SocketAddr) -> Self {
        Self::run("client.mjs", include_str!("client.mjs"), &format!("http://{of}/mcp"))
    }

    fn run(name: &str, text: &str, argument: &str) -> Self {
        // Node looks for packages beside the script.
        let dir = TempDir::new();
        std::fs::write(dir.path().join(name), text).expect("a file");
        symlink(locked!("node_modules"), dir.path().join("node_modules")).expect("a link");
        let mut command = Command::new(locked!("bin/node"));
        command.arg(dir.path().join(name)).arg(argument);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("node");
        let stdout = Log::read(child.stdout.take().expect("piped"));
        Self { _process: Killed(child), stdout, address: None, _dir: dir }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address.expect("a server")
    }

    /// The next line that it prints.
    pub(super) fn next(&self) -> String {
        self.stdout.line(&[])
    }

    /// The next line has to be this one.
    pub(super) fn expect(&self, line: &str) {
        assert_eq!(self.next(), line);
    }

    /// The next lines, up to this one.
    pub(super) fn until(&self, line: &str) -> String {
        self.stdout.until(line)
    }
}

// ===== impl HeartbeatProxy =====

impl HeartbeatProxy {
    pub(super) fn start(upstream: SocketAddr, ping: &str) -> Self {
        let mut command = Self::command(&["127.0.0.1:0", &format!("http://{upstream}"), ping]);
        let mut child = command.spawn().expect("the example");
        let stdout = Log::read(child.stdout.take().expect("piped"));
        let stderr = Log::read(child.stderr.take().expect("piped"));
        let process = Killed(child);
        Self { _process: process, address: listening(&stdout), stderr }
    }

    pub(super) fn command(args: &[&str]) -> Command {
        let mut command = Command::new(built());
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// The address that a server prints first.
fn listening(stdout: &Log) -> SocketAddr {
    let line = stdout.line(&["listening on "]);
    let url = line.rsplit(' ').next().unwrap_or_default();
    url.trim_start_matches("http://").parse().expect("an address")
}

/// The example's path. It is built as the program was, since `cargo test --test it` builds no examples.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let folder = Path::new(env!("CARGO_BIN_EXE_nudged")).parent().expect("target/PROFILE");
        let profile = match folder.file_name().and_then(|name| name.to_str()).expect("a profile") {
            "debug" => "dev",
            other => other,
        };
        // All that it depends on was built with the tests, so there is nothing to download.
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--locked", "--offline", "--all-features"]);
        cargo.args(["--example", "heartbeat_proxy", "--profile", profile]);
        cargo.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
        let output = cargo.output().unwrap_or_else(|why| panic!("{cargo:?}: {why}"));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{cargo:?}: {}\n{stderr}", output.status);
        let path = folder.join("examples/heartbeat_proxy");
        assert!(path.exists(), "{cargo:?} did not build {}", path.display());
        path
    })
}
