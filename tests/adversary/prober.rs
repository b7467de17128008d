//! Honest clients that come while the server is attacked: an orchestrator's probes, a backend that publishes on new
//! connections, and a member that opens a stream.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use socket2::{Domain, Socket, Type};

use crate::attacks::trusting;
use crate::honest::address;
use crate::shared::http::{JSON, get, post};
use crate::stage::{BIG, PUBLISH_KEY, Stage};
use crate::tokens;

/// The thread that probes, until it is stopped.
pub(crate) struct Prober {
    thread: JoinHandle<Vec<Probed>>,
    stop: Arc<AtomicBool>,
}

/// What happened to the probes of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Probed {
    pub(crate) name: &'static str,
    pub(crate) nanoseconds: Histogram<u64>,
    pub(crate) failed: u32,
    /// Whether some may, but not many one after the other: they share a public address with the attackers.
    pub(crate) may_fail: bool,
    /// The most that failed one after the other.
    pub(crate) in_a_row: u32,
    /// Why the first of them failed.
    pub(crate) why: Option<String>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Livez,
    LivezTls,
    /// A member opens a stream: it gets one, or, from a full server, the time after which to come back.
    Member,
    /// The backend's.
    Probe,
    /// The same; the request is followed at once by a FIN.
    ProbeFin,
    Publish,
}

struct Route {
    plain: SocketAddr,
    tls: SocketAddr,
    backend: SocketAddr,
    config: Arc<ClientConfig>,
    token: String,
}

const KINDS: [(Kind, &str); 6] = [
    (Kind::Livez, "GET /livez"),
    (Kind::LivezTls, "GET /livez, TLS"),
    (Kind::Member, "member stream"),
    (Kind::Probe, "backend: GET /livez"),
    (Kind::ProbeFin, "backend: GET /livez, then FIN"),
    (Kind::Publish, "backend: publish"),
];

const PAUSE: Duration = Duration::from_millis(40);
const TIMEOUT: Duration = Duration::from_secs(15);

/// The address of the honest clients that are not subscribers.
const SOURCE: u8 = 200;

// ===== impl Prober =====

impl Prober {
    pub(crate) fn start(stage: &Stage) -> io::Result<Self> {
        let stop = Arc::<AtomicBool>::default();
        let route = Route {
            plain: stage.plain,
            tls: stage.tls,
            backend: stage.backend,
            config: trusting(&stage.certificate, &[]).into(),
            token: tokens::honest(),
        };
        let stopped = stop.clone();
        let thread = thread::Builder::new().name("prober".into());
        let thread = thread.spawn(move || probe(&route, &stopped))?;
        Ok(Self { thread, stop })
    }

    pub(crate) fn stop(self) -> Vec<Probed> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic")
    }
}

fn probe(route: &Route, stop: &AtomicBool) -> Vec<Probed> {
    let is_public = |kind| matches!(kind, Kind::Livez | Kind::LivezTls | Kind::Member);
    let may_fail = |kind| is_public(kind) || route.backend == route.plain;
    let mut all = KINDS.map(|(kind, name)| Probed::new(name, may_fail(kind)));
    let mut in_a_row = [0; KINDS.len()];
    while !stop.load(Ordering::Relaxed) {
        for (((kind, _), probed), in_a_row) in KINDS.iter().zip(&mut all).zip(&mut in_a_row) {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let start = Instant::now();
            match route.run(*kind) {
                Ok(()) => {
                    *in_a_row = 0;
                    let took = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
                    probed.nanoseconds.record(took).expect("within the range");
                }
                Err(why) => {
                    probed.failed += 1;
                    *in_a_row += 1;
                    probed.in_a_row = probed.in_a_row.max(*in_a_row);
                    let why = || format!("{why} after {:?}", start.elapsed());
                    probed.why.get_or_insert_with(why);
                }
            }
            thread::sleep(PAUSE);
        }
    }
    all.into()
}

// ===== impl Probed =====

impl Probed {
    fn new(name: &'static str, may_fail: bool) -> Self {
        let nanoseconds = Histogram::new(3).expect("three digits are within 0 to 5");
        Self { name, nanoseconds, failed: 0, may_fail, in_a_row: 0, why: None }
    }
}

// ===== impl Route =====

impl Route {
    fn run(&self, kind: Kind) -> io::Result<()> {
        let close = "connection: close\r\n";
        let livez = get("/livez", close);
        match kind {
            Kind::Livez => exchange(&mut connect(self.plain)?, &livez, "200", ""),
            Kind::LivezTls => {
                let name = ServerName::from(self.tls.ip());
                let session = ClientConnection::new(self.config.clone(), name);
                let session = session.map_err(io::Error::other)?;
                let mut session = StreamOwned::new(session, connect(self.tls)?);
                exchange(&mut session, &livez, "200", "")
            }
            Kind::Probe => exchange(&mut connect(self.backend)?, &livez, "200", ""),
            Kind::ProbeFin => {
                let mut socket = connect(self.backend)?;
                socket.write_all(livez.as_bytes())?;
                socket.shutdown(Shutdown::Write)?;
                exchange(&mut socket, "", "200", "")
            }
            Kind::Publish => {
                let fields = format!("authorization: Bearer {PUBLISH_KEY}\r\n{close}");
                let publish = post("/api/elsewhere/events", JSON, &fields, r#"{"keys":["a"]}"#);
                exchange(&mut connect(self.backend)?, &publish, "202", "")
            }
            Kind::Member => {
                let fields = format!(
                    "accept: text/event-stream\r\nauthorization: Bearer {}\r\n",
                    self.token
                );
                let open = get(&format!("/api/{BIG}/events"), &fields);
                exchange(&mut connect(self.plain)?, &open, "200", "retry: ")
            }
        }
    }
}

/// Sends a request, and reads until this status and this text.
fn exchange(
    connection: &mut (impl Read + Write),
    request: &str,
    status: &str,
    text: &str,
) -> io::Result<()> {
    connection.write_all(request.as_bytes())?;
    let (mut received, mut bytes) = (String::new(), [0; 2048]);
    loop {
        let length = match connection.read(&mut bytes) {
            Ok(0) => return Err(io::Error::other(format!("no answer, or another: {received:?}"))),
            Ok(length) => length,
            Err(why) if why.kind() == ErrorKind::WouldBlock => {
                return Err(io::Error::other("no answer in time"));
            }
            Err(why) => return Err(why),
        };
        received.push_str(&String::from_utf8_lossy(&bytes[..length]));
        let Some((head, _)) = received.split_once("\r\n\r\n") else { continue };
        if !head.starts_with(&format!("HTTP/1.1 {status}")) {
            return Err(io::Error::other(received.lines().next().unwrap_or_default().to_owned()));
        }
        if received.contains(text) {
            return Ok(());
        }
    }
}

/// Connects from an honest address.
fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // Connections end often; their ports are free again at once.
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::new(address(SOURCE), 0).into())?;
    socket.connect_timeout(&to.into(), TIMEOUT)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.set_write_timeout(Some(TIMEOUT))?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}
