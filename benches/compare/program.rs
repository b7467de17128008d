//! The programs of the servers that are compared: how each is installed, and which version is here.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// A program that is found on `PATH`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Program {
    OpenSsl,
    Nginx,
    Pushpin,
    Condure,
    Zurl,
    Mercure,
    Centrifugo,
    DurableStreams,
    Node,
    Npm,
    Bun,
}

/// The module of a program in Go, or one that it depends on, from the information that is built into the program.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Module {
    pub(crate) version: String,
    /// Whether a folder was built instead of this version.
    pub(crate) is_replaced: bool,
}

// ===== impl Program =====

impl Program {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::OpenSsl => "openssl",
            // Debian's folder of it is not on the PATH of every user.
            Self::Nginx if fs::exists("/usr/sbin/nginx").unwrap_or(false) => "/usr/sbin/nginx",
            Self::Nginx => "nginx",
            Self::Pushpin => "pushpin",
            Self::Condure => "condure",
            Self::Zurl => "zurl",
            Self::Mercure => "mercure",
            Self::Centrifugo => "centrifugo",
            Self::DurableStreams => "durable-streams-server",
            Self::Node => "node",
            Self::Npm => "npm",
            Self::Bun => "bun",
        }
    }

    /// How its documentation installs it.
    pub(crate) fn install(self) -> &'static str {
        match self {
            Self::OpenSsl => "apt-get install openssl",
            Self::Nginx => "apt-get install nginx libnginx-mod-nchan",
            Self::Pushpin | Self::Condure | Self::Zurl => "apt-get install pushpin condure zurl",
            Self::Mercure => {
                "an archive from https://github.com/dunglas/mercure/releases, or in caddy/ of its \
                 source: go build -tags nobadger,nomysql,nopgx -o mercure ./mercure"
            }
            Self::Centrifugo => {
                "curl -sSLf https://centrifugal.dev/install.sh | sh, or: go install \
                 github.com/centrifugal/centrifugo/v6@v6.9.1"
            }
            Self::DurableStreams => {
                "cargo install durable-streams, or: npm install -g \
                 @electric-ax/durable-streams-server-rust"
            }
            Self::Node | Self::Npm => "Node.js 20 or later, with npm: https://nodejs.org",
            Self::Bun => "npm install -g bun, or: curl -fsSL https://bun.com/install | bash",
        }
    }

    /// That it is missing, and what installs it.
    pub(crate) fn missing(self) -> String {
        format!("{} is missing: {}", self.name(), self.install())
    }

    /// What it prints, on either output.
    pub(crate) fn output(self, arguments: &[&str]) -> Result<String, String> {
        self.output_on(&env::var_os("PATH").unwrap_or_default(), arguments)
    }

    /// The same, with another `PATH`.
    pub(crate) fn output_on(self, path: &OsStr, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(self.name());
        let done = command.args(arguments).env("PATH", path).output();
        let done = done.map_err(|_| self.missing())?;
        Ok(String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned())
    }

    pub(crate) fn first_line(self, arguments: &[&str]) -> Result<String, String> {
        let text = self.output(arguments)?;
        text.lines()
            .next()
            .map(str::to_owned)
            .ok_or_else(|| format!("{} printed nothing", self.name()))
    }

    /// The bytes of its file.
    pub(crate) fn bytes(self) -> Result<Vec<u8>, String> {
        let folders = env::var_os("PATH").unwrap_or_default();
        let mut files = env::split_paths(&folders).map(|folder| folder.join(self.name()));
        let file: PathBuf = files.find(|file| file.is_file()).ok_or_else(|| self.missing())?;
        fs::read(&file).map_err(|why| format!("{}: {why}", file.display()))
    }
}

// ===== versions =====

/// Mercure's, from what `mercure build-info` prints.
pub(crate) fn mercure(build_info: &str) -> Option<String> {
    // Not the module of the program, whose version is that of its Caddy module.
    let Module { version, is_replaced } = module(build_info, "github.com/dunglas/mercure")?;
    let caddy = module(build_info, "github.com/caddyserver/caddy/v2")?.version;
    let go = build_info.lines().find_map(|line| line.strip_prefix("go\t")).unwrap_or("go ?");
    let setting = |name| build_info.lines().find_map(|line| line.strip_prefix(name));
    let source = match (is_replaced, setting("build\tvcs.revision=")) {
        (false, _) => String::new(),
        (true, Some(commit)) => format!(" or later, built from commit {commit} of its source"),
        (true, None) => " or later, built from a folder with its source".into(),
    };
    Some(format!("Mercure {version}{source}, Caddy {caddy}, {go}"))
}

/// Centrifugo's, from what `centrifugo version` prints. Its releases state their version; what `go install` builds
/// states 0.0.0, but its file, which `bytes` reads, has the version of the module.
pub(crate) fn centrifugo<E>(
    printed: &str,
    bytes: impl FnOnce() -> Result<Vec<u8>, E>,
) -> Result<String, E> {
    if !printed.contains("v0.0.0") {
        return Ok(printed.to_owned());
    }
    let module = b"\nmod\tgithub.com/centrifugal/centrifugo/v6\t";
    Ok(match texts_after(&bytes()?, module).find(|version| version.starts_with('v')) {
        Some(version) => printed.replace("v0.0.0", &format!("{version}, as go install builds it")),
        None => format!("{printed}, built from a folder with its source"),
    })
}

/// That of Durable Streams, which the program does not state, but the paths of the source in its file do if cargo
/// built it from crates.io.
pub(crate) fn durable_streams(bytes: &[u8]) -> String {
    let is_version = |text: &String| text.starts_with(|first: char| first.is_ascii_digit());
    match texts_after(bytes, b"/durable-streams-").find(is_version) {
        Some(version) => format!("durable-streams-server {version}"),
        None => "durable-streams-server, which does not state its version".into(),
    }
}

/// A module in the text of `go version -m`, or of a program that prints the same about itself.
pub(crate) fn module(build_info: &str, path: &str) -> Option<Module> {
    let mut lines = build_info.lines().map(|line| line.trim_start().split('\t'));
    let mut line = lines.find(|line| {
        let mut line = line.clone();
        matches!(line.next(), Some("mod" | "dep")) && line.next() == Some(path)
    })?;
    let version = line.nth(2)?.to_owned();
    let is_replaced = version == "(devel)" || lines.next()?.next() == Some("=>");
    Some(Module { version, is_replaced })
}

/// The texts that follow `needle`, each up to a character that no version has.
fn texts_after(bytes: &[u8], needle: &[u8]) -> impl Iterator<Item = String> {
    let windows = bytes.windows(needle.len()).enumerate();
    let ends = windows.filter(move |(_, window)| *window == needle);
    ends.map(move |(start, _)| {
        let rest = bytes[start + needle.len()..].iter().copied();
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b".-+".contains(byte);
        rest.take_while(is_part).map(char::from).collect()
    })
}
