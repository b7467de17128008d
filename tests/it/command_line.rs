//! The command line from outside: outputs that cannot be written, variables, colours, and what the greeting says.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::{Command, Output, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::support::killed::Killed;
use crate::support::server::{Signal, signal};
use crate::support::{Client, Server, Transport};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const TOKEN: &[&str] = &["token", "--secret", SECRET, "--org", "acme"];
const PUBLISH_KEY: &str = "a-key-that-is-long-enough";

// ===== outputs that cannot be written =====

/// The program with these arguments and this standard output, at its end.
fn run(args: &[&str], stdout: impl Into<Stdio>) -> Output {
    run_with(Server::command(), args, stdout)
}

fn run_with(mut command: Command, args: &[&str], stdout: impl Into<Stdio>) -> Output {
    let command = command.args(args).stdout(stdout).stderr(Stdio::piped());
    command.spawn().expect("the program").wait_with_output().expect("its output")
}

/// A device that takes no byte, as a disk that is full.
fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").expect("it exists")
}

/// A pipe that nothing reads any more.
fn closed() -> OwnedFd {
    let (output, input) = std::io::pipe().expect("a pipe");
    drop(output);
    input.into()
}

/// The arguments of every command that writes to standard output, and ends.
fn commands(url: &str) -> Vec<Vec<&str>> {
    let bench = ["bench", url, "-n", "2", "--duration", "10ms", "--every", "5ms"];
    vec![
        TOKEN.to_vec(),
        bench.to_vec(),
        [&bench[..], &["--json"]].concat(),
        vec!["publish", "acme", "posts", "--url", url],
        "publish acme --topic run --event a --text b --url".split(' ').chain([url]).collect(),
        vec!["close", "acme", "--topic", "run", "--url", url],
        vec!["listen", "acme", "--url", url],
        vec!["top", url, "--interval", "100ms"],
        vec!["generate", "man"],
        vec!["generate", "bash"],
        vec!["--help"],
        vec!["-h"],
        vec!["help"],
        vec!["--version"],
        vec!["serve", "--help"],
        vec!["token", "--help"],
    ]
}

/// SCENARIO: `nudged token >secret` on a full disk, and `nudged bench … | head`.
/// BUG: both panicked, with exit code 101 and a backtrace; `--help` on a full disk was a success; `listen | head`
/// complained about the pipe.
/// FIX: an error and exit code 1 where the output cannot be written. Where nothing reads it any more, the exit code of
/// a program that SIGPIPE has ended, and not a word.
#[test]
fn an_output_that_cannot_be_written_is_an_error_and_no_panic() {
    let server = Server::start(&[]);
    let url = format!("http://{}", server.address());
    for args in commands(&url).into_iter().chain([vec!["serve", "--check"]]) {
        let Output { status, stderr, .. } = run(&args, full());
        let stderr = String::from_utf8(stderr).expect("text");
        assert_eq!(status.code(), Some(1), "{args:?}: {stderr}");
        assert!(
            stderr.contains("nudged: cannot write: No space left on device"),
            "{args:?}: {stderr}"
        );

        let Output { status, stderr, .. } = run(&args, closed());
        let stderr = String::from_utf8(stderr).expect("text");
        assert_eq!(status.code(), Some(141), "{args:?}: {stderr}");
        assert!(!stderr.contains("panicked") && !stderr.contains("write"), "{args:?}: {stderr}");
    }
}

/// SCENARIO: `nudged bench localhost:6834`.
/// BUG: the exit code was 1, that of a load that could not be made.
/// FIX: it is 2, that of every wrong argument.
#[cfg(feature = "bench")]
#[test]
fn a_url_that_cannot_be_loaded_is_a_wrong_argument() {
    for args in [
        &["bench", "localhost:6834"][..],
        &["bench", "http://127.0.0.1:1/x", "--publish-url", "nowhere"],
    ] {
        let Output { status, stderr, .. } = run(args, Stdio::null());
        let stderr = String::from_utf8(stderr).expect("text");
        assert_eq!(status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains("expected http"), "{args:?}: {stderr}");
    }
}

