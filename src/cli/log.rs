//! The log: lines go through a bounded queue to a thread, which writes them to standard error. Nothing that serves
//! waits for a reader of the log; a line for which the queue has no room is dropped, and counted.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal, Write};
use std::panic::{self, PanicHookInfo};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use nudged::metrics::SharedCount;
use serde_json::json;
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::LogFormat;

/// The log of a running program. Dropping it writes what waits, within [`FLUSH_TIMEOUT`].
#[derive(Debug)]
pub(crate) struct Log {
    queue: Queue,
    /// Closed when the thread ends.
    ended: Receiver<()>,
}

/// Where lines wait. Clones share it.
#[derive(Clone, Debug)]
struct Queue {
    lines: SyncSender<Vec<u8>>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Of the lines that wait, and of the one that is being written.
    bytes: AtomicUsize,
    /// The thread ends once no line waits.
    closing: AtomicBool,
    dropped: SharedCount,
}

/// Writes the lines, in a thread of its own.
#[derive(Debug)]
struct Printer {
    lines: Receiver<Vec<u8>>,
    state: Arc<State>,
    format: LogFormat,
    /// Dropped lines that the log mentions already.
    reported: u64,
}

/// Lines that may wait.
const LINES_MAX: usize = 1_024;

/// Bytes of lines that may wait.
const BYTES_MAX: usize = 1024 * 1024;

/// How long the end of the program waits for the log to be read.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

// ===== impl Log =====

impl Log {
    /// Starts the log of this process, which can have only one. Panics become lines of it too, whatever the filter.
    pub(crate) fn start(filter: EnvFilter, format: LogFormat) -> io::Result<Self> {
        let (sender, lines) = sync_channel(LINES_MAX);
        let queue = Queue { lines: sender, state: Arc::default() };
        let printer = Printer { lines, state: queue.state.clone(), format, reported: 0 };
        let (alive, ended) = channel();
        let print = move || {
            let _alive = alive;
            printer.run();
        };
        thread::Builder::new().name("nudged-log".into()).spawn(print)?;

        let panics = queue.clone();
        panic::set_hook(Box::new(move |panic| panics.push(&panic_line(format, panic))));
        // Its own errors would go to standard error directly, and wait for its reader.
        let log = tracing_subscriber::fmt().log_internal_errors(false);
        let log = log.with_env_filter(filter).with_ansi(is_coloured());
        let log = log.with_writer(queue.clone());
        match format {
            LogFormat::Text => log.finish().with(filter_fn(may_be_logged)).init(),
            LogFormat::Json => {
                log.json().flatten_event(true).finish().with(filter_fn(may_be_logged)).init();
            }
        }
        Ok(Self { queue, ended })
    }

    /// Lines that were dropped so far.
    pub(crate) fn dropped(&self) -> SharedCount {
        self.queue.state.dropped.clone()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.queue.state.closing.store(true, Ordering::SeqCst);
        // Wakes the thread. If there is no room for it, the thread is not asleep.
        _ = self.queue.lines.try_send(Vec::new());
        _ = self.ended.recv_timeout(FLUSH_TIMEOUT);
    }
}

/// Whether standard error is a terminal that shows colours, and its user wants them.
fn is_coloured() -> bool {
    io::stderr().is_terminal() && may_be_coloured()
}

/// Whether a terminal gets colours: unless its user wants none (no-color.org), or it has none.
pub(crate) fn may_be_coloured() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !is_set("NO_COLOR") && !is_dumb_terminal()
}

/// Whether the terminal says that it can do nothing but print.
pub(crate) fn is_dumb_terminal() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// The HTTP/2 library is never logged, whatever the filter says: its lines hold parts of requests, tokens
/// among them, and a client decides how many there are. Nor is that of the broker, which calls each lost connection an
/// error: the server's own lines say what becomes of it.
fn may_be_logged(line: &Metadata<'_>) -> bool {
    let library = line.target().split("::").next();
    !matches!(library, Some("h2" | "async_nats" | "redis"))
}

// ===== impl Queue =====

impl Queue {
    fn push(&self, line: &[u8]) {
        let Self { lines, state } = self;
        let bytes = state.bytes.fetch_add(line.len(), Ordering::Relaxed) + line.len();
        if bytes > BYTES_MAX || lines.try_send(line.to_vec()).is_err() {
            state.bytes.fetch_sub(line.len(), Ordering::Relaxed);
            state.dropped.add(1);
        }
    }
}

