//! What to measure, and what carries it.

use std::net::IpAddr;
use std::time::Duration;

use mio::net::TcpStream;

use super::connection::Route;
use super::http1::Swarm;
use super::http2::Multiplexed;
use super::link::Secured;
use super::ramp::{Carrier, Pace};
use super::target::{Error, Target};
use crate::client::Trust;
use crate::client::tls::{HTTP_1, HTTP_2};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the subscribers go: `http[s]://host:port/path`.
    pub url: String,
    /// Whose certificates are believed.
    pub trust: Trust,
    /// Streams on each HTTP/2 connection; `None` is HTTP/1.1, each stream on a connection of its own.
    pub http2: Option<usize>,
    /// How many streams to open.
    pub subscribers: usize,
    /// How fast to open them.
    pub pace: Pace,
    /// Headers of every request besides the usual ones, such as `authorization`.
    pub headers: Vec<(String, String)>,
    /// Source addresses to open streams from, in turn. Empty lets the system choose, and takes further
    /// loopback addresses when the server is on one and its ports do not suffice.
    pub sources: Vec<IpAddr>,
    /// What to publish; `None` only waits.
    pub publish: Option<Publish>,
    /// How long to publish or to wait; `None` is until told to stop.
    pub duration: Option<Duration>,
    /// The server's processes on this machine, whose memory and processor time to report. Their
    /// children are counted with them.
    pub processes: Vec<u32>,
    /// How long events may stay away before they count as missed; [`PATIENCE`](super::PATIENCE) is a good choice.
    pub patience: Duration,
}

/// What to publish, and how often.
#[derive(Clone, Debug)]
pub struct Publish {
    /// Where to POST.
    pub url: String,
    /// The body; each `{n}` in it becomes the marker of the event, 21 letters, digits and dashes.
    pub body: String,
    /// Its content type.
    pub content_type: String,
    /// From one publish to the next; zero is as fast as they are answered.
    pub every: Duration,
}

// ===== impl Options =====

impl Options {
    /// Nothing is connected yet.
    pub(crate) fn carrier(&self) -> Result<Box<dyn Carrier>, Error> {
        let Self { url, trust, http2, sources, headers, .. } = self;
        let (target, sources) = (Target::parse(url)?, sources.clone());
        let tls = target.tls(trust, if http2.is_some() { HTTP_2 } else { HTTP_1 })?;
        Ok(match (http2, tls) {
            (None, None) => Box::new(Swarm::<TcpStream>::new(target, (), sources, headers)?),
            (None, Some(tls)) => Box::new(Swarm::<Secured>::new(target, tls, sources, headers)?),
            (Some(streams), tls) => {
                let route = Route::new(target, tls, *streams, headers)?;
                Box::new(Multiplexed::new(route, sources)?)
            }
        })
    }

    /// Streams for which so many descriptors suffice. A connection that is shared has two, of which one
    /// is there to close it.
    pub(crate) fn streams_within(&self, descriptors: u64) -> usize {
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        self.http2.map_or(descriptors, |streams| (descriptors / 2).saturating_mul(streams))
    }

    /// What carries the streams, in words.
    pub(crate) fn transport(&self) -> String {
        let Self { url, trust, http2, .. } = self;
        let mut text = match http2 {
            None => "HTTP/1.1".to_owned(),
            Some(streams) => format!("HTTP/2, {streams} streams to a connection"),
        };
        if url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:")) {
            text += match trust {
                Trust::Anybody => ", TLS; certificates were not checked",
                Trust::System | Trust::Authorities(_) => ", TLS",
            };
        }
        text
    }
}
