//! The configuration files of the servers that are compared, from `benches/peers`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What a server needs to listen with TLS.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

#[derive(Clone, Debug)]
pub(crate) struct Nchan<'a> {
    pub(crate) tls: Option<&'a Certificate>,
    pub(crate) folder: &'a Path,
    pub(crate) port: u16,
    pub(crate) workers: usize,
    pub(crate) descriptors: u64,
    pub(crate) connections: u64,
    pub(crate) history: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Pushpin<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) port: u16,
    pub(crate) publish_port: u16,
    pub(crate) connections: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Mercure<'a> {
    pub(crate) tls: Option<&'a Certificate>,
    /// With scheme, host and port.
    pub(crate) url: &'a str,
    pub(crate) key: &'a str,
    pub(crate) transport: Transport<'a>,
}

/// What Mercure keeps of its updates.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Transport<'a> {
    /// Nothing.
    Local,
    /// So many of the last ones, in this file.
    Bolt { file: &'a Path, history: usize },
}

#[derive(Clone, Debug)]
pub(crate) struct Centrifugo<'a> {
    pub(crate) tls: Option<&'a Certificate>,
    pub(crate) port: u16,
    /// Of its HTTP API.
    pub(crate) key: &'a str,
    pub(crate) engine: Engine<'a>,
    /// 0 for no limit.
    pub(crate) connections: usize,
}

/// What Centrifugo publishes through, and how much it keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Engine<'a> {
    Memory { history: usize },
    Redis { url: &'a str, history: usize },
    Nats { url: &'a str },
}

type Values = Vec<(&'static str, String)>;

pub(crate) const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers");
pub(crate) const NCHAN_MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";
const PUSHPIN_LIB: &str = "/usr/lib/pushpin";

/// What has the form of a value to fill in, but is Pushpin's.
const FOREIGN: [&str; 2] = ["rundir", "ipc_prefix"];

// ===== impl Certificate =====

impl Certificate {
    fn values(&self) -> Values {
        vec![("certificate", text(&self.certificate)), ("key", text(&self.key))]
    }

    /// The lines of a file that are left out without TLS.
    fn lines(this: Option<&Self>, file: &str) -> io::Result<String> {
        this.map_or_else(|| Ok(String::new()), |this| fill(file, &this.values()))
    }
}

// ===== the files =====

impl Nchan<'_> {
    pub(crate) fn text(&self) -> io::Result<String> {
        let values = [
            ("ssl", if self.tls.is_some() { "ssl" } else { "" }.to_owned()),
            ("tls", Certificate::lines(self.tls, "nchan-tls.conf")?),
            ("module", NCHAN_MODULE.to_owned()),
            ("dir", text(self.folder)),
            ("workers", self.workers.to_string()),
            ("descriptors", self.descriptors.to_string()),
            ("connections", self.connections.to_string()),
            ("history", self.history.to_string()),
            ("port", self.port.to_string()),
        ];
        fill("nchan.conf", &values)
    }
}

impl Pushpin<'_> {
    pub(crate) fn text(&self) -> io::Result<String> {
        let values = [
            ("libdir", PUSHPIN_LIB.to_owned()),
            ("dir", text(self.folder)),
            ("port", self.port.to_string()),
            ("publish_port", self.publish_port.to_string()),
            ("connections", self.connections.to_string()),
        ];
        fill("pushpin.conf", &values)
    }
}

impl Mercure<'_> {
    pub(crate) fn text(&self) -> io::Result<String> {
        let transport = match self.transport {
            Transport::Local => fill("mercure-local.Caddyfile", &[])?,
            Transport::Bolt { file, history } => {
                let values = [("file", text(file)), ("history", history.to_string())];
                fill("mercure-bolt.Caddyfile", &values)?
            }
        };
        let values = [
            ("site", self.url.to_owned()),
            ("tls", Certificate::lines(self.tls, "mercure-tls.Caddyfile")?),
            ("secret", self.key.to_owned()),
            ("transport", transport),
        ];
        fill("mercure.Caddyfile", &values)
    }
}

impl Centrifugo<'_> {
    pub(crate) fn text(&self) -> io::Result<String> {
        let keep =
            |history: usize| fill("centrifugo-history.yaml", &[("history", history.to_string())]);
        let through = |file, url: &str| fill(file, &[("url", url.to_owned())]);
        let (engine, history) = match self.engine {
            Engine::Memory { history } => (String::new(), keep(history)?),
            Engine::Redis { url, history } => {
                (through("centrifugo-redis.yaml", url)?, keep(history)?)
            }
            Engine::Nats { url } => (through("centrifugo-nats.yaml", url)?, String::new()),
        };
        let values = [
            ("port", self.port.to_string()),
            ("tls", Certificate::lines(self.tls, "centrifugo-tls.yaml")?),
            ("secret", self.key.to_owned()),
            ("connections", self.connections.to_string()),
            ("engine", engine),
            ("history", history),
        ];
        fill("centrifugo.yaml", &values)
    }
}

/// A file with its values filled in. Each has to be in it, and no other may be left.
fn fill(file: &str, values: &[(&str, String)]) -> io::Result<String> {
    let mut all = fs::read_to_string(Path::new(PEERS).join(file))?;
    for (name, value) in values {
        let place = format!("{{{name}}}");
        if !all.contains(&place) {
            return Err(io::Error::other(format!("{file} has no {place}")));
        }
        all = all.replace(&place, value);
    }
    match unfilled(&all) {
        None => Ok(all),
        Some(name) => Err(io::Error::other(format!("{{{name}}} of {file} is not filled in"))),
    }
}

/// The first name in braces.
pub(crate) fn unfilled(text: &str) -> Option<&str> {
    let is_name = |name: &&str| {
        let is_part = |letter: char| letter.is_ascii_lowercase() || letter == '_';
        !name.is_empty() && name.chars().all(is_part) && !FOREIGN.contains(name)
    };
    let after_braces = text.split('{').skip(1);
    after_braces.filter_map(|rest| Some(rest.split_once('}')?.0)).find(is_name)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