/// A write is a whole line.
impl Write for &Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

// ===== impl Printer =====

impl Printer {
    fn run(mut self) {
        let mut written = 0_usize;
        loop {
            // Read first: a line that was pushed before the end is received after it.
            let closing = self.state.closing.load(Ordering::SeqCst);
            let line = if let Ok(line) = self.lines.try_recv() {
                line
            } else {
                self.report();
                if closing {
                    return;
                }
                let Ok(line) = self.lines.recv() else { return };
                line
            };
            if io::stderr().write_all(&line).is_err() {
                self.state.dropped.add(1);
            }
            self.state.bytes.fetch_sub(line.len(), Ordering::Relaxed);
            written = written.wrapping_add(1);
            // Also where the queue is never empty.
            if written.is_multiple_of(LINES_MAX) {
                self.report();
            }
        }
    }

    /// Writes how many lines were dropped since the last report, if any.
    fn report(&mut self) {
        let dropped = self.state.dropped.get();
        if dropped == self.reported {
            return;
        }
        let message = "log lines were dropped, because nothing reads the log as fast as it grows";
        let report = line(self.format, Level::WARN, message, Some(dropped - self.reported));
        if io::stderr().write_all(&report).is_ok() {
            self.reported = dropped;
        }
    }
}

// ===== lines that no filter suppresses =====

/// A line like those of tracing.
fn line(format: LogFormat, level: Level, message: &str, lines: Option<u64>) -> Vec<u8> {
    let mut timestamp = String::new();
    _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
    let line = match format {
        LogFormat::Text => {
            let lines = lines.map(|lines| format!(" lines={lines}")).unwrap_or_default();
            format!("{timestamp} {level:>5} nudged: {message}{lines}\n")
        }
        LogFormat::Json => {
            let (level, target) = (level.as_str(), "nudged");
            let mut object = json!({
                "timestamp": timestamp, "level": level, "message": message, "target": target,
            });
            if let Some(lines) = lines {
                object["lines"] = lines.into();
            }
            format!("{object}\n")
        }
    };
    line.into_bytes()
}

fn panic_line(format: LogFormat, panic: &PanicHookInfo<'_>) -> Vec<u8> {
    let thread = thread::current();
    let name = thread.name().unwrap_or("without a name");
    let mut message = format!("thread {name} {panic}");
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        message = format!("{message}\n{backtrace}");
    }
    line(format, Level::ERROR, &message, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> (Queue, Receiver<Vec<u8>>) {
        let (sender, lines) = sync_channel(LINES_MAX);
        (Queue { lines: sender, state: Arc::default() }, lines)
    }

    #[test]
    fn the_lines_that_wait_are_bounded_in_number_and_in_bytes() {
        for len in [0, 100, 1_024, 10_000, BYTES_MAX, BYTES_MAX + 1] {
            let (queue, lines) = queue();
            (0..2 * LINES_MAX).for_each(|_| queue.push(&vec![b'a'; len]));
            let kept: Vec<_> = lines.try_iter().collect();
            assert_eq!(kept.len(), LINES_MAX.min(BYTES_MAX.checked_div(len).unwrap_or(LINES_MAX)));
            assert_eq!(queue.state.dropped.get(), (2 * LINES_MAX - kept.len()) as u64);
            assert_eq!(queue.state.bytes.load(Ordering::Relaxed), kept.len() * len);
        }
    }

    #[test]
    fn a_line_that_no_filter_suppresses_has_the_format_of_the_others() {
        let text = line(LogFormat::Text, Level::WARN, "dropped", Some(3));
        let text = String::from_utf8(text).expect("text");
        assert!(text.ends_with("Z  WARN nudged: dropped lines=3\n"), "{text}");
        let json = line(LogFormat::Json, Level::ERROR, "two\nlines", None);
        let json: serde_json::Value = serde_json::from_slice(&json).expect("an object");
        let fields = [("level", "ERROR"), ("message", "two\nlines"), ("target", "nudged")];
        fields.iter().for_each(|(name, value)| assert_eq!(json[name], *value, "{json}"));
    }
}
