//! How many rows of an outbox are published a second: such as have piled up, and such as writers go on to write.

use std::thread;
use std::time::{Duration, Instant};

use crate::figures::{Samples, Section, Target};
use crate::node::{Log, Node};
use crate::postgres::{Postgres, Sql};
use crate::servers::Broker;
use crate::shared::process::now;
use crate::{Outcome, Plan};

/// Servers over one log, and an outbox that they share.
struct Stage<'a> {
    postgres: &'a Postgres,
    broker: &'a Broker,
    database: &'static str,
    sql: Sql,
    nodes: Vec<Node>,
}

/// Orgs of the rows.
const ORGS: u32 = 1_000;
/// Sessions that write, and the rows of each of their transactions.
const WRITERS: usize = 8;
const ROWS: u64 = 10;
/// Transactions a second, where they are not as many as there can be.
const RATE: u64 = 1_000;
const TARGET: f64 = 20_000.0;
const PAUSE: Duration = Duration::from_millis(10);
/// How long all rows may take.
const LIMIT: Duration = Duration::from_secs(120);

pub(crate) fn run(plan: &Plan) -> Outcome<Section> {
    let (rows, rounds, seconds) = if plan.short { (20_000, 1, 3) } else { (100_000, 5, 10) };
    let (postgres, kind) = (Postgres::start()?, plan.brokers[0]);
    let broker = kind.start()?;
    let mut section = Section::new(
        "outbox-rows",
        format!(
            "Rows of two keys, of {ORGS} orgs without streams, published by servers of one worker over one log. *Piled \
             up*: {rows} rows that one transaction wrote, from its COMMIT until the servers have counted all as \
             published; medians of {rounds} rounds. *Written meanwhile*: by pgbench with {WRITERS} sessions, {ROWS} rows \
             a transaction, for {seconds} s; rows that wait are looked at each 50 ms. PostgreSQL, the broker, the \
             servers and the writers share this machine's cores. {}; {}.",
            postgres.about()?,
            kind.about()?
        ),
    );
    for (database, count) in [("one", 1), ("two", 2)] {
        let stage = Stage::new(&postgres, &broker, database, count)?;
        stage.piled_up(&mut section, rows, rounds)?;
        if count == 2 {
            let duration = Duration::from_secs(seconds);
            let paced = format!("{} rows a second", RATE * ROWS);
            stage.written(&mut section, &paced, duration, &["-R", &RATE.to_string()])?;
            stage.written(&mut section, "as many rows as writers can", duration, &[])?;
        }
        let left = stage.sql.number("SELECT count(*) FROM nudged_outbox")?;
        section.expect_none(&format!("{}: rows left", stage.name()), left.unsigned_abs());
    }
    Ok(section)
}

// ===== impl Stage =====

impl<'a> Stage<'a> {
    fn new(
        postgres: &'a Postgres,
        broker: &'a Broker,
        database: &'static str,
        count: usize,
    ) -> Outcome<Self> {
        let sql = postgres.create(database, &[])?;
        let url = postgres.url(database);
        let log = Log { broker, name: database, linger: "5ms" };
        let start = |_| Node::start(Some(log), &["--workers", "1", "--outbox", &url]);
        let nodes = (0..count).map(start).collect::<Outcome<_>>()?;
        Ok(Self { postgres, broker, database, sql, nodes })
    }

