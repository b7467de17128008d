//! Several nodes on one log, with a path to the broker each that can have faults; the database, browsers and backends
//! of an application; and the oracle: once everything is quiet, every browser holds the newest version of every key
//! whose publish was answered 202.

pub(crate) mod broker;
pub(crate) mod browser;
pub(crate) mod database;
pub(crate) mod directory;
pub(crate) mod exact;
pub(crate) mod path;
pub(crate) mod publisher;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::broker::Broker;
use self::browser::{Browser, Counts};
use self::database::Database;
use self::directory::Directory;
use self::path::FaultyPath;
use self::publisher::{Answers, Publishers};
use crate::support::programs::LIBFAKETIME_FILE;
use crate::support::server::Signal;
use crate::support::temp_dir::TempDir;
use crate::support::{BOUND, Server, Transport, eventually};

/// Nodes of one log. They are ended when this is dropped, and what they logged is printed if the test has failed.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    pub(crate) database: Arc<Database>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) browsers: Vec<Browser>,
    publishers: Option<Publishers>,
    dir: TempDir,
}

/// A place for a server, which keeps its path to the broker when the server is started again.
pub(crate) struct Node {
    number: usize,
    /// `None` while it does not run.
    server: Option<Server>,
    /// `None` for a server without a broker, or that finds its brokers itself.
    path: Option<FaultyPath>,
    flags: Vec<String>,
    /// Of its environment.
    variables: Vec<(&'static str, String)>,
    log: String,
}

/// How often backends publish, each of them.
pub(crate) const PACE: Duration = Duration::from_millis(20);
const BACKENDS: usize = 4;
const ORGS: usize = 4;
/// So many that no row is written twice in a short run.
const KEYS: usize = 20_000;
/// Short times, where the defaults are for browsers and people.
const FLAGS: &[&str] = &[
    "--workers",
    "2",
    "--keepalive",
    "1s",
    "--retry-min",
    "3s",
    "--retry-max",
    "6s",
    "--reread-window",
    "1s",
    "--drain-window",
    "1s",
    "--log",
    "info",
];

/// Whether the long run is wanted: `.ci/run long`.
pub(crate) fn is_long() -> bool {
    std::env::var("NUDGED_TEST_LONG").is_ok_and(|long| long == "1")
}

/// The size of a test: what continuous integration has time for, or what a release needs.
pub(crate) fn size<T>(short: T, long: T) -> T {
    if is_long() { long } else { short }
}

// ===== impl Cluster =====

impl Cluster {
    /// So many nodes on this broker, all ready. Each has a path of its own to it.
    pub(crate) fn on<B: Broker>(broker: &B, nodes: usize, flags: &[&str]) -> Self {
        let mut cluster = Self::new();
        for _ in 0..nodes {
            cluster.add(broker, flags);
        }
        cluster.start_all();
        cluster
    }

    /// One node without a broker.
    pub(crate) fn alone(flags: &[&str]) -> Self {
        let mut cluster = Self::new();
        cluster.push(None, None, flags);
        cluster.start_all();
        cluster
    }

    pub(crate) fn new() -> Self {
        Self {
            nodes: Vec::new(),
            database: Arc::new(Database::new(ORGS, KEYS)),
            directory: Arc::default(),
            browsers: Vec::new(),
            publishers: None,
            dir: TempDir::new(),
        }
    }

    /// Adds a node that does not run yet, with a path of its own to the broker.
    pub(crate) fn add<B: Broker>(&mut self, broker: &B, flags: &[&str]) -> &mut Node {
        let path = FaultyPath::to(broker.address(), B::PROTOCOL);
        let url = format!("{}://{}", B::PROTOCOL.scheme(), path.address);
        self.push(Some(url), Some(path), flags)
    }

    /// The same without a path: it finds the brokers of this URL itself.
    pub(crate) fn add_at(&mut self, url: &str, flags: &[&str]) -> &mut Node {
        self.push(Some(url.to_owned()), None, flags)
    }

