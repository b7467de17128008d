//! `nudged bench`.

use std::net::IpAddr;
use std::process::ExitCode;
use std::str::FromStr;

use clap::Args;
use http::{HeaderName, HeaderValue};
use nudged::bench::{self, Error, Options, Ramp};

use super::client::TlsArgs;
use super::values::{Hidden, HumanDuration, count, duration, millis};
use super::{Exit, output};

#[derive(Args, Clone, Debug)]
pub(crate) struct Bench {
    /// Stream to open, on any SSE server; an s in braces is replaced by the number of the stream, from 0
    /// on. A URL without a path is a nudged server: the stream of its org "bench" is opened, and published
    /// to
    #[arg(value_name = "URL")]
    url: Hidden,

    /// Streams to open
    #[arg(long, short = 'n', value_name = "N", default_value_t = 1_000, value_parser = count(1..=10_000_000))]
    subscribers: usize,

    /// Open the streams over HTTP/2: by prior knowledge for http://, by ALPN for https://. Publishes use
    /// HTTP/1.1 in any case
    #[arg(long)]
    http2: bool,

    /// Streams per HTTP/2 connection
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = count(1..=1_000_000), requires = "http2")]
    streams_per_connection: usize,

    /// Streams to open per second [default: as fast as the server answers]
    #[arg(long, value_name = "N")]
    rate: Option<u32>,

    /// Streams that may wait for their response at the same time
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = count(1..=4096))]
    at_once: usize,

    /// How long to publish, or to wait if nothing is published [default: until ^C]
    #[arg(long, value_name = "TIME", value_parser = duration(1..=86_400_000))]
    duration: Option<HumanDuration>,

    /// URL to POST events to [default: the stream's URL for a nudged server, else nothing is published]. For
    /// a nudged server, one without a path is that of another server of its log
    #[arg(long, value_name = "URL")]
    publish_url: Option<Hidden>,

    /// Body to POST; an n in braces is replaced by a mark that identifies the event when it arrives
    #[arg(long, value_name = "BODY", default_value = r#"{"keys":["{n}"]}"#)]
    publish_body: String,

    /// Content type of the body
    #[arg(long, value_name = "TYPE", default_value = "application/json")]
    publish_type: String,

    /// Header field to send with every publish and with no stream, as a credential of publishers; repeat the flag for
    /// several
    #[arg(long, value_name = "NAME: VALUE")]
    publish_header: Vec<Hidden>,

    /// Time from one publish to the next
    #[arg(long, value_name = "TIME", default_value_t = millis(1_000), value_parser = duration(1..=3_600_000))]
    every: HumanDuration,

    /// Header field to send with every request; repeat the flag for several
    #[arg(long, short = 'H', value_name = "NAME: VALUE")]
    header: Vec<Hidden>,

    /// Local addresses to open streams from, in turn, separated by commas. For a loopback server, further
    /// loopback addresses are used without this flag if the ports of one do not suffice
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    source: Vec<IpAddr>,

    /// Server processes on this machine whose memory and CPU time is reported, separated by commas
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pid: Vec<u32>,

    #[command(flatten)]
    tls: TlsArgs,

    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

// ===== impl Bench =====

impl Bench {
    pub(crate) fn run(self) -> Result<ExitCode, Exit> {
        let json = self.json;
        let stop = bench::stop_on_interrupt().map_err(Exit::failure)?;
        let progress = |line: &str| output::note(line);
        let options = self.into_options().map_err(Exit::usage)?;
        let summary = bench::run(&options, stop, progress).map_err(|why| match why {
            Error::Url { .. } | Error::Settings(_) => Exit::usage(why),
            why => Exit::failure(why),
        })?;
        if json {
            let summary = serde_json::to_string(&summary).map_err(Exit::failure)?;
            output::write(format_args!("{summary}\n"))?;
        } else {
            output::write(&summary)?;
        }
        Ok(if summary.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn into_options(self) -> Result<Options, String> {
        let Hidden(url) = self.url;
        let stream = stream_of_server(&url);
        let publish_url = match (self.publish_url, &stream) {
            (Some(Hidden(other)), Some(_)) => Some(stream_of_server(&other).unwrap_or(other)),
            (Some(Hidden(other)), None) => Some(other),
            (None, stream) => stream.clone(),
        };
        let url = stream.unwrap_or(url);
        let headers = fields("--header", &self.header)?;
        let publish_headers = fields("--publish-header", &self.publish_header)?;
        if publish_url.is_none() && !publish_headers.is_empty() {
            let why =
                "--publish-header needs --publish-url: nothing is published to the URL of a stream";
            return Err(why.to_owned());
        }
        let publish = publish_url.map(|url| bench::Publish {
            url,
            body: self.publish_body,
            content_type: self.publish_type,
            headers: publish_headers,
            every: self.every.0,
        });
        Ok(Options {
            url,
            verify: self.tls.into_verify(),
            http2: self.http2.then_some(self.streams_per_connection),
            subscribers: self.subscribers,
            ramp: Ramp { per_second: self.rate, pending_max: self.at_once },
            headers,
            sources: self.source,
            publish,
            duration: self.duration.map(|duration| duration.0),
            processes: self.pid,
            drain_timeout: bench::DRAIN_TIMEOUT,
        })
    }
}

/// The stream of the org "bench", if the URL has no path, and so is that of a nudged server.
fn stream_of_server(url: &str) -> Option<String> {
    let url = url.trim_end_matches('/');
    let (_, rest) = url.split_once("://")?;
    (!rest.contains('/')).then(|| format!("{url}/api/bench/events"))
}

fn fields(flag: &str, given: &[Hidden]) -> Result<Vec<(String, String)>, String> {
    let field = |Hidden(text): &Hidden| {
        let (name, value) = text.split_once(':')?;
        let (name, value) = (name.trim(), value.trim());
        HeaderName::from_str(name).ok()?;
        HeaderValue::from_bytes(value.as_bytes()).ok()?;
        Some((name.to_owned(), value.to_owned()))
    };
    let fields: Option<_> = given.iter().map(field).collect();
    fields.ok_or_else(|| format!("{flag}: it is no header field, which is written as name: value"))
}
