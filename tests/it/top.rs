//! `nudged top`, the numbers of a server in a terminal.

mod endings;
mod hostile;

use std::process::{Output, Stdio};

use crate::support::certificate::Certificate;
use crate::support::killed::Killed;
use crate::support::port::ReservedPort;
use crate::support::terminal::Terminal;
use crate::support::{Server, Transport};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Looks at a server ten times a second.
pub(super) const FAST: [&str; 2] = ["--interval", "100ms"];

fn url(server: &Server) -> String {
    format!("http://{}", server.address())
}

/// `nudged top` on this terminal, once its screen shows the numbers.
fn shown_on(terminal: &Terminal, url: &str) -> Killed {
    let top = terminal.run(&["top", url, FAST[0], FAST[1]]);
    terminal.eventually("the screen", |picture| picture.is_alternate);
    terminal.expect("streams");
    top
}

fn once(args: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Server::command();
    command.args(["top", "--once"]).args(FAST).args(args).envs(environment.iter().copied());
    command.stderr(Stdio::piped()).output().expect("the program")
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn error(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

#[test]
fn the_screen_shows_the_numbers_of_a_server_and_follows_them() {
    let server = Server::start(&["--workers", "1"]);
    let terminal = Terminal::new(80, 24);
    let mut top = shown_on(&terminal, &url(&server));
    terminal.expect("serving");
    terminal.expect("! no key is configured");
    let streams = server.streams("acme", 3);
    terminal.eventually("three streams, of acme", |picture| {
        let has = |start: &str, end: &[&str]| {
            let line = picture.line(start).unwrap_or_default();
            line.split_whitespace().skip(1).take(end.len()).eq(end.iter().copied())
        };
        has("streams ", &["3", "member", "3", "public", "0", "topic", "0"])
            && has("acme", &["3", "0", "0.0"])
            && has("streams ended", &["ended", "0"])
            && has("memory", &[])
            && picture.line("memory").is_some_and(|line| line.contains("histories"))
    });
    server.publish("acme", &["posts"]);
    terminal.eventually("the sweep", |picture| {
        picture.line("sweep p50").is_some_and(|line| line.contains("s  p99 "))
    });
    drop(streams);
    terminal.eventually("the ends", |picture| {
        let line = picture.line("streams ended").unwrap_or_default();
        line.split_whitespace().nth(2) == Some("3")
            && (line.contains("client") || line.contains("reset"))
    });
    assert!(terminal.picture().has_style);
    terminal.type_keys("xq");
    assert_eq!(top.wait(), Some(0));
}

/// SCENARIO: a server is restarted while its numbers are shown.
/// BUG: rates were negative, or the program ended.
/// FIX: the screen says that it is gone, and begins anew with the next one.
#[test]
fn a_server_that_is_gone_may_come_back() {
    let port = ReservedPort::new();
    let address = port.address.to_string();
    let start = || Server::start(&["--listen", &address]);
    let server = start();
    let streams = server.streams("acme", 2);
    let terminal = Terminal::new(80, 24);
    let mut top = shown_on(&terminal, &format!("http://{address}"));
    terminal.expect("serving");
    drop((server, streams));
    terminal.expect("unreachable");
    terminal.expect("! no numbers for ");
    let title = terminal.picture().text().lines().next().map(str::to_owned).unwrap_or_default();
    assert!(!title.contains(" up "), "{title}");
    let _server = start();
    terminal.eventually("the next one", |picture| {
        let text = picture.text();
        text.contains("serving") && !text.contains("no numbers")
    });
    terminal.eventually("a rate", |picture| {
        let line = picture.line("connects/s").unwrap_or_default();
        line.split_whitespace().nth(1) == Some("0.0")
    });
    assert!(!terminal.picture().text().contains(" -1"), "{}", terminal.picture().text());
    terminal.type_keys("q");
    assert_eq!(top.wait(), Some(0));
}

#[test]
fn a_terminal_of_any_size_is_used_and_not_exceeded() {
    let server = Server::start(&[]);
    let _streams: Vec<_> = (0..30).map(|org| server.stream(&format!("org-{org}"))).collect();
    let terminal = Terminal::new(80, 24);
    let mut top = shown_on(&terminal, &url(&server));
    for (columns, rows) in [(120, 50), (40, 10), (200, 24), (12, 4), (1, 1), (80, 24)] {
        terminal.resize(columns, rows);
        terminal.eventually("a frame", |picture| {
            let last = picture.text().lines().last().map(str::to_owned).unwrap_or_default();
            let orgs = picture.text().lines().filter(|line| line.starts_with("org-")).count();
            match (columns, rows) {
                (120, 50) => orgs == 20,
                (80, 24) => orgs >= 3 && picture.text().contains("streams ended"),
                (200, 24) => last.starts_with("org-"),
                (1, 1) => last == "n",
                _ => picture.text().contains("nudged"),
            }
        });
    }
    // Nothing is left of a larger frame.
    terminal.eventually("the whole width", |picture| {
        picture.text().contains("every client that connects")
    });
    terminal.type_keys("q");
    assert_eq!(top.wait(), Some(0));
}

#[test]
fn a_terminal_without_colours_gets_none() {
    let server = Server::start(&[]);
    let terminal = Terminal::new(80, 24);
    let mut command = terminal.command(&["top", &url(&server), FAST[0], FAST[1]]);
    let mut top = Killed(command.env("NO_COLOR", "1").spawn().expect("the program"));
    terminal.expect("streams");
    assert!(terminal.picture().is_alternate);
    terminal.type_keys("q");
    assert_eq!(top.wait(), Some(0));
    assert!(!terminal.picture().has_style);

    let before = terminal.modes();
    let mut command = terminal.command(&["top", &url(&server), FAST[0], FAST[1]]);
    let mut top = Killed(command.env("TERM", "dumb").spawn().expect("the program"));
    assert_eq!(top.wait(), Some(0), "it prints once");
    terminal.expect("streams");
    let picture = terminal.picture().clone();
    assert!(!picture.is_alternate && !picture.has_style, "{}", picture.text());
    assert_eq!(terminal.modes(), before);
}

#[test]
fn a_script_gets_the_numbers_as_text() {
    let server = Server::start(&[]);
    let _streams = server.streams("acme", 2);
    let output = once(&[&url(&server)], &[]);
    let shown = text(&output);
    assert_eq!((output.status.code(), error(&output)), (Some(0), String::new()));
    let number = |name: &str| {
        let line = shown.lines().find(|line| line.starts_with(name)).expect(name);
        line[name.len()..].split_whitespace().next().expect("a number").to_owned()
    };
    assert_eq!(number("streams "), "2", "{shown}");
    assert_eq!(number("deliveries/s"), "0.0", "{shown}");
    assert!(shown.lines().all(|line| line.chars().all(|c| matches!(c, ' '..='~'))), "{shown:?}");

    // Without --once, if it is no terminal.
    let mut command = Server::command();
    let output = command.args(["top", "--url", &url(&server)]).args(FAST).output().expect("it");
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output).contains("\nacme "), "{}", text(&output));
}

