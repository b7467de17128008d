//! PostgreSQL: a cluster of its own for each test, in a temporary folder, a client, and `PgBouncer` in front of it.
#![allow(dead_code, reason = "each of those that include this uses some of it")]

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{Client, NoTls, Row};

use super::certificate::Certificate;
use super::port::ReservedPort;
use super::server::signal;
use super::temp_dir::TempDir;
use super::{BOUND, Server, eventually};

/// Where Debian has the programs that are not in the path.
const BIN: &str = "/usr/lib/postgresql/15/bin";

/// A server on 127.0.0.1. Killed when this is dropped, by its process id.
pub(crate) struct Postgres {
    /// `None` while it does not run.
    child: Option<Child>,
    port: ReservedPort,
    dir: TempDir,
}

/// `PgBouncer` in transaction mode.
pub(crate) struct PgBouncer {
    child: Child,
    port: ReservedPort,
    _dir: TempDir,
}

/// A session.
pub(crate) struct Sql {
    runtime: Runtime,
    client: Client,
}

/// The user that runs the programs, which refuse to be run by root.
#[derive(Clone, Copy)]
struct User {
    uid: u32,
    gid: u32,
}

// ===== impl Postgres =====

impl Postgres {
    /// One without an outbox.
    pub(crate) fn bare() -> Self {
        Self::bare_with("")
    }

