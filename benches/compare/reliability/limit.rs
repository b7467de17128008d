//! More clients than a server has room for.

use std::io;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

use super::client::{Stream, publish};
use super::crowd::{self, Fate, Fates, seconds};
use super::family::{descriptors, family, signal};
use super::{Ask, Question};
use crate::measure::{ORG, Outcome, Plan};
use crate::peer::Peer;
use crate::servers::Server;
use crate::shared::process::now;

pub(crate) const CONNECTIONS: Question = Question {
    key: "limit",
    short: "at the limit of connections",
    title: "What happens at the limit of connections?",
    how: "Servers with a setting for it are started with a limit of 100 connections, and 150 streams are requested. \
          Then an event is published; 50 of the streams are reset, and the others that were not served close; one is \
          requested anew, again and again for 10 s at most, until it is served; and an event is published to all.",
    ask: Ask::Each(connections),
};

pub(crate) const DESCRIPTORS: Question = Question {
    key: "descriptors",
    short: "at the limit of open files",
    title: "What happens at the limit of open files?",
    how: "The same, but for every server, and the limit is that of the system: when it has started, the limit of open \
          files of each of its processes is set to what that has open, and 100 more (`prlimit`). A server that read its \
          limit when it started, and keeps a reserve, cannot notice.",
    ask: Ask::Each(open_files),
};

/// What was observed at a limit.
#[derive(Debug)]
pub(crate) struct Limited {
    pub(crate) fates: Fates,
    /// That of the publish at the limit.
    pub(crate) published: Published,
    /// Streams that received it, of those that were open.
    pub(crate) received: (usize, usize),
    /// Streams that were reset then.
    pub(crate) left: usize,
    /// How long it took until there was room for another one.
    pub(crate) freed: Option<Duration>,
    /// Streams that received an event after that, of those that were open.
    pub(crate) received_after: (usize, usize),
}

/// What a publish got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Published {
    Accepted,
    Status(u16),
    Failed(io::ErrorKind),
}

const LIMIT: usize = 100;
const CLIENTS: usize = 150;
const LEAVING: usize = 50;
/// How long a client is refused at most, once there is room.
const FREED: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

fn connections(peer: Peer, plan: &Plan, log: &dyn Fn(&str)) -> Outcome<String> {
    let plan = Plan { connections: Some(LIMIT), ..plan.clone() };
    answer(&mut peer.start(&plan)?, log)
}

fn open_files(peer: Peer, plan: &Plan, log: &dyn Fn(&str)) -> Outcome<String> {
    let mut server = peer.start(plan)?;
    limit_descriptors(&mut server)?;
    answer(&mut server, log)
}

fn answer(server: &mut Server, log: &dyn Fn(&str)) -> Outcome<String> {
    let words = observe(server, log)?.words();
    Ok(match server.process().child.try_wait()? {
        Some(_) => format!("the server ends, {words}"),
        None => words,
    })
}

/// Leaves each process of the server this many more descriptors than it has.
pub(crate) fn limit_descriptors(server: &mut Server) -> io::Result<()> {
    // Once it serves, all its processes are there, and have set limits of their own.
    Stream::open_new(server, ORG)?.reset()?;
    for process in family(server.process().id())? {
        let most = Some((descriptors(process)? + LIMIT) as u64);
        let id = i32::try_from(process).ok().and_then(Pid::from_raw);
        match prlimit(id, Resource::Nofile, Rlimit { current: most, maximum: most }) {
            // nginx's worker has another user. Its master, which has the limit already, starts another one.
            Err(Errno::PERM) if process != server.process().id() => signal(process, Signal::KILL)?,
            done => drop(done?),
        }
    }
    Stream::open_new(server, ORG)?.reset()
}

pub(crate) fn observe(server: &Server, log: &dyn Fn(&str)) -> io::Result<Limited> {
    log("streams");
    let (mut streams, fates) = crowd::open(server, CLIENTS)?;
    log("a publish");
    let published = Published::of(publish(server, ORG, 1));
    let received = match published {
        Published::Accepted => (crowd::receive(&mut streams, 1), streams.len()),
        _ => (0, streams.len()),
    };
    log("room");
    let left = LEAVING.min(streams.len());
    for stream in streams.drain(..left) {
        stream.reset()?;
    }
    let freed = match request_again(server)? {
        Some((stream, took)) => {
            streams.push(stream);
            Some(took)
        }
        None => None,
    };
    let received_after = match publish(server, ORG, 2) {
        Ok(200..300) => crowd::receive(&mut streams, 2),
        _ => 0,
    };
    Ok(Limited {
        fates,
        published,
        received,
        left,
        freed,
        received_after: (received_after, streams.len()),
    })
}

/// Requests a stream until it is served, and returns how long that took.
fn request_again(server: &Server) -> io::Result<Option<(Stream, Duration)>> {
    let start = now();
    while start.elapsed() < FREED {
        let (mut streams, _) = crowd::open(server, 1)?;
        if let Some(stream) = streams.pop() {
            return Ok(Some((stream, start.elapsed())));
        }
        thread::sleep(PAUSE);
    }
    Ok(None)
}

// ===== impl Published =====

impl Published {
    fn of(response: io::Result<u16>) -> Self {
        match response {
            Ok(200..300) => Self::Accepted,
            Ok(status) => Self::Status(status),
            Err(why) => Self::Failed(why.kind()),
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Accepted => "a publish is accepted".into(),
            Self::Status(status) => format!("a publish gets {status}"),
            Self::Failed(io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                "a publish gets no response".into()
            }
            Self::Failed(kind) => format!("a publish fails ({kind})"),
        }
    }
}

// ===== impl Limited =====

impl Limited {
    fn words(&self) -> String {
        let all = self.fates.values().sum::<usize>();
        let served = self.fates.get(&Fate::Served).copied().unwrap_or(0);
        let few = match served == all {
            true => "no limit".to_owned(),
            false => {
                let others = self.fates.iter().filter(|(fate, _)| **fate != Fate::Served);
                crowd::words(&others.map(|(fate, count)| (fate.clone(), *count)).collect())
            }
        };
        let received = match self.published {
            Published::Accepted => {
                format!("; {} of {} receive it", self.received.0, self.received.1)
            }
            _ => String::new(),
        };
        let freed = match self.freed {
            Some(took) => {
                format!("after {} have left, another is served within {}", self.left, seconds(took))
            }
            None => {
                format!("after {} have left, none is served for {}", self.left, seconds(FREED))
            }
        };
        let (after, open) = self.received_after;
        format!(
            "{few}: {served} of {all} served; {}{received}; {freed}; {after} of {open} receive the next event",
            self.published.words()
        )
    }
}