    fn push(&mut self, url: Option<String>, path: Option<FaultyPath>, flags: &[&str]) -> &mut Node {
        let number = self.nodes.len();
        let mut all: Vec<_> = FLAGS.iter().map(|flag| (*flag).to_owned()).collect();
        all.extend(url.into_iter().flat_map(|url| ["--backplane".into(), url]));
        all = merged(all, flags);
        let log = self.dir.file(&format!("node{number}.log"));
        self.nodes.push(Node {
            number,
            server: None,
            path,
            flags: all,
            variables: Vec::new(),
            log,
        });
        self.nodes.last_mut().expect("pushed")
    }

    /// Starts all, waits until they are ready, and has clients use them.
    pub(crate) fn start_all(&mut self) {
        self.nodes.iter_mut().for_each(Node::start);
        for node in &self.nodes {
            node.becomes_ready();
            self.directory.set(node.number, Some(node.server().address()));
        }
    }

    /// Starts a node again, and has clients use it once it is ready.
    pub(crate) fn restart(&mut self, node: usize) {
        self.nodes[node].start();
        self.nodes[node].becomes_ready();
        self.directory.set(node, Some(self.nodes[node].server().address()));
    }

    /// Kills a node. Its clients notice it, and others too: a balancer chooses it no longer.
    pub(crate) fn kill(&mut self, node: usize) {
        let server = self.nodes[node].server.take().expect("it runs");
        self.directory.set(node, None);
        // SIGKILL.
        drop(server);
    }

    /// Ends a node as a deploy does: it is unready at once, and serves on until balancers have seen it.
    pub(crate) fn drain(&mut self, node: usize) {
        let server = self.nodes[node].server();
        server.signal(Signal::TERM);
        eventually("it is unready", || server.get("/readyz").status() == 503);
        self.directory.set(node, None);
        let mut server = self.nodes[node].server.take().expect("it runs");
        assert_eq!(server.wait(), Some(0));
    }

    /// Opens so many browsers, for each org in turn, and waits until each has its greeting.
    pub(crate) fn browse(&mut self, count: usize) {
        self.browse_on(None, count);
    }

    /// The same; with a node they use no other.
    pub(crate) fn browse_on(&mut self, node: Option<usize>, count: usize) {
        for n in 0..count {
            let org = n % self.database.orgs();
            self.browsers.push(Browser::open(org, node, &self.database, &self.directory));
        }
        self.connected();
    }

    /// Waits until every browser has a stream.
    pub(crate) fn connected(&self) {
        eventually("every browser has a stream", || {
            self.browsers.iter().all(|browser| browser.node().is_some())
        });
    }

    /// Has backends publish until [`Cluster::settle`].
    pub(crate) fn publish(&mut self) {
        let publishers = Publishers::start(BACKENDS, PACE, &self.database, &self.directory);
        publishers.progress(BACKENDS);
        self.publishers = Some(publishers);
    }

    pub(crate) fn publishers(&self) -> &Publishers {
        self.publishers.as_ref().expect("they publish")
    }

