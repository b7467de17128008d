//! The program: arguments, logging, run, exit code.
#![forbid(unsafe_code)]

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Parser;
use nudged::cli::{Bench, Cli, Command, Listen, Publish, Serve, Token};
use nudged::client;
use nudged::server::Server;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// The command line or the settings were wrong (sysexits.h).
const EX_USAGE: u8 = 64;

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
    let color = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(color);
    log.with_writer(std::io::stderr).init();
    raise_descriptor_limit();

    let config = settings.into_config().map_err(usage)?;
    let workers = config.workers;
    let server = Server::bind(config).map_err(|why| usage(why.to_string()))?;
    let runtime = runtime().map_err(failure)?;
    runtime.block_on(async {
        let stop = stop_signals().map_err(failure)?;
        greet(&server, workers);
        server.run(stop).await.map_err(failure)?;
        Ok(ExitCode::SUCCESS)
    })
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
    let stop = client::bench::stop_on_interrupt().map_err(failure)?;
    let progress = |line: &str| eprintln!("{line}");
    let summary = client::bench::run(&run.into_options(), stop, progress).map_err(failure)?;
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
        _ = writeln!(
            out,
            "nudged {version} listening on http://{address} ({workers} worker{plural})"
        );
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
        _ = writeln!(out, "try: curl -N{token} http://{address}/api/acme/events");
    }
}

/// Resolves at SIGTERM or SIGINT.
fn stop_signals() -> std::io::Result<impl Future<Output = ()>> {
    let mut signals = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
    Ok(std::future::poll_fn(move |cx| {
        let told = |signal: &mut Signal| signal.poll_recv(cx).is_ready();
        match signals.iter_mut().any(told) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    }))
}