    fn name(&self) -> &'static str {
        if self.nodes.len() == 1 { "1 server" } else { "2 servers" }
    }

    /// Rows that the servers have published.
    fn published(&self) -> Outcome<u64> {
        let each = self.nodes.iter().map(|node| node.metric("nudged_outbox_published_total"));
        Ok(each.sum::<Outcome<f64>>()? as u64)
    }

    /// Waits until so many rows have been published.
    fn wait_for(&self, rows: u64) -> Outcome<()> {
        let start = now();
        while self.published()? < rows {
            if start.elapsed() > LIMIT {
                return Err(format!("rows are not published\n{}", self.nodes[0].log()).into());
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn nodes_cpu(&self) -> Outcome<Duration> {
        Ok(self.nodes.iter().map(|node| Ok(node.cost()?.cpu)).sum::<std::io::Result<Duration>>()?)
    }

    fn piled_up(&self, section: &mut Section, rows: u64, rounds: usize) -> Outcome<()> {
        let (mut rates, mut shares) = (Samples::default(), Samples::default());
        let mut cpu = [(); 3].map(|()| Samples::default());
        for _ in 0..rounds {
            let before = self.published()?;
            let first = self.nodes[0].metric("nudged_outbox_published_total")?;
            self.sql.run(&format!(
                "INSERT INTO nudged_outbox (org, keys) SELECT 'org-' || n % {ORGS}, \
                 ARRAY['posts', 'feed:' || n % 100] FROM generate_series(1, {rows}) AS n"
            ))?;
            let start = now();
            let used = [self.nodes_cpu()?, self.postgres.cpu()?, self.broker.cpu()?];
            self.wait_for(before + rows)?;
            rates.add(rows as f64 / start.elapsed().as_secs_f64());
            let now_used = [self.nodes_cpu()?, self.postgres.cpu()?, self.broker.cpu()?];
            for ((samples, after), before) in cpu.iter_mut().zip(now_used).zip(used) {
                samples.add(after.saturating_sub(before).as_secs_f64() * 1e6 / rows as f64);
            }
            let share = self.nodes[0].metric("nudged_outbox_published_total")? - first;
            shares.add(share / rows as f64 * 100.0);
        }
        let name = format!("{}, piled up", self.name());
        let target = Target::AtLeast(TARGET);
        match self.nodes.len() {
            1 => section.add(format!("{name}: rows published"), rates.quantile(0.5), "/s"),
            _ => {
                section.add_with(
                    format!("{name}: rows published"),
                    rates.quantile(0.5),
                    "/s",
                    target,
                );
                section.add(format!("{name}: of these by the first"), shares.quantile(0.5), "%");
            }
        }
        section.add(format!("{name}: … the worst round"), rates.quantile(0.0), "/s");
        let [nodes, postgres, broker] = cpu.map(|samples| samples.quantile(0.5));
        section.add(format!("{name}: the servers' CPU"), nodes, "µs a row");
        section.add(format!("{name}: PostgreSQL's CPU"), postgres, "µs a row");
        section.add(format!("{name}: the broker's CPU"), broker, "µs a row");
        Ok(())
    }

    /// Writers write meanwhile.
    fn written(
        &self,
        section: &mut Section,
        what: &str,
        duration: Duration,
        flags: &[&str],
    ) -> Outcome<()> {
        let script = format!(
            "\\set n random(1, {ORGS})\n\
             SELECT nudge('org-' || :n, 'posts', 'feed:' || n) FROM generate_series(1, {ROWS}) AS n;\n"
        );
        let (before, given) = (self.published()?, self.given()?);
        let start = now();
        let (run, waiting) = thread::scope(|scope| {
            let writers = scope.spawn(|| {
                let run = self.postgres.bench(self.database, &script, WRITERS, duration, flags);
                run.map_err(|why| why.to_string())
            });
            let waiting = self.watch(before, given, || writers.is_finished());
            (writers.join().expect("it does not panic"), waiting)
        });
        let ((run, waiting), ended) = ((run?, waiting?), now());
        let published = self.published()? - before;
        let rates = (run.per_second * ROWS as f64, published as f64 / seconds(start, ended));
        let written = self.given()?.saturating_sub(given);
        self.wait_for(before + written)?;
        let name = format!("2 servers, {what}");
        section.add(format!("{name}: rows written"), rates.0, "/s");
        section.add(format!("{name}: rows published meanwhile"), rates.1, "/s");
        section.add(format!("{name}: rows that wait, p50"), waiting.quantile(0.5), "");
        section.add(format!("{name}: rows that wait, most"), waiting.quantile(1.0), "");
        section.add(format!("{name}: all published after"), seconds(ended, now()) * 1e3, "ms");
        section.expect_none(&format!("{name}: transactions that failed"), run.failed);
        Ok(())
    }

    /// The rows that have been written, before their COMMIT too.
    fn given(&self) -> Outcome<u64> {
        let last = "SELECT last_value FROM nudged_outbox_id_seq";
        Ok(self.sql.number(last)?.unsigned_abs())
    }

    /// How many rows wait at each moment until it is the end.
    fn watch(&self, before: u64, given: u64, is_end: impl Fn() -> bool) -> Outcome<Samples> {
        let mut waiting = Samples::default();
        while !is_end() {
            let published = self.published()? - before;
            waiting.add((self.given()? - given).saturating_sub(published) as f64);
            thread::sleep(5 * PAUSE);
        }
        Ok(waiting)
    }
}

fn seconds(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64()
}
