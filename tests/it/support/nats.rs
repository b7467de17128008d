//! NATS with JetStream: servers of its own for each test, in temporary folders, and a client that is no library.
//! Included by the tests of the library too.
#![allow(dead_code, reason = "each of those that include this uses some of it")]

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::broker_process::BrokerProcess;
use super::eventually;
use super::nats_client::NatsClient;
use super::port::ReservedPort;
use super::temp_dir::TempDir;

/// A `nats-server` on 127.0.0.1 whose JetStream stores into a folder. Killed when this is dropped, by its process id.
pub(crate) struct NatsServer {
    /// `None` while it does not run.
    process: Option<BrokerProcess>,
    port: ReservedPort,
    /// Further lines of its configuration, changed before [`NatsServer::start_again`].
    pub(crate) settings: String,
    /// `USER:PASSWORD` or a token, where it asks for one.
    pub(crate) login: Option<String>,
    dir: TempDir,
}

/// Three of them whose JetStream is one. `settings` are those of each.
pub(crate) struct NatsCluster {
    pub(crate) servers: Vec<NatsServer>,
    _routes: Vec<ReservedPort>,
}

// ===== impl NatsServer =====

impl NatsServer {
    /// One that anyone may use.
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// One with these lines in its configuration too, such as `max_payload: 2000`.
    pub(crate) fn start_with(settings: &str) -> Self {
        let server = Self::prepare(ReservedPort::new(), settings.into(), None);
        server.started()
    }

    /// One that asks for this user and password.
    pub(crate) fn start_with_password(user: &str, password: &str) -> Self {
        let settings = format!("authorization {{ user: {user:?}, password: {password:?} }}");
        let login = format!("{user}:{password}");
        Self::prepare(ReservedPort::new(), settings, Some(login)).started()
    }

    /// One that asks for this token.
    pub(crate) fn start_with_token(token: &str) -> Self {
        let settings = format!("authorization {{ token: {token:?} }}");
        Self::prepare(ReservedPort::new(), settings, Some(token.into())).started()
    }

    /// One whose connections are encrypted, with the PEM files of this certificate and its key. No [`NatsClient`]
    /// reaches it.
    pub(crate) fn start_with_tls(certificate: &str, key: &str) -> Self {
        Self::start_somehow(&format!("tls {{ cert_file: {certificate:?}, key_file: {key:?} }}"))
    }

    /// One with these lines in its configuration, which may be in the way of [`NatsClient`] or of JetStream.
    pub(crate) fn start_somehow(settings: &str) -> Self {
        let mut server = Self::prepare(ReservedPort::new(), settings.into(), None);
        server.spawn();
        server.wait_until("it listens", |server| TcpStream::connect(server.address()).is_ok());
        server
    }

    /// What `--backplane` is for it.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.settings.contains("tls {") { "tls" } else { "nats" };
        let login = self.login.as_ref().map(|login| format!("{login}@")).unwrap_or_default();
        format!("{scheme}://{login}{}", self.address())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// A connection to it with its login.
    pub(crate) fn client(&self) -> NatsClient {
        NatsClient::connect(self.address(), self.login.as_deref()).expect("it runs")
    }

    /// Where its records are. Copy or replace it only while it does not run.
    pub(crate) fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    /// What it has logged, since its first start.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Ends it without any chance to write something (SIGKILL).
    pub(crate) fn kill(&mut self) {
        self.end(Signal::KILL);
    }

    /// Ends it in good order (SIGTERM).
    pub(crate) fn stop(&mut self) {
        self.end(Signal::TERM);
    }

    /// Has it announce to its clients that it will end, and take no new ones (lame duck mode).
    pub(crate) fn begin_to_end(&self) {
        self.signal(Signal::USR2);
    }

    /// Starts it again, at its address and with its store, and waits until it is of use.
    pub(crate) fn start_again(&mut self) {
        self.spawn();
        self.wait_until("JetStream works", Self::works);
    }

    /// The same without the wait: one of a cluster is of no use alone.
    pub(crate) fn spawn(&mut self) {
        assert!(self.process.is_none(), "it runs");
        fs::write(self.dir.path().join("settings"), self.configuration()).expect("a file");
        let log = self.dir.path().join("log");
        let log = File::options().append(true).create(true).open(log).expect("a file");
        let mut command = Command::new("nats-server");
        command.arg("-c").arg(self.dir.path().join("settings")).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a descriptor")).stderr(log);
        self.process = Some(BrokerProcess(command.spawn().expect("nats-server is installed")));
    }

