//! What the servers have in common when they start: a folder, a port, a certificate.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Server, centrifugo, durable_streams, hono, mercure, nginx, ours, pushpin};
use crate::configuration::Certificate;
use crate::measure::Plan;
use crate::peer::Peer;

/// Events that a server keeps of an organisation, if the plan has no other number: more than a flood.
const HISTORY: usize = 4096;

// ===== impl Peer =====

impl Peer {
    /// Starts it, with the plan's workers where their number can be set.
    pub(crate) fn start(self, plan: &Plan) -> io::Result<Server> {
        let folder = make_folder()?;
        let started = self.start_in(folder.clone(), plan);
        if started.is_err() {
            fs::remove_dir_all(folder).ok();
        }
        started
    }

    /// Its server removes the folder, once there is one.
    fn start_in(self, folder: PathBuf, plan: &Plan) -> io::Result<Server> {
        match self {
            Self::Raw | Self::Hyper | Self::Axum => ours::itself(self, folder, plan),
            Self::Nudged
            | Self::NudgedTls
            | Self::NudgedH2
            | Self::NudgedBefore
            | Self::NudgedTlsBefore
            | Self::NudgedH2Before
            | Self::NudgedNats
            | Self::NudgedRedis => ours::nudged(self, folder, plan),
            Self::Nchan | Self::NchanTls => nginx::start(self, folder, plan),
            Self::Pushpin => pushpin::start(folder, plan),
            Self::Mercure | Self::MercureBolt | Self::MercureTls => {
                mercure::start(self, folder, plan)
            }
            Self::Centrifugo
            | Self::CentrifugoRedis
            | Self::CentrifugoNats
            | Self::CentrifugoTls => centrifugo::start(self, folder, plan),
            Self::DurableStreams | Self::DurableStreamsMemory => {
                durable_streams::start(self, folder, plan)
            }
            Self::Hono | Self::HonoBun => hono::start(self, folder),
        }
    }
}

// ===== impl Plan =====

impl Plan {
    pub(super) fn history(&self) -> usize {
        self.history.unwrap_or(HISTORY)
    }
}

/// For configurations and sockets.
pub(super) fn make_folder() -> io::Result<PathBuf> {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("nudged-bench-{}-{number}", process::id()));
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

pub(super) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// For a peer whose streams use TLS.
pub(super) fn certificate(peer: Peer, folder: &Path) -> io::Result<Option<Certificate>> {
    peer.is_secure().then(|| make_certificate(folder)).transpose()
}

/// A self-signed certificate and its key: the smallest handshake.
fn make_certificate(folder: &Path) -> io::Result<Certificate> {
    let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    openssl.args(["-nodes", "-days", "2", "-subj", "/CN=localhost"]);
    openssl.args(["-addext", "subjectAltName=IP:127.0.0.1"]);
    openssl.arg("-out").arg(&certificate).arg("-keyout").arg(&key);
    let done = openssl.output()?;
    match done.status.success() {
        true => Ok(Certificate { certificate, key }),
        false => Err(io::Error::other(String::from_utf8_lossy(&done.stderr))),
    }
}
