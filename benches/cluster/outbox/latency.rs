//! From the COMMIT of a transaction that wrote a row to the row's arrival at a stream.

use std::thread;
use std::time::Duration;

use crate::figures::{Samples, Section, Target};
use crate::latency::{Listener, millis};
use crate::node::{Log, Node};
use crate::postgres::{Postgres, Sql};
use crate::servers::Broker;
use crate::shared::process::now;
use crate::{Outcome, Plan};

/// Servers with an outbox of their own.
struct Way {
    name: &'static str,
    target: Option<f64>,
    /// Of this many rounds it takes part in one.
    every: u64,
    /// The random time between two transactions, in milliseconds.
    gap: std::ops::Range<u64>,
    sql: Sql,
    _nodes: Vec<Node>,
    /// Of the last server.
    listener: Listener,
    committed: Samples,
    received: Samples,
    /// Since the response to COMMIT.
    later: Samples,
}

/// What a way is.
struct Kind {
    name: &'static str,
    database: &'static str,
    nodes: usize,
    listens: bool,
    target: Option<f64>,
}

const KINDS: [Kind; 4] = [
    Kind {
        name: "polling, 2 servers",
        database: "polling",
        nodes: 2,
        listens: false,
        target: Some(120.0),
    },
    Kind {
        name: "--outbox-listen, 2 servers",
        database: "listening",
        nodes: 2,
        listens: true,
        target: Some(10.0),
    },
    Kind {
        name: "polling, a server alone",
        database: "polling_alone",
        nodes: 1,
        listens: false,
        target: Some(120.0),
    },
    Kind {
        name: "--outbox-listen, a server alone",
        database: "listening_alone",
        nodes: 1,
        listens: true,
        target: Some(10.0),
    },
];
const ORG: &str = "acme";
/// The first rows run cold code.
const COLD: u64 = 20;
/// Polling takes longer, and is measured in fewer rounds: one of so many.
const POLLED: u64 = 3;
const POLL_GAP_MS: std::ops::Range<u64> = 0..100;
const GAP_MS: std::ops::Range<u64> = 2..12;

pub(crate) fn run(plan: &Plan) -> Outcome<Section> {
    let rounds = if plan.short { 150 } else { 1_500 };
    let (postgres, kind) = (Postgres::start()?, plan.brokers[0]);
    let broker = kind.start()?;
    let mut section = Section::new(
        "outbox-latency",
        format!(
            "Transactions of one `nudge()`, one after the other: *received* is from the moment at which COMMIT was \
             sent to the row's arrival at the one stream, *committed* is the COMMIT itself, which waits for the disk, \
             and *later* is the time between them. In turn, {} rows where the outbox is polled (each 100 ms; {} to {} \
             ms apart), and {rounds} where the trigger of `outbox-sql --notify` wakes the servers ({} to {} ms \
             apart). Without coalescing, one worker a server; two servers have a log, and the stream is on the \
             second. {}; {}.",
            rounds / POLLED,
            POLL_GAP_MS.start,
            POLL_GAP_MS.end,
            GAP_MS.start,
            GAP_MS.end,
            postgres.about()?,
            kind.about()?
        ),
    );
    let start = |kind| Way::start(&postgres, &broker, kind);
    let mut ways = KINDS.iter().map(start).collect::<Outcome<Vec<_>>>()?;
    for number in 0..rounds + COLD {
        for way in &mut ways {
            if number < COLD || number % way.every == 0 {
                thread::sleep(Duration::from_millis(fastrand::u64(way.gap.clone())));
                way.round(number, number < COLD)?;
            }
        }
    }
    for Way { name, target, committed, received, later, .. } in &ways {
        section.add(format!("{name}: received, p50"), received.quantile(0.5), "ms");
        let p99 = format!("{name}: received, p99");
        match target {
            Some(most) => {
                section.add_with(p99, received.quantile(0.99), "ms", Target::AtMost(*most));
            }
            None => section.add(p99, received.quantile(0.99), "ms"),
        }
        section.add(format!("{name}: received, max"), received.quantile(1.0), "ms");
        section.add(format!("{name}: later, p50"), later.quantile(0.5), "ms");
        section.add(format!("{name}: later, p99"), later.quantile(0.99), "ms");
        section.add(format!("{name}: committed, p50"), committed.quantile(0.5), "ms");
        section.add(format!("{name}: committed, p99"), committed.quantile(0.99), "ms");
    }
    Ok(section)
}

// ===== impl Way =====

impl Way {
    fn start(postgres: &Postgres, broker: &Broker, kind: &Kind) -> Outcome<Self> {
        let Kind { name, database, nodes, listens, target } = *kind;
        let sql = postgres.create(database, if listens { &["--notify"] } else { &[] })?;
        let url = postgres.url(database);
        let mut settings = vec!["--workers", "1", "--coalesce", "0ms", "--outbox", &url];
        settings.extend(listens.then_some("--outbox-listen"));
        let log = Log { broker, name: database, linger: "5ms" };
        let start = |_| Node::start((nodes > 1).then_some(log), &settings);
        let all = (0..nodes).map(start).collect::<Outcome<Vec<_>>>()?;
        let listener = Listener::start(all.last().expect("at least one"), ORG)?;
        let (every, gap) = if listens { (1, GAP_MS) } else { (POLLED, POLL_GAP_MS) };
        let [committed, received, later] = [(); 3].map(|()| Samples::default());
        Ok(Self {
            name,
            target,
            every,
            gap,
            sql,
            _nodes: all,
            listener,
            committed,
            received,
            later,
        })
    }

    fn round(&mut self, number: u64, is_cold: bool) -> Outcome<()> {
        self.sql.run(&format!("BEGIN; SELECT nudge('{ORG}', 'n:{number}')"))?;
        let start = now();
        self.sql.run("COMMIT")?;
        let committed = now();
        let received = self.listener.wait_for(number)?;
        if !is_cold {
            self.committed.add(millis(start, committed));
            self.received.add(millis(start, received));
            self.later.add(millis(committed, received));
        }
        Ok(())
    }
}