#[test]
fn a_server_that_cannot_be_asked_is_an_error_with_the_reason() {
    let nothing = ReservedPort::new();
    let internal = Server::start(&["--internal-listen", "127.0.0.1:0"]);
    let public = url(&internal);
    let nowhere = format!("http://{}", nothing.address);
    for (args, code, why) in [
        ([nowhere.as_str()].as_slice(), 1, "cannot reach"),
        (&[&public], 1, "404 Not Found: "),
        (&["localhost:6834"], 2, "expected http://host:port"),
    ] {
        let output = once(args, &[]);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", error(&output));
        assert!(error(&output).contains(why), "{args:?}: {}", error(&output));
        assert_eq!(text(&output), "", "{args:?}");
    }
    let mut command = Server::command();
    let output = command.args(["top", "--interval", "1ms"]).stderr(Stdio::piped()).output();
    let output = output.expect("the program");
    assert_eq!(output.status.code(), Some(2));
    assert!(error(&output).contains("allowed is 100ms to 1h"), "{}", error(&output));
    // In a terminal it is the same, and the message is seen.
    let terminal = Terminal::new(80, 24);
    let mut top = terminal.run(&["top", &nowhere]);
    assert_eq!(top.wait(), Some(1));
    terminal.expect("nudged: cannot reach");
    assert!(!terminal.picture().is_alternate);
    let internal = format!("http://{}", internal.addresses[1]);
    assert!(text(&once(&[&internal], &[])).contains("serving"));
}

/// SCENARIO: the keys of a server cannot be fetched, or its log is still being read: `/readyz` is 503 for minutes.
/// BUG: it was shown as serving.
/// FIX: `/readyz` is asked too.
#[test]
fn a_server_that_is_not_ready_is_shown_with_the_reason() {
    let nothing = ReservedPort::new();
    let jwks = format!("http://{}/jwks", nothing.address);
    let server = Server::start(&["--jwks-url", &jwks, "--jwt-audience", "any"]);
    let shown = text(&once(&[&url(&server)], &[]));
    assert!(shown.contains("  not ready") && !shown.contains("serving"), "{shown}");
    assert!(shown.contains("\n! not ready: there are no keys yet"), "{shown}");
}

#[test]
fn organisations_are_shown_to_a_token_of_their_scope() {
    let server = Server::start(&["--jwt-secret", SECRET, "--public-orgs", "acme"]);
    let _stream = server.stream_with("/api/acme/public/events", "");
    let token = |scope: &str| {
        let mut command = Server::command();
        command.args(["token", "--secret", SECRET, "--org", "*", "--scope", scope]);
        text(&command.stderr(Stdio::null()).output().expect("the program")).trim().to_owned()
    };
    let url = url(&server);
    let shown = |token: Option<&str>| {
        let variables: Vec<_> = token.map(|token| ("NUDGED_TOKEN", token)).into_iter().collect();
        let output = once(&[&url], &variables);
        assert_eq!(output.status.code(), Some(0), "{}", error(&output));
        text(&output)
    };
    let with = shown(Some(&token("ops")));
    assert!(with.contains("\nacme ") && with.contains("organisations (of 1)"), "{with}");
    let other = shown(Some(&token("subscribe")));
    assert!(!other.contains("\nacme ") && other.contains("\norganisations: "), "{other}");
    let without = shown(None);
    assert!(without.contains("serving") && !without.contains("organisation"), "{without}");
    assert!(!with.contains("no key is configured"), "{with}");
}

#[test]
fn it_speaks_tls_as_the_other_commands_do() {
    let server = Server::start_on(Transport::Tls, &[]);
    let certificate = Certificate::of_tests();
    let url = format!("https://{}", server.listens_on[0]);
    let output = once(&[&url, "--ca", &certificate.certificate], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", error(&output));
    let shown = text(&output);
    assert!(shown.contains("\n! the certificate expires in 1d "), "{shown}");
    assert_eq!(once(&[&url], &[]).status.code(), Some(1), "it is not verified");
}
