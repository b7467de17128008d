//! Redis: servers of its own for each test, in temporary folders, replicas and Sentinels of them. Included by the tests
//! of the library too.
#![allow(dead_code, reason = "each of those that include this uses some of it")]

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::broker_process::BrokerProcess;
use super::eventually;
use super::port::ReservedPort;
use super::redis_client::{RedisClient, Reply};
use super::temp_dir::TempDir;

/// A `redis-server` on 127.0.0.1 with a folder. Killed when this is dropped, by its process id.
pub(crate) struct RedisServer {
    /// `None` while it does not run.
    process: Option<BrokerProcess>,
    port: ReservedPort,
    /// For other servers, if it is part of a Redis Cluster: by default its port and 10,000, which another program may have.
    cluster_port: ReservedPort,
    /// Further lines of its configuration, changed before [`RedisServer::start_again`].
    pub(crate) settings: String,
    /// `USER:PASSWORD`, where it asks for one.
    pub(crate) login: Option<String>,
    role: Role,
    dir: TempDir,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Server,
    /// All of its connections are encrypted: no [`RedisClient`] reaches it.
    Encrypted,
    Sentinel,
}

/// A primary, its replica, and three Sentinels.
pub(crate) struct RedisSentinels {
    /// The first primary, and its replica.
    pub(crate) servers: [RedisServer; 2],
    pub(crate) sentinels: Vec<RedisServer>,
}

/// What the Sentinels call the primary.
pub(crate) const SERVICE: &str = "main";

/// Stores each command before it is acknowledged.
pub(crate) const APPEND_ONLY: &str = "appendonly yes\nappendfsync always\naof-use-rdb-preamble no";

// ===== impl RedisServer =====

impl RedisServer {
    /// One that anyone may use, and that keeps nothing when it ends.
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// One with these lines in its configuration too, such as `maxmemory 10mb` or [`APPEND_ONLY`].
    pub(crate) fn start_with(settings: &str) -> Self {
        Self::prepare(settings.into(), None, Role::Server).started()
    }

    /// One that asks for this password, of the user `default`.
    pub(crate) fn start_with_password(password: &str) -> Self {
        let settings = format!("requirepass {password}");
        Self::prepare(settings, Some(format!("default:{password}")), Role::Server).started()
    }

    /// One that anyone may use, and with this user, whose rights are those of `ACL SETUSER`.
    pub(crate) fn start_with_user(user: &str, password: &str, rights: &str) -> Self {
        Self::start_with(&format!("user {user} on >{password} {rights}"))
    }

    /// One whose connections are encrypted, with the PEM files of this certificate and its key.
    pub(crate) fn start_with_tls(certificate: &str, key: &str) -> Self {
        Self::start_with_tls_and(certificate, key, "")
    }

    /// The same with further lines in its configuration. With a `sentinel monitor` it is a Sentinel.
    pub(crate) fn start_with_tls_and(certificate: &str, key: &str, settings: &str) -> Self {
        let settings = format!(
            "tls-cert-file {certificate}\ntls-key-file {key}\ntls-ca-cert-file {certificate}\ntls-auth-clients no\n\
             tls-replication yes\n{settings}"
        );
        let mut server = Self::prepare(settings, None, Role::Encrypted);
        server.spawn();
        server.wait_until("it listens", |server| TcpStream::connect(server.address()).is_ok());
        server
    }

    /// A replica of another one, which has all that that one has.
    pub(crate) fn start_replica(primary: &Self) -> Self {
        Self::start_replica_through(primary.address())
    }

    /// The same through a proxy at this address.
    pub(crate) fn start_replica_through(primary: SocketAddr) -> Self {
        let mut replica = Self::start_with(&format!("replicaof 127.0.0.1 {}", primary.port()));
        replica.wait_until("it is a replica", |server| {
            server.client().info("master_link_status") == "up"
        });
        replica
    }

    /// A Sentinel that asks for this password, and with these lines in its configuration.
    pub(crate) fn start_sentinel(settings: &str, password: &str) -> Self {
        let settings =
            format!("requirepass {password}\n{settings}\nsentinel auth-pass {SERVICE} {password}");
        Self::prepare(settings, Some(format!("default:{password}")), Role::Sentinel).started()
    }

