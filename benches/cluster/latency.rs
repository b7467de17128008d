//! From a publish on one server to its arrival at a stream of another, beside the broker's own way from an append to a
//! reader, and beside a server alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Runtime;

use super::direct::{Direct, Reader, runtime};
use super::figures::{Samples, Section, Target};
use super::node::{Log, Node};
use super::pages::Pages;
use super::servers::{Broker, about};
use super::{Outcome, Plan};
use crate::shared::http::{Connection, JSON, post};
use crate::shared::process::now;

/// A way that publishes take. Its figures are milliseconds from the moment before the publish was sent.
struct Way {
    name: String,
    target: Option<f64>,
    kind: Kind,
    acknowledged: Samples,
    received: Samples,
}

enum Kind {
    Nodes { _nodes: Vec<Node>, publisher: Connection, listener: Listener },
    Direct { runtime: Runtime, appender: Box<Direct>, reader: Box<Reader> },
}

/// A thread with one stream, of the org that it is named for, and the numbers that arrive on it.
pub(crate) struct Listener {
    pub(crate) received: Receiver<(u64, Instant)>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Random time between two publishes.
const GAP_MS: std::ops::Range<u64> = 2..12;
const TURN: Duration = Duration::from_millis(20);
const WAIT: Duration = Duration::from_secs(10);
const ORG: &str = "acme";
/// Stands for all numbers up to now.
const REREAD: u64 = u64::MAX;
/// The first publishes run cold code.
const COLD: u64 = 20;

pub(crate) fn run(plan: &Plan) -> Outcome<Section> {
    let rounds = if plan.short { 100 } else { 1_000 };
    let mut section = Section::new(
        "latency",
        format!(
            "{} publishes of one key each way, in turn, {} to {} ms apart; without coalescing, one worker a server. \
             *Received* is its arrival at the one stream, which with a log is on the other of two servers; \
             *acknowledged* is the 202.",
            rounds, GAP_MS.start, GAP_MS.end
        ),
    );
    let kinds = if plan.with_log { &plan.brokers[..] } else { &[] };
    let brokers = kinds.iter().map(|kind| kind.start()).collect::<Outcome<Vec<_>>>()?;
    let mut ways = vec![Way::alone()?];
    if plan.with_log {
        section.about += &format!(" {}.", about(kinds)?);
    }
    for broker in &brokers {
        ways.push(Way::direct(broker)?);
        ways.push(Way::shared(broker, "0ms", Some(5.0))?);
        ways.push(Way::shared(broker, "5ms", None)?);
    }
    for number in 0..rounds + COLD {
        for way in &mut ways {
            thread::sleep(Duration::from_millis(fastrand::u64(GAP_MS)));
            let (acknowledged, received) = way.round(number)?;
            if number >= COLD {
                way.acknowledged.add(acknowledged);
                way.received.add(received);
            }
        }
    }
    for Way { name, target, acknowledged, received, .. } in &ways {
        section.add(format!("{name}: received, p50"), received.quantile(0.5), "ms");
        match target {
            Some(most) => section.add_with(
                format!("{name}: received, p99"),
                received.quantile(0.99),
                "ms",
                Target::AtMost(*most),
            ),
            None => section.add(format!("{name}: received, p99"), received.quantile(0.99), "ms"),
        }
        section.add(format!("{name}: acknowledged, p50"), acknowledged.quantile(0.5), "ms");
        section.add(format!("{name}: acknowledged, p99"), acknowledged.quantile(0.99), "ms");
    }
    Ok(section)
}

pub(crate) fn millis(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1e3
}

/// A publish of one key with this number.
pub(crate) fn numbered(org: &str, number: u64) -> String {
    post(&format!("/api/{org}/events"), JSON, "", &format!("{{\"keys\":[\"n:{number}\"]}}"))
}

// ===== impl Way =====

impl Way {
    fn new(name: String, target: Option<f64>, kind: Kind) -> Self {
        Self { name, target, kind, acknowledged: Samples::default(), received: Samples::default() }
    }

