//! `nudged top`: the numbers of a running server, in a terminal or as text.

mod events;
mod exposition;
mod frame;
mod history;
mod ops;
mod screen;
#[cfg(test)]
mod tests;
mod text;

use std::io::{IsTerminal, stdout};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Args, ValueEnum};
use http::StatusCode;
use nudged::client::{Endpoint, Error, Fetcher};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use self::events::{Event, Events};
use self::exposition::Exposition;
use self::frame::View;
use self::ops::{Nodes, Orgs};
use self::screen::Screen;
use super::client::ServerArgs;
use super::values::{Hidden, HumanDuration, duration};
use super::{Exit, log, output};

#[derive(Args, Clone, Debug)]
pub(crate) struct Top {
    /// URL of the server, in place of --url; where it has an --internal-listen, that address
    #[arg(value_name = "URL")]
    address: Option<Hidden>,

    /// Time from one look to the next
    #[arg(long, value_name = "TIME", default_value_t = HumanDuration(INTERVAL), value_parser = duration(100..=3_600_000))]
    interval: HumanDuration,

    /// Print the numbers once, as text, after two looks; so it is too where standard output is no terminal
    #[arg(long)]
    once: bool,

    /// By what organisations are the top ones. They are shown with a --token of scope ops, or by a server
    /// without a key
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = By::Streams)]
    by: By,

    #[command(flatten)]
    server: ServerArgs,
}

/// What the top organisations have the most of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    Streams,
    Publishes,
}

/// What a look at the server showed.
#[derive(Debug)]
struct Look {
    at: Instant,
    numbers: Exposition,
    /// Why the server is not ready.
    unready: Option<String>,
    orgs: Option<Result<Orgs, String>>,
    nodes: Option<Nodes>,
}

/// Looks at a server.
#[derive(Debug)]
struct Looker {
    fetcher: Fetcher,
    has_token: bool,
    by: By,
}

const INTERVAL: Duration = Duration::from_secs(1);

/// The time limit for each response.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The most bytes that are read of the metrics, which are 10 to 20 KiB, of whether it is ready, and of the organisations.
const METRICS_BYTES_MAX: usize = 256 * 1024;
const READY_BYTES_MAX: usize = 64 * 1024;
const OPS_BYTES_MAX: usize = 256 * 1024;

/// The columns of a name where all four of them have to fit into 80; and the longest name.
const NAMES_MAX: usize = 34;
const ORG_LEN_MAX: usize = 64;

/// The rows of a text that no terminal bounds.
const ROWS: usize = 60;

// ===== impl Top =====

impl Top {
    pub(crate) fn run(self) -> Result<ExitCode, Exit> {
        let Self { address, interval, once, by, server } = self;
        let server = server.at(address).into_endpoint()?;
        let has_screen = !once && stdout().is_terminal() && !log::is_dumb_terminal();
        let names_max = if has_screen { NAMES_MAX } else { ORG_LEN_MAX };
        let view = View { url: server.url.to_string(), names_max, ..View::default() };
        let looker = Looker::new(server, by);
        let show = async {
            match has_screen {
                true => on_screen(looker, view, interval.0).await,
                false => once_as_text(looker, view, interval.0).await,
            }
        };
        crate::block_on(show).map_err(Exit::failure)?
    }
}

async fn once_as_text(
    mut looker: Looker,
    mut view: View,
    pause: Duration,
) -> Result<ExitCode, Exit> {
    view.add(looker.look().await.map_err(Exit::failure)?);
    #[expect(clippy::disallowed_methods, reason = "a client's pause, not a stream")]
    tokio::time::sleep(pause).await;
    view.add(looker.look().await.map_err(Exit::failure)?);
    let mut text = String::new();
    for line in view.lines(SystemTime::now(), ROWS) {
        line.write(&mut text, usize::MAX, false);
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    output::write(text)?;
    Ok(ExitCode::SUCCESS)
}

/// Shows what is seen until a key or a signal ends it. A server that cannot be reached from the start on is an error;
/// one that is gone later may come back.
async fn on_screen(mut looker: Looker, mut view: View, pause: Duration) -> Result<ExitCode, Exit> {
    view.add(looker.look().await.map_err(Exit::failure)?);
    // Before the screen: none of these signals may end the program without leaving it.
    let mut events = Events::new().map_err(Exit::failure)?;
    let screen = Screen::enter(log::may_be_coloured()).map_err(Exit::failure)?;
    events.read_keys().map_err(Exit::failure)?;
    events.look(looker, pause);
    loop {
        screen.draw(&view.lines(SystemTime::now(), screen::size().1));
        match events.next().await {
            Event::Look(Ok(look)) => view.add(look),
            Event::Look(Err(why)) => view.fail(why),
            Event::Resized => {}
            Event::Quit => return Ok(ExitCode::SUCCESS),
            // The code that a shell reports for a program that a signal has ended.
            Event::Ended(number) => return Ok(ExitCode::from(128 + number)),
            Event::Suspended => {
                screen.leave();
                events.stop();
            }
            Event::Continued => screen.resume(),
        }
    }
}

// ===== impl View =====

impl View {
    fn add(&mut self, look: Look) {
        self.trouble = None;
        self.history.push(look.at, look.numbers);
        (self.unready, self.orgs, self.nodes) = (look.unready, look.orgs, look.nodes);
    }

    fn fail(&mut self, why: String) {
        let since = self.trouble.as_ref().map_or_else(SystemTime::now, |(since, _)| *since);
        self.trouble = Some((since, why));
    }
}

// ===== impl Looker =====

impl Looker {
    fn new(server: Endpoint, by: By) -> Self {
        let has_token = server.token.is_some();
        Self { fetcher: Fetcher::new(server, TIMEOUT), has_token, by }
    }

    async fn look(&mut self) -> Result<Look, String> {
        let metrics = self.fetcher.get("/metrics", METRICS_BYTES_MAX).await;
        let metrics = metrics.map_err(|why| why.to_string())?;
        let at = Instant::now();
        let numbers = Exposition::parse(&String::from_utf8_lossy(&metrics), frame::is_shown);
        if numbers.names().all(|name| !name.starts_with("nudged_")) {
            return Err("no metrics of nudged are there: is it the URL of a server?".into());
        }
        let is_draining = numbers.sum(frame::DRAINING) == Some(1.0);
        let unready = if is_draining { None } else { self.unready().await };
        // Without a token they would be refused, and these refusals be counted.
        let may_ask = self.has_token || numbers.sum(frame::OPEN) == Some(1.0);
        let (mut orgs, mut nodes) = (None, None);
        if may_ask {
            let path = match self.by {
                By::Streams => "/ops/orgs?by=streams",
                By::Publishes => "/ops/orgs?by=publishes",
            };
            orgs = Some(self.get(path).await);
            if numbers.sum("nudged_backplane_lag_seconds").is_some() {
                nodes = self.get("/ops/nodes").await.ok();
            }
        }
        Ok(Look { at, numbers, unready, orgs, nodes })
    }

    /// Why the server is not ready; `None` if it is, and where a proxy hides it. A refusal costs the connection.
    async fn unready(&mut self) -> Option<String> {
        match self.fetcher.get("/readyz", READY_BYTES_MAX).await {
            Err(Error::Refused { status: StatusCode::SERVICE_UNAVAILABLE, detail }) => {
                Some(detail.unwrap_or_default())
            }
            _ => None,
        }
    }

    async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, String> {
        let body = self.fetcher.get(path, OPS_BYTES_MAX).await.map_err(|why| why.to_string())?;
        serde_json::from_slice(&body).map_err(|why| format!("not what is expected: {why}"))
    }
}
