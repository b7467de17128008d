//! The program: arguments, logging, run, exit code.
#![forbid(unsafe_code)]

mod cli;

use std::future::poll_fn;
use std::io::{IsTerminal, Write};
use std::pin::pin;
use std::process::ExitCode;
use std::task::Poll;

use clap::Parser;
use nudged::server::{Server, systemd};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tracing::Metadata;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use self::cli::signals::Signals;
use self::cli::{Cli, Command, Exit, LogFormat, Serve};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        None => serve(cli.serve),
        Some(Command::Serve(settings)) => serve(*settings),
        Some(Command::Publish(request)) => request.run(),
        Some(Command::Listen(request)) => request.run(),
        Some(Command::Token(request)) => request.run(),
        Some(Command::Bench(load)) => load.run(),
    };
    result.unwrap_or_else(|exit| {
        eprintln!("nudged: {}", exit.why);
        ExitCode::from(exit.code)
    })
}

fn serve(settings: Serve) -> Result<ExitCode, Exit> {
    let log = &settings.logging.log;
    let filter =
        EnvFilter::try_new(log).map_err(|why| Exit::usage(format!("--log {log}: {why}")))?;
    start_log(filter, settings.logging.log_format);
    raise_descriptor_limit();

    let config = settings.into_config().map_err(Exit::usage)?;
    let workers = config.workers;
    let inherited =
        systemd::listeners().map_err(|why| Exit::usage(format!("LISTEN_FDS: {why}")))?;
    if !inherited.public.is_empty() {
        tracing::warn!(
            "listening on the sockets of LISTEN_FDS; --listen and --plain-listen are ignored"
        );
    }
    let server = Server::adopt(config, inherited).map_err(Exit::usage)?;
    let runtime = runtime().map_err(Exit::failure)?;
    runtime.block_on(async {
        let signals = Signals::new().map_err(Exit::failure)?;
        greet(&server, workers);
        run(server, signals).await
    })
}

fn start_log(filter: EnvFilter, format: LogFormat) {
    let color = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(color);
    let log = log.with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.finish().with(filter_fn(may_be_logged)).init(),
        LogFormat::Json => {
            log.json().flatten_event(true).finish().with(filter_fn(may_be_logged)).init();
        }
    }
}

/// The HTTP/2 library is never logged, whatever the filter says: its lines hold parts of requests, tokens
/// among them, and a client decides how many there are.
fn may_be_logged(line: &Metadata<'_>) -> bool {
    line.target().split("::").next() != Some("h2")
}

/// Every stream is a descriptor: take as many as the system allows.
fn raise_descriptor_limit() {
    if let Err(why) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%why, "the limit of open files could not be raised");
    }
}

/// The runtime of signals and of the client commands; workers have their own.
fn runtime() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Prints what a user at a terminal needs to go on. A closed standard output is no error.
fn greet(server: &Server, workers: usize) {
    let mut out = std::io::stdout();
    let plural = if workers == 1 { "" } else { "s" };
    let version = env!("CARGO_PKG_VERSION");
    for address in server.addresses() {
        let workers = format!("{workers} worker{plural}");
        let kind = if address.internal { "internal: publish and scrape here" } else { &workers };
        _ = writeln!(out, "nudged {version} listening on {address} ({kind})");
    }
    let auth = &server.config().auth;
    let access = if auth.is_open() {
        "open: no key is configured, so every client that reaches this address may subscribe and publish"
    } else if !auth.takes_tokens() {
        "closed: publishers need their key, and there is no key for tokens: only public streams open"
    } else {
        "closed: subscribers and publishers need a token (nudged token --help), public streams none"
    };
    _ = writeln!(out, "{access}");
    if let Some(address) = server.addresses().first() {
        let token = if auth.is_open() { "" } else { " -H \"authorization: Bearer $TOKEN\"" };
        _ = writeln!(out, "try: curl -N{token} {address}/api/acme/events");
    }
}

/// Runs the server until it has drained after the first signal to stop, or until the second one.
async fn run(server: Server, mut signals: Signals) -> Result<ExitCode, Exit> {
    let (stop, stopped) = oneshot::channel();
    let mut stop = Some(stop);
    let tls = server.tls().cloned();
    let mut run = pin!(server.run(async { _ = stopped.await }));
    poll_fn(|cx| {
        while signals.poll_reload(cx).is_ready() {
            match &tls {
                Some(tls) => tls.reload_and_log(),
                None => tracing::warn!("SIGHUP: there is no certificate to read again"),
            }
        }
        while let Poll::Ready(number) = signals.poll_stop(cx) {
            match stop.take() {
                Some(stop) => _ = stop.send(()),
                // The code that a shell reports for a program that a signal has ended.
                None => return Poll::Ready(Ok(ExitCode::from(128 + number))),
            }
        }
        run.as_mut().poll(cx).map(|ended| ended.map(|()| ExitCode::SUCCESS).map_err(Exit::failure))
    })
    .await
}