/// What is beside the output does not matter to it.
#[test]
fn a_standard_error_that_cannot_be_written_changes_no_result() {
    let server = Server::start(&[]);
    let url = format!("http://{}", server.address());
    for args in commands(&url).iter().filter(|args| args[0] != "listen") {
        for stderr in [Stdio::from(full()), closed().into()] {
            let output = Server::command().args(args).stderr(stderr).output().expect("the program");
            assert_eq!(output.status.code(), Some(0), "{args:?}");
            assert!(!output.stdout.is_empty(), "{args:?}");
        }
    }
    for stderr in [Stdio::from(full()), closed().into()] {
        let output = Server::command().arg("--wrong").stderr(stderr).output().expect("the program");
        assert_eq!(output.status.code(), Some(2));
    }
}

/// SCENARIO: a wrong argument, while standard error is a pipe that is full and that nothing reads.
#[test]
fn an_error_about_arguments_that_is_not_read_does_not_keep_the_program_from_ending() {
    let (_unread, mut full) = std::io::pipe().expect("a pipe");
    rustix::pipe::fcntl_setpipe_size(&full, 4096).expect("a pipe");
    let size = rustix::pipe::fcntl_getpipe_size(&full).expect("a pipe");
    full.write_all(&vec![b'.'; size]).expect("it has room");
    let child = Server::command().arg("--wrong").stderr(full).spawn().expect("the program");
    assert_eq!(Killed(child).wait(), Some(2));
}

// ===== variables =====

/// SCENARIO: a script that has sourced the environment of the server publishes, and one of the variables is wrong, or
/// needs another one.
/// BUG: every command parsed all settings of the server, and refused to run.
/// FIX: a command parses its own.
#[test]
fn a_variable_of_the_server_stops_no_other_command() {
    let server = Server::start(&[]);
    let url = format!("http://{}", server.address());
    let variables = [
        ("NUDGED_WORKERS", "0"),
        ("NUDGED_LISTEN", "nowhere"),
        ("NUDGED_TLS_KEY", "key.pem"),
        ("NUDGED_INSECURE_OPEN", "perhaps"),
        ("NUDGED_LOG_FORMAT", "xml"),
    ];
    for args in commands(&url).iter().filter(|args| args[0] != "listen") {
        let mut command = Server::command();
        let Output { status, stderr, .. } = run_with(
            {
                command.envs(variables);
                command
            },
            args,
            Stdio::piped(),
        );
        assert_eq!(status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&stderr));
    }
    for variable in variables {
        for args in [&[][..], &["serve"]] {
            let mut command = Server::command();
            command.envs([variable]);
            let (code, message) = Server::refuses_to_start_as(command, args);
            assert_eq!(code, Some(2), "{variable:?} {args:?}: {message}");
        }
    }
}

/// SCENARIO: `NUDGED_INSECURE_OPEN=1`, as flags are set in containers.
/// BUG: `invalid value '1' for '--insecure-open'`.
/// FIX: it is understood, as are true, yes and on, and their opposites, in any case.
#[test]
fn a_switch_is_set_by_the_usual_values_of_its_variable() {
    let command = |value: &str| {
        let mut command = Server::command();
        command.env("NUDGED_INSECURE_OPEN", value);
        command
    };
    for value in ["1", "true", "TRUE", "yes", "Yes", "on"] {
        let args = ["--listen", "0.0.0.0:0"];
        let server = Server::start_as(command(value), Transport::Http1, &args);
        let port = server.address().port();
        let mut client = Client::connect(SocketAddr::from(([127, 0, 0, 1], port)));
        client.send("GET /livez HTTP/1.1\r\nhost: t\r\n\r\n");
        assert_eq!(client.read_answer().status(), 200, "{value}");
    }
    for value in ["0", "false", "no", "NO", "off"] {
        let (code, message) =
            Server::refuses_to_start_as(command(value), &["--listen", "0.0.0.0:0"]);
        assert_eq!(code, Some(2), "{value}: {message}");
        assert!(message.contains("no key is configured"), "{value}: {message}");
    }
    let (code, message) = Server::refuses_to_start_as(command("perhaps"), &[]);
    assert_eq!(code, Some(2), "{message}");
    assert!(message.contains("write 1, true, yes or on"), "{message}");
}

// ===== colours =====

