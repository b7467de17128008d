//! What to measure.

use std::net::IpAddr;
use std::time::Duration;

use super::connection::Route;
use super::error::Error;
use super::http1::Http1;
use super::ramp::{Ramp, Transport};
use super::tasks::Tasks;
use crate::client::Verify;
use crate::client::tls::{HTTP_1, HTTP_2, Tls};
use crate::client::url::HttpUrl;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// The stream to open: `http[s]://host:port/path`. Each `{s}` in the path is replaced with the number of
    /// the stream, from 0 on, for streams of many orgs.
    pub url: String,
    /// Which certificates are accepted.
    pub verify: Verify,
    /// Streams per HTTP/2 connection; `None` is HTTP/1.1, with a connection per stream.
    pub http2: Option<usize>,
    /// How many streams to open.
    pub subscribers: usize,
    /// How fast to open them.
    pub ramp: Ramp,
    /// Header fields of every request besides the usual ones, such as `authorization`.
    pub headers: Vec<(String, String)>,
    /// Source addresses to open streams from, in turn. If empty, the system chooses; further loopback
    /// addresses are used when the server is on one and its ports do not suffice.
    pub sources: Vec<IpAddr>,
    /// What to publish; `None` only waits.
    pub publish: Option<Publish>,
    /// How long to publish or to wait; `None` is until stopped.
    pub duration: Option<Duration>,
    /// The server's processes on this machine, whose memory and processor time to report, with those
    /// of their children.
    pub processes: Vec<u32>,
    /// After this long without a delivery, outstanding events count as missed. Usually
    /// [`DRAIN_TIMEOUT`](super::DRAIN_TIMEOUT).
    pub drain_timeout: Duration,
}

/// What to publish, and how often.
#[derive(Clone, Debug)]
pub struct Publish {
    /// Where to POST.
    pub url: String,
    /// The body; each `{n}` in it is replaced with the marker of the event, 21 letters, digits and
    /// dashes.
    pub body: String,
    /// Its content type.
    pub content_type: String,
    /// Further header fields, beside those of [`Options::headers`]: a credential that only publishers have.
    pub headers: Vec<(String, String)>,
    /// The time between publishes; zero is as fast as they are answered.
    pub every: Duration,
}

// ===== impl Options =====

impl Options {
    /// Connects nothing yet.
    pub(crate) fn transport(&self) -> Result<Box<dyn Transport>, Error> {
        let Self { verify, http2, sources, headers, .. } = self;
        let url: HttpUrl = self.url.parse().map_err(|why| Error::url(&self.url, why))?;
        let address = url.resolve().map_err(|why| Error::url(&self.url, why))?;
        let protocol = if http2.is_some() { HTTP_2 } else { HTTP_1 };
        let tls = Tls::of(&url, verify, protocol).map_err(Error::server)?;
        let sources = sources.clone();
        Ok(if http2.is_none() && tls.is_none() {
            Box::new(Http1::new(&url, address, sources, headers)?)
        } else {
            Box::new(Tasks::new(Route::new(url, address, tls, *http2, headers)?, sources)?)
        })
    }

    /// How many streams this many descriptors suffice for. A connection that a task serves has two: the
    /// second serves to reset it.
    pub(crate) fn streams_within(&self, descriptors: u64) -> usize {
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        match self.http2 {
            None if !self.is_secure() => descriptors,
            streams => (descriptors / 2).saturating_mul(streams.unwrap_or(1)),
        }
    }

    /// Describes the transport in the summary.
    pub(crate) fn transport_name(&self) -> String {
        let mut text = match self.http2 {
            None => "HTTP/1.1".to_owned(),
            Some(streams) => format!("HTTP/2, {streams} streams per connection"),
        };
        if self.is_secure() {
            text += match self.verify {
                Verify::None => ", TLS; certificates were not checked",
                Verify::System | Verify::Authorities(_) => ", TLS",
            };
        }
        text
    }

    fn is_secure(&self) -> bool {
        self.url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"))
    }
}
