//! The program: arguments, logging, run, exit code.
#![forbid(unsafe_code)]

use std::future::{Future, poll_fn};
use std::io::{IsTerminal, Write};
use std::pin::pin;
use std::process::ExitCode;
use std::task::{Context, Poll};
use std::time::SystemTime;

use clap::Parser;
use nudged::cli::{Bench, Cli, Command, Listen, LogFormat, Publish, Serve, Token};
use nudged::server::{Server, systemd};
use nudged::{bench, client};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tracing::Metadata;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The command line or the settings were wrong (sysexits.h).
const EX_USAGE: u8 = 64;

/// What the server is told by signals.
struct Signals {
    /// SIGTERM and SIGINT.
    stop: [(Signal, SignalKind); 2],
    /// SIGHUP.
    reload: Signal,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        None => serve(cli.serve),
        Some(Command::Serve(settings)) => serve(*settings),
        Some(Command::Publish(request)) => publish(request),
        Some(Command::Listen(request)) => listen(request),
        Some(Command::Token(request)) => token(request),
        Some(Command::Bench(run)) => bench(*run),
    };
    result.unwrap_or_else(|(code, why)| {
        eprintln!("nudged: {why}");
        ExitCode::from(code)
    })
}

fn serve(settings: Serve) -> Result<ExitCode, (u8, String)> {
    let usage = |why: String| (EX_USAGE, why);
    let filter = EnvFilter::try_new(&settings.log)
        .map_err(|why| usage(format!("--log {}: {why}", settings.log)))?;
    start_log(filter, settings.log_format);
    raise_descriptor_limit();

    let config = settings.into_config().map_err(usage)?;
    let workers = config.workers;
    let inherited = systemd::listeners().map_err(|why| usage(format!("LISTEN_FDS: {why}")))?;
    let server = if inherited.is_empty() {
        Server::bind(config)
    } else {
        tracing::warn!("listening on the sockets of LISTEN_FDS; --listen is ignored");
        Server::adopt(config, inherited)
    };
    let server = server.map_err(|why| usage(why.to_string()))?;
    let runtime = runtime().map_err(failure)?;
    runtime.block_on(async {
        let signals = Signals::new().map_err(failure)?;
        greet(&server, workers);
        run(server, signals).await
    })
}

fn start_log(filter: EnvFilter, format: LogFormat) {
    let color = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(color);
    let log = log.with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.finish().with(filter_fn(is_ours_to_tell)).init(),
        LogFormat::Json => {
            log.json().flatten_event(true).finish().with(filter_fn(is_ours_to_tell)).init();
        }
    }
}

/// No setting shows what the HTTP/2 library logs: a client chooses how often it does, at any level, and
/// what of its request, the token in it too.
fn is_ours_to_tell(what: &Metadata<'_>) -> bool {
    what.target().split("::").next() != Some("h2")
}

/// Runs the server until the first signal to stop has made it end, or the second ends it at once.
async fn run(server: Server, mut signals: Signals) -> Result<ExitCode, (u8, String)> {
    let (stop, stopped) = oneshot::channel();
    let mut stop = Some(stop);
    let tls = server.tls().cloned();
    let mut run = pin!(server.run(async { _ = stopped.await }));
    poll_fn(|cx| {
        while signals.reload.poll_recv(cx).is_ready() {
            match &tls {
                Some(tls) => tls.reload_and_tell(),
                None => tracing::warn!("SIGHUP: there is no certificate to read again"),
            }
        }
        while let Poll::Ready(number) = signals.poll_stop(cx) {
            match stop.take() {
                Some(stop) => _ = stop.send(()),
                // As a shell says of a program that a signal has ended.
                None => return Poll::Ready(Ok(ExitCode::from(128 + number))),
            }
        }
        run.as_mut().poll(cx).map(|ended| ended.map(|()| ExitCode::SUCCESS).map_err(failure))
    })
    .await
}

fn publish(request: Publish) -> Result<ExitCode, (u8, String)> {
    let request = request.into_request().map_err(|why| (EX_USAGE, why))?;
    let publish = async { client::publish(&request, &mut std::io::stdout()).await };
    runtime().map_err(failure)?.block_on(publish).map_err(failure)?;
    Ok(ExitCode::SUCCESS)
}

fn listen(request: Listen) -> Result<ExitCode, (u8, String)> {
    let request = request.into_request().map_err(|why| (EX_USAGE, why))?;
    let (mut events, mut notes) = (std::io::stdout(), std::io::stderr());
    let listen = client::listen(&request, &mut events, &mut notes);
    runtime().map_err(failure)?.block_on(listen).map_err(failure)?;
    Ok(ExitCode::SUCCESS)
}

fn token(request: Token) -> Result<ExitCode, (u8, String)> {
    let minted = request.mint(SystemTime::now()).map_err(|why| (EX_USAGE, why))?;
    eprintln!("{}", minted.claims);
    println!("{}", minted.token);
    Ok(ExitCode::SUCCESS)
}

fn bench(run: Bench) -> Result<ExitCode, (u8, String)> {
    let json = run.json;
    let stop = bench::stop_on_interrupt().map_err(failure)?;
    let progress = |line: &str| eprintln!("{line}");
    let summary = bench::run(&run.into_options(), stop, progress).map_err(failure)?;
    if json {
        println!("{}", serde_json::to_string(&summary).map_err(failure)?);
    } else {
        print!("{summary}");
    }
    Ok(if summary.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn failure(why: impl std::fmt::Display) -> (u8, String) {
    (1, why.to_string())
}

fn runtime() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Every stream is a descriptor: take what the system allows.
fn raise_descriptor_limit() {
    if let Err(why) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%why, "the limit of open files could not be raised");
    }
}

/// What a person at a terminal needs to go on. Nobody has to be there to read it.
fn greet(server: &Server, workers: usize) {
    let mut out = std::io::stdout();
    let plural = if workers == 1 { "" } else { "s" };
    let version = env!("CARGO_PKG_VERSION");
    for address in server.addresses() {
        _ = writeln!(out, "nudged {version} listening on {address} ({workers} worker{plural})");
    }
    let auth = &server.config().auth;
    let doors = if auth.is_open() {
        "open: no key is configured; whoever reaches this address may subscribe and publish"
    } else if auth.keys.is_empty() && auth.jwks.is_none() {
        "closed: publishers need their key, and there is no key for tokens: only public streams open"
    } else {
        "closed: subscribers and publishers need a token (nudged token --help), public streams none"
    };
    _ = writeln!(out, "{doors}");
    if let Some(address) = server.addresses().first() {
        let token = if auth.is_open() { "" } else { " -H \"authorization: Bearer $TOKEN\"" };
        _ = writeln!(out, "try: curl -N{token} {address}/api/acme/events");
    }
}

// ===== impl Signals =====

impl Signals {
    fn new() -> std::io::Result<Self> {
        let listen = |kind| signal(kind).map(|signal| (signal, kind));
        let stop = [listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?];
        Ok(Self { stop, reload: signal(SignalKind::hangup())? })
    }

    /// The number of the next signal to stop.
    fn poll_stop(&mut self, cx: &mut Context<'_>) -> Poll<u8> {
        for (signal, kind) in &mut self.stop {
            if signal.poll_recv(cx).is_ready() {
                return Poll::Ready(u8::try_from(kind.as_raw_value()).unwrap_or(u8::MAX - 128));
            }
        }
        Poll::Pending
    }
}
