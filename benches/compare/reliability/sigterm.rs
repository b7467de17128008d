//! A server that is asked to stop.

use std::collections::BTreeMap;
use std::io;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::client::{End, Stream, must_publish, watch};
use super::crowd::{self, Fates, seconds};
use super::family::signal;
use super::{Ask, Question};
use crate::measure::{ORG, Outcome, Plan};
use crate::peer::Peer;
use crate::servers::Server;
use crate::shared::process::now;

pub(crate) const QUESTION: Question = Question {
    key: "sigterm",
    short: "on SIGTERM",
    title: "What happens on SIGTERM?",
    how: "100 streams are open; an event is published, and when that is accepted, SIGTERM is sent. Until the server has \
          exited, for 45 s at most, one stream after the other is requested, one each 100 ms. In good order means: \
          with the last chunk of the response, which a proxy or a client with `fetch` can distinguish from a connection \
          that broke; an `EventSource` comes back in either case. Mercure lets its streams reach their age, 480 to \
          600 s; its documentation asks for as much time. The applications with axum, Hono and hyper handle no signal: \
          the kernel ends them.",
    ask: Ask::Each(ask),
};

/// What was observed from SIGTERM on.
#[derive(Debug, Default)]
pub(crate) struct Stopped {
    /// Streams that ended in each way, and how long after the signal the first and the last one did.
    pub(crate) ends: BTreeMap<End, usize>,
    pub(crate) span: Option<(Duration, Duration)>,
    /// Streams that have not ended.
    pub(crate) open: usize,
    /// The last `retry` of streams that got another one after the signal, in milliseconds.
    pub(crate) retries: Vec<u64>,
    /// Streams that received the event from before the signal.
    pub(crate) received: usize,
    /// What requests got meanwhile.
    pub(crate) meanwhile: Fates,
    /// How it exited, and how long after the signal.
    pub(crate) exit: Option<(ExitStatus, Duration)>,
}

const CLIENTS: usize = 100;
const BOUND: Duration = Duration::from_secs(45);
const PROBE_EVERY: Duration = Duration::from_millis(100);
const LOOK_EVERY: Duration = Duration::from_millis(10);

fn ask(peer: Peer, plan: &Plan, _: &dyn Fn(&str)) -> Outcome<String> {
    Ok(observe(&mut peer.start(plan)?)?.words())
}

pub(crate) fn observe(server: &mut Server) -> io::Result<Stopped> {
    let (mut streams, fates) = crowd::open(server, CLIENTS)?;
    if streams.len() < CLIENTS {
        return Err(io::Error::other(crowd::words(&fates)));
    }
    must_publish(server, ORG, 1)?;
    let received = crowd::receive(&mut streams, 1);
    if received < CLIENTS {
        return Err(io::Error::other(format!("{received} of {CLIENTS} receive an event")));
    }
    let greeted: Vec<_> = streams.iter().map(Stream::retry_ms).collect();
    must_publish(server, ORG, 2)?;
    signal(server.process().id(), Signal::TERM)?;
    let start = now();
    let mut stopped = Stopped::default();
    let mut probes = Vec::new();
    let mut probed: Option<Instant> = None;
    while start.elapsed() < BOUND {
        watch(&mut streams, LOOK_EVERY, |_| false);
        if let Some(status) = server.process().child.try_wait()? {
            stopped.exit = Some((status, start.elapsed()));
            break;
        }
        if probed.is_none_or(|probed| probed.elapsed() > PROBE_EVERY) {
            probed = Some(now());
            match crowd::request(server)? {
                Ok(probe) => probes.push(probe),
                Err(fate) => *stopped.meanwhile.entry(fate).or_default() += 1,
            }
        }
    }
    // What the server sent before it exited may still be on its way.
    let bound = if stopped.exit.is_some() { super::client::BOUND } else { Duration::ZERO };
    watch(&mut streams, bound, |streams| streams.iter().all(|stream| stream.end().is_some()));
    crowd::tally(&mut probes, &mut stopped.meanwhile);
    stopped.look_at(&streams, &greeted, start);
    Ok(stopped)
}

// ===== impl Stopped =====

impl Stopped {
    fn look_at(&mut self, streams: &[Stream], greeted: &[Option<u64>], start: Instant) {
        self.received = streams.iter().filter(|stream| stream.count(2) > 0).count();
        let retry = |(stream, greeted): (&Stream, &Option<u64>)| {
            stream.retry_ms().filter(|retry| Some(*retry) != *greeted)
        };
        self.retries = streams.iter().zip(greeted).filter_map(retry).collect();
        for stream in streams {
            let Some((end, at)) = stream.end() else {
                self.open += 1;
                continue;
            };
            *self.ends.entry(end.clone()).or_default() += 1;
            let after = at.saturating_duration_since(start);
            let (first, last) = self.span.unwrap_or((after, after));
            self.span = Some((first.min(after), last.max(after)));
        }
    }

    fn words(&self) -> String {
        let mut parts = vec![self.ends_in_words()];
        if let (Some(least), Some(most)) = (self.retries.iter().min(), self.retries.iter().max()) {
            parts.push(format!("{} get another `retry`, {least} to {most} ms", self.retries.len()));
        } else {
            parts.push("none gets another `retry`".into());
        }
        parts.push(format!("{} of {CLIENTS} receive the event from before", self.received));
        parts.push(match self.meanwhile.is_empty() {
            true => "it exits at once, before another request".into(),
            false => format!("of the requests meanwhile, {}", crowd::words(&self.meanwhile)),
        });
        parts.push(match self.exit {
            Some((status, after)) => format!("{status} after {}", seconds(after)),
            None => format!("it has not exited after {}", seconds(BOUND)),
        });
        format!("{}: {}", self.in_few_words(), parts.join("; "))
    }

    fn in_few_words(&self) -> String {
        let broken = [End::Closed, End::Reset].iter().filter_map(|end| self.ends.get(end)).sum();
        let order = match (self.open, broken) {
            (0, 0) if self.ends.contains_key(&End::Unmarked) => "streams end",
            (0, 0) => "streams end in good order",
            (0, CLIENTS) => "streams break",
            (0, _) => "some streams break",
            _ => return format!("{} streams go on", self.open),
        };
        match self.span {
            Some((first, last)) => format!("{order} within {}", seconds(last - first)),
            None => order.into(),
        }
    }

    fn ends_in_words(&self) -> String {
        let mut words: Vec<_> =
            self.ends.iter().map(|(end, count)| format!("{count} {}", end.words())).collect();
        if self.open > 0 {
            words.push(format!("{} are still open", self.open));
        }
        let span = self.span.map(|(first, last)| {
            format!(", {} to {} after the signal", seconds(first), seconds(last))
        });
        words.join(", ") + &span.unwrap_or_default()
    }
}

impl End {
    fn words(&self) -> &str {
        match self {
            Self::Complete => "end in good order",
            Self::Unmarked => "end with a FIN, without chunks",
            Self::Closed => "end with a FIN in the middle of the response",
            Self::Reset => "end with a RST",
            Self::Malformed(why) => why,
        }
    }
}
