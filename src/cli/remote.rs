//! The commands that talk to a server.

use std::net::IpAddr;

use clap::Args;

use super::values::{Span, count, millis, span};
use crate::bench::{self, Options, Ramp};
use crate::client::{self, Token, Verify};
use crate::config;
use crate::ids::OrgName;

/// Where the server of a client command is.
#[derive(Args, Clone, Debug)]
struct Remote {
    /// The server's address, with the prefix of a proxy if there is one
    #[arg(long, env = "NUDGED_URL", value_name = "URL", default_value_t = format!("http://{}", config::LISTEN))]
    url: String,

    /// Sent as authorization: Bearer
    #[arg(long, env = "NUDGED_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    token: Option<Token>,

    #[command(flatten)]
    belief: Belief,
}

/// Whose certificates are believed, where the URL begins with https.
#[derive(Args, Clone, Debug)]
struct Belief {
    /// Believe the certificates that the authorities in this PEM file have signed [default: those of
    /// the system]
    #[arg(long, value_name = "FILE", value_parser = authorities)]
    ca: Option<Verify>,

    /// Believe any certificate, for a test: nobody knows then who is at the other end
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
}

/// What to publish.
#[derive(Args, Clone, Debug)]
pub struct Publish {
    /// The organisation
    org: OrgName,
    /// The stale keys
    #[arg(required = true)]
    keys: Vec<String>,
    #[command(flatten)]
    remote: Remote,
}

/// What to listen to.
#[derive(Args, Clone, Debug)]
pub struct Listen {
    /// The organisation
    org: OrgName,
    /// The public stream, instead of the members'
    #[arg(long)]
    public: bool,
    /// Go on after this event
    #[arg(long, value_name = "ID")]
    last_event_id: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

/// How to load a server.
#[derive(Args, Clone, Debug)]
pub struct Bench {
    /// The stream to open, of any SSE server; without a path, that of org "bench" on a nudged, which
    /// is published to as well
    #[arg(value_name = "URL")]
    url: String,

    /// Streams to open
    #[arg(long, short = 'n', value_name = "N", default_value_t = 1_000, value_parser = count(1..=10_000_000))]
    subscribers: usize,

    /// Open the streams over HTTP/2: on http:// without asking, on https:// by ALPN. Publishes go over
    /// HTTP/1.1 in any case
    #[arg(long)]
    http2: bool,

    /// Streams on each HTTP/2 connection
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = count(1..=1_000_000), requires = "http2")]
    streams_per_connection: usize,

    /// Streams to open a second [default: as fast as the server answers]
    #[arg(long, value_name = "N")]
    rate: Option<u32>,

    /// Streams that wait for their answer at the same time
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = count(1..=4096))]
    at_once: usize,

    /// How long to publish, or to wait [default: until ^C]
    #[arg(long, value_name = "TIME", value_parser = span(1..=86_400_000))]
    duration: Option<Span>,

    /// Where to POST events; none is published without it, unless to a nudged
    #[arg(long, value_name = "URL")]
    publish_url: Option<String>,

    /// What to POST; an n in braces becomes the mark by which the event is known again
    #[arg(long, value_name = "BODY", default_value = r#"{"keys":["{n}"]}"#)]
    publish_body: String,

    /// The content type of what is posted
    #[arg(long, value_name = "TYPE", default_value = "application/json")]
    publish_type: String,

    /// From one publish to the next
    #[arg(long, value_name = "TIME", default_value_t = millis(1_000), value_parser = span(1..=3_600_000))]
    every: Span,

    /// A header field of every request; may be given several times
    #[arg(long, short = 'H', value_name = "NAME: VALUE", value_parser = field)]
    header: Vec<(String, String)>,

    /// Addresses to open streams from, in turn; to a loopback server, further loopback addresses are
    /// taken by themselves when the ports of one do not suffice
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    source: Vec<IpAddr>,

    /// Processes of the server on this machine, whose memory and processor time is reported
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pid: Vec<u32>,

    #[command(flatten)]
    belief: Belief,

    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
}

// ===== impl Remote =====

impl Remote {
    fn into_endpoint(self) -> Result<client::Endpoint, String> {
        let url = self.url.parse().map_err(|why| format!("--url {}: {why}", self.url))?;
        Ok(client::Endpoint { url, token: self.token, verify: self.belief.into_verify() })
    }
}

// ===== impl Belief =====

impl Belief {
    fn into_verify(self) -> Verify {
        if self.insecure { Verify::None } else { self.ca.unwrap_or_default() }
    }
}

fn authorities(file: &str) -> Result<Verify, String> {
    Verify::authorities(file.as_ref())
}

// ===== impl Publish, Listen =====

impl Publish {
    /// The request as the client takes it.
    ///
    /// # Errors
    /// Says what is wrong with the URL.
    pub fn into_request(self) -> Result<client::Publish, String> {
        let server = self.remote.into_endpoint()?;
        Ok(client::Publish { server, org: self.org, keys: self.keys })
    }
}

impl Listen {
    /// The request as the client takes it.
    ///
    /// # Errors
    /// Says what is wrong with the URL.
    pub fn into_request(self) -> Result<client::Listen, String> {
        let Self { org, public, last_event_id, remote } = self;
        Ok(client::Listen { server: remote.into_endpoint()?, org, public, last_event_id })
    }
}

// ===== impl Bench =====

impl Bench {
    /// The run as the load generator takes it.
    pub fn into_options(self) -> Options {
        let nudged = self
            .url
            .split("://")
            .nth(1)
            .is_some_and(|rest| rest.trim_end_matches('/').find('/').is_none());
        let url = match nudged {
            true => format!("{}/api/bench/events", self.url.trim_end_matches('/')),
            false => self.url,
        };
        let publish_url = self.publish_url.or_else(|| nudged.then(|| url.clone()));
        let publish = publish_url.map(|url| bench::Publish {
            url,
            body: self.publish_body,
            content_type: self.publish_type,
            every: self.every.0,
        });
        Options {
            url,
            verify: self.belief.into_verify(),
            http2: self.http2.then_some(self.streams_per_connection),
            subscribers: self.subscribers,
            ramp: Ramp { per_second: self.rate, pending_max: self.at_once },
            headers: self.header,
            sources: self.source,
            publish,
            duration: self.duration.map(|span| span.0),
            processes: self.pid,
            drain_timeout: bench::DRAIN_TIMEOUT,
        }
    }
}

fn field(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write it like name: value")?;
    Ok((name.trim().into(), value.trim().into()))
}