    /// Stops the backends, and waits until every browser holds the newest version of every acknowledged key.
    pub(crate) fn settle(&mut self) -> Answers {
        let answers = self.publishers.take().expect("they publish").stop();
        let start = Instant::now();
        loop {
            let stale = self.browsers.iter().find(|browser| !browser.lacks().is_empty());
            let Some(browser) = stale else { break };
            assert!(
                start.elapsed() < BOUND,
                "a browser is stale: it lacks {:?}\n{}",
                browser.lacks(),
                browser.trace()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        self.expect_no_panic();
        answers
    }

    /// The sums of what the browsers have seen.
    pub(crate) fn counts(&self) -> Counts {
        let counts = self.browsers.iter().map(Browser::counts);
        counts.fold(Counts::default(), |sum, counts| Counts {
            opened: sum.opened + counts.opened,
            rereads: sum.rereads + counts.rereads,
            resumed: sum.resumed + counts.resumed,
            invalidations: sum.invalidations + counts.invalidations,
            pings: sum.pings + counts.pings,
            refused: sum.refused + counts.refused,
        })
    }

    /// No browser had to read everything again.
    pub(crate) fn expect_no_reread(&self) {
        for browser in &self.browsers {
            assert_eq!(browser.counts().rereads, 0, "{}", browser.trace());
        }
    }

    /// Waits until each browser had to read everything again, and expects that it had to do so once.
    pub(crate) fn expect_one_reread_each(&self) {
        eventually("every browser reads everything again", || {
            self.browsers.iter().all(|browser| browser.counts().rereads > 0)
        });
        for browser in &self.browsers {
            assert_eq!(browser.counts().rereads, 1, "{}", browser.trace());
        }
    }

    fn expect_no_panic(&self) {
        for node in &self.nodes {
            let log = node.log();
            assert!(!log.contains("panicked"), "{log}");
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.publishers = None;
        // Before the nodes, whose end they would notice.
        self.browsers.clear();
        if std::thread::panicking() {
            for node in &self.nodes {
                let log = node.log();
                let lines: Vec<_> = log.lines().collect();
                let last = lines[lines.len().saturating_sub(40)..].join("\n");
                eprintln!("node {}:\n{last}", node.number);
            }
        }
    }
}

// ===== impl Node =====

impl Node {
    /// Starts it; it may take time until it is ready.
    pub(crate) fn start(&mut self) {
        assert!(self.server.is_none(), "it runs");
        let log = File::options().append(true).create(true).open(&self.log).expect("a file");
        let mut command = Server::command();
        command.arg("serve").stderr(log).envs(self.variables.iter().cloned());
        let flags: Vec<_> = self.flags.iter().map(String::as_str).collect();
        self.server = Some(Server::start_as(command, Transport::Http1, &flags));
    }

    /// Its next start has a clock that is wrong by this much, such as `+1h`; its monotonic clock is right.
    pub(crate) fn set_clock(&mut self, offset: &str) {
        self.variables = vec![
            ("LD_PRELOAD", LIBFAKETIME_FILE.into()),
            ("FAKETIME", offset.into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ];
    }

    pub(crate) fn becomes_ready(&self) {
        let mut why = String::new();
        let start = Instant::now();
        loop {
            let answer = self.server().get("/readyz");
            if answer.status() == 200 {
                break;
            }
            why = answer.body;
            assert!(start.elapsed() < BOUND, "node {} is not ready: {why}", self.number);
            std::thread::sleep(Duration::from_millis(20));
        }
        _ = why;
    }

    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().expect("it runs")
    }

    pub(crate) fn path(&self) -> &FaultyPath {
        self.path.as_ref().expect("it has one broker")
    }

    /// What it has logged since its first start.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// A metric by its labels, of those that begin with this name. Labels as they are written: `reason="…"`.
    pub(crate) fn metrics(&self, name: &str) -> BTreeMap<String, f64> {
        let metrics = self.server().get("/metrics").body;
        let lines = metrics.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
        lines
            .map(|(labels, value)| {
                (labels.trim_matches(['{', '}']).to_owned(), value.parse().expect("a number"))
            })
            .collect()
    }

    /// How often everything before a point was taken for unknown.
    pub(crate) fn cuts(&self) -> u64 {
        self.metrics("nudged_backplane_cuts_total").values().sum::<f64>() as u64
    }

    pub(crate) fn is_cut_off(&self) -> bool {
        self.metrics("nudged_backplane_connected").values().sum::<f64>() < 0.5
    }
}

/// Flags of which the later ones replace earlier ones of the same name.
fn merged(mut flags: Vec<String>, later: &[&str]) -> Vec<String> {
    let mut later = later.iter().peekable();
    while let Some(flag) = later.next() {
        if let Some(at) = flags.iter().position(|earlier| earlier == flag) {
            flags.remove(at);
            if flags.get(at).is_some_and(|value| !value.starts_with("--")) {
                flags.remove(at);
            }
        }
        flags.push((*flag).to_owned());
        if let Some(value) = later.next_if(|value| !value.starts_with("--")) {
            flags.push((*value).to_owned());
        }
    }
    flags
}
