//! The attacks, each of a hostile client's ways, with a rate and a number of connections of its own.

#[path = "../../it/tls/empty_records.rs"]
mod empty_records;
mod ends;
mod floods;
mod headers;
mod http2;
mod places;
mod tls;
mod topics;

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::ServerName;
use rustls::{ALL_VERSIONS, ClientConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::stage::{ADDRESS_MAX, Log, Sizes, Stage};
use crate::support::certificate::Certificate;

/// An attack: what it is called, the number of the issue that it belongs to, and how it runs until it is dropped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    pub(crate) numbers: &'static str,
    run: fn(Arc<Arena>) -> Run,
}

type Run = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What one attack knows of the server, and what it has done.
pub(crate) struct Arena {
    plain: SocketAddr,
    tls: SocketAddr,
    config: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    /// Its sessions can send empty records.
    emptying: Arc<ClientConfig>,
    log: Arc<Log>,
    sizes: Sizes,
    /// Its addresses are 127.0.x.1 and so on.
    network: u8,
    next: AtomicU64,
    pub(crate) tally: Tally,
}

/// What an attack has done and received.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) connections: AtomicU64,
    /// Requests, bursts or whatever it repeats.
    pub(crate) acts: AtomicU64,
    /// Responses.
    pub(crate) answers: AtomicU64,
    /// Connections that the server has closed, refused or reset.
    pub(crate) ends: AtomicU64,
}

/// A socket, or TLS over one.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Attacks that run, until this is dropped.
pub(crate) struct Running {
    runtime: Option<Runtime>,
    pub(crate) arenas: Vec<(Attack, Arc<Arena>)>,
}

pub(crate) const ATTACKS: [Attack; 17] = [
    attack("key-updates", "1", |arena| Box::pin(tls::key_updates(arena))),
    attack("pipelined-requests", "2", |arena| Box::pin(floods::pipelined(arena))),
    attack("bad-tokens", "3", |arena| Box::pin(floods::bad_tokens(arena))),
    attack("silence", "4", |arena| Box::pin(places::silence(arena))),
    attack("shut-windows", "4, 9", |arena| Box::pin(http2::shut_windows(arena))),
    attack("unread-metrics", "5", |arena| Box::pin(http2::unread_metrics(arena))),
    attack("unfinished-publishes", "5", |arena| Box::pin(http2::unfinished_publishes(arena))),
    attack("many-streams", "6", |arena| Box::pin(http2::many_streams(arena))),
    attack("public-streams", "7", |arena| Box::pin(places::public_streams(arena))),
    attack("forged-tokens", "8, 11", |arena| Box::pin(floods::forged_tokens(arena))),
    attack("halves", "9", |arena| Box::pin(places::halves(arena))),
    attack("instant-ends", "10, 16", |arena| Box::pin(ends::instant(arena))),
    attack("unread-log", "12", |arena| Box::pin(tls::unread_log(arena))),
    attack("resets", "10", |arena| Box::pin(ends::resets(arena))),
    attack("replacing", "issue 15", |arena| Box::pin(topics::replacing(arena))),
    attack("invented-topics", "issue 15", |arena| Box::pin(topics::invented_topics(arena))),
    attack("headers", "issue 21", |arena| Box::pin(headers::headers(arena))),
];

/// The attackers' addresses are 127.0.100.1 and following.
const NETWORKS: u8 = 100;

/// How long an attack waits for the server before it begins anew.
const PATIENCE: Duration = Duration::from_secs(15);

/// The pause of an attacker that was refused.
const REFUSED: Duration = Duration::from_millis(100);

const fn attack(name: &'static str, numbers: &'static str, run: fn(Arc<Arena>) -> Run) -> Attack {
    Attack { name, numbers, run }
}

/// The settings of a client that trusts the server's certificate.
pub(crate) fn trusting(certificate: &Certificate, protocols: &[&str]) -> ClientConfig {
    certificate.trusting(default_provider(), ALL_VERSIONS, protocols)
}

