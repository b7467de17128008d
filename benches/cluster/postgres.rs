//! PostgreSQL with durable transactions on a free port of 127.0.0.1, its clients, and pgbench.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{Client, NoTls};

use super::cpu::cpu_of_family;
use super::node::free_address;
use crate::Outcome;
use crate::shared::process::{NUDGED, Process, guarded, now};

/// A running server, ended with its files when this is dropped.
pub(crate) struct Postgres {
    process: Process,
    address: SocketAddr,
    folder: PathBuf,
}

/// A session.
pub(crate) struct Sql {
    runtime: Runtime,
    client: Client,
}

/// What a run of pgbench was like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PgBench {
    pub(crate) per_second: f64,
    pub(crate) millis: f64,
    /// Transactions that were committed.
    pub(crate) count: f64,
    pub(crate) failed: u64,
}

/// How long it may take to start.
const START: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);
/// Where Debian has the programs that are not in the path, of the newest version first.
const FOLDERS: &str = "/usr/lib/postgresql";
const INSTALL: &str = "PostgreSQL is missing: install it (Debian: apt-get install postgresql)";
/// The user of a program that refuses to be run by root.
const USER: &str = "postgres";
/// What is said of a server.
const SETTINGS: [&str; 4] = ["fsync", "synchronous_commit", "wal_sync_method", "shared_buffers"];

// ===== impl Postgres =====

impl Postgres {
    /// One with the settings that it has by default: transactions are durable.
    pub(crate) fn start() -> Outcome<Self> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("nudged-postgres-{}-{number}", process::id()));
        fs::create_dir_all(&folder)?;
        if let Some((user, group)) = user()? {
            chown(&folder, Some(user), Some(group))?;
        }
        let data = folder.join("data");
        let mut initdb = as_user(Command::new("setpriv"), &program("initdb")?);
        initdb.arg("-D").arg(&data).args(["-U", USER, "--auth=trust", "-E", "UTF8"]);
        succeed(initdb.args(["--locale=C", "--no-sync"]).output()?)?;
        let (address, log) = (free_address()?, folder.join("log"));
        let mut command = as_user(guarded("setpriv")?, &program("postgres")?);
        command.arg("-D").arg(&data).args(["-p", &address.port().to_string(), "-k", ""]);
        command.args(["-c", "listen_addresses=127.0.0.1"]);
        command.stdout(Stdio::null()).stderr(File::create(&log)?);
        let process = Process::spawn(&mut command)?;
        let mut postgres = Self { process, address, folder };
        let start = now();
        while let Err(why) = postgres.sql("postgres") {
            if postgres.process.child.try_wait()?.is_some() || start.elapsed() > START {
                let text = fs::read_to_string(log)?;
                return Err(format!("PostgreSQL does not start: {why}\n{text}").into());
            }
            thread::sleep(PAUSE);
        }
        Ok(postgres)
    }

    /// Its version and what its figures depend on.
    pub(crate) fn about(&self) -> Outcome<String> {
        let sql = self.sql("postgres")?;
        let show = |name: &&str| Ok(format!("{name} {}", sql.text(&format!("SHOW {name}"))?));
        let settings = SETTINGS.iter().map(show).collect::<Outcome<Vec<_>>>()?;
        let version = sql.text("SHOW server_version")?;
        let version = version.split(' ').next().unwrap_or_default();
        Ok(format!("PostgreSQL {version}, {}", settings.join(", ")))
    }

    /// A database with an outbox, as `nudged outbox-sql` with these flags makes it.
    pub(crate) fn create(&self, database: &str, flags: &[&str]) -> Outcome<Sql> {
        self.sql("postgres")?.run(&format!("CREATE DATABASE {database}"))?;
        let sql = self.sql(database)?;
        let printed = Command::new(NUDGED).arg("outbox-sql").args(flags).output()?;
        sql.run(&succeed(printed)?)?;
        Ok(sql)
    }

    pub(crate) fn sql(&self, database: &str) -> Outcome<Sql> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let client = runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&self.url(database), NoTls).await?;
            tokio::spawn(connection);
            Outcome::Ok(client)
        })?;
        Ok(Sql { runtime, client })
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@{}/{database}", self.address)
    }

    /// The processor time that it has used.
    pub(crate) fn cpu(&self) -> Outcome<Duration> {
        cpu_of_family(self.process.id())
    }

    /// Runs this script in as many sessions. `flags` are of pgbench.
    pub(crate) fn bench(
        &self,
        database: &str,
        script: &str,
        clients: usize,
        duration: Duration,
        flags: &[&str],
    ) -> Outcome<PgBench> {
        let file = self.folder.join(format!("{database}.sql"));
        fs::write(&file, script)?;
        let mut command = Command::new("pgbench");
        command.args(["-h", "127.0.0.1", "-p", &self.address.port().to_string(), "-U", USER]);
        command.args(["--no-vacuum", "-M", "prepared", "-c", &clients.to_string()]);
        command.args(["-T", &duration.as_secs().to_string()]).args(flags);
        let printed = command.arg("-f").arg(file).arg(database).output().map_err(|_| INSTALL)?;
        PgBench::read(&succeed(printed)?)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Its fast shutdown, which does not wait for its clients. It may have ended already.
        if let Ok(None) = self.process.child.try_wait() {
            let id = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
            id.map(|id| kill_process(id, Signal::INT));
        }
        self.process.stop().ok();
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// The path of one of its programs.
fn program(name: &str) -> Outcome<PathBuf> {
    let folders = fs::read_dir(FOLDERS).map_err(|_| INSTALL)?.flatten();
    let mut found: Vec<_> = folders.map(|folder| folder.path().join("bin").join(name)).collect();
    found.retain(|path| path.exists());
    Ok(found.into_iter().max().ok_or(INSTALL)?)
}

/// The user and the group of the programs, if this is root.
fn user() -> Outcome<Option<(u32, u32)>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let line = users.lines().find(|line| line.split(':').next() == Some(USER)).ok_or(INSTALL)?;
    let ids: Vec<u32> = line.split(':').filter_map(|field| field.parse().ok()).collect();
    Ok(Some((ids[0], ids[1])))
}