    /// What `--backplane` is for it.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.role == Role::Encrypted { "rediss" } else { "redis" };
        let login = self.login.as_ref().map(|login| format!("{login}@")).unwrap_or_default();
        format!("{scheme}://{login}{}", self.address())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address
    }

    pub(crate) fn port(&self) -> u16 {
        self.address().port()
    }

    /// A connection to it with its login.
    pub(crate) fn client(&self) -> RedisClient {
        RedisClient::connect(self.address(), self.login.as_deref()).expect("it runs")
    }

    /// The folder with the files that it has stored ([`APPEND_ONLY`]). Change it only while it does not run.
    pub(crate) fn store(&self) -> PathBuf {
        self.dir.path().join("appendonlydir")
    }

    /// The file in it that has the commands since the start.
    pub(crate) fn append_only_file(&self) -> PathBuf {
        let folder = fs::read_dir(self.store()).expect("a folder");
        let mut files = folder.map(|file| file.expect("a file").path());
        files
            .find(|file| file.to_string_lossy().ends_with(".incr.aof"))
            .expect("it has stored some")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.process.is_some()
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

    /// Starts it again, at its address and with its files, and waits until it is of use.
    pub(crate) fn start_again(&mut self) {
        self.spawn();
        self.wait_until("it answers", |server| {
            let client = RedisClient::connect(server.address(), server.login.as_deref());
            client.and_then(|mut client| client.request(&["PING"])).is_ok()
        });
    }

    /// Stops its threads (SIGSTOP): its connections stay, and nothing is answered.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
        let status = format!("/proc/{}/status", self.pid());
        eventually("redis-server stops", || {
            fs::read_to_string(&status).expect("it exists").contains("\nState:\tT")
        });
    }

    /// Lets it go on (SIGCONT).
    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// Waits until this replica has all that its primary has.
    pub(crate) fn wait_until_equal(&self, primary: &Self) {
        eventually("the replica has all", || {
            let offset = primary.client().info("master_repl_offset");
            self.client().info("slave_repl_offset") == offset
        });
    }

    fn prepare(settings: String, login: Option<String>, role: Role) -> Self {
        let [port, cluster_port] = [(); 2].map(|()| ReservedPort::new());
        Self { process: None, port, cluster_port, settings, login, role, dir: TempDir::new() }
    }

    fn started(mut self) -> Self {
        self.start_again();
        self
    }

    fn spawn(&mut self) {
        assert!(self.process.is_none(), "it runs");
        let settings = self.dir.path().join("settings");
        fs::write(&settings, self.configuration()).expect("a file");
        let log = self.dir.path().join("log");
        let log = File::options().append(true).create(true).open(log).expect("a file");
        // It ends with the thread of the test, even if the process is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig=KILL", "--", "redis-server"]);
        command.arg(settings).stdin(Stdio::null());
        if self.role == Role::Sentinel || self.settings.contains("sentinel monitor") {
            command.arg("--sentinel");
        }
        command.stdout(log.try_clone().expect("a descriptor")).stderr(log);
        self.process = Some(BrokerProcess(command.spawn().expect("setpriv(1)")));
    }

    fn configuration(&self) -> String {
        let (port, dir) = (self.port(), self.dir.path().display());
        let common = format!("bind 127.0.0.1\nprotected-mode no\ndir {dir}\n");
        let own = match self.role {
            Role::Sentinel => format!("port {port}\n"),
            Role::Server => {
                let cluster_port = self.cluster_port.address.port();
                format!("port {port}\ncluster-port {cluster_port}\n{SERVER_SETTINGS}\n")
            }
            Role::Encrypted => format!("port 0\ntls-port {port}\n{SERVER_SETTINGS}\n"),
        };
        format!("{common}{own}{}\n", self.settings)
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

/// Nothing is stored unless a test says so, and a replica begins at once.
const SERVER_SETTINGS: &str = "save \"\"\nappendonly no\nrepl-diskless-sync-delay 0";

// ===== impl RedisSentinels =====

impl RedisSentinels {
    /// All of them know each other.
    pub(crate) fn start() -> Self {
        let primary = RedisServer::start();
        let replica = RedisServer::start_replica(&primary);
        Self::watch(primary, replica, 3)
    }

    /// The same whose replica reaches the primary through the proxy at this address. There is a single Sentinel: it
    /// would have the replica go to the primary itself, were its timeout not longer than a test.
    pub(crate) fn start_through(primary: RedisServer, proxy: SocketAddr) -> Self {
        let replica = RedisServer::start_replica_through(proxy);
        Self::watch(primary, replica, 1)
    }

    fn watch(primary: RedisServer, replica: RedisServer, count: usize) -> Self {
        let settings = format!(
            "sentinel monitor {SERVICE} 127.0.0.1 {} {}\nsentinel down-after-milliseconds {SERVICE} 180000\n\
             sentinel failover-timeout {SERVICE} 180000",
            primary.port(),
            count / 2 + 1,
        );
        let sentinel = |_| RedisServer::prepare(settings.clone(), None, Role::Sentinel).started();
        let sentinels: Vec<_> = (0..count).map(sentinel).collect();
        for sentinel in &sentinels {
            eventually("the Sentinels know each other", || {
                let state = format!("SENTINEL MASTER {SERVICE}");
                let fields = sentinel.client().run(&state).items();
                let field = |name: &str| {
                    let at = fields.iter().position(|field| field.text() == name);
                    fields[at.expect("a field") + 1].text().to_owned()
                };
                field("num-slaves") == "1"
                    && field("num-other-sentinels") == (count - 1).to_string()
            });
        }
        Self { servers: [primary, replica], sentinels }
    }

    /// Kills the first primary, and has the Sentinels find that out soon. Until then a server that is slow on a busy
    /// machine is not taken for dead.
    pub(crate) fn kill_primary(&mut self) {
        self.servers[0].kill();
        for sentinel in &self.sentinels {
            sentinel.client().run(&format!(
                "SENTINEL SET {SERVICE} down-after-milliseconds 1000 failover-timeout 5000"
            ));
        }
    }

    /// What `--backplane` is for it.
    pub(crate) fn url(&self) -> String {
        let addresses = self.sentinels.iter().map(|sentinel| sentinel.address().to_string());
        format!("redis+sentinel://{}/{SERVICE}", addresses.collect::<Vec<_>>().join(","))
    }

    /// The number of the server that this Sentinel takes for the primary.
    pub(crate) fn primary_of(&self, sentinel: usize) -> Option<usize> {
        let command = format!("SENTINEL GET-MASTER-ADDR-BY-NAME {SERVICE}");
        let address = self.sentinels[sentinel].client().run(&command).items();
        let port = |server: &RedisServer| Reply::Text(server.port().to_string());
        self.servers.iter().position(|server| port(server) == address[1])
    }
}