/// Runs `one` this many times at once, and each of them again and again, with this pause.
async fn crowd<F>(
    arena: &Arc<Arena>,
    count: usize,
    pause: Duration,
    one: impl Fn(Arc<Arena>, usize) -> F + Clone + Send + 'static,
) where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let mut all = JoinSet::new();
    for number in 0..count {
        let (arena, one) = (arena.clone(), one.clone());
        all.spawn(async move {
            loop {
                let ended = tokio::time::timeout(PATIENCE, one(arena.clone(), number)).await;
                if matches!(ended, Ok(Err(_))) {
                    add(&arena.tally.ends, 1);
                    tokio::time::sleep(REFUSED).await;
                }
                tokio::time::sleep(pause).await;
            }
        });
    }
    while all.join_next().await.is_some() {}
}

/// Lets the server and the honest clients of this machine run first, as if the attackers had one of their own.
fn yield_to_others() {
    // Without it the attackers are only more of a burden.
    _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), 10);
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

// ===== impl Arena =====

impl Arena {
    fn new(stage: &Stage, number: usize) -> Self {
        Self {
            plain: stage.plain,
            tls: stage.tls,
            config: trusting(&stage.certificate, &[]).into(),
            http2: trusting(&stage.certificate, &["h2"]).into(),
            emptying: stage
                .certificate
                .trusting(empty_records::provider(), ALL_VERSIONS, &[])
                .into(),
            log: stage.log.clone(),
            sizes: stage.sizes,
            network: NETWORKS + number as u8,
            next: AtomicU64::new(0),
            tally: Tally::default(),
        }
    }

    /// Connects from one of so many addresses that none exceeds its limit.
    async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let number = self.next.fetch_add(1, Ordering::Relaxed) / (ADDRESS_MAX as u64 / 4);
        self.connect_from((number % 40) as u8 + 1, to).await
    }

    async fn connect_from(&self, last: u8, to: SocketAddr) -> io::Result<TcpStream> {
        self.connect_as(Ipv4Addr::new(127, 0, self.network, last), to).await
    }

    async fn connect_as(&self, from: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        // Its connections end often, and their ports are free again at once.
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from((from, 0)))?;
        let socket = socket.connect(to).await?;
        socket.set_nodelay(true)?;
        add(&self.tally.connections, 1);
        Ok(socket)
    }

    async fn connect_tls(&self) -> io::Result<TlsStream<TcpStream>> {
        self.handshake(&self.config).await
    }

    /// A connection for HTTP/2: each other one is behind TLS.
    async fn connect_http2(&self, number: usize) -> io::Result<Box<dyn Io>> {
        match number.is_multiple_of(2) {
            true => Ok(Box::new(self.connect(self.plain).await?)),
            false => Ok(Box::new(self.handshake(&self.http2).await?)),
        }
    }

    async fn handshake(&self, config: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
        let socket = self.connect(self.tls).await?;
        let name = ServerName::from(self.tls.ip());
        TlsConnector::from(config.clone()).connect(name, socket).await
    }
}

// ===== impl Tally =====

impl Tally {
    /// Connections, acts, answers and ends.
    pub(crate) fn read(&self) -> [u64; 4] {
        let Self { connections, acts, answers, ends } = self;
        [connections, acts, answers, ends].map(|counter| counter.load(Ordering::Relaxed))
    }
}

// ===== impl Running =====

impl Running {
    pub(crate) fn start(stage: &Stage, attacks: &[Attack]) -> io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().on_thread_start(yield_to_others);
        let runtime = runtime.build()?;
        let mut arenas = Vec::new();
        for (number, attack) in attacks.iter().enumerate() {
            let arena = Arc::new(Arena::new(stage, number));
            runtime.spawn((attack.run)(arena.clone()));
            arenas.push((*attack, arena));
        }
        Ok(Self { runtime: Some(runtime), arenas })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Closes the sockets of all tasks.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(PATIENCE);
        }
    }
}