/// The arguments of `setpriv` with which it runs this program as a user that may.
fn as_user(mut setpriv: Command, program: &Path) -> Command {
    // The kernel forgets the signal where the user changes.
    setpriv.args(["--pdeathsig", "INT"]);
    if geteuid().is_root() {
        setpriv.args(["--reuid", USER, "--regid", USER, "--clear-groups"]);
    }
    setpriv.arg("--").arg(program).current_dir("/");
    setpriv
}

/// What it has printed.
fn succeed(done: Output) -> Outcome<String> {
    match done.status.success() {
        true => Ok(String::from_utf8(done.stdout)?),
        false => Err(String::from_utf8_lossy(&done.stderr).into_owned().into()),
    }
}

// ===== impl Sql =====

impl Sql {
    pub(crate) fn run(&self, sql: &str) -> Outcome<()> {
        Ok(self.runtime.block_on(self.client.batch_execute(sql))?)
    }

    /// The text that a statement returns.
    pub(crate) fn text(&self, sql: &str) -> Outcome<String> {
        Ok(self.runtime.block_on(self.client.query_one(sql, &[]))?.try_get(0)?)
    }

    /// The number that a statement returns.
    pub(crate) fn number(&self, sql: &str) -> Outcome<i64> {
        Ok(self.runtime.block_on(self.client.query_one(sql, &[]))?.try_get(0)?)
    }
}

// ===== impl PgBench =====

impl PgBench {
    /// Reads what pgbench prints at its end.
    fn read(text: &str) -> Outcome<Self> {
        let number = |name: &str| {
            let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
            rest.split([' ', '/']).next()?.parse::<f64>().ok()
        };
        let missing = || format!("pgbench printed: {text}");
        Ok(Self {
            per_second: number("tps = ").ok_or_else(missing)?,
            millis: number("latency average = ").ok_or_else(missing)?,
            count: number("number of transactions actually processed: ").ok_or_else(missing)?,
            failed: number("number of failed transactions: ").ok_or_else(missing)? as u64,
        })
    }
}
