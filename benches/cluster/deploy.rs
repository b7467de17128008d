//! A rolling restart of three servers behind HAProxy, with streams as browsers have them and publishes flowing.
//!
//! The oracle is a database of versions: a publish raises the version of one key first, and is repeated until it is
//! acknowledged. A page copies the versions of the keys that an event names, or all of them at `connected`. Few keys are
//! published twice, so that a later event hides no lost one. At the end every page has to have every version.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::figures::{Samples, Section};
use super::node::{Log, Node, free_address};
use super::pages::{Pages, Received, Tally};
use super::proxy::{self, Proxy};
use super::{Outcome, Plan};
use crate::shared::http::{Connection, JSON, post};
use crate::shared::process::now;

/// The versions of all keys, in the order of the orgs.
#[derive(Default)]
struct Database {
    versions: Vec<AtomicU32>,
    /// When each was published last, in microseconds since the start.
    published: Vec<AtomicU64>,
}

/// A thread that publishes.
struct Publisher {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Published>,
}

/// What became of its publishes.
#[derive(Default)]
struct Published {
    acknowledged: u64,
    /// Attempts that failed and were repeated, the first one as a text.
    repeated: u64,
    failure: Option<String>,
    /// Publishes that were given up.
    lost: u64,
    took_ms: Samples,
}

/// What the pages know.
struct Copies {
    database: Arc<Database>,
    start: Instant,
    versions: Vec<u32>,
    latencies: Samples,
}

const NODES: usize = 3;
const ORGS: usize = 50;
/// Keys of an org, as many as are published in a run.
const KEYS: usize = 512;
/// Publishes a second, of all publishers: each waits for its response.
const RATE: u32 = 200;
const PUBLISHERS: usize = 4;
const TURN: Duration = Duration::from_millis(10);
/// Time between two steps, in which HAProxy sees what has changed.
const REST: Duration = Duration::from_secs(2);
/// How long a publish is repeated.
const GIVE_UP: Duration = Duration::from_secs(20);
const AGAIN: Duration = Duration::from_millis(100);
/// How long pages may take to reconnect and to catch up once all is over.
const QUIET: Duration = Duration::from_secs(15);
const SETTINGS: [&str; 6] = ["--workers", "1", "--drain-delay", "1s", "--drain-window", "5s"];

pub(crate) fn run(plan: &Plan) -> Outcome<Section> {
    let pages = if plan.short { 600 } else { 3_000 };
    let with = if plan.with_log { "a log" } else { "no log, and every publish sent to each" };
    let mut section = Section::new(
        "deploy",
        format!(
            "Three servers with {with}, behind {} (`benches/cluster/haproxy.cfg`); {pages} streams of {ORGS} orgs, \
             opened again as `EventSource` does; {RATE} publishes a second, each of another key, repeated until \
             acknowledged. Each server in turn: SIGTERM, drain (`{}`), the end of its process, a new one on the same \
             port, ready, the next. The generator shares this machine's cores.",
            proxy::version()?,
            SETTINGS[2..].join(" ")
        ),
    );
    let kind = plan.brokers[0];
    let broker = plan.with_log.then(|| kind.start()).transpose()?;
    if plan.with_log {
        section.about += &format!(" {}.", kind.about()?);
    }
    let log = broker.as_ref().map(|broker| Log { broker, name: "deploy", linger: "5ms" });
    let addresses = (0..NODES).map(|_| free_address()).collect::<std::io::Result<Vec<_>>>()?;
    let start_node = |address: &SocketAddr| Node::start_on(&address.to_string(), log, &SETTINGS);
    let mut nodes = addresses.iter().map(start_node).collect::<Outcome<Vec<_>>>()?;
    let proxy = Proxy::start(&addresses)?;
    thread::sleep(REST);

    let (database, start) = (Arc::new(Database::new()), now());
    let browsers = Browsers::start(proxy.address, pages, Arc::clone(&database), start)?;
    let targets = if plan.with_log { vec![proxy.address] } else { addresses.clone() };
    let publishers: [_; PUBLISHERS] = std::array::from_fn(|worker| {
        Publisher::start(worker, targets.clone(), Arc::clone(&database), start, plan.with_log)
    });
    thread::sleep(REST);
    let mut restarts = Samples::default();
    for (node, address) in nodes.iter_mut().zip(&addresses) {
        let began = now();
        let status = node.stop()?;
        if !status.success() {
            section.faults.push(format!("a server ended with {status}: {}", node.log()));
        }
        *node = start_node(address)?;
        restarts.add(began.elapsed().as_secs_f64());
        thread::sleep(REST);
    }
    let mut published = Published::default();
    publishers.into_iter().map(Publisher::stop).for_each(|one| published.add(one));
    let (tally, copies, open) = browsers.stop()?;
    report(&mut section, &published, &tally, &copies, plan.with_log);
    section.expect_none("streams that are not open at the end", (pages - open) as u64);
    section.add("restart of a server, the longest", restarts.quantile(1.0), "s");
    let (sent, held) = cuts(&nodes)?;
    section.add("cuts counted by the servers", sent, "");
    section.add("streams of the fullest server at the end", held, "");
    Ok(section)
}