    /// The same with these lines in its configuration.
    pub(crate) fn bare_with(settings: &str) -> Self {
        let dir = TempDir::new();
        own(dir.path());
        let data = dir.file("data");
        let flags = ["-U", "postgres", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C"];
        let made =
            run(Path::new(BIN).join("initdb").as_path(), &[&["-D", &data], &flags[..]].concat());
        assert!(made.status.success(), "{made:?}");
        let mut file = File::options().append(true).open(dir.path().join("data/postgresql.conf"));
        let file = file.as_mut().expect("initdb makes it");
        writeln!(file, "fsync = off\nmax_connections = 50\nshared_buffers = 16MB").expect("a file");
        writeln!(file, "listen_addresses = '127.0.0.1'\n{settings}").expect("a file");
        let mut postgres = Self { child: None, port: ReservedPort::new(), dir };
        postgres.start_again();
        postgres
    }

    /// One with the outbox, as `nudged outbox-sql` makes it.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same, made with these flags.
    pub(crate) fn start_with(flags: &[&str]) -> Self {
        let postgres = Self::bare();
        postgres.sql().run(&outbox_sql(flags));
        postgres
    }

    /// What `--outbox` is for it.
    pub(crate) fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// The same for another user.
    pub(crate) fn url_of(&self, user: &str) -> String {
        format!("postgres://{user}@{}/postgres", self.port.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// Every user but its own has to authenticate over TCP, with TLS if `is_secure`.
    pub(crate) fn ask_for_passwords(&self, is_secure: bool) {
        let host = if is_secure { "hostssl" } else { "host" };
        let text = format!(
            "local all all trust\nhost all postgres 127.0.0.1/32 trust\n{host} all all 127.0.0.1/32 scram-sha-256\n"
        );
        fs::write(self.dir.path().join("data/pg_hba.conf"), text).expect("a file");
        let rules = "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method = 'scram-sha-256'";
        let sql = self.sql();
        assert_eq!(sql.number(rules), 1);
        self.reload();
    }

    /// Has it use this certificate.
    pub(crate) fn use_certificate(&self, certificate: &Certificate) {
        let sql = self.sql();
        let data = self.dir.path().join("data");
        for (file, from, setting) in [
            ("server.pem", &certificate.certificate, "ssl_cert_file"),
            ("key.pem", &certificate.key, "ssl_key_file"),
        ] {
            let to = data.join(file);
            fs::copy(from, &to).expect("a file");
            fs::set_permissions(&to, Permissions::from_mode(0o600)).expect("a file");
            sql.run(&format!("ALTER SYSTEM SET {setting} = '{file}'"));
        }
        own(&data);
        sql.run("ALTER SYSTEM SET ssl = on");
        self.reload();
    }

    fn reload(&self) {
        let sql = self.sql();
        let loaded = "SELECT (extract(epoch FROM pg_conf_load_time()) * 1000000)::bigint";
        let before = sql.number(loaded);
        sql.run("SELECT pg_reload_conf()");
        // Its process for connections reads it before it accepts the next one, and a new session shows when it did.
        eventually("the configuration is read", || self.sql().number(loaded) > before);
    }

    /// The path of a file in its folder, which may be read by it.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn sql(&self) -> Sql {
        Sql::connect(&self.url()).expect("it runs")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Ends it without a checkpoint: it recovers from its log (immediate shutdown).
    pub(crate) fn kill(&mut self) {
        self.end(Signal::QUIT);
    }

    /// Ends it in good order, without waiting for its clients (fast shutdown).
    pub(crate) fn stop(&mut self) {
        self.end(Signal::INT);
    }

    /// Starts it again, and waits until it can be used.
    pub(crate) fn start_again(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let log = self.dir.path().join("log");
        let log = File::options().append(true).create(true).open(log).expect("a file");
        let port = self.port.address.port().to_string();
        let mut command = as_user(Path::new(BIN).join("postgres").as_path());
        command.args(["-D", &self.dir.file("data"), "-p", &port, "-k", &self.dir.file("")]);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor")).stderr(log);
        self.child = Some(command.spawn().expect("postgresql is installed"));
        let (url, child) = (self.url(), self.child.as_mut().expect("spawned"));
        eventually("PostgreSQL works", || {
            let ended = child.try_wait().expect("a child");
            assert!(
                ended.is_none(),
                "{ended:?}: {}",
                fs::read_to_string(self.dir.file("log")).unwrap_or_default()
            );
            Sql::connect(&url).is_ok()
        });
    }

    /// Stops all of its processes (SIGSTOP): its connections stay, and nothing is answered.
    pub(crate) fn pause(&self) {
        self.signal_all(Signal::STOP);
    }

    /// Lets them go on (SIGCONT).
    pub(crate) fn go_on(&self) {
        self.signal_all(Signal::CONT);
    }

    fn signal_all(&self, which: Signal) {
        let parent = self.pid();
        // No new ones meanwhile.
        signal(parent, which).expect("it runs");
        if which == Signal::STOP {
            let status = format!("/proc/{parent}/status");
            eventually("PostgreSQL stops", || {
                fs::read_to_string(&status).expect("it exists").contains("\nState:\tT")
            });
        }
        for process in fs::read_dir("/proc").expect("Linux").flatten() {
            let status = fs::read_to_string(process.path().join("status")).unwrap_or_default();
            let child = status.lines().any(|line| line == format!("PPid:\t{parent}"));
            if let (true, Ok(pid)) = (child, process.file_name().to_string_lossy().parse()) {
                _ = signal(pid, which);
            }
        }
    }

    fn end(&mut self, which: Signal) {
        signal(self.pid(), which).expect("it runs");
        let mut child = self.child.take().expect("it runs");
        let mut ended = false;
        eventually("PostgreSQL ends", || {
            ended = child.try_wait().expect("a child").is_some();
            ended
        });
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // Of those that a test has left stopped.
        let parent = child.id();
        self.child = Some(child);
        self.signal_all(Signal::CONT);
        child = self.child.take().expect("just put there");
        _ = signal(parent, Signal::QUIT);
        let start = Instant::now();
        while start.elapsed() < BOUND / 6 {
            if child.try_wait().is_ok_and(|ended| ended.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        _ = child.kill();
        _ = child.wait();
    }
}

// ===== impl PgBouncer =====

impl PgBouncer {
    /// One with so many connections to the database.
    pub(crate) fn before(postgres: &Postgres, connections: u32) -> Self {
        Self::before_as(postgres, connections, "auth_type = trust", "\"postgres\" \"\"\n")
    }

    /// The same with these lines in its configuration, and in its file of users.
    pub(crate) fn before_as(
        postgres: &Postgres,
        connections: u32,
        settings: &str,
        users: &str,
    ) -> Self {
        let (dir, port) = (TempDir::new(), ReservedPort::new());
        fs::write(dir.path().join("users"), users).expect("a file");
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\npool_mode = transaction\n\
             listen_addr = 127.0.0.1\nlisten_port = {}\nunix_socket_dir =\n\
             auth_file = {}\ndefault_pool_size = {connections}\nmax_client_conn = 100\n{settings}\n",
            postgres.address().port(),
            port.address.port(),
            dir.file("users"),
        );
        fs::write(dir.path().join("settings"), settings).expect("a file");
        own(dir.path());
        let log = File::create(dir.path().join("log")).expect("a file");
        let mut command = as_user(Path::new("/usr/sbin/pgbouncer"));
        command.arg(dir.path().join("settings")).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a descriptor")).stderr(log);
        let child = command.spawn().expect("pgbouncer is installed");
        let mut bouncer = Self { child, port, _dir: dir };
        eventually("PgBouncer listens", || {
            let ended = bouncer.child.try_wait().expect("a child");
            assert!(ended.is_none(), "{ended:?}");
            TcpStream::connect(bouncer.port.address).is_ok()
        });
        bouncer
    }

    pub(crate) fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// The same for another user.
    pub(crate) fn url_of(&self, user: &str) -> String {
        format!("postgres://{user}@{}/postgres", self.port.address)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

// ===== impl Sql =====

impl Sql {
    pub(crate) fn connect(url: &str) -> Result<Self, tokio_postgres::Error> {
        // Its connection is served while nothing is requested, too.
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let client = runtime.block_on(async {
            let connect = tokio_postgres::connect(url, NoTls);
            let (client, connection) =
                tokio::time::timeout(BOUND, connect).await.expect("in time")?;
            tokio::spawn(connection);
            Ok(client)
        })?;
        Ok(Self { runtime, client })
    }

    /// Runs statements.
    pub(crate) fn run(&self, sql: &str) {
        self.try_run(sql).unwrap_or_else(|why| panic!("{why:?}: {sql}"));
    }

    pub(crate) fn try_run(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        self.runtime.block_on(async {
            let run = self.client.batch_execute(sql);
            tokio::time::timeout(BOUND, run).await.expect("in time")
        })
    }

    /// The number that a statement returns.
    pub(crate) fn number(&self, sql: &str) -> i64 {
        self.row(sql).get(0)
    }

    /// The rows of the outbox that are committed.
    pub(crate) fn waiting(&self) -> i64 {
        self.number("SELECT count(*) FROM nudged_outbox")
    }

    fn row(&self, sql: &str) -> Row {
        self.runtime.block_on(async {
            let query = self.client.query_one(sql, &[]);
            tokio::time::timeout(BOUND, query).await.expect("in time").expect("a row")
        })
    }
}

// ===== programs =====

/// What `nudged outbox-sql` prints.
pub(crate) fn outbox_sql(flags: &[&str]) -> String {
    let printed = Server::command().arg("outbox-sql").args(flags).output().expect("it runs");
    assert!(printed.status.success(), "{printed:?}");
    String::from_utf8(printed.stdout).expect("text")
}

/// The user of the programs, if this is root.
fn user() -> Option<User> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("Linux");
    let line = users.lines().find(|line| line.starts_with("postgres:")).expect("a user postgres");
    let mut fields = line.split(':').skip(2).map(|id| id.parse().expect("a number"));
    Some(User { uid: fields.next().expect("a user"), gid: fields.next().expect("a group") })
}

/// Gives a folder and its files to the user.
pub(crate) fn own(dir: &Path) {
    let Some(User { uid, gid }) = user() else { return };
    chown(dir, Some(uid), Some(gid)).expect("root may");
    for file in fs::read_dir(dir).expect("a folder").flatten() {
        chown(file.path(), Some(uid), Some(gid)).expect("root may");
    }
}

/// A program that ends with the thread of the test, even if the process is killed.
fn as_user(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.arg("--pdeathsig=QUIT");
    if let Some(User { uid, gid }) = user() {
        command.args([&format!("--reuid={uid}"), &format!("--regid={gid}"), "--clear-groups"]);
    }
    command.arg("--").arg(program).current_dir("/");
    command
}

fn run(program: &Path, args: &[&str]) -> Output {
    as_user(program).args(args).stdin(Stdio::null()).output().expect("postgresql is installed")
}
