//! What a transaction costs that calls `nudge()`, beside the same with other statements instead.

use std::time::Duration;

use crate::figures::{Samples, Section};
use crate::postgres::{Postgres, Sql};
use crate::{Outcome, Plan};

/// A statement that a transaction has beside the insert of its own row.
struct Variant {
    name: &'static str,
    /// `None` for nothing beside it.
    statement: Option<&'static str>,
    database: &'static str,
    /// For each number of clients.
    per_second: [Samples; CLIENTS.len()],
    millis: [Samples; CLIENTS.len()],
    cpu_us: [Samples; CLIENTS.len()],
}

/// Sessions at once.
const CLIENTS: [usize; 2] = [1, 8];
/// Databases without the trigger that notifies, and with it.
const PLAIN: &str = "plain";
const NOTIFYING: &str = "notifying";
/// Has what the transactions write.
const TABLES: &str =
    "CREATE TABLE post (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text NOT NULL);
    CREATE TABLE shaped (LIKE nudged_outbox INCLUDING ALL)";
const CLEAR: &str = "TRUNCATE post, shaped, nudged_outbox";

pub(crate) fn run(plan: &Plan) -> Outcome<Section> {
    let (rounds, duration) =
        if plan.short { (1, Duration::from_secs(1)) } else { (7, Duration::from_secs(3)) };
    let postgres = Postgres::start()?;
    let mut section = Section::new(
        "outbox-cost",
        format!(
            "Transactions of pgbench: `BEGIN`, an INSERT of a row of 100 bytes, one more statement, `COMMIT`; prepared \
             statements. In turn, for {} s each, medians of {rounds} rounds. A session listens to what is notified. \
             Nothing drains the outbox meanwhile; what was written is truncated after each. pgbench and PostgreSQL \
             share this machine's cores. {}.",
            duration.as_secs(),
            postgres.about()?
        ),
    );
    let databases = [
        Database::new(&postgres, PLAIN, &[])?,
        Database::new(&postgres, NOTIFYING, &["--notify"])?,
    ];
    let mut variants = Variant::all();
    for round in 0..=rounds {
        for variant in &mut variants {
            let database = databases.iter().find(|database| database.name == variant.database);
            let sql = &database.expect("it is one of them").sql;
            for (index, clients) in CLIENTS.into_iter().enumerate() {
                // The first round is for warming up.
                let duration = if round == 0 { Duration::from_secs(1) } else { duration };
                let script = variant.script();
                let before = postgres.cpu()?;
                let run = postgres.bench(variant.database, &script, clients, duration, &[])?;
                section.faults.extend(
                    (run.failed > 0).then(|| format!("{}: transactions failed", variant.name)),
                );
                if round > 0 {
                    variant.per_second[index].add(run.per_second);
                    variant.millis[index].add(run.millis);
                    let used = postgres.cpu()?.saturating_sub(before).as_secs_f64();
                    variant.cpu_us[index].add(used * 1e6 / run.count);
                }
                sql.run(CLEAR)?;
            }
        }
    }
    for (index, clients) in CLIENTS.into_iter().enumerate() {
        let sessions = if clients == 1 { "session" } else { "sessions" };
        for Variant { name, per_second, millis, cpu_us, .. } in &variants {
            let name = format!("{clients} {sessions}, {name}");
            let (rate, time) = (per_second[index].quantile(0.5), millis[index].quantile(0.5));
            section.add(format!("{name}: transactions"), rate, "/s");
            section.add(format!("{name}: a transaction"), time, "ms");
            let used = cpu_us[index].quantile(0.5);
            section.add(format!("{name}: PostgreSQL's CPU"), used, "µs a transaction");
        }
    }
    Ok(section)
}

struct Database {
    name: &'static str,
    sql: Sql,
    /// Listens.
    _listener: Sql,
}

// ===== impl Database =====

impl Database {
    fn new(postgres: &Postgres, name: &'static str, flags: &[&str]) -> Outcome<Self> {
        let sql = postgres.create(name, flags)?;
        sql.run(TABLES)?;
        let listener = postgres.sql(name)?;
        listener.run("LISTEN nudged_outbox; LISTEN x")?;
        Ok(Self { name, sql, _listener: listener })
    }
}

// ===== impl Variant =====

impl Variant {
    fn all() -> Vec<Self> {
        let new = |name, statement, database| Self {
            name,
            statement,
            database,
            per_second: Default::default(),
            millis: Default::default(),
            cpu_us: Default::default(),
        };
        vec![
            new("the row alone", None, PLAIN),
            new("and SELECT 1", Some("SELECT 1"), PLAIN),
            new(
                "and a row of the outbox's shape",
                Some("INSERT INTO shaped (org, keys) VALUES ('acme', ARRAY['posts'])"),
                PLAIN,
            ),
            new("and nudge()", Some("SELECT nudge('acme', 'posts')"), PLAIN),
            new(
                "and nudge() with the trigger that notifies",
                Some("SELECT nudge('acme', 'posts')"),
                NOTIFYING,
            ),
            new("and pg_notify()", Some("SELECT pg_notify('x', 'acme posts')"), PLAIN),
        ]
    }

    fn script(&self) -> String {
        let more = self.statement.map(|statement| format!("{statement};\n")).unwrap_or_default();
        format!("BEGIN;\nINSERT INTO post (body) VALUES (repeat('x', 100));\n{more}COMMIT;\n")
    }
}