/// What the program writes to standard error, if that is a terminal, until it ends. It gets SIGHUP and SIGTERM once it
/// listens, if it does.
fn on_a_terminal(args: &[&str], variables: &[(&str, &str)]) -> String {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&master).expect("a terminal");
    unlockpt(&master).expect("a terminal");
    let name = ptsname(&master, Vec::new()).expect("a terminal").into_string().expect("ASCII");
    let open = || OpenOptions::new().read(true).write(true).open(&name).expect("a terminal");
    let mut command = Server::command();
    command
        .env_remove("NO_COLOR")
        .env_remove("CI")
        .env("TERM", "xterm-256color")
        .args(args)
        .stderr(open());
    let mut child = Killed(command.envs(variables.iter().copied()).spawn().expect("the program"));
    // The terminal has its text as long as someone has it open.
    let held = open();
    drop(command);
    let stdout = BufReader::new(child.0.stdout.take().expect("piped"));
    if stdout.lines().map_while(Result::ok).any(|line| line.starts_with("try: ")) {
        for signal_is in [Signal::HUP, Signal::TERM] {
            signal(child.0.id(), signal_is).expect("it runs");
        }
    }
    child.wait();
    let mut terminal = File::from(master);
    // The end of what there is: only then is the last one that holds it open gone.
    let reader = std::thread::spawn(move || {
        let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(n @ 1..) = terminal.read(&mut buffer) {
            text.extend(&buffer[..n]);
        }
        String::from_utf8(text).expect("text")
    });
    drop(held);
    reader.join().expect("no panic")
}

/// SCENARIO: `NO_COLOR=1` in a terminal (no-color.org), or a terminal without colours, with the variable `CI` or without.
/// BUG: the log was coloured all the same, and with `CI=1` the errors on a terminal without colours were.
/// FIX: neither the log nor the errors about arguments are.
#[test]
fn no_color_turns_every_colour_off() {
    let log = ["--listen", "127.0.0.1:0"];
    for (args, text) in [(&log[..], "SIGHUP: there is no certificate"), (&["--wrong"], "--wrong")] {
        let coloured = on_a_terminal(args, &[]);
        assert!(coloured.contains('\u{1b}') && coloured.contains(text), "{args:?}: {coloured:?}");
        let empty = on_a_terminal(args, &[("NO_COLOR", "")]);
        assert!(empty.contains('\u{1b}'), "an empty variable is none: {empty:?}");
        let dumb = ("TERM", "dumb");
        for variables in [&[("NO_COLOR", "1")][..], &[dumb], &[dumb, ("CI", "1")]] {
            let plain = on_a_terminal(args, variables);
            assert!(!plain.contains('\u{1b}') && plain.contains(text), "{args:?}: {plain:?}");
        }
    }
}

// ===== the greeting =====

/// SCENARIO: a user starts a server with a publish key alone, and types what the greeting proposes.
/// BUG: it proposed a stream that needs a token, which cannot exist.
/// FIX: a request that this server answers.
#[test]
fn the_request_that_the_greeting_proposes_works() {
    let token = run(TOKEN, Stdio::piped()).stdout;
    let token = String::from_utf8(token).expect("text");
    let key = ["--publish-key", PUBLISH_KEY];
    for args in [
        &[][..],
        &["--jwt-secret", SECRET],
        &["--jwt-secret", SECRET, key[0], key[1]],
        &key,
        &[key[0], key[1], "--public-orgs", "umbrella"],
        &[key[0], key[1], "--internal-listen", "127.0.0.1:0"],
    ] {
        let child = Server::command().args(["--listen", "127.0.0.1:0"]).args(args).spawn();
        let mut server = Killed(child.expect("the program"));
        let mut lines = BufReader::new(server.0.stdout.take().expect("piped")).lines();
        let line =
            lines.find_map(|line| Some(line.expect("text").strip_prefix("try: curl")?.to_owned()));
        let line =
            line.expect("a proposal").replace("$TOKEN", token.trim()).replace("$KEY", PUBLISH_KEY);
        let url = line.split(' ').find_map(|word| word.strip_prefix("http://")).expect("a URL");
        let (address, path) = url.split_once('/').expect("a path");
        let fields: String = line
            .split(" -H ")
            .skip(1)
            .map(|rest| rest[1..].split(&rest[..1]).next().expect("quoted").to_owned() + "\r\n")
            .collect();
        let body =
            line.split_once(" -d '").map(|(_, rest)| rest.split('\'').next().expect("quoted"));
        let method = if body.is_some() { "POST" } else { "GET" };
        let body = body.unwrap_or_default();
        let length = body.len();
        let mut client = Client::connect(address.parse().expect("an address"));
        client.send(&format!(
            "{method} /{path} HTTP/1.1\r\nhost: {address}\r\n{fields}content-length: {length}\r\n\r\n{body}"
        ));
        let head = client.read_head();
        let good = if method == "POST" { " 202 " } else { " 200 " };
        assert!(head.contains(good), "{args:?}: {line}: {head}");
    }
}
