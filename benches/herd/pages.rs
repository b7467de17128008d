//! The pages, in processes of Node that run `pages.mjs`.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::shared::process::guarded;
use crate::{Outcome, Rules};

/// All processes, ended when this is dropped.
pub(crate) struct Pages {
    all: Vec<Node>,
    /// The version of Node.
    pub(crate) version: String,
}

/// How far they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Pages that have their stream.
    pub(crate) open: usize,
    /// Pages that have received an event since the mark.
    pub(crate) moved: usize,
}

/// What happened since the mark.
#[derive(Clone, Debug, Default)]
pub(crate) struct Happened {
    /// Requests for streams, those that were refused included.
    pub(crate) attempts: usize,
    /// When each stream was opened, in seconds.
    pub(crate) openings: Vec<f64>,
    /// The longest time for which a process did not return to its event loop, in milliseconds.
    pub(crate) delay_ms: f64,
    pub(crate) faults: Vec<String>,
}

struct Node {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/herd/pages.mjs");
/// What `.ci/run programs` installs; else that of the system.
const LOCKED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/programs/bin/node");

// ===== impl Pages =====

impl Pages {
    /// Returns once each page has its stream. The numbers are pages, and how many of them are hidden, by process.
    pub(crate) fn start(
        server: &str,
        backend: SocketAddr,
        by_process: &[(usize, usize)],
        rules: Rules,
    ) -> Outcome<Self> {
        let start = |(pages, hidden): &(usize, usize)| {
            let given = [
                json!(server),
                json!(backend.port()),
                json!(pages),
                json!(hidden),
                json!(rules.hidden),
                json!(rules.spread_ms),
            ];
            Node::start(&given)
        };
        let mut all = by_process.iter().map(start).collect::<Outcome<Vec<_>>>()?;
        let mut version = String::new();
        for node in &mut all {
            version = node.answer()?["node"].as_str().unwrap_or_default().to_owned();
        }
        Ok(Self { all, version })
    }

    pub(crate) fn processes(&self) -> Vec<u32> {
        self.all.iter().map(|node| node.child.id()).collect()
    }

    /// From here on is counted.
    pub(crate) fn mark(&mut self) -> Outcome<()> {
        self.ask("mark").map(drop)
    }

    pub(crate) fn count(&mut self) -> Outcome<Count> {
        let mut sum = Count::default();
        for counted in self.ask("count")? {
            let of = |name: &str| counted[name].as_u64().unwrap_or(0) as usize;
            sum.open += of("open");
            sum.moved += of("moved");
        }
        Ok(sum)
    }

    /// Waits until what the pages were called for is answered.
    pub(crate) fn settle(&mut self) -> Outcome<()> {
        self.ask("settle").map(drop)
    }

    /// Looks at every hidden page once, at random moments of this time, and waits until they have re-read.
    pub(crate) fn look(&mut self, time: Duration) -> Outcome<()> {
        self.ask(&format!("look {}", time.as_millis())).map(drop)
    }

    pub(crate) fn happened(&mut self) -> Outcome<Happened> {
        let mut happened = Happened::default();
        for one in self.ask("happened")? {
            happened.attempts += one["attempts"].as_u64().unwrap_or(0) as usize;
            let openings = one["openings"].as_array().into_iter().flatten();
            happened.openings.extend(openings.filter_map(Value::as_f64).map(|ms| ms / 1e3));
            happened.delay_ms = happened.delay_ms.max(one["delay"].as_f64().unwrap_or(f64::NAN));
            let faults = one["faults"].as_array().into_iter().flatten();
            happened.faults.extend(faults.filter_map(Value::as_str).map(str::to_owned));
        }
        Ok(happened)
    }

    fn ask(&mut self, line: &str) -> Outcome<Vec<Value>> {
        for node in &mut self.all {
            writeln!(node.stdin, "{line}")?;
        }
        self.all.iter_mut().map(Node::answer).collect()
    }
}

// ===== impl Node =====

impl Node {
    fn start(given: &[Value]) -> Outcome<Self> {
        let program = if Path::new(LOCKED).exists() { LOCKED } else { "node" };
        let mut command = guarded(program)?;
        command.arg(SCRIPT).args(given.iter().map(Value::to_string));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take().expect("piped");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        Ok(Self { child, stdin, stdout })
    }

    fn answer(&mut self) -> Outcome<Value> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            return Err(format!("node has ended: {}", self.child.wait()?).into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