    /// Stops its threads (SIGSTOP): its connections stay, and nothing is answered.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
        let status = format!("/proc/{}/status", self.pid());
        eventually("nats-server stops", || {
            fs::read_to_string(&status).expect("it exists").contains("\nState:\tT")
        });
    }

    /// Lets it go on (SIGCONT).
    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn prepare(port: ReservedPort, settings: String, login: Option<String>) -> Self {
        Self { process: None, port, settings, login, dir: TempDir::new() }
    }

    fn started(mut self) -> Self {
        self.start_again();
        self
    }

    fn configuration(&self) -> String {
        format!(
            "listen: \"{}\"\njetstream {{ store_dir: {:?}, max_mem: 256MB, max_file: 4GB }}\n{}\n",
            self.address(),
            self.store().display().to_string(),
            self.settings,
        )
    }

    /// Whether its JetStream answers without an error, in a cluster with a leader.
    fn works(&self) -> bool {
        let client = NatsClient::connect(self.address(), self.login.as_deref());
        // Nothing answers while there is no leader.
        let client = client.and_then(|client| client.bounded(Duration::from_millis(500)));
        let answer = client.and_then(|mut client| client.request("$JS.API.INFO", b""));
        answer.is_ok_and(|answer| !answer.contains("\"error\""))
    }

    fn wait_until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        eventually(what, || {
            let mut process = self.process.take().expect("spawned");
            process.expect_running(|| self.log());
            self.process = Some(process);
            holds(self)
        });
    }

    fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("it runs").signal(signal);
    }

    fn end(&mut self, signal: Signal) {
        self.process.take().expect("it runs").end(signal);
    }
}

// ===== impl NatsCluster =====

impl NatsCluster {
    /// Three servers that anyone may use, and that have elected a leader.
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// The same with these lines in the configuration of each.
    pub(crate) fn start_with(settings: &str) -> Self {
        let routes: Vec<_> = (0..3).map(|_| ReservedPort::new()).collect();
        let urls: Vec<_> = routes.iter().map(|port| format!("nats://{}", port.address)).collect();
        let servers = routes.iter().enumerate().map(|(number, port)| {
            let cluster = format!(
                "server_name: \"n{number}\"\ncluster {{ name: \"c\", listen: \"{}\", no_advertise: true, routes: [{}] }}\n",
                port.address,
                urls.join(", "),
            );
            NatsServer::prepare(ReservedPort::new(), cluster + settings, None)
        });
        let mut cluster = Self { servers: servers.collect(), _routes: routes };
        cluster.servers.iter_mut().for_each(NatsServer::spawn);
        for server in &mut cluster.servers {
            server.wait_until("a leader is elected", NatsServer::works);
        }
        cluster
    }

    /// What `--backplane` is for it.
    pub(crate) fn url(&self) -> String {
        let addresses = self.servers.iter().map(|server| server.address().to_string());
        format!("nats://{}", addresses.collect::<Vec<_>>().join(","))
    }

    /// The number of the server that leads this stream, as one that runs knows it.
    pub(crate) fn leader_of(&self, stream: &str) -> Option<usize> {
        Self::leader_in(&self.info(stream)?)
    }

    /// The same, once every other server has a copy of all that the leader has.
    pub(crate) fn leader_with_copies(&self, stream: &str) -> Option<usize> {
        let info = self.info(stream)?;
        let replicas = info["cluster"]["replicas"].as_array()?;
        let has_all =
            |replica: &serde_json::Value| replica["current"] == true && replica["offline"] != true;
        let all = replicas.len() + 1 == self.servers.len() && replicas.iter().all(has_all);
        Self::leader_in(&info).filter(|_| all)
    }

    fn info(&self, stream: &str) -> Option<serde_json::Value> {
        let running = self.servers.iter().find(|server| server.process.is_some())?;
        let mut client = running.client().bounded(Duration::from_millis(500)).ok()?;
        let info = client.request(&format!("$JS.API.STREAM.INFO.{stream}"), b"").ok()?;
        Some(serde_json::from_str(&info).expect("JSON"))
    }

    fn leader_in(info: &serde_json::Value) -> Option<usize> {
        let leader = info["cluster"]["leader"].as_str()?;
        leader.strip_prefix('n').and_then(|number| number.parse().ok())
    }
}
