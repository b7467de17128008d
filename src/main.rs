//! The program: arguments, logging, run, exit code.
#![forbid(unsafe_code)]
// They panic where their output cannot be written: see `cli::output`.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod cli;

use std::future::poll_fn;
use std::pin::pin;
use std::process::ExitCode;
use std::task::Poll;

use nudged::config::Config;
use nudged::server::{Program, Server};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;

use self::cli::first_request::first_request;
use self::cli::log::Log;
use self::cli::origin::Origin;
use self::cli::output::{answer, print, write};
use self::cli::signals::Signals;
use self::cli::summary::{access, peers, report, serves_no_stream};
use self::cli::{Cli, Command, Exit, Serve};

fn main() -> ExitCode {
    let result = Cli::from_args(std::env::args_os()).map_or_else(answer, run_command);
    result.unwrap_or_else(|exit| {
        if let Some(why) = exit.why {
            print(std::io::stderr(), format!("nudged: {why}\n"));
        }
        ExitCode::from(exit.code)
    })
}

fn run_command(cli: Cli) -> Result<ExitCode, Exit> {
    match cli.command {
        None => serve(cli.serve),
        Some(Command::Serve(settings)) => serve(*settings),
        Some(Command::Publish(request)) => request.run(),
        Some(Command::Reread(request)) => request.run(),
        Some(Command::Close(request)) => request.run(),
        Some(Command::Listen(request)) => request.run(),
        Some(Command::Token(request)) => request.run(),
        Some(Command::OutboxSql(request)) => request.run(),
        Some(Command::Top(request)) => request.run(),
        Some(Command::Probe(request)) => request.run(),
        Some(Command::Bench(load)) => load.run(),
        Some(Command::Generate(request)) => request.run(),
    }
}

fn serve(mut settings: Serve) -> Result<ExitCode, Exit> {
    let log = &settings.logging.log;
    // What the client of NATS does becomes a line of ours; its own lines are there for those that ask for them.
    // That an upgrade has succeeded is no more than `info`, and yet what was asked for.
    let directives = match log.as_str() {
        "" | "off" => log.clone(),
        log => format!("async_nats=off,nudged::upgrade=info,{log}"),
    };
    let filter =
        EnvFilter::try_new(directives).map_err(|why| Exit::usage(format!("--log {log}: {why}")))?;
    let unknown = Cli::unknown_variables().map_err(Exit::usage)?;
    let filter = match settings.logging.access_log {
        true => filter.add_directive("nudged::access=info".parse().expect("a target and a level")),
        false => filter,
    };
    // Before there are threads.
    let is_check = settings.check;
    let origin = if is_check { Origin::fresh()? } else { Origin::of_this_process()? };
    let log = Log::start(filter, settings.logging.log_format).map_err(Exit::failure)?;
    for name in unknown {
        tracing::warn!("the variable {name} is no setting, and is ignored");
    }
    raise_descriptor_limit();

    settings.inherited = origin.inherited();
    let has_listen = settings.has_listen();
    let mut config = settings.into_config().map_err(|why| {
        origin.refuse(&why);
        Exit::usage(why)
    })?;
    config.log_lines_dropped = log.dropped();
    if serves_no_stream(&config) {
        tracing::warn!(
            "no stream can be opened: there is no key for tokens, and --public-orgs names none"
        );
    }
    if has_listen && origin.replaces_listen() {
        tracing::warn!("listening on the sockets of LISTEN_FDS; --listen is ignored");
    }
    if is_check {
        return check(config, &origin);
    }
    let (workers, takes_over) = (config.workers, origin.greeting());
    let server = origin.into_server(config).map_err(Exit::usage)?;
    let server = match Program::of_this_process() {
        Ok(program) => server.with_program(program),
        Err(why) => {
            tracing::debug!(%why, "this process cannot be replaced by another one");
            server
        }
    };
    block_on(async {
        let signals = Signals::new().map_err(Exit::failure)?;
        let text = greeting(&server, workers);
        let server = match takes_over {
            // It serves only if it takes over.
            Some(line) => server.on_start(move || print(std::io::stdout(), line + &text)),
            None => {
                print(std::io::stdout(), text);
                server
            }
        };
        run(server, signals).await
    })
    .map_err(Exit::failure)?
}

/// Prints what would be served.
fn check(mut config: Config, origin: &Origin) -> Result<ExitCode, Exit> {
    let addresses = origin.check(&config).map_err(Exit::usage)?;
    config.resolve_public_orgs();
    write(report(&config, &addresses))?;
    Ok(ExitCode::SUCCESS)
}

/// Every stream is a descriptor: take as many as the system allows.
fn raise_descriptor_limit() {
    if let Err(why) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%why, "the limit of open files could not be raised");
    }
}

/// Runs signals, or the command of a client; workers have runtimes of their own.
fn block_on<T>(work: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let output = runtime.block_on(work);
    // To drop it would wait for a name lookup, which a silent name server delays for as long as it likes.
    runtime.shutdown_background();
    Ok(output)
}

/// What a user at a terminal needs to go on.
fn greeting(server: &Server, workers: usize) -> String {
    let mut text = String::new();
    let plural = if workers == 1 { "" } else { "s" };
    let version = env!("CARGO_PKG_VERSION");
    for address in server.addresses() {
        // Its address does not show it.
        let tls = if address.secure && address.endpoint.is_unix() { ", TLS" } else { "" };
        let workers = format!("{workers} worker{plural}{tls}");
        let kind = if address.internal { "internal: publish and scrape here" } else { &workers };
        text += &format!("nudged {version} listening on {address} ({kind})\n");
    }
    text += &peers(server.config(), server.addresses());
    text += &access(server.config());
    if let Some(command) = first_request(server.config(), server.addresses()) {
        text += &format!("try: {command}\n");
    }
    text
}

/// Runs the server until it has drained after the first signal to stop, or until the second one.
async fn run(server: Server, mut signals: Signals) -> Result<ExitCode, Exit> {
    let (stop, stopped) = oneshot::channel();
    let mut stop = Some(stop);
    let (reloader, upgrader) = (server.reloader(), server.upgrader());
    let mut run = pin!(server.run(async { _ = stopped.await }));
    poll_fn(|cx| {
        while let Poll::Ready(name) = signals.poll_ignored(cx) {
            tracing::warn!("{name} has no meaning here and is ignored; SIGTERM stops the server");
        }
        while signals.poll_reload(cx).is_ready() {
            match &reloader {
                Some(reloader) => reloader.reload(),
                None => tracing::warn!(
                    "SIGHUP: there is no certificate, file of keys or JWK set to read again"
                ),
            }
        }
        while signals.poll_upgrade(cx).is_ready() {
            if let Err(why) = upgrader.upgrade() {
                tracing::warn!("SIGUSR2: no upgrade: {why}");
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