/// Cuts of all servers, and streams of the fullest one.
fn cuts(nodes: &[Node]) -> Outcome<(f64, f64)> {
    let (mut cuts, mut most) = (0.0, 0.0_f64);
    for node in nodes {
        cuts += node.metric("nudged_backplane_cuts_total")?;
        most = most.max(node.metric("nudged_seats")?);
    }
    Ok((cuts, most))
}

fn report(
    section: &mut Section,
    published: &Published,
    tally: &Tally,
    copies: &Copies,
    with_log: bool,
) {
    section.add("publishes acknowledged", published.acknowledged as f64, "");
    section.add("publishes that had to be repeated", published.repeated as f64, "");
    section.add("publish acknowledged, p50", published.took_ms.quantile(0.5), "ms");
    section.add("publish acknowledged, p99", published.took_ms.quantile(0.99), "ms");
    section.add("events received", tally.invalidates as f64, "");
    section.add("from the publish to the page's copy, p50", copies.latencies.quantile(0.5), "ms");
    section.add("from the publish to the page's copy, p99", copies.latencies.quantile(0.99), "ms");
    section.add("streams that ended", tally.ends as f64, "");
    section.add("of these resumed", tally.resumed as f64, "");
    match with_log {
        true => section.expect_none("of these `connected`", tally.connected),
        false => section.add("of these `connected`", tally.connected as f64, ""),
    }
    section.expect_none("streams refused", tally.refused);
    section.expect_none("publishes lost", published.lost);
    section.expect_none("keys of pages with an old version", copies.stale());
    for why in [&tally.refusal, &published.failure].into_iter().flatten() {
        section.about += &format!(" The first failure was: {}.", why.trim_end_matches('.'));
    }
}

// ===== impl Database =====

impl Database {
    fn new() -> Self {
        let mut database = Self::default();
        database.versions.resize_with(ORGS * KEYS, AtomicU32::default);
        database.published.resize_with(ORGS * KEYS, AtomicU64::default);
        database
    }

    fn raise(&self, index: usize, at: Duration) {
        let micros = u64::try_from(at.as_micros()).unwrap_or(u64::MAX);
        self.published[index].store(micros, Ordering::SeqCst);
        self.versions[index].fetch_add(1, Ordering::SeqCst);
    }
}

fn org(number: usize) -> String {
    format!("org-{number}")
}

// ===== impl Publisher =====

impl Publisher {
    /// Publishes through the first of the targets, or to all of them.
    fn start(
        worker: usize,
        targets: Vec<SocketAddr>,
        database: Arc<Database>,
        start: Instant,
        insists: bool,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (mut published, mut next) = (Published::default(), now());
            let mut connections: Vec<_> = targets.iter().map(|_| None).collect();
            for number in (worker..).step_by(PUBLISHERS) {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let (in_org, key) = (number % ORGS, number / ORGS % KEYS);
                database.raise(in_org * KEYS + key, start.elapsed());
                let body = format!("{{\"keys\":[\"k:{key}\"]}}");
                let request = post(&format!("/api/{}/events", org(in_org)), JSON, "", &body);
                for (target, connection) in targets.iter().zip(&mut connections) {
                    published.publish(*target, connection, &request, insists);
                }
                next += Duration::from_secs(PUBLISHERS as u64) / RATE;
                thread::sleep(next.saturating_duration_since(now()));
            }
            published
        });
        Self { stop, thread }
    }

    fn stop(self) -> Published {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the publisher does not panic")
    }
}

