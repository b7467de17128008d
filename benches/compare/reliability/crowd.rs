//! Many clients at once, and what becomes of their requests.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::time::Duration;

use super::client::{BOUND, End, SETTLE, Stream, watch};
use crate::measure::ORG;
use crate::protocol::Request;
use crate::servers::Server;

/// What a request for a stream got.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    Served,
    /// The stream ended at once, in good order.
    SentAway {
        has_retry: bool,
    },
    Status {
        status: u16,
        has_retry_after: bool,
    },
    /// The connection ended, without a response or in the middle of one.
    Ended,
    /// The connect was refused.
    Refused,
    /// No response in time.
    Unanswered,
}

/// The number of requests for each fate.
pub(crate) type Fates = BTreeMap<Fate, usize>;

/// Requests this many streams at once; returns those that are served within a bound, and what became of all.
pub(crate) fn open(server: &Server, count: usize) -> io::Result<(Vec<Stream>, Fates)> {
    let mut fates = Fates::new();
    let mut streams = Vec::new();
    for _ in 0..count {
        match request(server)? {
            Ok(stream) => streams.push(stream),
            Err(fate) => *fates.entry(fate).or_default() += 1,
        }
    }
    tally(&mut streams, &mut fates);
    streams.retain(|stream| Fate::of(stream) == Fate::Served);
    Ok((streams, fates))
}

/// A request for a stream, or what became of it at once.
pub(crate) fn request(server: &Server) -> io::Result<Result<Stream, Fate>> {
    let path = server.protocol().stream(ORG);
    match Stream::request(server, &Request { path, last_event_id: None }) {
        Ok(stream) => Ok(Ok(stream)),
        Err(why) => match why.kind() {
            ErrorKind::ConnectionRefused => Ok(Err(Fate::Refused)),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Ok(Err(Fate::Ended)),
            ErrorKind::TimedOut => Ok(Err(Fate::Unanswered)),
            _ => Err(why),
        },
    }
}

/// Adds what became of these requests, for each of which a response is waited for.
pub(crate) fn tally(streams: &mut [Stream], fates: &mut Fates) {
    watch(streams, BOUND, |streams| streams.iter().all(Stream::is_answered));
    watch(streams, SETTLE, |_| false);
    for stream in streams {
        *fates.entry(Fate::of(stream)).or_default() += 1;
    }
}

/// How many of these receive event number `number`, within a bound.
pub(crate) fn receive(streams: &mut [Stream], number: u32) -> usize {
    watch(streams, BOUND, |streams| streams.iter().all(|stream| stream.count(number) > 0));
    streams.iter().filter(|stream| stream.count(number) > 0).count()
}

/// Such as "100 are served, 50 get 503".
pub(crate) fn words(fates: &Fates) -> String {
    let words: Vec<_> =
        fates.iter().map(|(fate, count)| format!("{count} {}", fate.words())).collect();
    words.join(", ")
}

/// The time in words.
pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

// ===== impl Fate =====

impl Fate {
    pub(crate) fn of(stream: &Stream) -> Self {
        match (stream.head(), stream.end()) {
            (Some(head), None) if head.status == 200 => Self::Served,
            (Some(head), Some((End::Complete, _))) if head.status == 200 => {
                Self::SentAway { has_retry: stream.retry_ms().is_some() }
            }
            (Some(head), _) if head.status != 200 => {
                let has_retry_after = head.field("retry-after").is_some();
                Self::Status { status: head.status, has_retry_after }
            }
            (_, Some(_)) => Self::Ended,
            (_, None) => Self::Unanswered,
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Served => "are served".into(),
            Self::SentAway { has_retry: true } => "get a `retry` and the end of the stream".into(),
            Self::SentAway { has_retry: false } => "get the end of the stream".into(),
            Self::Status { status, has_retry_after: true } => {
                format!("get {status} with `retry-after`")
            }
            Self::Status { status, has_retry_after: false } => format!("get {status}"),
            Self::Ended => "get the end of the connection".into(),
            Self::Refused => "cannot connect".into(),
            Self::Unanswered => format!("get no response for {} s", BOUND.as_secs()),
        }
    }
}