    fn alone() -> Outcome<Self> {
        let node = Node::start(None, &SETTINGS)?;
        let publisher = Connection::open(node.address)?;
        let listener = Listener::start(&node, ORG)?;
        let kind = Kind::Nodes { _nodes: vec![node], publisher, listener };
        Ok(Self::new("a server alone".into(), None, kind))
    }

    fn shared(broker: &Broker, linger: &str, target: Option<f64>) -> Outcome<Self> {
        let name = format!("linger-{linger}");
        let log = Log { broker, name: &name, linger };
        let nodes = vec![Node::start(Some(log), &SETTINGS)?, Node::start(Some(log), &SETTINGS)?];
        let publisher = Connection::open(nodes[0].address)?;
        let listener = Listener::start(&nodes[1], ORG)?;
        let kind = Kind::Nodes { _nodes: nodes, publisher, listener };
        let name = format!("{}, another server, linger {linger}", broker.name());
        Ok(Self::new(name, target, kind))
    }

    fn direct(broker: &Broker) -> Outcome<Self> {
        let runtime = runtime()?;
        let (appender, reader) = runtime.block_on(async {
            let appender = Direct::open(broker, "direct").await?;
            let reader = Direct::open(broker, "direct").await?.read().await?;
            Outcome::Ok((Box::new(appender), Box::new(reader)))
        })?;
        let kind = Kind::Direct { runtime, appender, reader };
        Ok(Self::new(format!("{} itself, append to reader", broker.name()), None, kind))
    }

    /// One publish. Returns when it was acknowledged and when it was received.
    fn round(&mut self, number: u64) -> Outcome<(f64, f64)> {
        match &mut self.kind {
            Kind::Nodes { publisher, listener, .. } => {
                let request = numbered(ORG, number);
                let start = now();
                publisher.exchange(&request, 202)?;
                let acknowledged = now();
                let received = listener.wait_for(number)?;
                Ok((millis(start, acknowledged), millis(start, received)))
            }
            Kind::Direct { runtime, appender, reader } => runtime.block_on(async {
                let line = format!("{{\"org\":\"{ORG}\",\"keys\":[\"n:{number}\"]}}");
                let start = now();
                let append = async {
                    appender.append(Bytes::from(line)).await?;
                    Outcome::Ok(now())
                };
                let read = async {
                    reader.next().await?;
                    Outcome::Ok(now())
                };
                let (acknowledged, received) = tokio::join!(append, read);
                Ok((millis(start, acknowledged?), millis(start, received?)))
            }),
        }
    }
}

const SETTINGS: [&str; 4] = ["--workers", "1", "--coalesce", "0ms"];

// ===== impl Listener =====

impl Listener {
    /// Opens a stream of this org, and waits for its greeting.
    pub(crate) fn start(node: &Node, org: &str) -> Outcome<Self> {
        let mut pages = Pages::new(node.address, vec![org.to_owned()])?;
        pages.open(1, |_| {})?;
        let (sender, received) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let done = pages.turn(TURN, |received| {
                    let reread = (received.event.name == "connected").then_some(REREAD);
                    for number in numbers(&received.event.data).chain(reread) {
                        _ = sender.send((number, received.at)); // The receiver may be gone.
                    }
                });
                if done.is_err() {
                    return;
                }
            }
        });
        Ok(Self { received, stop, thread: Some(thread) })
    }

    /// When this number arrived, or a `connected` instead of it.
    pub(crate) fn wait_for(&self, number: u64) -> Outcome<Instant> {
        loop {
            let late = |_| format!("number {number} did not arrive");
            let (arrived, at) = self.received.recv_timeout(WAIT).map_err(late)?;
            if arrived == number || arrived == REREAD {
                return Ok(at);
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It ends within a turn; a panic in it was reported.
            thread.join().ok();
        }
    }
}

/// Those of the keys of an event.
fn numbers(data: &str) -> impl Iterator<Item = u64> {
    data.split('"').filter_map(|key| key.strip_prefix("n:")?.parse().ok())
}