// ===== impl Published =====

impl Published {
    fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.repeated += other.repeated;
        self.lost += other.lost;
        self.failure = self.failure.take().or(other.failure);
        other.took_ms.iter().for_each(|took| self.took_ms.add(took));
    }

    /// Publishes, again and again unless one attempt is enough.
    fn publish(
        &mut self,
        target: SocketAddr,
        connection: &mut Option<Connection>,
        request: &str,
        insists: bool,
    ) {
        let start = now();
        loop {
            let open = || Connection::open(target);
            let sent = match connection {
                Some(open) => open.exchange(request, 202),
                None => open().and_then(|new| connection.insert(new).exchange(request, 202)),
            };
            let Err(why) = sent else {
                self.acknowledged += 1;
                self.took_ms.add(start.elapsed().as_secs_f64() * 1e3);
                return;
            };
            *connection = None;
            self.repeated += 1;
            self.failure.get_or_insert_with(|| why.to_string());
            if !insists {
                return;
            }
            if start.elapsed() > GIVE_UP {
                self.lost += 1;
                return;
            }
            thread::sleep(AGAIN);
        }
    }
}

/// A thread that reads all pages.
struct Browsers {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<(Tally, Copies, usize), String>>,
}

// ===== impl Browsers =====

impl Browsers {
    /// Returns once all of them have their greeting.
    fn start(
        address: SocketAddr,
        count: usize,
        database: Arc<Database>,
        start: Instant,
    ) -> Outcome<Self> {
        let mut pages = Pages::new(address, (0..ORGS).map(org).collect())?;
        let mut copies = Copies {
            database,
            start,
            versions: vec![0; count * KEYS],
            latencies: Samples::default(),
        };
        pages.open(count, |received| copies.update(&received))?;
        // The first greetings are `connected`.
        pages.tally = Tally::default();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut end = None;
            loop {
                pages
                    .turn(TURN, |received| copies.update(&received))
                    .map_err(|why| why.to_string())?;
                if !stopped.load(Ordering::Relaxed) {
                    continue;
                }
                let until = *end.get_or_insert_with(|| now() + QUIET);
                let is_done = pages.open_now() == count && copies.stale() == 0;
                if is_done || now() > until {
                    return Ok((pages.tally.clone(), copies, pages.open_now()));
                }
            }
        });
        Ok(Self { stop, thread })
    }

    fn stop(self) -> Outcome<(Tally, Copies, usize)> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(self.thread.join().expect("the pages do not panic")?)
    }
}

// ===== impl Copies =====

impl Copies {
    /// Reads what the event names.
    fn update(&mut self, received: &Received<'_>) {
        let in_org = received.page % ORGS * KEYS;
        let page = received.page * KEYS;
        match received.event.name.as_str() {
            "connected" => {
                for key in 0..KEYS {
                    self.versions[page + key] =
                        self.database.versions[in_org + key].load(Ordering::SeqCst);
                }
            }
            "invalidate" => {
                for key in keys(&received.event.data) {
                    let index = in_org + key;
                    self.versions[page + key] =
                        self.database.versions[index].load(Ordering::SeqCst);
                    let published = self.database.published[index].load(Ordering::SeqCst);
                    let at = received.at.saturating_duration_since(self.start).as_micros();
                    self.latencies.add((at as f64 - published as f64) / 1e3);
                }
            }
            _ => {}
        }
    }

    /// Versions of all pages that are not those of the database.
    fn stale(&self) -> u64 {
        let all = self.versions.chunks(KEYS).enumerate();
        let of_page = |(page, copy): (usize, &[u32])| {
            let known = &self.database.versions[page % ORGS * KEYS..][..KEYS];
            let old = |(copy, known): (&u32, &AtomicU32)| *copy != known.load(Ordering::SeqCst);
            copy.iter().zip(known).filter(|(copy, known)| old((copy, known))).count() as u64
        };
        all.map(of_page).sum()
    }
}

/// Those of an event.
fn keys(data: &str) -> impl Iterator<Item = usize> {
    data.split('"').filter_map(|key| key.strip_prefix("k:")?.parse().ok())
}
