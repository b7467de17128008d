//! What ends the screen, and that the terminal is then as it was.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use super::{FAST, shown_on, url};
use crate::support::killed::Killed;
use crate::support::server::{Signal, signal};
use crate::support::terminal::Terminal;
use crate::support::{Server, eventually};

/// Whether the process is stopped.
fn is_stopped(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.contains("\nState:\tT")
}

/// A terminal with the text of a shell.
fn terminal() -> Terminal {
    let terminal = Terminal::new(80, 24);
    terminal.settle("a prompt $");
    terminal
}

fn assert_as_it_was(terminal: &Terminal, before: &(String, String), what: &str) {
    terminal.eventually(what, |picture| !picture.is_alternate && picture.has_cursor);
    assert_eq!(terminal.modes(), *before, "{what}");
    let text = terminal.picture().text();
    assert!(text.starts_with("a prompt $"), "{what}: {text}");
    assert!(!text.contains("streams"), "{what}: {text}");
}

#[test]
fn the_terminal_is_as_it_was_whatever_ends_the_screen() {
    let server = Server::start(&[]);
    let end = |what: &'static str, code: i32, act: &dyn Fn(&Terminal, u32)| {
        let terminal = terminal();
        let before = terminal.modes();
        let mut top = shown_on(&terminal, &url(&server));
        assert_ne!(terminal.modes(), before, "{what}: its keys are read at once");
        act(&terminal, top.0.id());
        assert_eq!(top.wait(), Some(code), "{what}");
        assert_as_it_was(&terminal, &before, what);
    };
    end("the key", 0, &|terminal, _| terminal.type_keys("q"));
    end("^C", 130, &|terminal, _| terminal.type_keys("\x03"));
    end("^\\", 131, &|terminal, _| terminal.type_keys("\x1c"));
    for (what, number, code) in
        [("SIGTERM", Signal::TERM, 143), ("SIGHUP", Signal::HUP, 129), ("SIGINT", Signal::INT, 130)]
    {
        end(what, code, &|_, pid| signal(pid, number).expect("it runs"));
    }
    // SCENARIO: ^S has stopped the output of the terminal, so that nothing can be written to it.
    // BUG: the program waited in a write, and neither a key nor a signal ended it.
    // FIX: it writes in a thread of its own, and has the output go on if its last words are not taken.
    end("^S and SIGTERM", 143, &|terminal, pid| {
        terminal.type_keys("\x13");
        signal(pid, Signal::TERM).expect("it runs");
    });
    end("a server that does not answer, and the key", 0, &|terminal, _| {
        server.signal(Signal::STOP);
        eventually("it stops", || is_stopped(server.pid()));
        terminal.type_keys("q");
    });
    server.signal(Signal::CONT);
    end("a server that is gone, and the key", 0, &|terminal, _| {
        server.signal(Signal::KILL);
        terminal.expect("unreachable");
        terminal.type_keys("q");
    });
}

/// SCENARIO: ^Z, `fg`, `q`.
/// BUG: the shell had a terminal without echo, and the screen was not drawn again.
/// FIX: the terminal is left before the process stops, and taken again when it goes on.
#[test]
fn a_process_that_is_stopped_gives_the_terminal_back_meanwhile() {
    let server = Server::start(&[]);
    let terminal = terminal();
    let before = terminal.modes();
    let mut top = shown_on(&terminal, &url(&server));
    for round in ["the first", "the second"] {
        terminal.type_keys("\x1a");
        eventually("it stops", || is_stopped(top.0.id()));
        assert_as_it_was(&terminal, &before, round);
        signal(top.0.id(), Signal::CONT).expect("it is stopped");
        terminal.eventually("the screen", |picture| picture.is_alternate && !picture.has_cursor);
        terminal.expect("streams");
    }
    // Nothing catches this one: the shell restores the modes.
    signal(top.0.id(), Signal::STOP).expect("it runs");
    eventually("it stops", || is_stopped(top.0.id()));
    signal(top.0.id(), Signal::CONT).expect("it is stopped");
    terminal.expect("streams");
    terminal.type_keys("q");
    assert_eq!(top.wait(), Some(0));
    assert_as_it_was(&terminal, &before, "the key");
}

/// The same with the job control of a real shell.
#[test]
fn a_shell_can_stop_it_and_have_it_go_on() {
    let server = Server::start(&[]);
    let terminal = Terminal::new(80, 24);
    let mut command = Command::new("setsid");
    command.args(["--ctty", "bash", "--norc", "--noediting", "-i"]).env("TERM", "xterm-256color");
    command.env("PS1", "ready $ ").env("TOP", env!("CARGO_BIN_EXE_nudged")).env_remove("NO_COLOR");
    terminal.attach(&mut command);
    let mut shell = Killed(command.spawn().expect("bash"));
    terminal.expect("ready $");
    let state = |name: &str| {
        terminal.type_keys(&format!("{name}=$(stty -g); echo {name} is known\n"));
        terminal.expect(&format!("{name} is known\nready $"));
    };
    state("before");
    terminal.type_keys(&format!("\"$TOP\" top {} --interval 100ms\n", url(&server)));
    terminal.eventually("the screen", |picture| picture.is_alternate);
    terminal.expect("deliveries/s");
    terminal.type_keys("\x1a");
    terminal.eventually("the shell", |picture| {
        !picture.is_alternate && picture.text().contains("Stopped")
    });
    state("stopped");
    terminal.type_keys("fg\n");
    terminal.eventually("the screen", |picture| picture.is_alternate);
    terminal.expect("deliveries/s");
    terminal.type_keys("q");
    terminal.eventually("the shell", |picture| !picture.is_alternate && picture.has_cursor);
    state("after");
    terminal.type_keys("[ $before = $stopped ] && [ $before = $after ] && exit 42; exit 1\n");
    assert_eq!(shell.wait(), Some(42), "{}", terminal.picture().text());
}

/// SCENARIO: the window is closed, or the connection of ssh is lost.
#[test]
fn it_ends_with_its_terminal() {
    let server = Server::start(&[]);
    let terminal = Terminal::new(80, 24);
    let mut top = shown_on(&terminal, &url(&server));
    terminal.hang_up();
    assert_eq!(top.wait(), Some(129));

    // Without a controlling terminal nothing sends SIGHUP.
    let terminal = Terminal::new(80, 24);
    let mut command = Server::command();
    command.args(["top", &url(&server), FAST[0], FAST[1]]).env("TERM", "xterm");
    terminal.attach(&mut command);
    let mut top = Killed(command.spawn().expect("the program"));
    drop(command);
    terminal.expect("streams");
    terminal.hang_up();
    assert_eq!(top.wait(), Some(129));
    assert_eq!(top.0.wait().expect("ended").signal(), None);
}

/// Its keys are none, and a signal ends it.
#[test]
fn a_standard_input_that_is_no_terminal_is_not_read() {
    let server = Server::start(&[]);
    let terminal = terminal();
    let before = terminal.modes();
    let mut command = Server::command();
    command.args(["top", &url(&server), FAST[0], FAST[1]]).env("TERM", "xterm");
    terminal.attach(&mut command);
    let mut top = Killed(command.stdin(Stdio::null()).spawn().expect("the program"));
    terminal.eventually("the screen", |picture| picture.is_alternate);
    terminal.expect("streams");
    assert_eq!(terminal.modes(), before);
    signal(top.0.id(), Signal::TERM).expect("it runs");
    assert_eq!(top.wait(), Some(143));
    assert_as_it_was(&terminal, &before, "SIGTERM");
}
